/* with: */
/* sanitize: address,undefined thread */
/* The table of quarantined requests, alone and from several threads. */
#include "handler/quarantine.c"

#include <pthread.h>

#include "check.h"

enum { THREADS = 4, EACH = 20000 };

static as_quarantine table;

static void test_empty(void)
{
    table = (as_quarantine){0};
    CHECK(as_quarantine_is_empty(&table, 1));
    CHECK_INT(as_quarantine_until(&table, 0, 1), 0);
    as_quarantine_add(&table, 7, 100);
    CHECK(!as_quarantine_is_empty(&table, 99));
    CHECK_INT(as_quarantine_until(&table, 7, 99), 100);
    CHECK_INT(as_quarantine_until(&table, 8, 99), 0);
    CHECK_INT(as_quarantine_until(&table, 7, 100), 0);
    CHECK(as_quarantine_is_empty(&table, 100));
}

static void test_the_same_again(void)
{
    table = (as_quarantine){0};
    as_quarantine_add(&table, 7, 100);
    as_quarantine_add(&table, 7, 200);
    as_quarantine_add(&table, 7, 150);
    CHECK_INT(as_quarantine_until(&table, 7, 1), 200);
    CHECK_INT(table.entries[1].until_ns, 0);
}

static void test_full(void)
{
    table = (as_quarantine){0};
    for (int i = 0; i <= AS_QUARANTINE_ENTRIES; i++)
        as_quarantine_add(&table, 1000 + (uint64_t)i, 100 + i);
    CHECK_INT(as_quarantine_until(&table, 1000, 1), 0); /* the oldest */
    for (int i = 1; i <= AS_QUARANTINE_ENTRIES; i++)
        CHECK_INT(as_quarantine_until(&table, 1000 + (uint64_t)i, 1), 100 + i);
}

static void test_telling(void)
{
    table = (as_quarantine){0};
    CHECK(as_quarantine_may_tell(&table, AS_NS_PER_S));
    CHECK(!as_quarantine_may_tell(&table, AS_NS_PER_S + 1));
    CHECK(!as_quarantine_may_tell(&table, 2 * AS_NS_PER_S - 1));
    CHECK(as_quarantine_may_tell(&table, 2 * AS_NS_PER_S));
}

/* A fingerprint is twice its time, so whoever finds one can tell whether both belong together. */
static void *work(void *argument)
{
    uint64_t number = (uintptr_t)argument + 1;
    long wrong = 0;
    for (uint64_t i = 1; i <= EACH; i++) {
        uint64_t fingerprint = i * THREADS + number;
        as_quarantine_add(&table, fingerprint * 2, (int64_t)fingerprint);
        for (uint64_t other = fingerprint - THREADS; other < fingerprint + THREADS; other++) {
            int64_t until_ns = as_quarantine_until(&table, other * 2, 1);
            /* the time of what has just been replaced, at worst: always an earlier one */
            wrong += until_ns != 0 && until_ns > (int64_t)(EACH + 1) * THREADS;
        }
    }
    return (void *)wrong;
}

static void test_several_threads(void)
{
    table = (as_quarantine){0};
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        CHECK_INT((long)wrong, 0);
    }
    int64_t last = 0;
    for (int i = 0; i < AS_QUARANTINE_ENTRIES; i++) {
        CHECK(table.entries[i].fingerprint == 2 * (uint64_t)table.entries[i].until_ns);
        last = table.entries[i].until_ns > last ? table.entries[i].until_ns : last;
    }
    CHECK_INT(last, (EACH + 1) * THREADS);
    CHECK_INT(table.ends_ns, last);
}

int main(void)
{
    test_empty();
    test_the_same_again();
    test_full();
    test_telling();
    test_several_threads();
    return check_result("quarantine");
}
