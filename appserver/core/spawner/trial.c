#include "spawner/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "handler/frame.h"

enum {
    SIDES = 2,
    DIFFERENCE_SIZE = 512,
    /* Bytes that are shown of what differs: a few before the first that does, some behind it. */
    SHOWN_BEFORE = 8,
    SHOWN_BEHIND = 24,
    /* Of a shown byte that has to be written as an escape. */
    ESCAPE = 4,
    EXCERPT_SIZE = (SHOWN_BEFORE + SHOWN_BEHIND) * ESCAPE + 1,
    STATUS_SIZE = 32,
};

typedef struct trial_run {
    as_buf output;
    as_buf errors;
    int status;
    bool is_over;
} trial_run;

struct as_trial {
    char *script;
    as_trial_over *over;
    void *owner;
    bool is_abandoned;
    trial_run runs[SIDES];
};

as_trial *as_trial_new(const char *script, as_trial_over *over, void *owner)
{
    as_trial *trial = as_alloc(sizeof(*trial));
    trial->script = as_strdup(as_str_from(script));
    trial->over = over;
    trial->owner = owner;
    return trial;
}

void as_trial_abandon(as_trial *trial)
{
    trial->is_abandoned = true;
}

bool as_trial_is_abandoned(const as_trial *trial)
{
    return trial->is_abandoned;
}

void as_trial_add_errors(as_trial *trial, as_trial_side side, as_str bytes)
{
    as_buf *errors = &trial->runs[side].errors;
    if (bytes.len > AS_TRIAL_ERRORS - errors->len)
        as_trial_abandon(trial);
    else
        as_buf_add(errors, bytes);
}

void as_trial_widen(int output_fd)
{
    fcntl(output_fd, F_SETPIPE_SZ, 2 * AS_TRIAL_OUTPUT);
}

bool as_trial_is_too_much(int output_fd)
{
    int size = 0;
    return ioctl(output_fd, FIONREAD, &size) < 0 || size > AS_TRIAL_OUTPUT;
}

static int read_copy(int fd, as_buf *out, size_t len)
{
    char *at = as_buf_room(out, len);
    while (len > 0) {
        ssize_t got = read(fd, at, len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return AS_ESYSTEM;
        at += got;
        out->len += (size_t)got;
        len -= (size_t)got;
    }
    return AS_OK;
}

/* What is in the pipe, by way of another one that is as large. */
static int copy_output(int fd, as_buf *out)
{
    int copy[2];
    int size = 0;
    if (as_trial_is_too_much(fd) || pipe2(copy, O_CLOEXEC | O_NONBLOCK) < 0)
        return AS_ESYSTEM;
    int verdict = ioctl(fd, FIONREAD, &size) < 0 ? AS_ESYSTEM : AS_OK;
    fcntl(copy[1], F_SETPIPE_SZ, fcntl(fd, F_GETPIPE_SZ));
    if (verdict == AS_OK && size > 0)
        verdict = tee(fd, copy[1], (size_t)size, SPLICE_F_NONBLOCK) == size ? read_copy(copy[0], out, (size_t)size)
                                                                            : AS_ESYSTEM;
    close(copy[0]);
    close(copy[1]);
    return verdict;
}

/* --- comparison --- */

static void excerpt(const as_buf *from, size_t at, char out[EXCERPT_SIZE])
{
    size_t begin = at > SHOWN_BEFORE ? at - SHOWN_BEFORE : 0;
    size_t end = at + SHOWN_BEHIND < from->len ? at + SHOWN_BEHIND : from->len;
    size_t len = 0;
    for (size_t i = begin; i < end; i++) {
        unsigned char c = (unsigned char)from->ptr[i];
        if (c >= ' ' && c < 0x7f && c != '"' && c != '\\')
            out[len++] = (char)c;
        else
            len += (size_t)snprintf(out + len, EXCERPT_SIZE - len, "\\x%02x", c);
    }
    out[len] = '\0';
}

static size_t first_difference(const as_buf *left, const as_buf *right)
{
    size_t least = left->len < right->len ? left->len : right->len;
    size_t at = 0;
    while (at < least && left->ptr[at] == right->ptr[at])
        at++;
    return at;
}

static bool is_same(const as_buf *left, const as_buf *right)
{
    return left->len == right->len && first_difference(left, right) == left->len;
}

/* Bytes of the header section with its empty line; all, when it has no end. */
static size_t head_len(const as_buf *output)
{
    for (size_t i = 0; i + 1 < output->len; i++) {
        if (output->ptr[i] != '\n')
            continue;
        if (output->ptr[i + 1] == '\n')
            return i + 2;
        if (output->ptr[i + 1] == '\r' && i + 2 < output->len && output->ptr[i + 2] == '\n')
            return i + 3;
    }
    return output->len;
}

static void say_where(char *text, size_t size, const char *what, size_t from, const as_buf *cold, const as_buf *warm)
{
    char shown[SIDES][EXCERPT_SIZE];
    size_t at = first_difference(cold, warm);
    excerpt(cold, at, shown[AS_TRIAL_COLD]);
    excerpt(warm, at, shown[AS_TRIAL_WARM]);
    snprintf(text, size, "%s from byte %zu: cold \"%s\", warm \"%s\"", what, at - from, shown[AS_TRIAL_COLD],
             shown[AS_TRIAL_WARM]);
}

static void print_status(int status, char text[STATUS_SIZE])
{
    bool is_signal = status >= AS_END_SIGNAL;
    snprintf(text, STATUS_SIZE, "%s %d", is_signal ? "signal" : "exit code",
             is_signal ? status - AS_END_SIGNAL : status);
}

/* False: nothing differs. */
static bool compare(const as_trial *trial, char *text, size_t size)
{
    const trial_run *cold = &trial->runs[AS_TRIAL_COLD];
    const trial_run *warm = &trial->runs[AS_TRIAL_WARM];
    if (!is_same(&cold->output, &warm->output)) {
        size_t head = head_len(&cold->output);
        bool is_head = first_difference(&cold->output, &warm->output) < head;
        say_where(text, size, is_head ? "head" : "body", is_head ? 0 : head, &cold->output, &warm->output);
    } else if (!is_same(&cold->errors, &warm->errors)) {
        say_where(text, size, "stderr", 0, &cold->errors, &warm->errors);
    } else if (cold->status != warm->status) {
        char ends[SIDES][STATUS_SIZE];
        print_status(cold->status, ends[AS_TRIAL_COLD]);
        print_status(warm->status, ends[AS_TRIAL_WARM]);
        snprintf(text, size, "its end: cold %s, warm %s", ends[AS_TRIAL_COLD], ends[AS_TRIAL_WARM]);
    } else {
        return false;
    }
    return true;
}

static void free_trial(as_trial *trial)
{
    for (int i = 0; i < SIDES; i++) {
        as_buf_free(&trial->runs[i].output);
        as_buf_free(&trial->runs[i].errors);
    }
    as_free(trial->script);
    as_free(trial);
}

void as_trial_end(as_trial *trial, as_trial_side side, int output_fd, int status)
{
    trial_run *run = &trial->runs[side];
    assert(!run->is_over);
    run->is_over = true;
    run->status = status;
    if (!trial->is_abandoned && copy_output(output_fd, &run->output) != AS_OK)
        as_trial_abandon(trial);
    if (!trial->runs[SIDES - 1 - side].is_over)
        return;
    char difference[DIFFERENCE_SIZE];
    if (!trial->is_abandoned) {
        bool differs = compare(trial, difference, sizeof(difference));
        trial->over(trial->owner, trial->script, differs ? difference : NULL);
    }
    free_trial(trial);
}
