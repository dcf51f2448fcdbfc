/* with: all */
#include "handler/programs.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

typedef struct fake {
    as_handler handler;
    as_verdict verdict;
    uint16_t status;
    char path[64];
} fake;

static as_verdict handle_fake(const as_handler *handler, as_request *request)
{
    fake *self = (fake *)handler;
    snprintf(self->path, sizeof(self->path), "%.*s", (int)request->path.len, request->path.ptr);
    request->response.status = self->status;
    return self->verdict;
}

static const as_handler_ops fake_ops = {.name = "fake", .handle = handle_fake};
static fake files;
static fake pool;
static char root[] = "/tmp/test_programs.XXXXXX";
static const char *fallback = "";
static as_request request;
static as_home home;

static void make(const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    size_t len = strlen(path);
    if (path[len - 1] == '/') {
        CHECK(mkdir(path, 0755) == 0);
        return;
    }
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    CHECK(fd >= 0);
    close(fd);
}

/* Who is asked, as "files PATH", "pool PATH" or the status of a refusal. */
static const char *ask(const char *path, size_t prefix, bool has_files)
{
    static char found[128];
    files = (fake){.handler.ops = &fake_ops, .verdict = AS_VERDICT_RESPOND, .status = 200};
    pool = (fake){.handler.ops = &fake_ops, .verdict = AS_VERDICT_PENDING};
    const as_programs_options options = {
        .files = has_files ? &files.handler : NULL,
        .pool = &pool.handler,
        .root = root,
        .extensions = has_files ? ".php,.pl" : "",
        .index = "index.html\0index.php\0",
        .fallback = fallback,
    };
    as_handler *handler = as_programs_handler_new(&options);
    CHECK(handler->ops->wants_body);
    request.handler = handler;
    request.home = &home;
    request.path = as_str_from(path);
    request.rule_prefix = as_str_of(path, prefix);
    request.response = (as_response){.body.fd = -1};
    as_verdict verdict = handler->ops->handle(handler, &request);
    if (verdict == AS_VERDICT_ERROR) {
        snprintf(found, sizeof(found), "%d", request.response.status);
    } else {
        const fake *asked = verdict == AS_VERDICT_PENDING ? &pool : &files;
        CHECK(asked == &files || request.handler == &pool.handler);
        snprintf(found, sizeof(found), "%s %s", asked == &pool ? "pool" : "files", asked->path);
    }
    handler->ops->free(handler);
    return found;
}

#define EXPECT(path, prefix, has_files, expected) CHECK_STR(as_str_from(ask(path, prefix, has_files)), expected)

static void test_extensions(void)
{
    as_str list = AS_STR(".php,.pl");
    CHECK(as_programs_has_extension(list, AS_STR("a.php")));
    CHECK(as_programs_has_extension(list, AS_STR("a.b.PL")));
    CHECK(!as_programs_has_extension(list, AS_STR(".php")));
    CHECK(!as_programs_has_extension(list, AS_STR("php")));
    CHECK(!as_programs_has_extension(list, AS_STR("a.php5")));
    CHECK(!as_programs_has_extension(list, AS_STR("a.php~")));
    CHECK(!as_programs_has_extension(AS_STR(""), AS_STR("a.php")));
}

static void test_among_files(void)
{
    EXPECT("/a.php", 0, true, "pool /a.php");
    EXPECT("/a.php/b/c.pl", 0, true, "pool /a.php/b/c.pl");
    EXPECT("/d.pl/a.PL", 0, true, "pool /d.pl/a.PL");
    EXPECT("/d.pl/x.txt", 0, true, "files /d.pl/x.txt");
    EXPECT("/d.pl", 0, true, "files /d.pl");
    EXPECT("/x.txt", 0, true, "files /x.txt");
    EXPECT("/none.php", 0, true, "404");
    EXPECT("/none.php/x.txt", 0, true, "404");
    EXPECT("/x.txt/a.php", 0, true, "404");
    EXPECT("/fifo.php", 0, true, "403");
    EXPECT("/out.php", 0, true, "403");
}

static void test_prefix(void)
{
    EXPECT("/p/a.php", 2, true, "pool /p/a.php");
    EXPECT("/p/x.txt", 2, true, "files /x.txt");
    EXPECT("/p", 2, true, "files ");
    CHECK_INT(request.response.status, 301);
    CHECK_STR(request.response.fields, "Location: /p/\r\n");
    EXPECT("/d.pl/a.php", 5, true, "pool /d.pl/a.php");
}

static void test_index(void)
{
    EXPECT("/", 0, true, "pool /index.php");
    EXPECT("/d.pl/", 0, true, "files /d.pl/");
    EXPECT("/pages/", 0, true, "files /pages/");
    EXPECT("/p/", 2, true, "pool /p/index.php");
    EXPECT("/", 0, false, "pool /index.php");
    EXPECT("/d.pl/", 0, false, "pool /d.pl/");
    EXPECT("/x.txt", 0, false, "pool /x.txt");
    EXPECT("/none", 0, false, "pool /none");
}

static void test_fallback(void)
{
    fallback = "/a.php";
    EXPECT("/none", 0, true, "pool /a.php");
    EXPECT("/none.php/x", 0, true, "pool /a.php");
    EXPECT("/pages/none/", 0, true, "pool /a.php");
    EXPECT("/p/none", 2, true, "pool /p/a.php");
    EXPECT("/p/none", 2, false, "pool /p/a.php");
    EXPECT("/x.txt", 0, true, "files /x.txt");
    EXPECT("/x.txt/none", 0, true, "files /x.txt/none");
    EXPECT("/d.pl/", 0, true, "files /d.pl/");
    EXPECT("/pages", 0, true, "files /pages");
    EXPECT("/", 0, true, "pool /index.php");
    EXPECT("/index.php/x", 0, true, "pool /index.php/x");
    EXPECT("/a.php/x", 0, false, "pool /a.php/x");
    EXPECT("/out.php", 0, true, "403");
    fallback = "";
}

static int remove_one(const char *path, const struct stat *status, int what, struct FTW *place)
{
    (void)status, (void)what, (void)place;
    return remove(path);
}

int main(void)
{
    char path[256];
    CHECK(mkdtemp(root) != NULL);
    static const char *const names[] = {"a.php",      "x.txt",  "index.php",        "d.pl/",          "d.pl/a.PL",
                                        "d.pl/x.txt", "pages/", "pages/index.html", "pages/index.php"};
    for (size_t i = 0; i < AS_COUNT_OF(names); i++)
        make(names[i]);
    snprintf(path, sizeof(path), "%s/fifo.php", root);
    CHECK(mkfifo(path, 0644) == 0);
    snprintf(path, sizeof(path), "%s/out.php", root);
    CHECK(symlink("/etc/passwd", path) == 0);
    as_arena_init(&request.arena);
    test_extensions();
    test_among_files();
    test_prefix();
    test_index();
    test_fallback();
    as_arena_free(&request.arena);
    nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return check_result("programs");
}
