/* h1_pace.c: how slow a client may be (limits.min_rate).
 *
 * A time limit between two pieces lets a client hold an exchange, its buffers and maybe a spool file for days with a byte a minute. So it is looked at by windows
 * instead: the timer is not set anew by every piece, and when it fires, what came within the window decides. That costs nothing on the way, and one system call for
 * each window of a response: what a client has taken is what its system has acknowledged, since the socket's buffer takes megabytes from us at once
 * that the client may be minutes away from. */
#include "http/h1.h"

static const as_limits *limits_of(const as_exchange *x)
{
    return x->request.epoch->limits;
}

static bool is_receiving(const as_exchange *x)
{
    return x->conn->phase == AS_PHASE_BODY;
}

static uint64_t progress_of(const as_exchange *x)
{
    if (is_receiving(x))
        return x->spool.length;
    int64_t taken = x->conn->transport->taken(x->conn);
    return taken >= 0 ? (uint64_t)taken : x->body_sent;
}

static uint32_t window_ms(const as_exchange *x)
{
    return is_receiving(x) ? limits_of(x)->body_timeout_ms : limits_of(x)->send_timeout_ms;
}

static void begin_window(as_exchange *x)
{
    x->is_paced = true;
    x->pace_mark = progress_of(x);
    as_conn_set_timeout(x->conn, window_ms(x));
}

void as_h1_wait_for_body(as_exchange *x)
{
    if (limits_of(x)->min_rate == 0)
        as_conn_set_timeout(x->conn, limits_of(x)->body_timeout_ms);
    else if (!x->is_paced)
        begin_window(x);
}

void as_h1_wait_for_client(as_exchange *x, bool progress)
{
    if (limits_of(x)->min_rate != 0) {
        if (!x->is_paced)
            begin_window(x);
    } else if (progress || !as_timer_is_set(&x->conn->timer)) {
        as_conn_set_timeout(x->conn, limits_of(x)->send_timeout_ms);
    }
}

bool as_h1_keeps_pace(as_exchange *x)
{
    if (!x->is_paced)
        return false;
    uint64_t least = (uint64_t)limits_of(x)->min_rate * window_ms(x) / AS_MS_PER_S;
    uint64_t done = progress_of(x) - x->pace_mark;
    /* While a file waits for its turn in the schedule, it is not the client who is slow. */
    if (x->job.place == 0 && done < (least > 0 ? least : 1))
        return false;
    begin_window(x);
    return true;
}
