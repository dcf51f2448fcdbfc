/* cgi.h: from one request frame to a program that runs, or to the answer that says why none does. Loop thread. */
#ifndef AS_SPAWNER_CGI_H
#define AS_SPAWNER_CGI_H

#include "base/memory.h"
#include "handler/frame.h"
#include "spawner/variables.h"
#include "spawner/running.h"
#include "spawner/spawner.h"
#include "spawner/warm.h"

typedef struct as_attempt as_attempt;

enum {
    /* Variables that the configuration adds. */
    AS_DEFAULTS_MAX = 256,
};

/* What turning requests into programs needs. */
typedef struct as_cgi_runner {
    /* set before start */
    as_running_set *running;
    as_answers *answers;
    as_event_ring *events;
    as_launcher launcher;
    as_identities identities;
    char *interpreters;
    char *usual_interpreters;
    char *defaults_text;
    char *defaults[AS_DEFAULTS_MAX + 1]; /* ended by NULL */
    uint32_t defaults_count;
    /* the request at hand */
    as_variables variables;
    as_arena arena;
    as_attempt *attempt;
    bool is_held; /* the attempt waits for a warm process */
    /* set before start, by as_cgi_runner_warm() */
    as_warm *warm; /* NULL: programs start cold */
    bool verifies; /* what could be warm is run both ways where that does no harm, else cold */
    void (*resumable)(void *owner);
    void *owner;
} as_cgi_runner;

/* `runner` is zeroed; its first three fields are set by the caller, before the first request. AS_OK, AS_EINVALID, or AS_ESYSTEM; as_cgi_runner_free() in any case. */
int as_cgi_runner_init(as_cgi_runner *runner, const as_spawner_options *options);
/* Afterwards programs are run by interpreters that have started already, where that can be; `resumable`: the request that is held should be resumed. AS_OK or AS_ESYSTEM. */
int as_cgi_runner_warm(as_cgi_runner *runner, const as_spawner_options *options, as_loop *loop,
                       void (*resumable)(void *owner), void *owner);
void as_cgi_runner_free(as_cgi_runner *runner);

/* Runs the request and sends its first answer. `frame` is of kind run and lies in memory that may be written; `slot` is its slot; `body_fd` (-1: none) is
 * taken. The set of running programs has room. AS_OK, also when no program came of it; AS_EBADFRAME when the environment is malformed; AS_EAGAIN when it is held: no other
 * request may be run before as_cgi_resume() has said something else, and `frame` has to stay. */
int as_cgi_run(as_cgi_runner *runner, const as_request_frame *frame, as_slot *slot, int64_t now_ns, int body_fd);
/* Goes on with the request that is held. As as_cgi_run(). */
int as_cgi_resume(as_cgi_runner *runner);
/* Answers `skipped`. */
void as_cgi_skip(const as_cgi_runner *runner, const as_request_head *head);
/* Answers with an error (400 .. 599). It comes without header block and body, so that the core makes its own error page of it; only 503 says more. */
void as_cgi_refuse(const as_cgi_runner *runner, const as_request_head *head, uint16_t status);

#endif
