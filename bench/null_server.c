/* null_server.c: the limit that servers are measured against: one epoll loop that answers whatever it receives with a constant, without parsing.
 *
 *   null_server PORT BODY_BYTES keep|close */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_EVENTS = 256, INPUT_SIZE = 16 * 1024, HEAD_SIZE = 512 };

typedef struct answer {
    char *bytes;
    size_t len;
    int closes;
} answer;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "null_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The fields that a file server sends, so that both put the same number of bytes on the wire. */
static answer make_answer(size_t body, int closes)
{
    answer made = {.bytes = malloc(HEAD_SIZE + body), .closes = closes};
    if (made.bytes == NULL)
        die("malloc");
    int head = snprintf(made.bytes, HEAD_SIZE,
                        "HTTP/1.1 200 OK\r\nServer: null\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n%s"
                        "Content-Length: %zu\r\nContent-Type: application/octet-stream\r\n"
                        "X-Content-Type-Options: nosniff\r\nAccept-Ranges: bytes\r\nETag: \"400-0123456789abcdef\"\r\n"
                        "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
                        closes ? "Connection: close\r\n" : "", body);
    memset(made.bytes + head, 'x', body);
    made.len = (size_t)head + body;
    return made;
}

static int listen_on(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, SOMAXCONN) < 0)
        die("listen");
    return fd;
}

static void accept_all(int epoll_fd, int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

static void answer_one(int fd, const answer *constant)
{
    char input[INPUT_SIZE];
    ssize_t n = recv(fd, input, sizeof(input), 0);
    if (n < 0 && errno == EAGAIN)
        return;
    /* The answer is small against a socket's buffer, and the client reads it before it asks again. */
    if (n <= 0 || send(fd, constant->bytes, constant->len, MSG_NOSIGNAL) != (ssize_t)constant->len || constant->closes)
        close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: null_server PORT BODY_BYTES keep|close\n");
        return 2;
    }
    answer constant = make_answer(strtoul(argv[2], NULL, 10), strcmp(argv[3], "close") == 0);
    int listener = listen_on((uint16_t)strtoul(argv[1], NULL, 10));
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll");
    for (;;) {
        struct epoll_event events[MAX_EVENTS];
        int ready = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                accept_all(epoll_fd, listener);
            else
                answer_one(events[i].data.fd, &constant);
        }
    }
}
