/* with: base/memory.c base/error.c loop/loop.c http/stream.c */
/* The core's end of a stream socket, with the test at the executor's. */
#include "http/stream.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

enum { PIECE = 4096 };

static as_loop loop;
static as_stream stream;
static int executor;
static int changes;

static void count_change(as_stream *which)
{
    CHECK(which == &stream);
    changes++;
}

static void begin(void)
{
    CHECK_INT(as_loop_init(&loop), AS_OK);
    changes = 0;
    executor = as_stream_open(&stream, &loop, count_change);
    CHECK(executor >= 0);
    CHECK((fcntl(executor, F_GETFL) & O_NONBLOCK) == 0);
    CHECK(fcntl(executor, F_GETFD) & FD_CLOEXEC);
}

static void end(void)
{
    as_stream_close(&stream);
    as_stream_close(&stream); /* nothing */
    as_loop_turn(&loop, 0);
    as_loop_free(&loop);
}

static void test_both_ways(void)
{
    char buf[PIECE];
    begin();
    CHECK_INT(as_stream_write(&stream, AS_STR("hello")), 5);
    CHECK_INT(read(executor, buf, sizeof(buf)), 5);
    CHECK(!stream.is_watched); /* nobody has had to wait */
    CHECK_INT(as_stream_read(&stream, buf, sizeof(buf)), AS_EAGAIN);
    CHECK(stream.is_watched && !stream.is_readable);
    CHECK_INT(write(executor, "world", 5), 5);
    as_loop_turn(&loop, 1000);
    CHECK(stream.is_readable && changes > 0);
    CHECK_INT(as_stream_read(&stream, buf, sizeof(buf)), 5);
    as_stream_shut_writing(&stream);
    CHECK_INT(read(executor, buf, sizeof(buf)), 0);
    shutdown(executor, SHUT_WR);
    CHECK_INT(as_stream_read(&stream, buf, sizeof(buf)), 0);
    close(executor);
    end();
}

static void test_full_and_empty_again(void)
{
    static char piece[PIECE];
    size_t written = 0, taken = 0;
    begin();
    ssize_t n;
    while ((n = as_stream_write(&stream, as_str_of(piece, sizeof(piece)))) > 0)
        written += (size_t)n;
    CHECK_INT(n, AS_EAGAIN);
    CHECK(!stream.is_writable);
    as_loop_turn(&loop, 0);
    changes = 0;
    while (taken < written)
        taken += (size_t)read(executor, piece, sizeof(piece));
    as_loop_turn(&loop, 1000);
    CHECK(stream.is_writable && changes > 0);
    CHECK_INT(as_stream_write(&stream, AS_STR("x")), 1);
    close(executor);
    end();
}

static void test_the_other_end_goes(void)
{
    char buf[PIECE];
    begin();
    CHECK_INT(as_stream_watch(&stream), AS_OK);
    as_loop_turn(&loop, 0);
    CHECK(!stream.is_hung_up);
    CHECK_INT(write(executor, "last", 4), 4);
    close(executor);
    as_loop_turn(&loop, 1000);
    CHECK(stream.is_hung_up && stream.is_readable);
    CHECK_INT(as_stream_write(&stream, AS_STR("x")), AS_ECLOSED);
    CHECK_INT(as_stream_read(&stream, buf, sizeof(buf)), 4);
    CHECK_INT(as_stream_read(&stream, buf, sizeof(buf)), 0);
    end();
}

static void test_closed_within_the_turn_of_its_event(void)
{
    begin();
    CHECK_INT(as_stream_watch(&stream), AS_OK);
    as_stream_close(&stream);
    CHECK_INT(write(executor, "x", 1), -1);
    as_loop_turn(&loop, 0);
    CHECK_INT(changes, 0);
    close(executor);
    end();
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_both_ways();
    test_full_and_empty_again();
    test_the_other_end_goes();
    test_closed_within_the_turn_of_its_event();
    return check_result("stream");
}
