/* gate.c: the counts that limit connections.
 *
 * A client's word is found by a keyed hash of its address: the upper 40 bits are the client's mark, the lower 24 its connections. A word whose count is 0
 * belongs to nobody. As long as somebody holds a ticket the count is not 0, so the mark cannot change under him and giving back is one subtraction.
 * Two loops that see a new client at the same moment try for the same free word, and the one that comes second finds the client there. Only when another word
 * becomes free between the two can a client get two words, and then twice its limit for a while; a lock would cost everybody more than that costs us. */
#include "net/gate.h"

#include <sys/random.h>

#include "base/clock.h"

enum { COUNT_BITS = 24 };
#define COUNT_MASK ((UINT64_C(1) << COUNT_BITS) - 1)

void as_gate_init(as_gate *gate, void (*wake)(as_gate *gate, int loop))
{
    *gate = (as_gate){.wake = wake};
    /* Pages of zeros that the kernel gives when they are first written to: without a limit for clients the table costs nothing. */
    gate->clients = as_alloc(AS_GATE_CLIENTS * sizeof(*gate->clients));
    if (getrandom(&gate->secret, sizeof(gate->secret), GRND_NONBLOCK) != (ssize_t)sizeof(gate->secret))
        gate->secret = (uint64_t)as_clock_monotonic_ns() ^ (uint64_t)(uintptr_t)gate->clients;
}

void as_gate_free(as_gate *gate)
{
    as_free(gate->clients);
    gate->clients = NULL;
}

bool as_gate_enter(as_gate *gate, uint32_t limit)
{
    uint64_t open = __atomic_load_n(&gate->open, __ATOMIC_SEQ_CST);
    /* Compared first, not added and taken back: what is taken back would wake the loops that wait, whose attempts would wake the others. */
    while (open < limit) {
        if (__atomic_compare_exchange_n(&gate->open, &open, open + 1, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return true;
    }
    return false;
}

void as_gate_leave(as_gate *gate)
{
    uint64_t before = __atomic_fetch_sub(&gate->open, 1, __ATOMIC_SEQ_CST);
    assert(before > 0);
    (void)before;
    /* Sequentially consistent on both sides: either this sees the bit, or the loop that set it sees the place. */
    if (AS_LIKELY(__atomic_load_n(&gate->waiting, __ATOMIC_SEQ_CST) == 0))
        return;
    uint64_t waiting = __atomic_exchange_n(&gate->waiting, 0, __ATOMIC_SEQ_CST);
    for (int loop = 0; waiting != 0; loop++, waiting >>= 1) {
        if (waiting & 1)
            gate->wake(gate, loop);
    }
}

void as_gate_wait(as_gate *gate, int loop)
{
    assert(loop >= 0 && loop < AS_GATE_LOOPS && gate->wake != NULL);
    __atomic_fetch_or(&gate->waiting, UINT64_C(1) << loop, __ATOMIC_SEQ_CST);
}

/* A multiplication that keeps the high half: enough to spread what the attacker cannot see the key of. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xd6e8feb86659fd93));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The network part that stands for a client; false when there is none. */
static bool client_of(const as_address *address, uint64_t *client)
{
    if (address->any.sa_family == AF_INET) {
        *client = ntohl(address->v4.sin_addr.s_addr);
        return true;
    }
    if (address->any.sa_family != AF_INET6)
        return false;
    const struct in6_addr *in6 = &address->v6.sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(in6)) {
        uint32_t v4;
        memcpy(&v4, &in6->s6_addr[12], sizeof(v4));
        *client = ntohl(v4);
        return true;
    }
    memcpy(client, in6->s6_addr, sizeof(*client));
    return true;
}

typedef enum { TAKEN, FOREIGN, LIMITED } word_result;

/* Adds one to the word when it is the client's, or nobody's and `may_claim`. */
static word_result add_to(uint64_t *word, uint64_t mark, uint32_t limit, bool may_claim)
{
    uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
    for (;;) {
        uint64_t count = seen & COUNT_MASK;
        bool is_client = seen >> COUNT_BITS == mark;
        if (count == 0 ? !may_claim : !is_client)
            return FOREIGN;
        if (count >= limit || count == COUNT_MASK)
            return LIMITED;
        uint64_t wanted = mark << COUNT_BITS | (count + 1);
        if (__atomic_compare_exchange_n(word, &seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return TAKEN;
    }
}

int as_gate_count_client(as_gate *gate, const as_address *address, uint32_t limit)
{
    uint64_t client;
    if (!client_of(address, &client))
        return 0;
    uint64_t hash = mix(client, gate->secret);
    uint64_t mark = hash >> COUNT_BITS;
    uint32_t first = (uint32_t)(hash % AS_GATE_CLIENTS) & ~(uint32_t)(AS_GATE_PROBES - 1);
    /* First all words for the client, then for a free one: the client's own may stand behind one that has become free. */
    for (int may_claim = 0; may_claim <= 1; may_claim++) {
        for (uint32_t i = 0; i < AS_GATE_PROBES; i++) {
            switch (add_to(&gate->clients[first + i], mark, limit, may_claim)) {
            case TAKEN:
                return (int)(first + i) + 1;
            case LIMITED:
                return AS_EFULL;
            case FOREIGN:
                break;
            }
        }
    }
    return 0;
}

void as_gate_forget_client(as_gate *gate, int ticket)
{
    if (ticket == 0)
        return;
    uint64_t before = __atomic_fetch_sub(&gate->clients[ticket - 1], 1, __ATOMIC_RELAXED);
    assert((before & COUNT_MASK) > 0);
    (void)before;
}
