#include "http/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    BUFFER_SIZE = 64 * 1024,
    FIELD_MAX = 2048, /* of each text that a client chose, as it is written; longer ones are cut */
    LINE_FIELDS = 4,  /* such texts in a line: host, target, referer, user agent */
    LINE_MAX_SIZE =
        LINE_FIELDS * FIELD_MAX + 1024, /* the rest of a line is short, so no line is cut: it would be no JSON */
    STOP_PATIENCE_S = 2,                /* how long the last lines may take at the end, when nobody reads them */
};

struct as_access_lane {
    as_access_log *log;
    char *filling;
    uint32_t len;
    uint64_t dropped;
    int64_t stamp_s; /* the second that `stamp` spells */
    as_log_format stamp_format;
    char stamp[40];
    char *full AS_ALIGNED_LINE; /* handed over: the writer's until it sets full_len to 0 */
    uint32_t full_len;
};

struct as_access_log {
    int loops;
    int fd;
    as_log_format format; /* read by loops without a lock: a line in the old format after a change is harmless */
    pthread_t thread;
    pthread_mutex_t lock; /* fd, stopping, work */
    pthread_cond_t changed;
    bool work;
    bool stopping;
    as_access_lane *lanes;
};

static void write_out(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            usleep(1000); /* somebody made our stdout non-blocking */
            continue;
        }
        if (n < 0)
            return; /* a closed pipe or a full disk: the lines are lost, the server goes on */
        data += n;
        len -= (size_t)n;
    }
}

static void write_lanes(as_access_log *log, int fd)
{
    for (int i = 0; i < log->loops; i++) {
        as_access_lane *lane = &log->lanes[i];
        uint32_t len = __atomic_load_n(&lane->full_len, __ATOMIC_ACQUIRE);
        if (len == 0)
            continue;
        write_out(fd, lane->full, len);
        __atomic_store_n(&lane->full_len, 0, __ATOMIC_RELEASE);
    }
}

/* The last thing: what the loops, which have ended, had not handed over. */
static void write_rest(as_access_log *log, int fd)
{
    for (int i = 0; i < log->loops; i++) {
        write_out(fd, log->lanes[i].filling, log->lanes[i].len);
        log->lanes[i].len = 0;
    }
}

static void close_copy(void *fd)
{
    close(*(int *)fd);
}

static void write_all(as_access_log *log, int fd, bool stopping)
{
    /* Ours is a duplicate, so that a reopen does not close it under the write. */
    pthread_cleanup_push(close_copy, &fd);
    write_lanes(log, fd);
    if (stopping)
        write_rest(log, fd);
    pthread_cleanup_pop(1);
}

static void *write_thread(void *argument)
{
    as_access_log *log = argument;
    pthread_mutex_lock(&log->lock);
    for (;;) {
        while (!log->work && !log->stopping)
            pthread_cond_wait(&log->changed, &log->lock);
        bool stopping = log->stopping;
        log->work = false;
        int fd = fcntl(log->fd, F_DUPFD_CLOEXEC, 0);
        pthread_mutex_unlock(&log->lock);
        if (fd >= 0)
            write_all(log, fd, stopping);
        pthread_mutex_lock(&log->lock);
        if (stopping && !log->work)
            break;
    }
    pthread_mutex_unlock(&log->lock);
    return NULL;
}

as_access_log *as_access_log_new(int loops, int fd, as_log_format format)
{
    as_access_log *log = as_alloc(sizeof(*log));
    log->loops = loops;
    log->format = format;
    log->lanes = as_alloc_lines((size_t)loops * sizeof(as_access_lane));
    log->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->changed, NULL);
    for (int i = 0; i < loops; i++) {
        log->lanes[i].log = log;
        log->lanes[i].filling = as_alloc(BUFFER_SIZE);
        log->lanes[i].full = as_alloc(BUFFER_SIZE);
    }
    if (log->fd < 0 || pthread_create(&log->thread, NULL, write_thread, log) != 0) {
        int saved = errno;
        log->thread = 0;
        as_access_log_free(log);
        errno = saved;
        return NULL;
    }
    return log;
}

int as_access_log_reopen(as_access_log *log, int fd, as_log_format format)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return AS_ESYSTEM;
    pthread_mutex_lock(&log->lock);
    close(log->fd);
    log->fd = copy;
    __atomic_store_n(&log->format, format, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&log->lock);
    return AS_OK;
}

as_access_lane *as_access_log_lane(as_access_log *log, int loop)
{
    assert(loop >= 0 && loop < log->loops);
    return &log->lanes[loop];
}

static void wake_writer(as_access_log *log, bool stop)
{
    pthread_mutex_lock(&log->lock);
    log->work = true;
    log->stopping = log->stopping || stop;
    pthread_cond_signal(&log->changed);
    pthread_mutex_unlock(&log->lock);
}

/* A reader that has stopped reading must not keep a server from ending: write(2) is a cancellation point. */
static void end_writer(as_access_log *log)
{
    struct timespec until;
    wake_writer(log, true);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_PATIENCE_S;
    if (pthread_timedjoin_np(log->thread, NULL, &until) == 0)
        return;
    pthread_cancel(log->thread);
    pthread_join(log->thread, NULL);
}

void as_access_log_free(as_access_log *log)
{
    if (log->thread != 0)
        end_writer(log);
    for (int i = 0; i < log->loops; i++) {
        as_free(log->lanes[i].filling);
        as_free(log->lanes[i].full);
    }
    if (log->fd >= 0)
        close(log->fd);
    pthread_mutex_destroy(&log->lock);
    pthread_cond_destroy(&log->changed);
    as_free(log->lanes);
    as_free(log);
}

void as_access_log_flush(as_access_lane *lane)
{
    if (lane->len == 0 || __atomic_load_n(&lane->full_len, __ATOMIC_ACQUIRE) != 0)
        return;
    char *filled = lane->filling;
    lane->filling = lane->full;
    lane->full = filled;
    __atomic_store_n(&lane->full_len, lane->len, __ATOMIC_RELEASE);
    lane->len = 0;
    wake_writer(lane->log, false);
}

bool as_access_log_pending(const as_access_lane *lane)
{
    return lane->len > 0;
}

/* Lines. */

typedef struct line {
    char *at;
    char *end;
} line;

static void put(line *l, as_str s)
{
    size_t room = (size_t)(l->end - l->at);
    size_t n = s.len < room ? s.len : room;
    memcpy(l->at, s.ptr, n);
    l->at += n;
}

static void put_number(line *l, uint64_t value)
{
    char digits[20];
    put(l, as_str_of(digits, as_str_put_u64(digits, value)));
}

/* What a client chose, made harmless: quotes, backslashes and control bytes are escaped, so that no line can be forged. `json`: as RFC 8259 wants it, with bytes
 * that are not ASCII as the code points of the same number; else \xHH, as Apache does. */
static void put_escaped(line *l, as_str s, bool json)
{
    static const char hex[] = "0123456789abcdef";
    enum { ESCAPED_MAX = 6 };
    const char *stop = l->at + FIELD_MAX - ESCAPED_MAX;
    assert(l->end >= stop + ESCAPED_MAX);
    for (size_t i = 0; i < s.len && l->at <= stop; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c == '"' || c == '\\') {
            *l->at++ = '\\';
            *l->at++ = (char)c;
        } else if (c >= 0x20 && c < 0x7f) {
            *l->at++ = (char)c;
        } else {
            put(l, json ? AS_STR("\\u00") : AS_STR("\\x"));
            *l->at++ = hex[c >> 4];
            *l->at++ = hex[c & 15];
        }
    }
}

static void put_stamp(line *l, as_access_lane *lane, int64_t wall_s, as_log_format format)
{
    if (lane->stamp_s != wall_s || lane->stamp_format != format) {
        struct tm utc;
        time_t seconds = wall_s;
        gmtime_r(&seconds, &utc);
        strftime(lane->stamp, sizeof(lane->stamp),
                 format == AS_LOG_JSON ? "%Y-%m-%dT%H:%M:%SZ" : "%d/%b/%Y:%H:%M:%S +0000", &utc);
        lane->stamp_s = wall_s;
        lane->stamp_format = format;
    }
    put(l, as_str_from(lane->stamp));
}

static as_str or_dash(as_str s)
{
    return s.len > 0 ? s : AS_STR("-");
}

/* Whatever a program's local redirect has made of it. */
static as_str client_method(const as_request *request)
{
    return request->redirected != NULL ? request->redirected->client_method : request->head.method_text;
}

static void put_request_line(line *l, const as_request *request)
{
    if (client_method(request).len == 0) {
        put(l, AS_STR("-"));
        return;
    }
    put_escaped(l, client_method(request), false);
    put(l, AS_STR(" "));
    put_escaped(l, or_dash(request->head.target), false);
    put(l, request->head.minor == 0 ? AS_STR(" HTTP/1.0") : AS_STR(" HTTP/1.1"));
}

static void combined(line *l, as_access_lane *lane, const as_request *request, uint64_t bytes)
{
    put(l, or_dash(as_str_from(request->peer->remote_address)));
    put(l, AS_STR(" - - ["));
    put_stamp(l, lane, request->home->loop->wall_s, AS_LOG_COMBINED);
    put(l, AS_STR("] \""));
    put_request_line(l, request);
    put(l, AS_STR("\" "));
    put_number(l, request->response.status);
    put(l, AS_STR(" "));
    if (bytes == 0)
        put(l, AS_STR("-"));
    else
        put_number(l, bytes);
    put(l, AS_STR(" \""));
    put_escaped(l, or_dash(as_head_known(&request->head, AS_FIELD_REFERER)), false);
    put(l, AS_STR("\" \""));
    put_escaped(l, or_dash(as_head_known(&request->head, AS_FIELD_USER_AGENT)), false);
    put(l, AS_STR("\"\n"));
}

static void put_text(line *l, as_str key, as_str value)
{
    put(l, key);
    put_escaped(l, value, true);
    put(l, AS_STR("\""));
}

/* By hand, as the request's number below: printf would take longer than the rest of the line. */
static void put_ms(line *l, as_str key, int64_t ns)
{
    uint64_t us = ((uint64_t)ns + AS_NS_PER_MS / 2000) / (AS_NS_PER_MS / 1000);
    char thousandths[] = {'.', (char)('0' + us / 100 % 10), (char)('0' + us / 10 % 10), (char)('0' + us % 10)};
    put(l, key);
    put_number(l, us / 1000);
    put(l, as_str_of(thousandths, sizeof(thousandths)));
}

static void put_id(line *l, as_str key, uint64_t id)
{
    char digits[16];
    for (int i = 15; i >= 0; i--, id >>= 4)
        digits[i] = "0123456789abcdef"[id & 15];
    put(l, key);
    put(l, as_str_of(digits, sizeof(digits)));
    put(l, AS_STR("\""));
}

static void json(line *l, as_access_lane *lane, const as_request *request, uint64_t bytes, bool cut)
{
    put(l, AS_STR("{\"time\":\""));
    put_stamp(l, lane, request->home->loop->wall_s, AS_LOG_JSON);
    put_id(l, AS_STR("\",\"request\":\""), request->id);
    put_text(l, AS_STR(",\"remote\":\""), as_str_from(request->peer->remote_address));
    put_text(l, AS_STR(",\"host\":\""), request->head.host);
    put_text(l, AS_STR(",\"method\":\""), client_method(request));
    put_text(l, AS_STR(",\"target\":\""), request->head.target);
    put(l, request->head.minor == 0 ? AS_STR(",\"protocol\":\"HTTP/1.0\",\"status\":")
                                    : AS_STR(",\"protocol\":\"HTTP/1.1\",\"status\":"));
    put_number(l, request->response.status);
    put(l, AS_STR(",\"bytes\":"));
    put_number(l, bytes);
    if (request->received > 0) {
        put(l, AS_STR(",\"received\":"));
        put_number(l, request->received);
    }
    put_ms(l, AS_STR(",\"duration_ms\":"), as_clock_monotonic_ns() - request->start_ns);
    if (request->queue_ns >= 0)
        put_ms(l, AS_STR(",\"queue_ms\":"), request->queue_ns);
    if (request->run_ns >= 0)
        put_ms(l, AS_STR(",\"run_ms\":"), request->run_ns);
    if (request->cpu_us >= 0)
        put_ms(l, AS_STR(",\"cpu_ms\":"), request->cpu_us * 1000);
    put_text(l, AS_STR(",\"referer\":\""), as_head_known(&request->head, AS_FIELD_REFERER));
    put_text(l, AS_STR(",\"user_agent\":\""), as_head_known(&request->head, AS_FIELD_USER_AGENT));
    put(l, cut ? AS_STR(",\"cut\":true}\n") : AS_STR("}\n"));
}

bool as_access_log_is_on(const as_access_lane *lane)
{
    return __atomic_load_n(&lane->log->format, __ATOMIC_RELAXED) != AS_LOG_OFF;
}

void as_access_log_write(as_access_lane *lane, const as_request *request, uint64_t body_bytes, bool cut)
{
    as_log_format format = __atomic_load_n(&lane->log->format, __ATOMIC_RELAXED);
    if (format == AS_LOG_OFF)
        return;
    if (lane->len + LINE_MAX_SIZE > BUFFER_SIZE) {
        as_access_log_flush(lane);
        if (lane->len + LINE_MAX_SIZE > BUFFER_SIZE) {
            lane->dropped++;
            return;
        }
    }
    line l = {lane->filling + lane->len, lane->filling + lane->len + LINE_MAX_SIZE};
    if (lane->dropped > 0 && lane->len == 0) {
        char text[96];
        int len = snprintf(text, sizeof(text),
                           format == AS_LOG_JSON ? "{\"dropped\":%llu}\n" : "- - - [] \"%llu lines dropped\" 0 -\n",
                           (unsigned long long)lane->dropped);
        put(&l, as_str_of(text, (size_t)len));
        lane->dropped = 0;
    }
    if (format == AS_LOG_JSON)
        json(&l, lane, request, body_bytes, cut);
    else
        combined(&l, lane, request, body_bytes);
    assert(l.at < l.end);
    lane->len = (uint32_t)(l.at - lane->filling);
}
