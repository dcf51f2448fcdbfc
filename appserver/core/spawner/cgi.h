/* cgi.h: from one request frame to a program that runs, or to the answer that says why none does. Loop thread. */
#ifndef AS_SPAWNER_CGI_H
#define AS_SPAWNER_CGI_H

#include "base/memory.h"
#include "handler/frame.h"
#include "spawner/variables.h"
#include "spawner/running.h"
#include "spawner/spawner.h"

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
    char *interpreters;
    char *defaults_text;
    char *defaults[AS_DEFAULTS_MAX];
    uint32_t defaults_count;
    /* the request at hand */
    as_variables variables;
    as_arena arena;
} as_cgi_runner;

/* `runner` is zeroed; its first three fields are set by the caller, before the first request. AS_OK, AS_EINVALID, or AS_ESYSTEM; as_cgi_runner_free() in any case. */
int as_cgi_runner_init(as_cgi_runner *runner, const as_spawner_options *options);
void as_cgi_runner_free(as_cgi_runner *runner);

/* Runs the request and sends its first answer. `frame` is of kind run and lies in memory that may be written; `slot` is its slot; `body_fd` (-1: none) is
 * taken. The set of running programs has room. AS_OK, also when no program came of it; AS_EBADFRAME when the environment is malformed. */
int as_cgi_run(as_cgi_runner *runner, const as_request_frame *frame, as_slot *slot, int64_t now_ns, int body_fd);
/* Answers `skipped`. */
void as_cgi_skip(const as_cgi_runner *runner, const as_request_head *head);
/* Answers with an error (400 .. 599). It comes without header block and body, so that the core makes its own error page of it; only 503 says more. */
void as_cgi_refuse(const as_cgi_runner *runner, const as_request_head *head, uint16_t status);

#endif
