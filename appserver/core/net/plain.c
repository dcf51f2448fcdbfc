#include <errno.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/connection.h"

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

static ssize_t plain_write(as_conn *conn, const struct iovec *parts, int count, bool more)
{
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    if (count == 1) /* spares the kernel the copying in of two structures */
        return result_of(send(conn->watch.fd, parts->iov_base, parts->iov_len, flags));
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return result_of(sendmsg(conn->watch.fd, &message, flags));
}

static ssize_t plain_send_file(as_conn *conn, int fd, int64_t offset, size_t len)
{
    off_t at = offset;
    return result_of(sendfile(conn->watch.fd, fd, &at, len));
}

const as_transport_ops as_plain_transport = {
    .name = "plain",
    .read = plain_read,
    .write = plain_write,
    .send_file = plain_send_file,
};
