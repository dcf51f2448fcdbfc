/* The checks of programs that run as other users: whose they are, who may write to them, and to the folders on the way. */
/* with: base/memory.c */
#include "spawner/identity.c"

#include <fcntl.h>
#include <sys/wait.h>

#include "check.h"

enum { NOW_NS = 1000 };

static char root[] = "/tmp/test_identity.XXXXXX";

static char *below(const char *name)
{
    static char path[PATH_SIZE];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static void make(const char *name, mode_t mode)
{
    int fd = open(below(name), O_WRONLY | O_CREAT, 0644);
    CHECK(fd >= 0);
    close(fd);
    CHECK(chmod(below(name), mode) == 0);
}

static void expect(bool is_owner, const char *where, const char *name, const char *reason)
{
    as_identities identities;
    const as_identity *identity = NULL;
    char text[512] = "";
    char file[PATH_SIZE];
    char roots[PATH_SIZE] = {0};
    snprintf(roots, sizeof(roots) - 1, "%s", root);
    const as_identity_rules rules = {
        .is_owner = is_owner, .checks_owner = true, .min_uid = 0, .min_gid = 0, .roots = roots};
    as_identities_init(&identities, &rules);
    snprintf(file, sizeof(file), "%s/%s", where, name);
    int verdict = as_identities_find(&identities, where, file, NOW_NS, &identity, text, sizeof(text));
    CHECK_INT(verdict, reason == NULL ? AS_OK : AS_EFORBIDDEN);
    if (reason == NULL) {
        CHECK_INT(identity != NULL, is_owner);
        CHECK(identity == NULL || identity->uid == geteuid());
    } else if (strstr(text, reason) == NULL) {
        fprintf(stderr, "%s: expected \"%s\"\n", text, reason);
        CHECK(false);
    }
    as_identities_free(&identities);
}

static void expect_both(const char *name, const char *reason)
{
    expect(false, root, name, reason);
    expect(true, root, name, reason);
}

static void test_modes(void)
{
    make("plain", 0755);
    make("group", 0775);
    make("others", 0757);
    make("setuid", 04755);
    make("setgid", 02755);
    expect_both("plain", NULL);
    expect_both("group", "its file can be written to by its group or others: chmod go-w");
    expect_both("others", "its file can be written to by its group or others");
    expect_both("setuid", "its file is setuid or setgid");
    expect_both("setgid", "its file is setuid or setgid");
    expect_both("missing", "cannot be looked at: No such file");
    expect(false, "/etc", "passwd", "no rule names its folder /etc");
}

static void test_folders(void)
{
    CHECK(mkdir(below("outer"), 0755) == 0 && mkdir(below("outer/inner"), 0755) == 0);
    make("outer/inner/program", 0755);
    expect_both("outer/inner/program", NULL);
    CHECK(chmod(below("outer"), 0777) == 0);
    expect_both("outer/inner/program", "outer can be written to by its group or others");
    /* A link to a program counts for where it leads as well. */
    CHECK(symlink("outer/inner/program", below("link")) == 0);
    expect_both("link", "outer can be written to by its group or others");
    CHECK(chmod(below("outer"), 0755) == 0);
    expect_both("link", NULL);
    /* Out of the folder, which is for the look-up to allow: all the way to it belongs to root. */
    CHECK(symlink("/usr/bin/env", below("away")) == 0);
    expect(false, root, "away", NULL);
    CHECK(unlink(below("away")) == 0);
    CHECK(chmod(root, 0777) == 0);
    expect_both("plain", "can be written to by its group or others");
    CHECK(chmod(root, 0755) == 0);
}

static void test_no_checks(void)
{
    as_identities identities;
    const as_identity *identity = (const as_identity *)1;
    char text[16];
    as_identities_init(&identities, &(as_identity_rules){0});
    CHECK_INT(as_identities_find(&identities, "/x", "/x/y", NOW_NS, &identity, text, sizeof(text)), AS_OK);
    CHECK(identity == NULL);
    as_identities_free(&identities);
}

static void test_minimum(void)
{
    as_identities identities;
    const as_identity *identity;
    char text[512];
    char roots[PATH_SIZE] = {0};
    snprintf(roots, sizeof(roots) - 1, "%s", root);
    as_identity_rules rules = {.is_owner = true, .min_uid = geteuid() + 1, .roots = roots};
    as_identities_init(&identities, &rules);
    int verdict = as_identities_find(&identities, root, below("plain"), NOW_NS, &identity, text, sizeof(text));
    CHECK_INT(verdict, AS_EFORBIDDEN);
    CHECK(strstr(text, "from min_uid") != NULL);
    as_identities_free(&identities);
}

/* What becomes another user cannot come back. */
static void test_assume(void)
{
    const as_identity other = {.uid = 12345, .gid = 23456, .groups_count = 2, .groups = {7, 8}};
    int status = -1;
    if (geteuid() != 0) {
        printf("identity: assuming another one is skipped: only root may\n");
        return;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        gid_t groups[8];
        bool is_good = as_identity_assume(&other) == 0 && getuid() == 12345 && geteuid() == 12345 &&
                       getgid() == 23456 && getgroups(8, groups) == 2 && groups[1] == 8 && setuid(0) < 0 &&
                       as_identity_assume(&other) < 0;
        _exit(is_good ? 0 : 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_INT(status, 0);
}

int main(void)
{
    umask(022);
    CHECK(mkdtemp(root) != NULL);
    CHECK(chmod(root, 0755) == 0);
    test_modes();
    test_folders();
    test_no_checks();
    test_minimum();
    test_assume();
    const char *const names[] = {"link", "outer/inner/program", "plain", "group", "others", "setuid", "setgid"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        CHECK(unlink(below(names[i])) == 0);
    CHECK(rmdir(below("outer/inner")) == 0 && rmdir(below("outer")) == 0 && rmdir(root) == 0);
    return check_result("identity");
}
