/* with: base/memory.c handler/beneath.c spawner/file_marks.c */
#include "spawner/script_path.c"

#include <ftw.h>

#include "check.h"

static char root[] = "/tmp/test_script_path.XXXXXX";

static char *below(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static void make_file(const char *name, mode_t mode)
{
    int fd = open(below(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && fchmod(fd, mode) == 0);
    close(fd);
}

static void make_tree(void)
{
    CHECK(mkdtemp(root) != NULL);
    CHECK(mkdir(below("cgi"), 0755) == 0 && mkdir(below("cgi/deep"), 0755) == 0 &&
          mkdir(below("cgi/.hidden"), 0755) == 0);
    make_file("outside", 0755);
    make_file("cgi/a.cgi", 0755);
    make_file("cgi/plain", 0644);
    make_file("cgi/.secret", 0755);
    make_file("cgi/deep/b.cgi", 0755);
    make_file("cgi/.hidden/c.cgi", 0755);
    CHECK(symlink("deep/b.cgi", below("cgi/link")) == 0);
    CHECK(symlink("../a.cgi", below("cgi/deep/up")) == 0);
    CHECK(symlink("../outside", below("cgi/out")) == 0);
    CHECK(symlink("/etc", below("cgi/etc")) == 0);
    CHECK(mkfifo(below("cgi/fifo"), 0755) == 0);
}

static void expect(const char *path, const char *name, const char *path_info)
{
    char directory[4096];
    as_script script;
    snprintf(directory, sizeof(directory), "%s/cgi", root);
    int verdict = as_script_find(directory, path, AS_SYMLINKS_BENEATH, &script);
    CHECK_INT(verdict, AS_OK);
    if (verdict != AS_OK) {
        fprintf(stderr, "path %s\n", path);
        return;
    }
    CHECK_STR(script.name, name);
    CHECK_STR(script.path_info, path_info);
}

static void refuse(const char *path, int expected)
{
    char directory[4096];
    as_script script;
    snprintf(directory, sizeof(directory), "%s/cgi/", root);
    int verdict = as_script_find(directory, path, AS_SYMLINKS_BENEATH, &script);
    if (verdict != expected)
        fprintf(stderr, "path %s\n", path);
    CHECK_INT(verdict, expected);
}

static void test_split(void)
{
    expect("/a.cgi", "/a.cgi", "");
    expect("/a.cgi/", "/a.cgi", "/");
    expect("/a.cgi/x/y", "/a.cgi", "/x/y");
    expect("/a.cgi//x", "/a.cgi", "//x");
    expect("/a.cgi/.x/a..b/...", "/a.cgi", "/.x/a..b/...");
    expect("//a.cgi", "/a.cgi", "");
    expect("a.cgi/z", "a.cgi", "/z");
    expect("/deep/b.cgi", "/deep/b.cgi", "");
    expect("/deep/b.cgi/x", "/deep/b.cgi", "/x");
    expect("/deep//b.cgi/x", "/deep//b.cgi", "/x");
    expect("/plain/x", "/plain", "/x");
    expect("/link/x", "/link", "/x");
    expect("/deep/up", "/deep/up", "");
    expect("/deep/up/x", "/deep/up", "/x");
}

static void test_refused(void)
{
    refuse("", AS_EFORBIDDEN);
    refuse("/", AS_EFORBIDDEN);
    refuse("/deep", AS_EFORBIDDEN);
    refuse("/deep/", AS_EFORBIDDEN);
    refuse("/nothing", AS_ENOTFOUND);
    refuse("/deep/nothing/x", AS_ENOTFOUND);
    refuse("/.secret", AS_ENOTFOUND);
    refuse("/.secret/x", AS_ENOTFOUND);
    refuse("/.hidden/c.cgi", AS_ENOTFOUND);
    refuse("/.hidden", AS_ENOTFOUND);
    refuse("/./a.cgi", AS_ENOTFOUND);
    refuse("/deep/../a.cgi", AS_ENOTFOUND);
    refuse("/../cgi/a.cgi", AS_EFORBIDDEN);
    refuse("/../outside", AS_EFORBIDDEN);
    refuse("/out", AS_EFORBIDDEN);
    refuse("/out/x", AS_EFORBIDDEN);
    refuse("/etc/passwd", AS_EFORBIDDEN);
    refuse("/a.cgi/../x", AS_ENOTFOUND);
    refuse("/a.cgi/x/..", AS_ENOTFOUND);
    refuse("/fifo", AS_EFORBIDDEN);
}

static int find_with(as_symlinks symlinks, const char *path)
{
    char directory[4096];
    as_script script;
    snprintf(directory, sizeof(directory), "%s/cgi", root);
    return as_script_find(directory, path, symlinks, &script);
}

static void test_links(void)
{
    CHECK_INT(find_with(AS_SYMLINKS_FOLLOW, "/out"), AS_OK);
    CHECK_INT(find_with(AS_SYMLINKS_FOLLOW, "/out/x"), AS_OK);
    CHECK_INT(find_with(AS_SYMLINKS_FOLLOW, "/link"), AS_OK);
    CHECK_INT(find_with(AS_SYMLINKS_FOLLOW, "/../outside"), AS_ENOTFOUND);
    CHECK_INT(find_with(AS_SYMLINKS_FOLLOW, "/deep/../a.cgi"), AS_ENOTFOUND);
    CHECK_INT(find_with(AS_SYMLINKS_FOLLOW, "/.secret"), AS_ENOTFOUND);
    CHECK_INT(find_with(AS_SYMLINKS_DENY, "/a.cgi/x"), AS_OK);
    CHECK_INT(find_with(AS_SYMLINKS_DENY, "/link"), AS_EFORBIDDEN);
    CHECK_INT(errno, ELOOP);
    CHECK_INT(find_with(AS_SYMLINKS_DENY, "/out"), AS_EFORBIDDEN);
}

static void test_long(void)
{
    static char path[16384];
    snprintf(path, sizeof(path), "/a.cgi/%0*d", 9000, 0);
    expect(path, "/a.cgi", path + strlen("/a.cgi"));
    snprintf(path, sizeof(path), "/%0*d", 9000, 0);
    refuse(path, AS_ENOTFOUND);
    snprintf(path, sizeof(path), "/%0*d", 1000, 0);
    refuse(path, AS_ENOTFOUND);
}

static void test_root(void)
{
    as_script script;
    CHECK_INT(as_script_find(below("no-root"), "/a", AS_SYMLINKS_BENEATH, &script), AS_ESYSTEM);
    CHECK_INT(errno, ENOENT);
    CHECK_INT(as_script_find(below("outside"), "/a", AS_SYMLINKS_BENEATH, &script), AS_ESYSTEM);
    CHECK_INT(errno, ENOTDIR);
}

static void test_interpreters(void)
{
    const char *table = ".pl\0/usr/bin/perl\0.tar.py\0/usr/bin/tarpy\0";
    CHECK(strcmp(as_script_interpreter(table, AS_STR("/x/a.pl")), "/usr/bin/perl") == 0);
    CHECK(strcmp(as_script_interpreter(table, AS_STR("/a.tar.py")), "/usr/bin/tarpy") == 0);
    CHECK(as_script_interpreter(table, AS_STR("/a.py")) == NULL);
    CHECK(as_script_interpreter("", AS_STR("/a.pl")) == NULL);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

int main(void)
{
    make_tree();
    test_split();
    test_refused();
    test_links();
    test_long();
    test_root();
    test_interpreters();
    CHECK(nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
    return check_result("script_path");
}
