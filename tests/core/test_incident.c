/* with: base/memory.c report/incident.c */
/* sanitize: address,undefined thread */
/* The queue of incidents: order, limits, and several loops at once. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "report/incident.h"

enum { LOOPS = 4, EACH = 2000 };

static as_incidents *incidents;
static int wake_fd;

static void open_queue(void)
{
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    incidents = as_incidents_new(wake_fd);
}

static void close_queue(void)
{
    as_incidents_free(incidents);
    close(wake_fd);
}

static void test_order_and_wake(void)
{
    open_queue();
    uint64_t count = 0;
    CHECK(read(wake_fd, &count, sizeof(count)) < 0);
    for (uint64_t i = 1; i <= 5; i++) {
        CHECK(as_incidents_admit(incidents, AS_NS_PER_S));
        as_incidents_add(incidents, &(as_incident){.request_id = i, .fd = -1});
    }
    CHECK(read(wake_fd, &count, sizeof(count)) == (ssize_t)sizeof(count));
    as_incident got;
    for (uint64_t i = 1; i <= 5; i++) {
        CHECK(as_incidents_next(incidents, &got));
        CHECK(got.request_id == i);
    }
    CHECK(!as_incidents_next(incidents, &got));
    close_queue();
}

static void test_so_many_a_second(void)
{
    open_queue();
    as_incident got;
    int admitted = 0;
    for (int i = 0; i < 3 * AS_INCIDENTS_A_SECOND; i++) {
        if (as_incidents_admit(incidents, 7 * AS_NS_PER_S + i)) {
            admitted++;
            as_incidents_add(incidents, &(as_incident){.fd = -1});
            CHECK(as_incidents_next(incidents, &got));
        }
    }
    CHECK_INT(admitted, AS_INCIDENTS_A_SECOND);
    CHECK_INT(as_incidents_dropped(incidents), 2 * AS_INCIDENTS_A_SECOND);
    /* a loop whose clock is behind gets no second of its own */
    CHECK(!as_incidents_admit(incidents, 6 * AS_NS_PER_S));
    CHECK(as_incidents_admit(incidents, 8 * AS_NS_PER_S));
    close_queue();
}

/* Nobody takes them: their descriptors are bounded, and closed at the end. */
static void test_so_many_waiting(void)
{
    open_queue();
    int probe = dup(wake_fd);
    close(probe);
    int admitted = 0;
    for (int64_t second = 1; second <= 10; second++) {
        for (int i = 0; i < AS_INCIDENTS_A_SECOND; i++) {
            if (as_incidents_admit(incidents, second * AS_NS_PER_S)) {
                admitted++;
                as_incidents_add(incidents, &(as_incident){.fd = dup(wake_fd)});
            }
        }
    }
    CHECK_INT(admitted, AS_INCIDENTS_WAITING);
    close_queue();
    for (int fd = probe; fd < probe + AS_INCIDENTS_WAITING; fd++)
        CHECK(fcntl(fd, F_GETFD) < 0);
}

static void *add_many(void *loop)
{
    for (uint64_t i = 1; i <= EACH;) {
        if (!as_incidents_admit(incidents, (int64_t)i * AS_NS_PER_S)) {
            usleep(10);
            i++; /* the next second; those of this one are counted */
            continue;
        }
        as_incidents_add(incidents, &(as_incident){.executor = (uint32_t)(uintptr_t)loop, .request_id = i, .fd = -1});
        i++;
    }
    return NULL;
}

static void test_several_loops(void)
{
    open_queue();
    pthread_t threads[LOOPS];
    for (uintptr_t i = 0; i < LOOPS; i++)
        CHECK(pthread_create(&threads[i], NULL, add_many, (void *)i) == 0);
    uint64_t last[LOOPS] = {0};
    uint64_t taken = 0;
    int running = LOOPS;
    while (running > 0) {
        if (pthread_tryjoin_np(threads[running - 1], NULL) == 0)
            running--;
        as_incident got;
        while (as_incidents_next(incidents, &got)) {
            CHECK(got.executor < LOOPS && got.request_id > last[got.executor]); /* of one loop in order */
            last[got.executor] = got.request_id;
            taken++;
        }
    }
    CHECK_INT(taken + as_incidents_dropped(incidents), LOOPS * EACH);
    close_queue();
}

int main(void)
{
    test_order_and_wake();
    test_so_many_a_second();
    test_so_many_waiting();
    test_several_loops();
    return check_result("incident");
}
