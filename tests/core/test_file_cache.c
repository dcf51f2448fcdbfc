/* with: base/memory.c */
#include "handler/file_cache.c"

#include <fcntl.h>
#include <stdio.h>

#include "check.h"

static as_counters counters;

static as_file_cache *make_cache(uint64_t bytes, uint32_t entries)
{
    as_file_cache_options options = {.bytes = bytes, .entries = entries, .file_size = 64 * 1024, .revalidate_ms = 1000};
    memset(&counters, 0, sizeof(counters));
    return as_file_cache_new(&options, &counters);
}

static as_str path_of(char *out, size_t size, const char *prefix, int number)
{
    return as_str_of(out, (size_t)snprintf(out, size, "/%s/%d", prefix, number));
}

/* What the handler does with a file of `size` bytes: true when it could be cached. */
static bool load_one(as_file_cache *cache, as_str path, as_file_kind kind, size_t size)
{
    if (!as_file_cache_make_room(cache, kind, path, size))
        return false;
    as_file_entry *entry = as_file_entry_new(cache, 1, path, size);
    entry->kind = kind;
    memset(entry->space, 'x', size);
    as_file_cache_put(cache, entry);
    as_file_entry_release(entry);
    return true;
}

/* A request for a file: true on a hit. */
static bool use(as_file_cache *cache, const char *prefix, int number, size_t size)
{
    char text[64];
    as_str path = path_of(text, sizeof(text), prefix, number);
    if (as_file_cache_find(cache, 1, path) != NULL)
        return true;
    load_one(cache, path, AS_FILE_MEMORY, size);
    return false;
}

static void test_keys(void)
{
    as_file_cache *cache = make_cache(1 << 20, 1024);
    char text[64];
    memset(text, 'a', sizeof(text));
    for (size_t len = 1; len <= sizeof(text); len++)
        CHECK(load_one(cache, as_str_of(text, len), AS_FILE_MEMORY, len));
    for (size_t len = 1; len <= sizeof(text); len++) {
        as_file_entry *entry = as_file_cache_find(cache, 1, as_str_of(text, len));
        CHECK(entry != NULL && entry->path.len == len && entry->path.ptr[len] == '\0');
        CHECK(as_file_cache_find(cache, 2, as_str_of(text, len)) == NULL);
    }
    as_file_cache_free(cache);
    CHECK_INT(counters.cache_bytes, 0);
}

static void test_hash_is_keyed(void)
{
    as_file_cache *one = make_cache(1 << 20, 16);
    as_file_cache *other = make_cache(1 << 20, 16);
    CHECK(hash_of(one, 1, AS_STR("/index.html")) != hash_of(other, 1, AS_STR("/index.html")));
    CHECK(hash_of(one, 1, AS_STR("/index.html")) != hash_of(one, 1, AS_STR("/index.htmk")));
    CHECK(hash_of(one, 1, AS_STR("/a")) == hash_of(one, 1, AS_STR("/a")));
    as_file_cache_free(one);
    as_file_cache_free(other);
}

static void test_bytes_are_bounded(void)
{
    enum { BYTES = 64 * 1024 };
    as_file_cache *cache = make_cache(BYTES, 1024);
    for (int i = 0; i < 500; i++) {
        use(cache, "file", i, 1000);
        CHECK(cache->held <= BYTES);
        CHECK_INT(counters.cache_bytes, cache->held);
    }
    CHECK(cache->alive > 30);
    CHECK(!load_one(cache, AS_STR("/huge"), AS_FILE_MEMORY, BYTES));
    as_file_cache_free(cache);
}

static void test_entries_are_bounded(void)
{
    as_file_cache *cache = make_cache(1 << 20, 100);
    for (int i = 0; i < 500; i++)
        use(cache, "file", i, 10);
    CHECK(cache->alive <= 100);
    CHECK_INT(cache->alive, cache->memory_max);
    as_file_cache_free(cache);
}

/* The paper's wish: the most requested stay, whatever walks past them. */
static void test_scan_leaves_hot_files(void)
{
    enum { HOT = 20 };
    as_file_cache *cache = make_cache(100 * 1200, 1024);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < HOT; i++)
            use(cache, "hot", i, 700);
    }
    for (int i = 0; i < 5000; i++)
        use(cache, "scan", i, 700);
    int kept = 0;
    for (int i = 0; i < HOT; i++)
        kept += use(cache, "hot", i, 700);
    CHECK_INT(kept, HOT);
    as_file_cache_free(cache);
}

/* The plain LRU: who was used last stays, however often others were. */
static void test_recent(void)
{
    as_file_cache_options options = {.bytes = 1 << 20, .entries = 16, .file_size = 64 * 1024, .recent = true};
    memset(&counters, 0, sizeof(counters));
    as_file_cache *cache = as_file_cache_new(&options, &counters);
    uint32_t room = cache->memory_max;
    for (int round = 0; round < 10; round++)
        use(cache, "hot", 0, 100);
    for (uint32_t i = 0; i + 1 < room; i++)
        CHECK(!use(cache, "once", (int)i, 100));
    CHECK(use(cache, "hot", 0, 100)); /* newest again */
    for (uint32_t i = 0; i + 1 < room; i++)
        CHECK(!use(cache, "again", (int)i, 100));
    CHECK(use(cache, "hot", 0, 100));
    for (uint32_t i = 0; i < room; i++)
        CHECK(!use(cache, "third", (int)i, 100));
    CHECK(!use(cache, "hot", 0, 100)); /* a walk over all of them has pushed it out */
    CHECK_INT(cache->queues[QUEUE_SMALL].len, 0);
    CHECK_INT(cache->queues[QUEUE_MAIN].len, room);
    as_file_cache_free(cache);
    CHECK_INT(counters.cache_bytes, 0);
}

static void test_seen_again_goes_to_main(void)
{
    as_file_cache *cache = make_cache(20 * 1200, 1024);
    use(cache, "again", 0, 700);
    for (int i = 0; i < 30; i++)
        use(cache, "scan", i, 700);
    CHECK(!use(cache, "again", 0, 700));
    as_file_entry *entry = as_file_cache_find(cache, 1, AS_STR("/again/0"));
    CHECK(entry != NULL && entry->queue == QUEUE_MAIN);
    as_file_cache_free(cache);
}

static void test_new_version_keeps_its_rank(void)
{
    as_file_cache *cache = make_cache(1 << 20, 1024);
    for (int i = 0; i < 5; i++)
        use(cache, "hot", 0, 100);
    as_file_cache_drop(cache, as_file_cache_find(cache, 1, AS_STR("/hot/0")));
    CHECK(!use(cache, "hot", 0, 100));
    CHECK_INT(as_file_cache_find(cache, 1, AS_STR("/hot/0"))->queue, QUEUE_MAIN);
    as_file_cache_free(cache);
}

static void test_entries_in_use_stay(void)
{
    enum { HELD = 10 };
    as_file_cache *cache = make_cache(HELD * 1200, 1024);
    as_file_entry *held[HELD];
    int count = 0;
    for (int i = 0; i < HELD; i++) {
        char text[64];
        as_str path = path_of(text, sizeof(text), "held", i);
        if (load_one(cache, path, AS_FILE_MEMORY, 900)) {
            held[count] = as_file_cache_find(cache, 1, path);
            as_file_entry_hold(held[count++]);
        }
    }
    CHECK(count >= 8);
    CHECK(!load_one(cache, AS_STR("/other"), AS_FILE_MEMORY, 1100));
    for (int i = 0; i < count; i++) {
        CHECK(as_file_cache_find(cache, 1, held[i]->path) == held[i]);
        as_file_entry_release(held[i]);
    }
    CHECK(load_one(cache, AS_STR("/other"), AS_FILE_MEMORY, 1100));
    as_file_cache_free(cache);
}

static void test_dropped_in_use_lives_on(void)
{
    as_file_cache *cache = make_cache(1 << 20, 1024);
    use(cache, "file", 1, 100);
    as_file_entry *entry = as_file_cache_find(cache, 1, AS_STR("/file/1"));
    as_file_entry_hold(entry);
    as_file_cache_clear(cache);
    CHECK(as_file_cache_find(cache, 1, AS_STR("/file/1")) == NULL);
    CHECK_INT(entry->space[99], 'x');
    CHECK_INT(cache->alive, 1);
    as_file_entry_release(entry);
    CHECK_INT(cache->alive, 0);
    CHECK_INT(counters.cache_bytes, 0);
    as_file_cache_free(cache);
}

static void test_missing_paths_push_out_no_file(void)
{
    as_file_cache *cache = make_cache(1 << 20, 64);
    char text[64];
    for (int i = 0; i < 20; i++)
        use(cache, "file", i, 100);
    for (int i = 0; i < 1000; i++)
        CHECK(load_one(cache, path_of(text, sizeof(text), "missing", i), AS_FILE_MISSING, 0));
    CHECK_INT(cache->queues[QUEUE_MISSING].len, cache->missing_max);
    for (int i = 0; i < 20; i++)
        CHECK(use(cache, "file", i, 100));
    as_file_cache_free(cache);
}

static as_file_entry *load_descriptor(as_file_cache *cache, int number)
{
    char text[64];
    as_str path = path_of(text, sizeof(text), "open", number);
    if (!as_file_cache_make_room(cache, AS_FILE_OPEN, path, 0))
        return NULL;
    as_file_entry *entry = as_file_entry_new(cache, 1, path, 0);
    entry->kind = AS_FILE_OPEN;
    entry->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    as_file_cache_put(cache, entry);
    return entry;
}

static void test_open_files_are_few(void)
{
    int before = dup(0);
    close(before);
    as_file_cache *cache = make_cache(1 << 20, 64);
    CHECK(cache->open_max > 0 && cache->open_max <= 8);
    for (int i = 0; i < 100; i++)
        as_file_entry_release(load_descriptor(cache, i));
    CHECK_INT(cache->queues[QUEUE_OPEN].len, cache->open_max);
    as_file_entry *used = as_file_cache_find(cache, 1, AS_STR("/open/99"));
    as_file_entry_hold(used);
    CHECK_INT(as_file_cache_shed(cache), cache->open_max - 1);
    CHECK(fcntl(used->fd, F_GETFD) >= 0);
    as_file_entry_release(used);
    CHECK_INT(as_file_cache_shed(cache), 1);
    int after = dup(0);
    close(after);
    CHECK_INT(after, before);
    as_file_cache_free(cache);
}

static void test_open_files_in_use_are_not_replaced(void)
{
    as_file_cache *cache = make_cache(1 << 20, 16);
    as_file_entry *held[16];
    uint32_t count = 0;
    for (as_file_entry *entry; (entry = load_descriptor(cache, (int)count)) != NULL;)
        held[count++] = entry;
    CHECK_INT(count, cache->open_max);
    while (count > 0)
        as_file_entry_release(held[--count]);
    as_file_cache_free(cache);
}

static void test_off(void)
{
    as_file_cache *cache = make_cache(0, 1024);
    CHECK(!load_one(cache, AS_STR("/file"), AS_FILE_MEMORY, 10));
    CHECK(!load_one(cache, AS_STR("/file"), AS_FILE_OPEN, 0));
    CHECK(!load_one(cache, AS_STR("/file"), AS_FILE_MISSING, 0));
    as_file_entry *entry = as_file_entry_new(cache, 1, AS_STR("/file"), 10);
    CHECK_INT(counters.cache_bytes, entry->charge);
    as_file_entry_release(entry);
    as_file_cache_free(cache);
    as_file_cache *none = make_cache(1 << 20, 0);
    CHECK(!load_one(none, AS_STR("/file"), AS_FILE_MEMORY, 10));
    as_file_cache_free(none);
}

static void test_smallest(void)
{
    as_file_cache *cache = make_cache(1 << 20, 1);
    CHECK(!use(cache, "file", 1, 10));
    CHECK(use(cache, "file", 1, 10));
    CHECK(!use(cache, "file", 2, 10));
    CHECK(use(cache, "file", 2, 10));
    CHECK(!use(cache, "file", 1, 10));
    as_file_cache_free(cache);
}

static void test_warnings_are_rare(void)
{
    as_file_cache *cache = make_cache(1 << 20, 16);
    CHECK(as_file_cache_may_warn(cache, 5 * AS_NS_PER_S));
    CHECK(!as_file_cache_may_warn(cache, 5 * AS_NS_PER_S + 1));
    CHECK(as_file_cache_may_warn(cache, 6 * AS_NS_PER_S));
    as_file_cache_free(cache);
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* The queues and the table must tell the same story after any order of events. */
static void check_story(const as_file_cache *cache)
{
    uint32_t queued = 0;
    for (uint8_t which = QUEUE_NONE + 1; which < QUEUES; which++) {
        const as_file_entry *newer = NULL;
        uint32_t len = 0;
        for (const as_file_entry *entry = cache->queues[which].newest; entry != NULL; entry = entry->older) {
            CHECK(entry->newer == newer && entry->queue == which);
            newer = entry;
            len++;
        }
        CHECK(cache->queues[which].oldest == newer && cache->queues[which].len == len);
        queued += len;
    }
    uint32_t found = 0;
    for (uint64_t i = 0; i <= cache->mask; i++) {
        for (const as_file_entry *entry = cache->buckets[i]; entry != NULL; entry = entry->chain)
            found++;
    }
    CHECK_INT(found, queued);
}

static void test_random_events(void)
{
    enum { BYTES = 40000, HOLDS = 8 };
    as_file_cache *cache = make_cache(BYTES, 50);
    as_file_entry *held[HOLDS] = {NULL};
    uint32_t state = 42;
    for (int i = 0; i < 20000; i++) {
        char text[64];
        uint32_t number = next_random(&state) % 200;
        as_str path = path_of(text, sizeof(text), "random", (int)number);
        as_file_entry *entry = as_file_cache_find(cache, 1, path);
        uint32_t what = next_random(&state) % 16;
        if (entry == NULL) {
            as_file_kind kind = (as_file_kind)(number % 3);
            load_one(cache, path, kind, kind == AS_FILE_MEMORY ? next_random(&state) % 3000 : 0);
        } else if (what == 0) {
            as_file_cache_drop(cache, entry);
        } else if (what < 4) {
            as_file_entry **slot = &held[what];
            if (*slot != NULL)
                as_file_entry_release(*slot);
            as_file_entry_hold(entry);
            *slot = entry;
        }
        if (i % 500 == 0)
            check_story(cache);
        CHECK(cache->held <= BYTES + 20 * (sizeof(as_file_entry) + sizeof(text)));
    }
    for (int i = 0; i < HOLDS; i++) {
        if (held[i] != NULL)
            as_file_entry_release(held[i]);
    }
    as_file_cache_free(cache);
    CHECK_INT(counters.cache_bytes, 0);
}

int main(void)
{
    test_keys();
    test_hash_is_keyed();
    test_bytes_are_bounded();
    test_entries_are_bounded();
    test_scan_leaves_hot_files();
    test_recent();
    test_seen_again_goes_to_main();
    test_new_version_keeps_its_rank();
    test_entries_in_use_stay();
    test_dropped_in_use_lives_on();
    test_missing_paths_push_out_no_file();
    test_open_files_are_few();
    test_open_files_in_use_are_not_replaced();
    test_off();
    test_smallest();
    test_warnings_are_rare();
    test_random_events();
    as_file_cache_free(NULL);
    return check_result("file_cache");
}
