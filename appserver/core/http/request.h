/* request.h: one request and its response, between protocol and handler.
 *
 * The protocol (http/h1) fills in the request, calls the handler, and writes what the handler answers. The handler decides and never
 * touches the socket. Everything here is for the loop thread that owns the request's connection. */
#ifndef AS_HTTP_REQUEST_H
#define AS_HTTP_REQUEST_H

#include "base/memory.h"
#include "http/head.h"
#include "http/target.h"
#include "loop/loop.h"
#include "loop/schedule.h"

typedef struct as_request as_request;
typedef struct as_handler as_handler;
typedef struct as_site as_site;
typedef struct as_snapshot as_snapshot;
typedef struct as_home as_home;

/* One snapshot as one loop sees it. `live` counts the loop's requests that still use it; it is not shared, so counting is a plain increment. */
typedef struct as_epoch {
    as_snapshot *snapshot;
    const as_limits *limits;
    const char *server_software;
    const char *spool_directory;
    struct as_file_cache *file_cache;
    /* Finds site, handler and rule prefix for request->path. `handler` NULL: nothing there (404). */
    void (*route)(as_request *request);
    /* The handler that makes the site's page for an error status, with request->path set to the page; NULL: the built-in page. */
    const as_handler *(*error_page)(as_request *request, int status);
    void (*ended)(struct as_epoch *epoch); /* retired and live == 0 */
    uint32_t live;
    bool retired;
    bool shortest_first; /* large files go in the order of home->schedule */
} as_epoch;

/* One per loop thread: what handlers need of their loop. Rooms above http/ keep their per-loop state behind the opaque pointers. */
struct as_home {
    as_loop *loop;
    int index;                        /* 0 .. loops - 1 */
    struct as_counters *counters;     /* report/counters.h */
    struct as_event_ring *events;     /* report/event.h */
    struct as_incidents *incidents;   /* report/incident.h: one for all loops */
    struct as_metrics *metrics;       /* report/metrics.h: likewise */
    struct as_route_counters *routes; /* report/counters.h: by request->route; NULL: not counted */
    struct as_pool_counters *pools;   /* likewise: by pool index */
    struct as_file_cache *file_cache; /* handler/file_cache.h */
    struct as_lane **lanes;           /* handler/pool.h: this loop's end of each pool, by pool index */
    int lanes_len;
    struct as_access_lane *access_log; /* http/access_log.h; NULL: off */
    as_epoch *epoch;                   /* what new requests see */
    uint64_t next_request_id;
    uint32_t requests_active;
    as_schedule schedule;
    void *exchanges; /* http/h1: kept objects */
    bool no_reuse;   /* none are kept */
    char date[29];   /* of `date_s`, ready for the Date field */
    int64_t date_s;
};

/* Where the bytes of a response come from. */
typedef enum as_body_kind {
    AS_BODY_NONE,
    AS_BODY_MEMORY, /* memory, stays valid until release */
    AS_BODY_FILE,   /* fd, offset, length: pread or sendfile; the file's own offset is not used */
    AS_BODY_PIPE,   /* fd of a pipe or stream socket, O_NONBLOCK, read until its end */
    AS_BODY_PIECES, /* memory and ranges of the file fd, one behind the other */
} as_body_kind;

/* One piece of a body: memory when its ptr is not NULL, else a range of the body's file. */
typedef struct as_piece {
    as_str memory;
    int64_t offset;
    int64_t length;
} as_piece;

typedef struct as_body {
    as_body_kind kind;
    as_str memory; /* AS_BODY_PIPE: sent first (maybe empty), before the fd is read; valid until release */
    int fd;
    int64_t offset;
    int64_t length; /* bytes; for a pipe -1 when only its end tells */
    /* Called exactly once, when the core needs the source no longer (sent, cut short, or never needed as for HEAD). It closes the fd or drops the
     * reference, whichever is the handler's way; NULL: nothing to do. After it returned the core does not touch the source. */
    void (*release)(struct as_body *body);
    void *owner;
    const as_piece *pieces; /* AS_BODY_PIECES: valid until release; their lengths are `length` */
    uint32_t pieces_len;
    /* Pipes only. The end of the pipe alone says nothing (a crash looks the same): the handler must call as_request_stream_end(). True: when it has not
     * within AS_END_NEWS_MS of the end of the pipe, the body is complete. */
    bool ends_at_eof;
    uint32_t idle_ms;      /* pipes: longest silence before the response is cut off; 0: for ever */
    uint64_t output_limit; /* pipes: bytes after which it is cut off; 0: none */
} as_body;

typedef struct as_response {
    uint16_t status; /* 200 .. 599 */
    as_str reason;   /* len 0: the registered phrase */
    as_str
        fields; /* "Name: value\r\n" lines without the framing and connection fields, which are the protocol's; valid until release */
    bool has_date; /* `fields` brings Date / Server itself */
    bool has_server;
    bool is_framed; /* the body brings its own chunks, which `fields` says; the connection closes behind it */
    as_body body;
    as_str
        trailers; /* pipes: field lines likewise, for clients that want them; to be there before as_request_stream_end() */
} as_response;

#define AS_BODY_UNKNOWN UINT64_MAX /* length of a streamed body whose end tells */

/* The request body as a handler gets it: whole, or, when it streams, through as_request_open_stream(). */
typedef struct as_request_body {
    as_str memory; /* up to AS_MAX_INLINE_BODY bytes */
    int fd;        /* -1, or the spool (memfd or unlinked file), read offset 0; the request closes it */
    uint64_t length;
    bool is_streamed;
} as_request_body;

/* Where the client is. Addresses are numeric text; unix sockets have an empty one. */
typedef struct as_peer {
    char remote_address[46];
    char local_address[46];
    uint16_t remote_port;
    uint16_t local_port;
    bool secure; /* TLS */
} as_peer;

/* What a request was before a program's local redirect (RFC 3875 section 6.2.2) made another one of it. Lives in its arena. */
typedef struct as_redirected {
    uint32_t count;       /* of its redirects, this one included */
    as_str client_method; /* as its client wrote it */
    as_str method;
    as_str path;
    as_str script_name; /* the program that redirected, and the path behind it */
    as_str path_info;
    as_str query;
    as_str content_type;
    uint64_t content_length;
    bool has_content_length;
} as_redirected;

struct as_request {
    as_home *home;
    as_epoch *epoch; /* held from head to end */
    const as_site *site;
    const as_handler *handler; /* the one that answers */
    uint32_t route;            /* the rule that led to it, as a number for home->routes */
    const as_peer *peer;
    uint64_t id;      /* unique over the life of the server: generation, loop, count */
    int64_t start_ns; /* CLOCK_MONOTONIC, first byte of the head seen */
    as_head head;     /* borrows from the connection's input, which stays until the request ends */
    as_target target; /* path decoded */
    as_str path;      /* what is routed and served; target.path, or an error page's path after re-entry */
    as_str
        rule_prefix; /* the part of `path` that a prefix rule matched, without its final '/'; len 0 for "/" and other matches */
    as_request_body body;
    const as_redirected *redirected; /* NULL: it is as its client made it */
    as_str upgrade; /* the protocol that the client asks to go on with, when its handler may do that; len 0: none */
    uint16_t
        error_status;    /* not 0: this is the error page for that status; handlers then ignore conditions and ranges */
    as_str extra_fields; /* see as_request_add_field() */
    as_arena arena;      /* lives as long as the request */
    as_response response;
    uint64_t received;   /* for the log: bytes of the request's body so far */
    void *handler_state; /* the handler's own record of a pending or streaming request; NULL otherwise */
    int64_t queue_ns;    /* for the log: waited for an executor / ran in it; -1 when not applicable */
    int64_t run_ns;
    int64_t cpu_us; /* CPU that it took there; -1 when not known */
};

typedef enum as_verdict {
    AS_VERDICT_RESPOND, /* request->response is filled in */
    AS_VERDICT_PENDING, /* as_request_respond() or as_request_error() will follow, on the same loop, in a later turn or later in this one */
    AS_VERDICT_ERROR, /* answer with the error page for request->response.status */
} as_verdict;

/* A kind of handler. The tables are const and static. */
typedef struct as_handler_ops {
    const char *name; /* as in the configuration, in logs and metrics */
    bool
        wants_body; /* handle() is called when the whole body is there; otherwise at once, and the protocol drops the body */
    /* Of a request whose body the handler wants: whether it takes it as a stream, and handle() is called at once. NULL: never. */
    bool (*streams_body)(const as_handler *handler, const as_request *request);
    /* Of a request without a body: whether it may be answered by as_request_upgrade(). NULL: never. */
    bool (*upgrades)(const as_handler *handler, const as_request *request);
    as_verdict (*handle)(const as_handler *handler, as_request *request);
    /* The client has gone or the response broke off, while the request is PENDING or its body a pipe that is still open. The handler forgets the
     * request before it returns; a body already handed over is released by the core separately. NULL: never pending. */
    void (*abandon)(as_request *request);
    /* Frees the handler with its snapshot; any thread, after the last request has ended. */
    void (*free)(as_handler *handler);
} as_handler_ops;

struct as_handler {
    const as_handler_ops *ops; /* first member of each handler's own struct */
};

/* The answer to a PENDING request is complete in request->response. Like as_request_error(), it may end the request at once: the caller does not touch it
 * afterwards, and has set handler_state to NULL before unless the body is a pipe that it still has to end. */
void as_request_respond(as_request *request);

/* Answers a PENDING request with the site's error page for `status`. `detail` (maybe NULL, static) goes to the log only. */
void as_request_error(as_request *request, int status, const char *detail);

/* A PENDING request, which its handler has forgotten, becomes a GET (a HEAD stays one) without a body for the local path and query `location`, and whatever the
 * site has there answers it. Or it ends with 508 after AS_MAX_LOCAL_REDIRECTS of these, and with 502 when `location` is no such path. The other two are the
 * program's SCRIPT_NAME and PATH_INFO. Like as_request_respond(), it may end the request at once. */
void as_request_reenter(as_request *request, as_str location, as_str script_name, as_str path_info);

/* Ends a piped body: what is in the pipe now is sent, then the response is over. `complete` false: something broke, the client must see a cut-off
 * response (no last chunk, connection closed). Also ends a body whose release has been called: then it does nothing. May be called before
 * as_request_respond(), by a handler that knows already that nothing more will come. */
void as_request_stream_end(as_request *request, bool complete);

/* Of a response whose body is a pipe and has a length: whether all of it has been taken out of the pipe. */
bool as_request_has_all(const as_request *request);

/* An interim response (RFC 9110 section 15.2) to a PENDING request: 102 .. 199 and field lines as in a response. Not for HTTP/1.0, and not for a client that
 * takes none. Like as_request_respond(), it may end the request at once. */
void as_request_inform(as_request *request, int status, as_str fields);

/* Answers a PENDING request that asks for an upgrade by 101 with response.fields: from now on bytes go both ways between the client and the request's stream,
 * until as_request_stream_end() or the client's end. Like as_request_respond(), it may end the request at once. */
void as_request_upgrade(as_request *request);

/* Of a request with a streamed body or an upgrade: a new stream socket (http/stream.h). The executor's end, which is the caller's; -1 with errno. An earlier one is closed,
 * which must have been left unspent. */
int as_request_open_stream(as_request *request);
/* The executor's end is on its way to an executor: the client's body (which it may be asked for only now, by 100) is passed on. Not answered before this returns. */
void as_request_stream_is_sent(as_request *request);
/* Whether some of the body is in the stream, so that nobody else can have the whole of it. */
bool as_request_is_spent(const as_request *request);
/* When the executor has last been seen taking in a streamed body, or may have been waiting for the client to send more of it: CLOCK_MONOTONIC; 0: never. */
int64_t as_request_moved_ns(const as_request *request);

/* An extra field line for the response of this request ("Allow: GET, HEAD\r\n"), also when it becomes an error page. Lives in the arena. */
void as_request_add_field(as_request *request, as_str line);

/* Protocol side: sets site, handler, rule_prefix for request->path. */
void as_request_route(as_request *request);
/* Protocol side: calls the request's handler (404 when there is none) and takes its verdict. */
void as_request_handle(as_request *request);

/* Body makers. */
static inline as_body as_body_memory(as_str memory)
{
    return (as_body){.kind = AS_BODY_MEMORY, .memory = memory, .fd = -1, .length = (int64_t)memory.len};
}
/* Closes the fd of a body and nothing else: the `release` for bodies that own their fd. */
void as_body_close_fd(as_body *body);

#endif
