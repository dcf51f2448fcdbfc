/* plain.c: TCP without encryption, in as many variants as there are ways to write (paper, section IV). A variant is a row of a table that a connection has for
 * life, so whichever is chosen, the usual way has no branch for the others. */
#include <errno.h>
#include <linux/tcp.h> /* the C library's copy of tcp_info ends before tcpi_bytes_acked */
#include <netinet/in.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/connection.h"

enum { COPY_PIECE = 64 * 1024 };

static ssize_t result_of(ssize_t n)
{
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EINTR ? AS_EAGAIN : AS_ECLOSED;
}

static ssize_t plain_read(as_conn *conn, void *buf, size_t len)
{
    return result_of(recv(conn->watch.fd, buf, len, 0));
}

/* Writing: all pieces in one call, or each in its own. */

static ssize_t gather(as_conn *conn, const struct iovec *parts, int count, bool more)
{
    int flags = MSG_NOSIGNAL | (more ? conn->transport->more_flag : 0);
    if (count == 1) /* spares the kernel the copying in of two structures */
        return result_of(send(conn->watch.fd, parts->iov_base, parts->iov_len, flags));
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return result_of(sendmsg(conn->watch.fd, &message, flags));
}

static ssize_t separate(as_conn *conn, const struct iovec *parts, int count, bool more)
{
    ssize_t sent = 0;
    for (int i = 0; i < count; i++) {
        bool follows = more || i + 1 < count;
        int flags = MSG_NOSIGNAL | (follows ? conn->transport->more_flag : 0);
        ssize_t n = result_of(send(conn->watch.fd, parts[i].iov_base, parts[i].iov_len, flags));
        if (n < 0)
            return sent > 0 ? sent : n;
        sent += n;
        if ((size_t)n < parts[i].iov_len)
            break;
    }
    return sent;
}

/* Files: by the kernel, or through a buffer on the stack. What the socket does not take of the buffer is read again the next time, so that a slow client
 * holds no memory. */

static ssize_t by_sendfile(as_conn *conn, int fd, int64_t offset, size_t len, bool more)
{
    (void)more; /* sendfile sets it for all but its last packet, and the next call follows at once */
    off_t at = offset;
    return result_of(sendfile(conn->watch.fd, fd, &at, len));
}

static ssize_t by_copy(as_conn *conn, int fd, int64_t offset, size_t len, bool more)
{
    char piece[COPY_PIECE];
    size_t sent = 0;
    while (sent < len) {
        size_t want = len - sent < sizeof(piece) ? len - sent : sizeof(piece);
        ssize_t got = pread(fd, piece, want, offset + (int64_t)sent);
        if (got <= 0) /* shorter than it was, or broken: what the caller was promised cannot come */
            return sent > 0 ? (ssize_t)sent : got == 0 ? 0 : AS_ECLOSED;
        bool follows = more || sent + (size_t)got < len;
        int flags = MSG_NOSIGNAL | (follows ? conn->transport->more_flag : 0);
        ssize_t n = result_of(send(conn->watch.fd, piece, (size_t)got, flags));
        if (n < 0)
            return sent > 0 ? (ssize_t)sent : n;
        sent += (size_t)n;
        if (n < got)
            break;
    }
    return (ssize_t)sent;
}

static int64_t bytes_taken(as_conn *conn)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    if (getsockopt(conn->watch.fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
        len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked))
        return AS_ESYSTEM;
    return (int64_t)info.tcpi_bytes_acked;
}

/* TCP_CORK around all that belongs together, the paper's way. Two system calls more than MSG_MORE, but sendfile hands the file over in pieces of 64 KiB and lets the end of each go out
 * as a short packet; under a cork only the last one is short, which at 1 MiB and more is worth a seventh of the CPU time. Pulled out when the last byte is with the kernel; a response
 * that is cut off closes its socket, which does the same. */

static void set_cork(as_conn *conn, bool on)
{
    int value = on;
    setsockopt(conn->watch.fd, IPPROTO_TCP, TCP_CORK, &value, sizeof(value));
    conn->corked = on;
}

static size_t total(const struct iovec *parts, int count)
{
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += parts[i].iov_len;
    return len;
}

static ssize_t corked_write(as_conn *conn, const struct iovec *parts, int count, bool more)
{
    const as_transport_ops *ops = conn->transport;
    if (AS_LIKELY(!more && !conn->corked && ops->write_under_cork == gather))
        return gather(conn, parts, count, false);
    if (!conn->corked && (more || (ops->write_under_cork == separate && count > 1)))
        set_cork(conn, true);
    ssize_t n = ops->write_under_cork(conn, parts, count, more);
    if (conn->corked && !more && n >= 0 && (size_t)n == total(parts, count))
        set_cork(conn, false);
    return n;
}

static ssize_t corked_file(as_conn *conn, int fd, int64_t offset, size_t len, bool more)
{
    ssize_t n = conn->transport->send_file_under_cork(conn, fd, offset, len, more);
    if (conn->corked && !more && n >= 0 && (size_t)n == len)
        set_cork(conn, false);
    return n;
}

#define ROW(row_name, row_write, row_file, flag) \
    {.name = row_name,                           \
     .read = plain_read,                         \
     .write = row_write,                         \
     .send_file = row_file,                      \
     .taken = bytes_taken,                       \
     .more_flag = flag}
#define CORKED_ROW(row_name, row_write, row_file) \
    {.name = row_name,                            \
     .read = plain_read,                          \
     .write = corked_write,                       \
     .send_file = corked_file,                    \
     .taken = bytes_taken,                        \
     .write_under_cork = row_write,               \
     .send_file_under_cork = row_file}

/* By as_cork, then whether pieces are written separately, then whether files are copied. */
static const as_transport_ops variants[3][2][2] = {
    [AS_CORK_MORE] =
        {
            {ROW("plain", gather, by_sendfile, MSG_MORE), ROW("plain, copying", gather, by_copy, MSG_MORE)},
            {ROW("plain, separate", separate, by_sendfile, MSG_MORE),
             ROW("plain, separate, copying", separate, by_copy, MSG_MORE)},
        },
    [AS_CORK_CORK] =
        {
            {CORKED_ROW("corked", gather, by_sendfile), CORKED_ROW("corked, copying", gather, by_copy)},
            {CORKED_ROW("corked, separate", separate, by_sendfile),
             CORKED_ROW("corked, separate, copying", separate, by_copy)},
        },
    [AS_CORK_OFF] =
        {
            {ROW("loose", gather, by_sendfile, 0), ROW("loose, copying", gather, by_copy, 0)},
            {ROW("loose, separate", separate, by_sendfile, 0), ROW("loose, separate, copying", separate, by_copy, 0)},
        },
};

const as_transport_ops *as_plain_transport(const as_tuning *tuning)
{
    assert(tuning->cork <= AS_CORK_OFF);
    return &variants[tuning->cork][tuning->write_separate != 0][tuning->no_sendfile != 0];
}
