/* with: base/memory.c base/error.c */
#include "spawner/file_marks.c"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "check.h"

static char root[] = "/tmp/test_file_marks.XXXXXX";

static const char *below(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    int fd = open(below(name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* A list as a zygote makes it. */
static char list[1024 * 1024];
static size_t list_len;

static void say(const char *path, as_file_mark mark)
{
    memcpy(list + list_len, &mark, sizeof(mark));
    memcpy(list + list_len + sizeof(mark), path, strlen(path) + 1);
    list_len += sizeof(mark) + strlen(path) + 1;
}

static as_file_mark in_seconds(as_file_mark mark)
{
    mark.modified_ns = whole_seconds(mark.modified_ns);
    mark.changed_ns = whole_seconds(mark.changed_ns);
    return mark;
}

static void check_changed(const as_watched *watched, const char *name)
{
    const char *changed = as_watched_find_changed(watched);
    CHECK(changed != NULL);
    if (changed != NULL)
        CHECK_STR(as_str_of(changed, strlen(changed)), below(name));
}

static void test_changes(void)
{
    as_watched watched = {0};
    write_file("a", "one");
    write_file("b", "two");
    list_len = 0;
    say(below("a"), mark_at(below("a")));
    say(below("b"), in_seconds(mark_at(below("b"))));
    say(below("none"), (as_file_mark){0});
    CHECK_INT(as_watched_add(&watched, list, list_len), AS_OK);
    list_len = 0;
    say(root, mark_at(root));
    CHECK_INT(as_watched_add(&watched, list, list_len), AS_OK);
    CHECK_INT(watched.count, 4);
    CHECK(as_watched_find_changed(&watched) == NULL);

    write_file("none", "there"); /* one entry more: the folder has changed as well, but is looked at later */
    check_changed(&watched, "none");
    write_file("b", "2");
    check_changed(&watched, "b");
    CHECK(unlink(below("a")) == 0);
    check_changed(&watched, "a");
    as_watched_clear(&watched);
    CHECK(as_watched_find_changed(&watched) == NULL);
}

static void test_changed_before_it_was_said(void)
{
    as_watched watched = {0};
    write_file("c", "one");
    as_file_mark old = mark_at(below("c"));
    as_file_mark other = old;
    other.size++;
    list_len = 0;
    say(below("c"), other);
    CHECK_INT(as_watched_add(&watched, list, list_len), AS_OK);
    check_changed(&watched, "c");
    as_watched_clear(&watched);
    other = in_seconds(old);
    other.modified_ns -= AS_NS_PER_S;
    list_len = 0;
    say(below("c"), other);
    CHECK_INT(as_watched_add(&watched, list, list_len), AS_OK);
    check_changed(&watched, "c");
    as_watched_clear(&watched);
}

static void test_broken_lists(void)
{
    as_watched watched = {0};
    list_len = 0;
    say("/", mark_at("/"));
    for (size_t len = 1; len < list_len; len++)
        CHECK_INT(as_watched_add(&watched, list, len), AS_EINVALID);
    CHECK_INT(watched.count, 0);
    CHECK_INT(as_watched_add(&watched, list, 0), AS_OK);
    CHECK_INT(as_watched_add(&watched, list, list_len), AS_OK);
    CHECK_INT(watched.count, 1);
    list_len = 0;
    for (int i = 0; i < AS_WATCHED_MAX; i++)
        say("/dev/null/none", (as_file_mark){0});
    CHECK_INT(as_watched_add(&watched, list, list_len), AS_EFULL);
    CHECK_INT(watched.count, AS_WATCHED_MAX);
    CHECK(as_watched_find_changed(&watched) == NULL);
    as_watched_clear(&watched);
}

int main(void)
{
    CHECK(mkdtemp(root) != NULL);
    test_changes();
    test_changed_before_it_was_said();
    test_broken_lists();
    CHECK(unlink(below("b")) == 0 && unlink(below("c")) == 0 && unlink(below("none")) == 0 && rmdir(root) == 0);
    return check_result("file_marks");
}
