/* with: base/memory.c base/error.c report/event.c loop/loop.c loop/schedule.c net/connection.c net/gate.c net/plain.c */
/* limits.min_rate: windows by a client whose progress is a number. */
#include "http/h1_pace.c"

#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

static as_loop loop;
static as_counters counters;
static as_gate gate;
static as_net net;
static as_limits limits;
static as_epoch epoch = {.limits = &limits};
static as_exchange x;
static int peer;
static int64_t taken;

static void nothing(as_conn *conn)
{
    (void)conn;
}

static const as_protocol_ops idle = {
    .name = "idle", .advance = nothing, .timed_out = nothing, .drain = nothing, .closing = nothing};

static int64_t told(as_conn *conn)
{
    (void)conn;
    return taken;
}

static const as_transport_ops fake = {.name = "fake", .taken = told};

static void begin(uint32_t min_rate, as_phase phase)
{
    int pair[2];
    CHECK_INT(as_loop_init(&loop), AS_OK);
    as_gate_init(&gate, NULL);
    CHECK(as_gate_enter(&gate, 1));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    peer = pair[1];
    limits = (as_limits){.min_rate = min_rate, .body_timeout_ms = 2000, .send_timeout_ms = 10000};
    net = (as_net){.loop = &loop, .counters = &counters, .protocol = &idle, .transport = &fake, .gate = &gate};
    as_address remote = {.any.sa_family = AF_UNIX};
    x = (as_exchange){.conn = as_conn_open(&net, pair[0], &remote, 0), .request.epoch = &epoch};
    CHECK(x.conn != NULL);
    x.conn->phase = phase;
    taken = 1000000;
}

static void end(void)
{
    as_net_cut(&net);
    as_loop_turn(&loop, 0);
    as_net_free(&net);
    as_loop_free(&loop);
    as_gate_free(&gate);
    close(peer);
}

static int64_t due(void)
{
    return x.conn->timer.due_tick;
}

/* As the loop does it: the timer is clear before it fires. */
static bool fire(void)
{
    as_timer_clear(&loop, &x.conn->timer);
    bool keeps = as_h1_keeps_pace(&x);
    CHECK(keeps == as_timer_is_set(&x.conn->timer));
    return keeps;
}

static void test_a_response(void)
{
    begin(500, AS_PHASE_SEND);
    as_h1_wait_for_client(&x, true);
    int64_t first = due();
    loop.now_ns += 9 * AS_NS_PER_S;
    as_h1_wait_for_client(&x, true); /* progress does not make the window longer */
    CHECK_INT(due(), first);
    taken += 5000; /* 500 bytes a second for 10 seconds, just so */
    CHECK(fire());
    CHECK(due() > first);
    taken += 4999;
    CHECK(!fire());
    end();
}

static void test_a_body(void)
{
    begin(500, AS_PHASE_BODY);
    as_h1_wait_for_body(&x);
    int64_t first = due();
    loop.now_ns += AS_NS_PER_S;
    x.spool.length += 10;
    as_h1_wait_for_body(&x);
    CHECK_INT(due(), first);
    x.spool.length += 990;
    CHECK(fire());
    x.spool.length += 999;
    CHECK(!fire());
    end();
}

/* Without a rate every piece begins the time anew, and the end of the time is the end. */
static void test_no_rate(void)
{
    begin(0, AS_PHASE_SEND);
    as_h1_wait_for_client(&x, false);
    int64_t first = due();
    loop.now_ns += AS_NS_PER_S;
    as_h1_wait_for_client(&x, false);
    CHECK_INT(due(), first);
    as_h1_wait_for_client(&x, true);
    CHECK(due() > first);
    taken += 1000000;
    CHECK(!fire());
    end();
    begin(0, AS_PHASE_BODY);
    as_h1_wait_for_body(&x);
    first = due();
    loop.now_ns += AS_NS_PER_S;
    as_h1_wait_for_body(&x);
    CHECK(due() > first);
    CHECK(!fire());
    end();
}

/* However small rate and window are: nothing at all is too slow. */
static void test_less_than_a_byte(void)
{
    begin(1, AS_PHASE_SEND);
    limits.send_timeout_ms = 10;
    as_h1_wait_for_client(&x, true);
    CHECK(!fire());
    end();
}

/* A client that waits for us is not slow. */
static void test_waiting_for_the_schedule(void)
{
    as_schedule schedule;
    begin(500, AS_PHASE_SEND);
    as_schedule_init(&schedule, &loop);
    as_h1_wait_for_client(&x, true);
    as_schedule_put(&schedule, &x.job, 1000, 1);
    CHECK(fire());
    as_schedule_leave(&schedule, &x.job);
    CHECK(!fire());
    as_schedule_free(&schedule);
    end();
}

/* A transport that does not know: what its buffer took has to do. */
static void test_unknown(void)
{
    begin(500, AS_PHASE_SEND);
    taken = AS_ESYSTEM;
    as_h1_wait_for_client(&x, true);
    x.body_sent += 5000;
    CHECK(fire());
    CHECK(!fire());
    CHECK(as_plain_transport(&(as_tuning){0})->taken(x.conn) < 0); /* a unix socket */
    end();
}

int main(void)
{
    test_a_response();
    test_a_body();
    test_no_rate();
    test_less_than_a_byte();
    test_waiting_for_the_schedule();
    test_unknown();
    return check_result("pace");
}
