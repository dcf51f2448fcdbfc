/* with: */
#include "handler/beneath.c"

#include <ftw.h>
#include <sys/stat.h>

#include "check.h"

/* Both ways to resolve a path must agree on each of these: the kernel's where it is there, and the walk. */
typedef struct expectation {
    const char *path;
    int beneath; /* errno, 0 for success, by policy */
    int deny;
} expectation;

static const expectation EXPECTED[] = {
    {"file", 0, 0},
    {"a/b/deep", 0, 0},
    {"a//b/./deep", 0, 0},
    {".", 0, 0},
    {"a", 0, 0},
    {"missing", ENOENT, ENOENT},
    {"a/missing/deep", ENOENT, ENOENT},
    {"file/under", ENOTDIR, ENOTDIR},
    {"file/.", ENOTDIR, ENOTDIR},
    {"a/../file", 0, 0},
    {"a/b/../../file", 0, 0},
    {"..", EXDEV, EXDEV},
    {"../outside/secret", EXDEV, EXDEV},
    {"a/../../outside/secret", EXDEV, EXDEV},
    {"link_to_file", 0, ELOOP},
    {"a/link_up_to_file", 0, ELOOP},
    {"link_to_dir/deep", 0, ELOOP},
    {"link_to_dir/../b/deep", 0, ELOOP},
    {"link_to_link", 0, ELOOP},
    {"link_to_dot", 0, ELOOP},
    {"link_out", EXDEV, ELOOP},
    {"link_out_dir/secret", EXDEV, ELOOP},
    {"link_round_and_out", EXDEV, ELOOP},
    {"link_absolute", EXDEV, ELOOP},
    {"link_absolute_inside", EXDEV, ELOOP},
    {"link_absolute_inside/deep", EXDEV, ELOOP},
    {"link_dangling", ENOENT, ELOOP},
    {"link_to_itself", ELOOP, ELOOP},
    {"link_to_file/under", ENOTDIR, ELOOP},
};

static char base[] = "/tmp/as-test-beneath-XXXXXX";
static int root_fd;

static void make_file(const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", base, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_EXCL | O_CLOEXEC, 0644);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, name, strlen(name)), strlen(name));
    close(fd);
}

static void make_dir(const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", base, name);
    CHECK_INT(mkdir(path, 0755), 0);
}

static void make_link(const char *name, const char *target)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/root/%s", base, name);
    CHECK_INT(symlink(target, path), 0);
}

static void make_tree(void)
{
    char absolute[256];
    CHECK(mkdtemp(base) != NULL);
    make_dir("root");
    make_dir("root/a");
    make_dir("root/a/b");
    make_dir("outside");
    make_file("outside/secret");
    make_file("root/file");
    make_file("root/a/b/deep");
    make_link("link_to_file", "file");
    make_link("a/link_up_to_file", "../file");
    make_link("link_to_dir", "a/b/");
    make_link("link_to_link", "link_to_file");
    make_link("link_to_dot", ".");
    make_link("link_out", "../outside/secret");
    make_link("link_out_dir", "../outside");
    make_link("link_round_and_out", "a/b/../../../outside/secret");
    snprintf(absolute, sizeof(absolute), "%s/outside/secret", base);
    make_link("link_absolute", absolute);
    snprintf(absolute, sizeof(absolute), "%s/root/a/b", base);
    make_link("link_absolute_inside", absolute);
    make_link("link_dangling", "nowhere");
    make_link("link_to_itself", "link_to_itself");
    snprintf(absolute, sizeof(absolute), "%s/root", base);
    root_fd = open(absolute, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CHECK(root_fd >= 0);
}

typedef int (*opener)(int, const char *, int, as_symlinks);

static void check_open(const char *way, opener open_it, const char *path, as_symlinks symlinks, int expected)
{
    int fd = open_it(root_fd, path, O_RDONLY | O_NONBLOCK, symlinks);
    int error = fd < 0 ? errno : 0;
    check_count++;
    if (error != expected) {
        check_failures++;
        fprintf(stderr, "%s: %s, policy %d: %s, expected %s\n", way, path, symlinks, strerror(error),
                strerror(expected));
    }
    if (fd < 0)
        return;
    CHECK_INT(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    close(fd);
}

static void check_all(const char *way, opener open_it)
{
    for (size_t i = 0; i < AS_COUNT_OF(EXPECTED); i++) {
        check_open(way, open_it, EXPECTED[i].path, AS_SYMLINKS_BENEATH, EXPECTED[i].beneath);
        check_open(way, open_it, EXPECTED[i].path, AS_SYMLINKS_DENY, EXPECTED[i].deny);
    }
}

static bool kernel_has_openat2(void)
{
    int fd = open_by_kernel(root_fd, ".", O_PATH, AS_SYMLINKS_BENEATH);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static void check_content(opener open_it, const char *path, const char *expected)
{
    char text[64];
    int fd = open_it(root_fd, path, O_RDONLY, AS_SYMLINKS_BENEATH);
    ssize_t len = read(fd, text, sizeof(text));
    CHECK(fd >= 0 && len >= 0);
    CHECK_STR(as_str_of(text, len > 0 ? (size_t)len : 0), expected);
    close(fd);
}

static void test_walk_finds_the_right_file(void)
{
    check_content(open_by_walk, "link_to_dir/deep", "root/a/b/deep");
    check_content(open_by_walk, "a/link_up_to_file", "root/file");
    check_content(open_by_walk, "link_to_dot/link_to_dot/file", "root/file");
    check_content(open_by_walk, "link_to_dir/../../file", "root/file");
}

static void test_long_paths(void)
{
    char path[2 * AS_BENEATH_PATH_SIZE];
    memset(path, 'a', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    check_open("walk", open_by_walk, path, AS_SYMLINKS_BENEATH, ENAMETOOLONG);
    path[300] = '\0';
    check_open("walk", open_by_walk, path, AS_SYMLINKS_BENEATH, ENAMETOOLONG);
    check_open("any", as_beneath_open, path, AS_SYMLINKS_BENEATH, ENAMETOOLONG);
}

static void test_follow_goes_anywhere(void)
{
    check_open("follow", as_beneath_open, "link_out", AS_SYMLINKS_FOLLOW, 0);
    check_open("follow", as_beneath_open, "link_absolute", AS_SYMLINKS_FOLLOW, 0);
    check_open("follow", as_beneath_open, "link_to_itself", AS_SYMLINKS_FOLLOW, ELOOP);
}

static void test_directories_by_path_only(void)
{
    int fd = open_by_walk(root_fd, "link_to_dir", O_PATH | O_DIRECTORY, AS_SYMLINKS_BENEATH);
    CHECK(fd >= 0);
    close(fd);
    CHECK_INT(open_by_walk(root_fd, "file", O_PATH | O_DIRECTORY, AS_SYMLINKS_BENEATH), -1);
    CHECK_INT(errno, ENOTDIR);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

int main(void)
{
    make_tree();
    if (kernel_has_openat2())
        check_all("kernel", open_by_kernel);
    else
        printf("beneath: openat2 was not tried, because this kernel or its filter does not have it\n");
    check_all("walk", open_by_walk);
    check_all("any", as_beneath_open);
    test_walk_finds_the_right_file();
    test_long_paths();
    test_follow_goes_anywhere();
    test_directories_by_path_only();
    int next = dup(root_fd);
    CHECK_INT(next, root_fd + 1); /* nothing was left open */
    close(next);
    close(root_fd);
    CHECK_INT(nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    return check_result("beneath");
}
