#include "handler/quarantine.h"

#include "base/clock.h"

#define CLAIMED INT64_MAX /* somebody is about to fill the entry */

static void raise_to(int64_t *time_ns, int64_t value)
{
    int64_t seen = __atomic_load_n(time_ns, __ATOMIC_RELAXED);
    while (seen < value &&
           !__atomic_compare_exchange_n(time_ns, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

static struct as_quarantine_entry *find(as_quarantine *quarantine, uint64_t fingerprint)
{
    for (int i = 0; i < AS_QUARANTINE_ENTRIES; i++) {
        struct as_quarantine_entry *entry = &quarantine->entries[i];
        int64_t until_ns = __atomic_load_n(&entry->until_ns, __ATOMIC_ACQUIRE);
        if (until_ns != 0 && until_ns != CLAIMED &&
            __atomic_load_n(&entry->fingerprint, __ATOMIC_RELAXED) == fingerprint)
            return entry;
    }
    return NULL;
}

/* The entry that ends first is taken out of use, so that nobody else fills it at the same time. NULL when somebody was faster. */
static struct as_quarantine_entry *claim(as_quarantine *quarantine)
{
    struct as_quarantine_entry *oldest = &quarantine->entries[0];
    int64_t oldest_ns = CLAIMED;
    for (int i = 0; i < AS_QUARANTINE_ENTRIES; i++) {
        int64_t until_ns = __atomic_load_n(&quarantine->entries[i].until_ns, __ATOMIC_RELAXED);
        if (until_ns < oldest_ns) {
            oldest = &quarantine->entries[i];
            oldest_ns = until_ns;
        }
    }
    bool is_ours = oldest_ns != CLAIMED && __atomic_compare_exchange_n(&oldest->until_ns, &oldest_ns, CLAIMED, false,
                                                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return is_ours ? oldest : NULL;
}

void as_quarantine_add(as_quarantine *quarantine, uint64_t fingerprint, int64_t until_ns)
{
    struct as_quarantine_entry *entry = find(quarantine, fingerprint);
    if (entry != NULL) {
        raise_to(&entry->until_ns, until_ns);
    } else {
        do {
            entry = claim(quarantine);
        } while (entry == NULL);
        /* Whoever reads the new time sees the new fingerprint. */
        __atomic_store_n(&entry->fingerprint, fingerprint, __ATOMIC_RELAXED);
        __atomic_store_n(&entry->until_ns, until_ns, __ATOMIC_RELEASE);
    }
    raise_to(&quarantine->ends_ns, until_ns);
}

int64_t as_quarantine_until(const as_quarantine *quarantine, uint64_t fingerprint, int64_t now_ns)
{
    for (int i = 0; i < AS_QUARANTINE_ENTRIES; i++) {
        const struct as_quarantine_entry *entry = &quarantine->entries[i];
        int64_t until_ns = __atomic_load_n(&entry->until_ns, __ATOMIC_ACQUIRE);
        if (until_ns > now_ns && until_ns != CLAIMED &&
            __atomic_load_n(&entry->fingerprint, __ATOMIC_RELAXED) == fingerprint)
            return until_ns;
    }
    return 0;
}

bool as_quarantine_may_tell(as_quarantine *quarantine, int64_t now_ns)
{
    int64_t told_ns = __atomic_load_n(&quarantine->told_ns, __ATOMIC_RELAXED);
    if (told_ns != 0 && now_ns - told_ns < AS_NS_PER_S)
        return false;
    return __atomic_compare_exchange_n(&quarantine->told_ns, &told_ns, now_ns, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED);
}
