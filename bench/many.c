/* many.c: a load generator for what wrk cannot do: thousands of connections (wrk keeps 8 KiB of buffer for each and becomes the limit itself), large bodies (received without being
 * copied), and a mix of files whose times are wanted by class of size.
 *
 *   many ADDRESS PORT CONNECTIONS SECONDS keep|close FILE
 *
 * FILE has one line for each file: CLASS WEIGHT SIZE PATH, the class a small number. Each connection asks for a file, reads the response to its last byte, and asks for the next, chosen by
 * weight with a generator that is seeded alike in every run. Prints one JSON object. Everything that is not a whole 200 response of the right size ends it with status 1. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_EVENTS = 512,
    MAX_CLASSES = 8,
    MAX_FILES = 100 * 1000,
    PATH_SIZE = 128,
    HEAD_MAX = 4096,
    PIECE = 256 * 1024,
    SUB_BITS = 6, /* 64 steps in each power of two: times are exact to 1.6 % */
    BUCKETS = 64 << SUB_BITS,
    WARM_UP_MS = 300,
};

typedef struct file {
    char *request;
    uint32_t request_len;
    uint32_t class;
    uint64_t size;
    double until; /* sum of weights up to here */
} file;

typedef struct client {
    int fd;
    uint32_t file;
    int64_t began_ns;
    uint64_t left; /* of the body */
    bool in_body;
    bool counted; /* began after the warm-up */
} client;

typedef struct histogram {
    uint64_t count;
    double sum_ns;
    uint64_t buckets[BUCKETS];
} histogram;

static struct sockaddr_in server;
static file *files;
static uint32_t files_len;
static histogram by_class[MAX_CLASSES + 1]; /* the last: all */
static uint64_t bytes_received;
static uint64_t answered; /* also before the count began, for CPU time that is of the whole run */
static uint64_t dice = 0x9e3779b97f4a7c15;
static bool closes;
static bool warm;
static int epoll_fd;
static char piece[PIECE];

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "many: %s%s%s\n", what, errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* xorshift64*: the same files in the same order against every server. */
static double next_random(void)
{
    dice ^= dice >> 12;
    dice ^= dice << 25;
    dice ^= dice >> 27;
    return (double)((dice * 0x2545f4914f6cdd1dull) >> 11) / (double)(1ull << 53);
}

static uint32_t pick_file(void)
{
    double wanted = next_random() * files[files_len - 1].until;
    uint32_t low = 0, high = files_len - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (files[middle].until <= wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint32_t bucket_of(uint64_t ns)
{
    if (ns < 1u << SUB_BITS)
        return (uint32_t)ns;
    int power = 63 - __builtin_clzll(ns);
    uint32_t step = (uint32_t)(ns >> (power - SUB_BITS)) & ((1u << SUB_BITS) - 1);
    return ((uint32_t)(power - SUB_BITS + 1) << SUB_BITS) + step;
}

static double ns_of(uint32_t bucket)
{
    if (bucket < 1u << SUB_BITS)
        return bucket;
    uint32_t power = (bucket >> SUB_BITS) + SUB_BITS - 1;
    return (double)((1ull << SUB_BITS) + (bucket & ((1u << SUB_BITS) - 1))) * (double)(1ull << (power - SUB_BITS));
}

static void add(histogram *times, int64_t ns)
{
    times->count++;
    times->sum_ns += (double)ns;
    times->buckets[bucket_of((uint64_t)ns)]++;
}

static double quantile_ns(const histogram *times, double part)
{
    uint64_t wanted = (uint64_t)((double)times->count * part), seen = 0;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        seen += times->buckets[i];
        if (seen > wanted)
            return ns_of(i);
    }
    return 0;
}

static void print(const char *name, const histogram *times)
{
    double count = times->count > 0 ? (double)times->count : 1;
    printf("\"%s\": {\"requests\": %llu, \"mean_ms\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f}", name,
           (unsigned long long)times->count, times->sum_ns / count / 1e6, quantile_ns(times, 0.5) / 1e6,
           quantile_ns(times, 0.99) / 1e6);
}

static void read_files(const char *path, const char *host)
{
    FILE *list = fopen(path, "r");
    if (list == NULL)
        die(path);
    files = calloc(MAX_FILES, sizeof(*files));
    char name[PATH_SIZE];
    unsigned class;
    double weight, total = 0;
    unsigned long long size;
    while (files_len < MAX_FILES && fscanf(list, "%u %lf %llu %127s", &class, &weight, &size, name) == 4) {
        file *made = &files[files_len++];
        if (class >= MAX_CLASSES)
            die("a class is larger than 7");
        total += weight;
        *made = (file){.class = class, .size = size, .until = total};
        int len = asprintf(&made->request, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", name, host,
                           closes ? "Connection: close\r\n" : "");
        if (len < 0)
            die("asprintf");
        made->request_len = (uint32_t)len;
    }
    fclose(list);
    if (files_len == 0)
        die("no files in the list");
}

static void send_request(client *c)
{
    c->file = pick_file();
    c->in_body = false;
    c->counted = warm;
    const file *wanted = &files[c->file];
    if (!closes)
        c->began_ns = now_ns();
    if (send(c->fd, wanted->request, wanted->request_len, MSG_NOSIGNAL) != (ssize_t)wanted->request_len)
        die("send");
}

static void open_connection(client *c)
{
    c->began_ns = now_ns();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(c->fd, (struct sockaddr *)&server, sizeof(server)) < 0 && errno != EINPROGRESS)
        die("connect");
    /* Writable once, when connected; afterwards only what can be read matters. */
    struct epoll_event event = {.events = EPOLLOUT | EPOLLONESHOT, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void on_connected(client *c)
{
    int error = 0;
    socklen_t len = sizeof(error);
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    errno = error;
    if (error != 0)
        die("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event) < 0)
        die("epoll_ctl");
    send_request(c);
}

static void response_is_over(client *c)
{
    int64_t took = now_ns() - c->began_ns;
    answered++;
    if (c->counted) {
        add(&by_class[files[c->file].class], took);
        add(&by_class[MAX_CLASSES], took);
        bytes_received += files[c->file].size;
    }
    if (closes) {
        close(c->fd);
        open_connection(c);
    } else {
        send_request(c);
    }
}

/* A head that comes in pieces is looked at again when more of it is there. */
static bool take_head(client *c)
{
    errno = 0;
    ssize_t n = recv(c->fd, piece, HEAD_MAX, MSG_PEEK);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        die("a connection was closed before its response");
    piece[n] = '\0';
    char *end = strstr(piece, "\r\n\r\n");
    if (end == NULL) {
        if (n == HEAD_MAX)
            die("a head is larger than 4 KiB");
        return false;
    }
    const char *length = strcasestr(piece, "\r\ncontent-length:");
    if (strncmp(piece, "HTTP/1.1 200 ", 13) != 0 || length == NULL || length > end ||
        strtoull(length + 17, NULL, 10) != files[c->file].size) {
        *end = '\0';
        errno = 0;
        die(piece);
    }
    size_t head = (size_t)(end + 4 - piece);
    uint64_t there = (uint64_t)n - head;
    size_t take = head + (there < files[c->file].size ? there : files[c->file].size);
    if (recv(c->fd, piece, take, 0) != (ssize_t)take)
        die("recv");
    c->left = files[c->file].size - (take - head);
    c->in_body = true;
    return true;
}

static void on_readable(client *c)
{
    if (!c->in_body && !take_head(c))
        return;
    while (c->left > 0) {
        /* MSG_TRUNC: TCP drops the bytes and copies nothing, so that it is the server which is measured. */
        ssize_t n = recv(c->fd, NULL, c->left < PIECE ? c->left : PIECE, MSG_TRUNC);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            die("a connection was closed in the middle of a response");
        c->left -= (uint64_t)n;
    }
    response_is_over(c);
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: many ADDRESS PORT CONNECTIONS SECONDS keep|close FILE\n");
        return 2;
    }
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
        die("the address");
    int connections = atoi(argv[3]);
    closes = strcmp(argv[5], "close") == 0;
    read_files(argv[6], argv[1]);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client *clients = calloc((size_t)connections, sizeof(*clients));
    int64_t begin = now_ns();
    int64_t warm_at = begin + WARM_UP_MS * 1000000ll;
    int64_t end = warm_at + (int64_t)(atof(argv[4]) * 1e9);
    for (int i = 0; i < connections; i++)
        open_connection(&clients[i]);
    struct epoll_event events[MAX_EVENTS];
    int64_t now = begin;
    while (now < end) {
        int n = epoll_wait(epoll_fd, events, MAX_EVENTS, 1000);
        for (int i = 0; i < n; i++) {
            client *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                on_connected(c);
            else
                on_readable(c);
        }
        now = now_ns();
        if (!warm && now >= warm_at) {
            warm = true;
            warm_at = now;
        }
    }
    printf("{\"seconds\": %.6f, \"bytes\": %llu, \"answered\": %llu, ", (double)(now - warm_at) / 1e9,
           (unsigned long long)bytes_received, (unsigned long long)answered);
    print("all", &by_class[MAX_CLASSES]);
    for (int i = 0; i < MAX_CLASSES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%d", i);
        if (by_class[i].count > 0) {
            printf(", ");
            print(name, &by_class[i]);
        }
    }
    printf("}\n");
    return 0;
}
