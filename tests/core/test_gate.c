/* with: base/memory.c */
/* sanitize: address,undefined thread */
/* The gate's counts: places, clients, waking, and all of it from several threads. */
#include "net/gate.c"

#include <arpa/inet.h>
#include <pthread.h>

#include "check.h"

static int woken[AS_GATE_LOOPS];

static void wake(as_gate *gate, int loop)
{
    (void)gate;
    woken[loop]++;
}

static as_address v4(const char *text)
{
    as_address address = {.v4.sin_family = AF_INET};
    CHECK(inet_pton(AF_INET, text, &address.v4.sin_addr) == 1);
    return address;
}

static as_address v6(const char *text)
{
    as_address address = {.v6.sin6_family = AF_INET6};
    CHECK(inet_pton(AF_INET6, text, &address.v6.sin6_addr) == 1);
    return address;
}

static void test_places(void)
{
    as_gate gate;
    as_gate_init(&gate, wake);
    CHECK(as_gate_enter(&gate, 2));
    CHECK(as_gate_enter(&gate, 2));
    CHECK(!as_gate_enter(&gate, 2));
    CHECK(as_gate_enter(&gate, 3));
    CHECK(!as_gate_enter(&gate, 1)); /* a new snapshot has lowered the limit */
    CHECK_INT(gate.open, 3);
    for (int i = 0; i < 3; i++)
        as_gate_leave(&gate);
    CHECK_INT(gate.open, 0);
    CHECK(!as_gate_enter(&gate, 0));
    as_gate_free(&gate);
}

/* Only who waits is woken, and only once. */
static void test_waking(void)
{
    as_gate gate;
    as_gate_init(&gate, wake);
    CHECK(as_gate_enter(&gate, 9) && as_gate_enter(&gate, 9));
    as_gate_wait(&gate, 0);
    as_gate_wait(&gate, 63);
    as_gate_leave(&gate);
    CHECK_INT(woken[0], 1);
    CHECK_INT(woken[1], 0);
    CHECK_INT(woken[63], 1);
    as_gate_leave(&gate);
    CHECK_INT(woken[0], 1);
    as_gate_free(&gate);
}

/* An attempt that fails must wake nobody, or those who wait would wake each other for ever. */
static void test_failed_attempts_wake_nobody(void)
{
    as_gate gate;
    as_gate_init(&gate, wake);
    CHECK(as_gate_enter(&gate, 1));
    as_gate_wait(&gate, 7);
    CHECK(!as_gate_enter(&gate, 1));
    CHECK_INT(woken[7], 0);
    as_gate_leave(&gate);
    CHECK_INT(woken[7], 1);
    as_gate_free(&gate);
}

static void test_clients(void)
{
    as_gate gate;
    as_gate_init(&gate, NULL);
    as_address a = v4("192.0.2.1"), b = v4("192.0.2.2"), unix_socket = {.any.sa_family = AF_UNIX};
    int first = as_gate_count_client(&gate, &a, 2), second = as_gate_count_client(&gate, &a, 2);
    CHECK(first > 0 && first == second);
    CHECK_INT(as_gate_count_client(&gate, &a, 2), AS_EFULL);
    int other = as_gate_count_client(&gate, &b, 2);
    CHECK(other > 0 && other != first);
    as_gate_forget_client(&gate, first);
    CHECK_INT(as_gate_count_client(&gate, &a, 2), first);
    CHECK_INT(as_gate_count_client(&gate, &a, 2), AS_EFULL);
    CHECK_INT(as_gate_count_client(&gate, &a, 3), first); /* the limit is the caller's */
    CHECK_INT(as_gate_count_client(&gate, &unix_socket, 1), 0);
    as_gate_forget_client(&gate, 0);
    as_gate_free(&gate);
}

static void test_networks(void)
{
    as_gate gate;
    as_gate_init(&gate, NULL);
    as_address one = v6("2001:db8:1:2::1"), same = v6("2001:db8:1:2:ffff::9"), next = v6("2001:db8:1:3::1");
    CHECK(as_gate_count_client(&gate, &one, 1) > 0);
    CHECK_INT(as_gate_count_client(&gate, &same, 1), AS_EFULL);
    CHECK(as_gate_count_client(&gate, &next, 1) > 0);
    /* A socket for both families sees IPv4 clients as mapped addresses. */
    as_address mapped = v6("::ffff:192.0.2.1"), plain = v4("192.0.2.1"), mapped_other = v6("::ffff:192.0.2.9");
    CHECK(as_gate_count_client(&gate, &mapped, 1) > 0);
    CHECK_INT(as_gate_count_client(&gate, &plain, 1), AS_EFULL);
    CHECK(as_gate_count_client(&gate, &mapped_other, 1) > 0);
    as_gate_free(&gate);
}

/* More clients than words: the rest are let in, nobody is taken for somebody else, and every word is free again in the end. */
static void test_more_clients_than_words(void)
{
    as_gate gate;
    as_gate_init(&gate, NULL);
    enum { CLIENTS = AS_GATE_CLIENTS * 2 };
    int *tickets = as_alloc(CLIENTS * sizeof(*tickets));
    int counted = 0, refused = 0;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        as_address address = {.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(i)}};
        tickets[i] = as_gate_count_client(&gate, &address, 1);
        counted += tickets[i] > 0;
        refused += tickets[i] < 0;
    }
    CHECK_INT(refused, 0);
    CHECK(counted > AS_GATE_CLIENTS * 9 / 10 && counted <= AS_GATE_CLIENTS);
    for (uint32_t i = 0; i < CLIENTS; i++)
        as_gate_forget_client(&gate, tickets[i]);
    int left = 0;
    for (int i = 0; i < AS_GATE_CLIENTS; i++)
        left += (gate.clients[i] & COUNT_MASK) != 0;
    CHECK_INT(left, 0);
    as_free(tickets);
    as_gate_free(&gate);
}

enum { THREADS = 4, ROUNDS = 20000, PLACES = 3 };

static as_gate shared;
static int over;

static void *come_and_go(void *argument)
{
    as_address address = {.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(*(uint32_t *)argument % 2)}};
    for (int i = 0; i < ROUNDS; i++) {
        if (!as_gate_enter(&shared, PLACES)) {
            as_gate_wait(&shared, (int)*(uint32_t *)argument);
            continue;
        }
        if (__atomic_load_n(&shared.open, __ATOMIC_RELAXED) > PLACES)
            __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
        int ticket = as_gate_count_client(&shared, &address, 1000);
        as_gate_forget_client(&shared, ticket);
        as_gate_leave(&shared);
    }
    return NULL;
}

static void ignore_wake(as_gate *gate, int loop)
{
    (void)gate;
    (void)loop;
}

static void test_threads(void)
{
    as_gate_init(&shared, ignore_wake);
    pthread_t threads[THREADS];
    uint32_t numbers[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, come_and_go, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(over, 0);
    CHECK_INT(shared.open, 0);
    int left = 0;
    for (int i = 0; i < AS_GATE_CLIENTS; i++)
        left += (shared.clients[i] & COUNT_MASK) != 0;
    CHECK_INT(left, 0);
    as_gate_free(&shared);
}

int main(void)
{
    test_places();
    test_waking();
    test_failed_attempts_wake_nobody();
    test_clients();
    test_networks();
    test_more_clients_than_words();
    test_threads();
    return check_result("gate");
}
