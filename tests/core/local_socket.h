/* local_socket.h: listening sockets and clients of C tests, on 127.0.0.1. */
#ifndef AS_TESTS_LOCAL_SOCKET_H
#define AS_TESTS_LOCAL_SOCKET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"

/* Listens, not blocking, at the port of `address`; for 0 the kernel gives one, which is in `address` then. `shared`: several may listen there. */
static int listen_at(struct sockaddr_in *address, bool shared)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = shared;
    *address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = address->sin_port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(*address);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0);
    CHECK(bind(fd, (struct sockaddr *)address, len) == 0 && listen(fd, 256) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)address, &len) == 0);
    return fd;
}

/* A client that waits for an answer for half a minute at most; -1 when nobody listens. */
static int connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 30};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return fd;
    close(fd);
    return -1;
}

#endif
