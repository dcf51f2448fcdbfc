/* The cache of one loop: a hash table for finding and four queues for forgetting.
 *
 * Which files stay. The paper asks for those that are requested most, by count of hits. A plain LRU lets one crawler
 * that walks the site once throw out everything that others ask for all the time, and counting every path ever seen is
 * memory that clients control. S3-FIFO (Yang et al., SOSP 2023) was chosen: new files enter a small queue (a tenth of
 * the room); only those that are asked for again while they are there, or soon after they fell out of it (the ghost
 * table remembers hashes), get into the main queue, where each leaves as many rounds later as it was used, up to three.
 * It keeps frequently used files about as well as W-TinyLFU, and a hit is one saturating increment of the entry itself:
 * no list is relinked and no sketch updated, which LRU and TinyLFU both do on the hit path.
 *
 * Files that are kept open (too large to be copied) and paths that do not exist have queues of their own with limits of
 * their own, so that neither downloads nor somebody who guesses paths can push out the files that are held in memory.
 *
 * With `recent` the cache is the plain LRU, to be compared with: one queue, which every hit relinks.
 *
 * An entry in use is never given up: that would not free its memory. So `bytes` bounds what there is, not only what can
 * be found; when slow readers pin the room, other files are served from their descriptors. */
#include "handler/file_cache.h"

#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "report/counters.h"

enum {
    QUEUE_NONE,
    QUEUE_SMALL,
    QUEUE_MAIN,
    QUEUE_OPEN,
    QUEUE_MISSING,
    QUEUES,
    /* The numbers of the S3-FIFO paper: the small queue's share, the ceiling of the count, the count that gets a file
     * into the main queue. */
    SMALL_SHARE = 10,
    MAX_FREQUENCY = 3,
    PROMOTE_FREQUENCY = 2,
    /* Kept-open files cost descriptors, of which each loop may take one in sixteen; paths that do not exist are worth
     * little. */
    MAX_OPEN = 128,
    MAX_MISSING = 256,
    SIDE_SHARE = 8,
    DESCRIPTOR_SHARE = 16,
    /* Longest work of one make_room: a loop must not stall for others' sake. What was weighed stays weighed for the
     * next call. */
    MAX_STEPS = 512,
    MIN_BUCKETS = 16,
};

typedef struct queue {
    as_file_entry *newest;
    as_file_entry *oldest;
    uint32_t len;
    size_t charge;
} queue;

typedef struct ghost {
    uint64_t hash;
    uint64_t sequence; /* 0: empty */
} ghost;

struct as_file_cache {
    as_file_cache_options options;
    as_counters *counters;
    uint64_t seed[2];
    uint32_t memory_max; /* entries by queue */
    uint32_t open_max;
    uint32_t missing_max;
    size_t held; /* bytes of all entries that exist */
    uint32_t alive;
    int64_t next_warning_ns;
    queue queues[QUEUES];
    as_file_entry **buckets;
    /* Direct-mapped: a later file may push an earlier one's hash out, which costs that one its advantage only. */
    ghost *ghosts;
    uint64_t ghost_sequence;
    uint64_t mask; /* of buckets and ghosts */
};

/* Paths come from clients, so the hash is keyed: multiply and fold, as in wyhash, with a seed of its own for each
 * cache. */
static uint64_t read_64(const char *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof(value));
    return value;
}

static uint64_t read_32(const char *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof(value));
    return value;
}

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_of(const as_file_cache *cache, uint64_t root_id, as_str path)
{
    const char *p = path.ptr;
    size_t len = path.len;
    uint64_t hash = fold(root_id ^ cache->seed[0], 0x9e3779b97f4a7c15ULL ^ path.len);
    while (len > 16) {
        hash = fold(read_64(p) ^ cache->seed[1], read_64(p + 8) ^ hash);
        p += 16;
        len -= 16;
    }
    uint64_t a = 0;
    uint64_t b = 0;
    if (len >= 8) {
        a = read_64(p);
        b = read_64(p + len - 8);
    } else if (len >= 4) {
        a = read_32(p);
        b = read_32(p + len - 4);
    } else if (len > 0) {
        a = (uint64_t)(unsigned char)p[0] << 16 | (uint64_t)(unsigned char)p[len / 2] << 8 | (unsigned char)p[len - 1];
    }
    return fold(a ^ cache->seed[1], b ^ hash);
}

static void make_seed(uint64_t seed[2])
{
    if (getrandom(seed, 2 * sizeof(seed[0]), GRND_NONBLOCK) == 2 * sizeof(seed[0]))
        return;
    /* Early boot, or a filter: what an outsider cannot know well is better than nothing. */
    seed[0] = (uint64_t)as_clock_monotonic_ns() * 0x9e3779b97f4a7c15ULL;
    seed[1] = (uint64_t)(uintptr_t)seed ^ (uint64_t)as_clock_ns(CLOCK_REALTIME);
}

/* A part of `whole`, at most `most`, at least 1 unless there is nothing. */
static uint32_t share_of(uint64_t whole, uint32_t part, uint32_t most)
{
    uint64_t share = whole / part;
    if (share == 0 && whole > 0)
        share = 1;
    return share > most ? most : (uint32_t)share;
}

static void set_limits(as_file_cache *cache)
{
    uint32_t entries = cache->options.bytes > 0 ? cache->options.entries : 0;
    struct rlimit files;
    uint64_t descriptors = getrlimit(RLIMIT_NOFILE, &files) == 0 ? (uint64_t)files.rlim_cur : 0;
    cache->open_max = share_of(entries, SIDE_SHARE, share_of(descriptors, DESCRIPTOR_SHARE, MAX_OPEN));
    cache->missing_max = share_of(entries, SIDE_SHARE, MAX_MISSING);
    uint32_t aside = cache->open_max + cache->missing_max;
    cache->memory_max = entries > aside ? entries - aside : entries;
}

as_file_cache *as_file_cache_new(const as_file_cache_options *options, struct as_counters *counters)
{
    as_file_cache *cache = as_alloc(sizeof(*cache));
    cache->options = *options;
    cache->counters = counters;
    make_seed(cache->seed);
    set_limits(cache);
    uint64_t buckets = MIN_BUCKETS;
    while (buckets < cache->options.entries)
        buckets *= 2;
    cache->mask = buckets - 1;
    cache->buckets = as_alloc(buckets * sizeof(as_file_entry *));
    cache->ghosts = as_alloc(buckets * sizeof(ghost));
    return cache;
}

void as_file_cache_free(as_file_cache *cache)
{
    if (cache == NULL)
        return;
    as_file_cache_clear(cache);
    assert(cache->alive == 0 && cache->held == 0);
    as_free(cache->ghosts);
    as_free(cache->buckets);
    as_free(cache);
}

const as_file_cache_options *as_file_cache_options_of(const as_file_cache *cache)
{
    return &cache->options;
}

bool as_file_cache_may_warn(as_file_cache *cache, int64_t now_ns)
{
    if (now_ns < cache->next_warning_ns)
        return false;
    cache->next_warning_ns = now_ns + AS_NS_PER_S;
    return true;
}

static void push(as_file_cache *cache, as_file_entry *entry, uint8_t which)
{
    queue *to = &cache->queues[which];
    assert(entry->queue == QUEUE_NONE);
    entry->queue = which;
    entry->newer = NULL;
    entry->older = to->newest;
    if (to->newest != NULL)
        to->newest->newer = entry;
    else
        to->oldest = entry;
    to->newest = entry;
    to->len++;
    to->charge += entry->charge;
}

static void pull(as_file_cache *cache, as_file_entry *entry)
{
    queue *from = &cache->queues[entry->queue];
    assert(entry->queue != QUEUE_NONE && from->len > 0);
    if (entry->newer != NULL)
        entry->newer->older = entry->older;
    else
        from->newest = entry->older;
    if (entry->older != NULL)
        entry->older->newer = entry->newer;
    else
        from->oldest = entry->newer;
    from->len--;
    from->charge -= entry->charge;
    entry->queue = QUEUE_NONE;
}

/* With `recent`: the entry is the one that goes last. */
static void renew(as_file_cache *cache, as_file_entry *entry)
{
    uint8_t which = entry->queue;
    pull(cache, entry);
    push(cache, entry, which);
}

as_file_entry *as_file_cache_find(as_file_cache *cache, uint64_t root_id, as_str path)
{
    uint64_t hash = hash_of(cache, root_id, path);
    as_file_entry *entry = cache->buckets[hash & cache->mask];
    while (entry != NULL && !(entry->hash == hash && entry->root_id == root_id && as_str_equal(entry->path, path)))
        entry = entry->chain;
    if (entry == NULL)
        return NULL;
    if (entry->frequency < MAX_FREQUENCY)
        entry->frequency++;
    if (AS_UNLIKELY(cache->options.recent && entry->newer != NULL))
        renew(cache, entry);
    return entry;
}

static size_t charge_of(as_str path, size_t space)
{
    return sizeof(as_file_entry) + path.len + 1 + space;
}

as_file_entry *as_file_entry_new(as_file_cache *cache, uint64_t root_id, as_str path, size_t space)
{
    size_t charge = charge_of(path, space);
    as_file_entry *entry = as_try_realloc(NULL, charge);
    if (entry == NULL)
        return NULL;
    *entry = (as_file_entry){.cache = cache, .root_id = root_id, .charge = charge, .refs = 1, .fd = -1};
    char *text = (char *)(entry + 1);
    memcpy(text, path.ptr, path.len);
    text[path.len] = '\0';
    entry->path = as_str_of(text, path.len);
    entry->space = text + path.len + 1;
    entry->hash = hash_of(cache, root_id, path);
    cache->held += charge;
    cache->alive++;
    AS_COUNT(cache->counters, cache_bytes, charge);
    return entry;
}

static void free_entry(as_file_entry *entry)
{
    as_file_cache *cache = entry->cache;
    assert(entry->refs == 0 && entry->queue == QUEUE_NONE);
    assert(cache->alive > 0 && cache->held >= entry->charge);
    cache->held -= entry->charge;
    cache->alive--;
    AS_COUNT(cache->counters, cache_bytes, -(int64_t)entry->charge);
    if (entry->fd >= 0)
        close(entry->fd);
    as_free(entry);
}

void as_file_entry_release(as_file_entry *entry)
{
    assert(entry->refs > 0);
    entry->refs--;
    if (entry->refs == 0 && entry->queue == QUEUE_NONE)
        free_entry(entry);
}

static void remember_ghost(as_file_cache *cache, uint64_t hash)
{
    cache->ghosts[hash & cache->mask] = (ghost){.hash = hash, .sequence = ++cache->ghost_sequence};
}

static bool take_ghost(as_file_cache *cache, uint64_t hash)
{
    ghost *seen = &cache->ghosts[hash & cache->mask];
    if (seen->sequence == 0 || seen->hash != hash || cache->ghost_sequence - seen->sequence > cache->memory_max)
        return false;
    seen->sequence = 0;
    return true;
}

void as_file_cache_put(as_file_cache *cache, as_file_entry *entry)
{
    static const uint8_t QUEUE_OF[] = {
        [AS_FILE_MEMORY] = QUEUE_SMALL, [AS_FILE_OPEN] = QUEUE_OPEN, [AS_FILE_MISSING] = QUEUE_MISSING};
    uint8_t which = QUEUE_OF[entry->kind];
    if (which == QUEUE_SMALL && (cache->options.recent || take_ghost(cache, entry->hash)))
        which = QUEUE_MAIN;
    entry->frequency = 0;
    push(cache, entry, which);
    entry->chain = cache->buckets[entry->hash & cache->mask];
    cache->buckets[entry->hash & cache->mask] = entry;
}

static void forget(as_file_cache *cache, as_file_entry *entry)
{
    as_file_entry **link = &cache->buckets[entry->hash & cache->mask];
    while (*link != entry) {
        assert(*link != NULL);
        link = &(*link)->chain;
    }
    *link = entry->chain;
    pull(cache, entry);
    if (entry->refs == 0)
        free_entry(entry);
}

void as_file_cache_drop(as_file_cache *cache, as_file_entry *entry)
{
    /* Its next version is as much in demand as this one was. */
    if (entry->queue == QUEUE_MAIN || (entry->queue == QUEUE_SMALL && entry->frequency >= PROMOTE_FREQUENCY))
        remember_ghost(cache, entry->hash);
    forget(cache, entry);
}

/* Weighs the oldest of the small queue: it goes up, out, or (in use) back to the start. */
static void step_small(as_file_cache *cache)
{
    as_file_entry *entry = cache->queues[QUEUE_SMALL].oldest;
    if (entry->frequency >= PROMOTE_FREQUENCY || entry->refs > 0) {
        uint8_t which = entry->frequency >= PROMOTE_FREQUENCY ? QUEUE_MAIN : QUEUE_SMALL;
        entry->frequency = which == QUEUE_MAIN ? 0 : entry->frequency;
        pull(cache, entry);
        push(cache, entry, which);
        return;
    }
    remember_ghost(cache, entry->hash);
    forget(cache, entry);
}

/* Weighs the oldest of another queue: another round for one that was used, else out. */
static void step_round(as_file_cache *cache, uint8_t which)
{
    as_file_entry *entry = cache->queues[which].oldest;
    if ((entry->frequency == 0 || cache->options.recent) && entry->refs == 0) {
        forget(cache, entry);
        return;
    }
    if (entry->frequency > 0)
        entry->frequency--;
    pull(cache, entry);
    push(cache, entry, which);
}

static bool memory_is_short(const as_file_cache *cache, size_t charge)
{
    uint32_t len = cache->queues[QUEUE_SMALL].len + cache->queues[QUEUE_MAIN].len;
    return cache->held + charge > cache->options.bytes || len >= cache->memory_max;
}

static bool small_is_over_its_share(const as_file_cache *cache)
{
    const queue *small = &cache->queues[QUEUE_SMALL];
    return small->len > 0 &&
           (cache->queues[QUEUE_MAIN].len == 0 || small->charge > cache->options.bytes / SMALL_SHARE ||
            small->len > cache->memory_max / SMALL_SHARE);
}

static bool make_memory(as_file_cache *cache, size_t charge)
{
    if (cache->memory_max == 0 || charge > cache->options.bytes)
        return false;
    for (int steps = 0; memory_is_short(cache, charge); steps++) {
        if (steps == MAX_STEPS || cache->queues[QUEUE_SMALL].len + cache->queues[QUEUE_MAIN].len == 0)
            return false;
        if (small_is_over_its_share(cache))
            step_small(cache);
        else
            step_round(cache, QUEUE_MAIN);
    }
    return true;
}

static bool make_place(as_file_cache *cache, uint8_t which, uint32_t most)
{
    if (most == 0)
        return false;
    for (int steps = 0; cache->queues[which].len >= most; steps++) {
        if (steps == MAX_STEPS)
            return false;
        step_round(cache, which);
    }
    return true;
}

bool as_file_cache_make_room(as_file_cache *cache, as_file_kind kind, as_str path, size_t space)
{
    if (kind == AS_FILE_MEMORY)
        return make_memory(cache, charge_of(path, space));
    if (kind == AS_FILE_OPEN)
        return make_place(cache, QUEUE_OPEN, cache->open_max);
    return make_place(cache, QUEUE_MISSING, cache->missing_max);
}

int as_file_cache_shed(as_file_cache *cache)
{
    int closed = 0;
    as_file_entry *entry = cache->queues[QUEUE_OPEN].oldest;
    while (entry != NULL) {
        as_file_entry *newer = entry->newer;
        if (entry->refs == 0) {
            forget(cache, entry);
            closed++;
        }
        entry = newer;
    }
    return closed;
}

void as_file_cache_clear(as_file_cache *cache)
{
    for (uint8_t which = QUEUE_NONE + 1; which < QUEUES; which++) {
        while (cache->queues[which].oldest != NULL)
            forget(cache, cache->queues[which].oldest);
    }
    memset(cache->ghosts, 0, (cache->mask + 1) * sizeof(ghost));
}
