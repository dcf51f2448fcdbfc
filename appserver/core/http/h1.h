/* h1.h: HTTP/1.0 and 1.1 on a connection (RFC 9112). Everything here is for the loop thread. */
#ifndef AS_HTTP_H1_H
#define AS_HTTP_H1_H

#include "http/chunked.h"
#include "http/request.h"
#include "http/spool.h"
#include "http/stream.h"
#include "net/connection.h"

extern const as_protocol_ops as_h1_protocol;

/* What a connection is doing. Steps are checked against a table (h1.c). */
typedef enum as_phase {
    AS_PHASE_IDLE,    /* no byte of a request yet; holds no buffer */
    AS_PHASE_HEAD,    /* receiving the head */
    AS_PHASE_BODY,    /* receiving the body that the handler wants */
    AS_PHASE_HANDLER, /* the handler has the request; it may get the body meanwhile */
    AS_PHASE_SEND,    /* sending the response; likewise */
    AS_PHASE_RELAY,   /* upgraded: another protocol's bytes go both ways (relay.h) */
    AS_PHASE_DISCARD, /* the response is out; the rest of a body that nobody wanted is read and dropped */
    AS_PHASE_LINGER, /* nothing more to send; reading until the client closes, so that it sees the answer before a reset */
} as_phase;

/* One request in progress: taken when its first byte arrives, given back when its response is out, kept for reuse. */
typedef struct as_exchange {
    struct as_exchange *next_free;
    as_deferred freeing;
    as_conn *conn;
    as_home *home;
    as_request request; /* request.handler_state etc. */
    as_peer peer;
    bool reused; /* begins behind an earlier request on the same connection */

    /* receiving */
    char *in; /* the head, then body bytes, then maybe the next request */
    uint32_t in_capacity;
    uint32_t in_len;
    uint32_t next; /* where unread input begins */
    uint32_t head_len;
    size_t scanned;
    as_chunked chunked;
    uint64_t body_left; /* of a Content-Length body */
    uint64_t discarded;
    int64_t linger_until_ns;
    as_spool spool;
    bool head_timed : 1;
    bool has_body : 1;
    bool body_done : 1;
    bool is_paced : 1;     /* the connection's timer ends a window of limits.min_rate */
    bool continue_due : 1; /* the client may be waiting for 100 (Continue), and then sends no body without it */
    uint64_t pace_mark;    /* what the client had sent or taken when the window began */

    /* passing the body on (h1_body.c) */
    as_stream stream;
    as_str unsent;       /* what the stream has not taken yet; in the input buffer */
    uint64_t streamed;   /* bytes of body that the client has sent */
    uint64_t feed_mark;  /* of them when the window of limits.min_rate began */
    as_timer feed_timer; /* set while the client is waited for */
    int64_t moved_ns;    /* when the stream last took something; 0: never */
    bool feeding : 1;    /* the executor has the other end of the stream, and the body goes into it */
    bool spent : 1;      /* some of the body is in it */
    bool upgraded : 1;   /* as_request_upgrade() was called */
    struct as_relay *relay;

    /* answering */
    bool in_handler : 1; /* handle() is on the stack: a response made meanwhile waits for its return */
    bool answered : 1;   /* request.response is complete */
    bool close_after : 1;
    bool head_only : 1;   /* HEAD, 204, 304: no body follows */
    bool chunks : 1;      /* the body goes out chunked */
    bool pipe_ended : 1;  /* nothing more will come out of the pipe */
    bool stream_over : 1; /* as_request_stream_end() was called */
    bool stream_complete : 1;
    bool end_awaited : 1; /* the pipe is at its end; on the timer, as_request_stream_end() is waited for */
    bool pipe_watched : 1;
    bool prefix_pending : 1; /* response.body.memory of a pipe is still to be framed */
    bool last_chunk : 1;
    bool released : 1;   /* response.body.release has been called */
    bool from_error : 1; /* the response is already an error page: no second attempt */
    bool held_back : 1;  /* all of the response is in `out` and waits there for that of the next pipelined request */
    as_buf out;          /* heads, with small bodies behind them; of several responses when requests are pipelined */
    size_t out_sent;
    as_str memory_rest; /* unsent part of a larger memory body or of a pipe's prefix */
    as_job job;         /* with shortest_first: the file's place in the order */
    int64_t file_at;
    int64_t file_left;
    uint32_t next_piece; /* of response.body.pieces; those before it are in memory_rest and file_left, or sent */
    int64_t pipe_left;   /* of a piped body with a length; -1 */
    as_buf framed;       /* pipe bytes with their framing that the socket did not take */
    size_t framed_sent;
    as_watch pipe_watch;
    uint64_t body_sent; /* for the log: body bytes without framing */
} as_exchange;

/* h1.c */
void as_h1_set_phase(as_conn *conn, as_phase phase);
void as_h1_advance(as_conn *conn);
/* Frees the objects kept for reuse; when the loop has ended, or keeps none any longer. Not while events are delivered. */
void as_h1_free_exchanges(as_home *home);
/* The response is out (or cut: `cut`): log, count, release, and on to the next request. */
void as_h1_finish(as_exchange *exchange, bool cut);
/* What is being passed on of a body has broken off: the handler is told, and the client gets the page for `status`, or no more of what it is getting. */
void as_h1_stop_feeding(as_exchange *exchange, int status);
/* Into `out`. */
void as_h1_send_continue(as_exchange *exchange);

/* h1_body.c */
typedef enum {
    AS_TAKE_DONE, /* the body is over, or nobody wants the rest */
    AS_TAKE_WAIT, /* as_h1_advance() goes on, or a timer ends it */
    AS_TAKE_GONE, /* the client has gone in the middle of its body */
    AS_TAKE_BAD,  /* it cannot be had; `status` says why */
} as_take_result;
/* Into request.body. */
as_take_result as_h1_collect_body(as_exchange *exchange, int *status);
/* Into the stream; the request may be with the handler or have its response sent. Closes the stream when it is done. */
as_take_result as_h1_feed_body(as_exchange *exchange, int *status);
/* Nowhere; AS_TAKE_BAD also over AS_MAX_DISCARD. */
as_take_result as_h1_drop_body(as_exchange *exchange);
/* Whether it is the client that a body which is passed on waits for. */
bool as_h1_waits_for_body(const as_exchange *exchange);
/* The executor sees the end of the stream. Nothing when there is none. */
void as_h1_close_stream(as_exchange *exchange);
/* Likewise, and what it has not taken is kept for the next stream. */
void as_h1_stop_stream(as_exchange *exchange);

/* h1_pace.c: how slow a client may be. A window is one body_timeout or send_timeout long; in each the client has to send or take min_rate for as long. */
void as_h1_wait_for_body(as_exchange *exchange);
/* The socket takes no more of the response; `progress`: it took some since the last time. */
void as_h1_wait_for_client(as_exchange *exchange, bool progress);
/* The timer has fired: true when the client was fast enough, and then another window has begun. */
bool as_h1_keeps_pace(as_exchange *exchange);

/* h1_send.c */
typedef enum { AS_SEND_DONE, AS_SEND_BLOCKED, AS_SEND_CUT } as_send_result;
void as_h1_begin_response(as_exchange *exchange);
/* Sends responses that were held back, as far as the socket takes them; AS_SEND_CUT when the peer has gone. */
as_send_result as_h1_send_held(as_exchange *exchange);
as_send_result as_h1_send(as_exchange *exchange);
void as_h1_release_body(as_exchange *exchange);

/* h1_send_pipe.c */
as_send_result as_h1_send_pipe(as_exchange *exchange);
void as_h1_unwatch_pipe(as_exchange *exchange);

#endif
