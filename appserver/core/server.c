/* server.c: loops as threads, and what the control thread asks of them.
 *
 * Whatever concerns a loop goes to it as a message, also before it has started; so the loops' own state needs no lock, and every loop changes over to a new
 * snapshot, pool or listener between two of its turns. Descriptors and settings that all loops use belong to the server and live as long as it does,
 * or, for listeners, until the last loop has let go of them. */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "handler/pool.h"
#include "handler/slot.h"
#include "http/access_log.h"
#include "http/h1.h"
#include "net/listener.h"
#include "problem.h"
#include "report/metrics.h"
#include "snapshot.h"

enum {
    MAX_LOOPS = 64,
    MAX_POOLS = AS_METRICS_POOLS,
    MAX_LISTENERS = 64,
    LOG_FLUSH_MS = 500,
};

typedef struct pool_record {
    char *name;
    as_pool_options options; /* its fds are the server's duplicates */
    as_slot_header *segment; /* mapped for reading; NULL when it is no segment, which the lanes report */
    size_t segment_size;
    as_quarantine quarantine;
} pool_record;

typedef struct listening {
    uint32_t references; /* atomic: loops that know it */
    int key;             /* the caller's number for it */
    bool is_shared;      /* fds[0] is every loop's; else loop i has fds[i] and closes it alone */
    int fds[];
} listening;

typedef struct engine {
    as_loop loop;
    as_counters counters;
    as_home home;
    as_net net;
    as_server *server;
    pthread_t thread;
    bool running;
    bool drained;
    as_hook hook;
    as_timer log_timer;
    bool ended;
    as_gate_rules gate_rules;
    int next_loop; /* that a coordinator gives a connection to */
    struct {
        listening *what;
        as_listener listener;
    } listeners[MAX_LISTENERS];
    as_lane *lanes[MAX_POOLS];
} engine;

struct as_server {
    int loops;
    uint32_t generation;
    int event_fd;
    engine **engines;
    as_incidents *incidents;
    as_metrics *metrics;
    as_gate gate;
    as_accept_mode accept;
    pool_record pools[MAX_POOLS];
    int pools_len;
    listening *listening[MAX_LISTENERS];
    as_access_log *access_log;
    as_snapshot *current;
    int ready;
    bool draining;
};

/* Messages to a loop. */

typedef struct order {
    as_message message;
    void (*run)(engine *engine, struct order *order);
    void *subject;
    int number;
    uint32_t value;
} order;

static void run_order(as_message *message, as_loop *loop)
{
    order *o = AS_CONTAINER_OF(message, order, message);
    o->run(loop->owner, o);
    as_free(o);
}

static void post(engine *to, void (*run)(engine *, order *), void *subject, int number, uint32_t value)
{
    order *o = as_alloc(sizeof(*o));
    *o = (order){.run = run, .subject = subject, .number = number, .value = value};
    as_loop_post(&to->loop, &o->message, run_order);
}

static void post_all(as_server *server, void (*run)(engine *, order *), void *subject, int number, uint32_t value)
{
    for (int i = 0; i < server->loops; i++)
        post(server->engines[i], run, subject, number, value);
}

/* Engines. */

static void flush_log(as_timer *timer)
{
    engine *e = AS_CONTAINER_OF(timer, engine, log_timer);
    if (e->home.access_log != NULL)
        as_access_log_flush(e->home.access_log);
}

static void turn_ends(as_hook *hook)
{
    engine *e = AS_CONTAINER_OF(hook, engine, hook);
    if (e->home.access_log != NULL && as_access_log_pending(e->home.access_log) && !as_timer_is_set(&e->log_timer))
        as_timer_set(&e->loop, &e->log_timer, flush_log, LOG_FLUSH_MS);
}

static void emptied(as_net *net)
{
    engine *e = AS_CONTAINER_OF(net, engine, net);
    if (e->drained)
        return;
    e->drained = true;
    as_event_emit(e->home.events, AS_EVENT_DRAINED, 0, -1, 0, "loop %d has no connection left", e->home.index);
}

static engine *new_engine(as_server *server, int index)
{
    engine *e = as_alloc_lines(sizeof(*e));
    if (as_loop_init(&e->loop) != AS_OK) {
        as_free(e);
        return NULL;
    }
    e->server = server;
    e->loop.owner = e;
    e->net = (as_net){
        .loop = &e->loop,
        .counters = &e->counters,
        .home = &e->home,
        .protocol = &as_h1_protocol,
        .gate = &server->gate,
        .emptied = emptied,
    };
    e->home = (as_home){
        .loop = &e->loop,
        .index = index,
        .counters = &e->counters,
        .events = as_event_ring_new(index, server->event_fd, &e->counters),
        .incidents = server->incidents,
        .metrics = server->metrics,
        .routes = as_metrics_routes(server->metrics, index),
        .pools = as_metrics_pools(server->metrics, index),
        .lanes = e->lanes,
        .lanes_len = 0,
        .next_request_id = (uint64_t)server->generation << 48 | (uint64_t)index << 40 | 1,
    };
    as_metrics_set_loop(server->metrics, index, &e->counters);
    as_schedule_init(&e->home.schedule, &e->loop);
    as_loop_add_hook(&e->loop, &e->hook, turn_ends);
    return e;
}

/* A loop's own socket goes with its loop: as long as it were open, the kernel would give it connections. */
static void release_listening(listening *what, int loop)
{
    if (!what->is_shared)
        close(what->fds[loop]);
    if (__atomic_sub_fetch(&what->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (what->is_shared)
        close(what->fds[0]);
    as_free(what);
}

static void stop_listening(engine *e, const listening *what, bool finish)
{
    for (int i = 0; i < MAX_LISTENERS; i++) {
        if (e->listeners[i].what == NULL || (what != NULL && e->listeners[i].what != what))
            continue;
        as_listener_stop(&e->listeners[i].listener, finish);
        release_listening(e->listeners[i].what, e->home.index);
        e->listeners[i].what = NULL;
    }
}

static void resume_listening(engine *e, order *o)
{
    (void)o;
    for (int i = 0; i < MAX_LISTENERS; i++) {
        if (e->listeners[i].what != NULL)
            as_listener_resume(&e->listeners[i].listener);
    }
}

/* A connection has closed on some loop, and `loop` waits for that. */
static void wake_for_place(as_gate *gate, int loop)
{
    as_server *server = AS_CONTAINER_OF(gate, as_server, gate);
    post(server->engines[loop], resume_listening, NULL, 0, 0);
}

/* A connection on its way from the coordinator to its loop. */
typedef struct arrival {
    as_message message;
    int fd;
    int ticket;
    as_address remote;
} arrival;

static void arrive(as_message *message, as_loop *loop)
{
    arrival *a = AS_CONTAINER_OF(message, arrival, message);
    engine *e = loop->owner;
    if (e->ended)
        close(a->fd); /* the gate's counts end with the server */
    else
        as_conn_open(&e->net, a->fd, &a->remote, a->ticket);
    as_free(a);
}

/* The coordinator's hand_over: to each of the other loops in turn; to itself when it is alone. */
static void hand_over(as_listener *listener, int fd, const as_address *remote, int ticket)
{
    engine *e = AS_CONTAINER_OF(listener->net, engine, net);
    as_server *server = e->server;
    if (server->loops == 1) {
        as_conn_open(&e->net, fd, remote, ticket);
        return;
    }
    e->next_loop = e->next_loop % (server->loops - 1) + 1;
    arrival *a = as_alloc(sizeof(*a));
    *a = (arrival){.fd = fd, .ticket = ticket, .remote = *remote};
    as_loop_post(&server->engines[e->next_loop]->loop, &a->message, arrive);
}

static void epoch_ended(as_epoch *epoch)
{
    as_file_cache_free(epoch->file_cache);
    as_snapshot_release(epoch->snapshot);
    as_free(epoch);
}

static void retire_epoch(engine *e)
{
    as_epoch *epoch = e->home.epoch;
    if (epoch == NULL)
        return;
    e->home.epoch = NULL;
    e->home.file_cache = NULL;
    epoch->retired = true;
    if (epoch->live == 0)
        epoch->ended(epoch);
}

/* The loop's last act, on its own thread: what is open is cut, and everything that belongs to the loop goes. */
static void end_engine(engine *e)
{
    /* A loop that is stopped before its first turn has its orders still before it, and with them what they hold. */
    as_loop_turn(&e->loop, 0);
    e->ended = true;
    stop_listening(e, NULL, false);
    as_net_cut(&e->net);
    as_loop_turn(&e->loop, 0);
    as_loop_turn(&e->loop, 0); /* what was put off to the next turn */
    as_timer_clear(&e->loop, &e->log_timer);
    for (int i = 0; i < e->home.lanes_len; i++) {
        if (e->lanes[i] != NULL)
            as_lane_free(e->lanes[i]);
    }
    as_h1_free_exchanges(&e->home);
    as_schedule_free(&e->home.schedule);
    retire_epoch(e);
    as_net_free(&e->net);
}

static void *engine_thread(void *argument)
{
    engine *e = argument;
    as_loop_run(&e->loop);
    end_engine(e);
    return NULL;
}

static void free_engine(engine *e)
{
    as_loop_free(&e->loop);
    as_event_ring_free(e->home.events);
    as_free(e);
}

/* The server. */

as_server *as_server_new(int loops, uint32_t generation, int event_fd)
{
    if (loops < 1 || loops > MAX_LOOPS) {
        as_problem(AS_EINVALID, "%d loops were asked for; 1 to %d are possible", loops, MAX_LOOPS);
        return NULL;
    }
    as_server *server = as_alloc(sizeof(*server));
    server->loops = loops;
    server->generation = generation & 0xffff;
    server->event_fd = event_fd;
    as_gate_init(&server->gate, wake_for_place);
    server->incidents = as_incidents_new(event_fd);
    server->metrics = as_metrics_new(loops, server->incidents);
    server->engines = as_alloc((size_t)loops * sizeof(*server->engines));
    for (int i = 0; i < loops; i++) {
        server->engines[i] = new_engine(server, i);
        if (server->engines[i] == NULL) {
            as_problem_system("an event loop cannot be made");
            server->loops = i;
            as_server_free(server);
            return NULL;
        }
    }
    return server;
}

typedef struct lane_order {
    as_pool_options options;
    int answer_fd;
    int loops;
} lane_order;

static void open_lane(engine *e, order *o)
{
    lane_order *wanted = o->subject;
    int index = wanted->options.index;
    if (e->lanes[index] != NULL) {
        as_lane_configure(e->lanes[index], &wanted->options);
    } else {
        e->lanes[index] = as_lane_new(&e->home, &wanted->options, wanted->answer_fd, wanted->loops);
        if (e->lanes[index] == NULL)
            as_event_emit(e->home.events, AS_EVENT_ERROR, 0, index, 0, "pool %s cannot be opened: %s",
                          wanted->options.name, strerror(errno));
        if (e->home.lanes_len <= index)
            e->home.lanes_len = index + 1;
    }
    as_free(wanted);
}

int as_server_set_pool(as_server *server, int index, const as_pool_settings *settings, int queue_fd, int slots_fd,
                       const int *answer_fds)
{
    bool is_new = index == server->pools_len;
    if (index < 0 || index > server->pools_len || index >= MAX_POOLS)
        return as_problem(AS_EINVALID, "pool %s has number %d; the next one is %d of at most %d", settings->name, index,
                          server->pools_len, MAX_POOLS);
    pool_record *pool = &server->pools[index];
    if (is_new) {
        pool->name = as_strdup(as_str_from(settings->name));
        as_metrics_add_pool(server->metrics, settings->name);
        pool->options.queue_fd = fcntl(queue_fd, F_DUPFD_CLOEXEC, 0);
        pool->options.slots_fd = fcntl(slots_fd, F_DUPFD_CLOEXEC, 0);
        server->pools_len++;
        if (pool->options.queue_fd < 0 || pool->options.slots_fd < 0)
            return as_problem_system("pool %s: its descriptors cannot be duplicated", settings->name);
        pool->segment = as_slot_segment_map(slots_fd, &pool->segment_size);
    }
    pool->options = (as_pool_options){
        .index = index,
        .name = pool->name,
        .queue_fd = pool->options.queue_fd,
        .slots_fd = pool->options.slots_fd,
        .generation = server->generation,
        .queue_limit = settings->queue_limit,
        .queue_time_ms = settings->queue_time_ms,
        .request_time_ms = settings->request_time_ms,
        .idle_time_ms = settings->idle_time_ms,
        .output_limit = settings->output_limit,
        .retry = (as_retry)settings->retry,
        .cancel = settings->cancel != 0,
        .finishes = settings->finishes != 0,
        .quarantine_ms = settings->quarantine_ms,
        .quarantine = &pool->quarantine,
    };
    for (int i = 0; i < server->loops; i++) {
        lane_order *wanted = as_alloc(sizeof(*wanted));
        *wanted =
            (lane_order){.options = pool->options, .answer_fd = is_new ? answer_fds[i] : -1, .loops = server->loops};
        if (!is_new && answer_fds != NULL && answer_fds[i] >= 0)
            close(answer_fds[i]);
        post(server->engines[i], open_lane, wanted, 0, 0);
    }
    return AS_OK;
}

static as_lane *lane_at(engine *e, int pool)
{
    return pool >= 0 && pool < e->home.lanes_len ? e->lanes[pool] : NULL;
}

typedef struct capacity_order {
    uint32_t capacity;
    uint32_t at_once;
    bool stream_bodies;
    bool upgrades;
} capacity_order;

static void change_capacity(engine *e, order *o)
{
    capacity_order *wanted = o->subject;
    as_lane *lane = lane_at(e, o->number);
    if (lane != NULL) {
        as_lane_set_capacity(lane, wanted->capacity);
        as_lane_set_at_once(lane, wanted->at_once);
        as_lane_set_streaming(lane, wanted->stream_bodies, wanted->upgrades);
    }
    as_free(wanted);
}

int as_server_set_capacity(as_server *server, int pool, uint32_t capacity, uint32_t at_once, int stream_bodies,
                           int upgrades)
{
    for (int i = 0; i < server->loops; i++) {
        capacity_order *wanted = as_alloc(sizeof(*wanted));
        *wanted = (capacity_order){
            .capacity = capacity, .at_once = at_once, .stream_bodies = stream_bodies != 0, .upgrades = upgrades != 0};
        post(server->engines[i], change_capacity, wanted, pool, 0);
    }
    return AS_OK;
}

typedef struct death_order {
    uint32_t executor;
    uint32_t repeated;
} death_order;

static void bury_executor(engine *e, order *o)
{
    death_order *death = o->subject;
    as_lane *lane = lane_at(e, o->number);
    if (lane != NULL)
        as_lane_executor_died(lane, death->executor, death->repeated);
    as_free(death);
}

int as_server_executor_died(as_server *server, int pool, uint32_t executor, int expected)
{
    if (pool < 0 || pool >= server->pools_len)
        return as_problem(AS_ENOTFOUND, "there is no pool %d", pool);
    const as_slot_header *segment = server->pools[pool].segment;
    if (!expected)
        as_metrics_count_death(server->metrics, pool);
    /* Counted before any loop gives up a slot. */
    uint32_t repeated = segment != NULL ? as_pool_count_repeated(segment, executor) : 0;
    for (int i = 0; i < server->loops; i++) {
        death_order *death = as_alloc(sizeof(*death));
        *death = (death_order){.executor = executor, .repeated = repeated};
        post(server->engines[i], bury_executor, death, pool, 0);
    }
    return AS_OK;
}

static void start_listening(engine *e, order *o)
{
    listening *what = o->subject;
    as_accept_mode mode = e->server->accept;
    as_listener_options options = {
        .net = &e->net,
        .events = e->home.events,
        .rules = &e->gate_rules,
        .mode = mode,
        .hand_over = mode == AS_ACCEPT_COORDINATOR ? hand_over : NULL,
        .loop = e->home.index,
    };
    for (int i = 0; i < MAX_LISTENERS; i++) {
        if (e->listeners[i].what != NULL)
            continue;
        int fd = what->fds[what->is_shared ? 0 : e->home.index];
        if (as_listener_start(&e->listeners[i].listener, &options, fd) == AS_OK) {
            e->listeners[i].what = what;
            return;
        }
        break;
    }
    as_event_emit(e->home.events, AS_EVENT_ERROR, 0, -1, 0, "a listening socket cannot be watched: %s",
                  strerror(errno));
    release_listening(what, e->home.index);
}

/* How many loops know a listener: with a coordinator it is the first alone. */
static int accepting_loops(const as_server *server)
{
    return server->accept == AS_ACCEPT_COORDINATOR ? 1 : server->loops;
}

static void post_accepting(as_server *server, void (*run)(engine *, order *), listening *what)
{
    for (int i = 0; i < accepting_loops(server); i++)
        post(server->engines[i], run, what, 0, 0);
}

static int duplicate_all(listening *what, const int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        what->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (what->fds[i] >= 0)
            continue;
        as_problem_system("a listening socket cannot be duplicated");
        while (i-- > 0)
            close(what->fds[i]);
        return AS_ESYSTEM;
    }
    return AS_OK;
}

static int add_listening(as_server *server, const int *fds, int count, bool is_shared)
{
    for (int i = 0; i < MAX_LISTENERS; i++) {
        if (server->listening[i] != NULL)
            continue;
        listening *what = as_alloc(sizeof(*what) + (size_t)count * sizeof(*what->fds));
        what->references = (uint32_t)accepting_loops(server);
        what->key = fds[0];
        what->is_shared = is_shared;
        if (duplicate_all(what, fds, count) != AS_OK) {
            as_free(what);
            return AS_ESYSTEM;
        }
        server->listening[i] = what;
        post_accepting(server, start_listening, what);
        return AS_OK;
    }
    return as_problem(AS_EFULL, "there are %d listening sockets already, which is the most", MAX_LISTENERS);
}

int as_server_set_accept(as_server *server, int mode)
{
    if (mode < AS_ACCEPT_SELF_MANAGED || mode > AS_ACCEPT_REUSEPORT)
        return as_problem(AS_EINVALID, "there is no way %d of accepting", mode);
    server->accept = (as_accept_mode)mode;
    return AS_OK;
}

int as_server_add_listener(as_server *server, int fd)
{
    return add_listening(server, &fd, 1, true);
}

int as_server_add_listeners(as_server *server, const int *fds)
{
    if (server->accept == AS_ACCEPT_COORDINATOR)
        return as_problem(AS_EINVALID, "with a coordinator there is one socket for all loops");
    return add_listening(server, fds, server->loops, false);
}

static void end_listening(engine *e, order *o)
{
    stop_listening(e, o->subject, true);
}

int as_server_remove_listener(as_server *server, int fd)
{
    for (int i = 0; i < MAX_LISTENERS; i++) {
        if (server->listening[i] == NULL || server->listening[i]->key != fd)
            continue;
        post_accepting(server, end_listening, server->listening[i]);
        server->listening[i] = NULL;
        return AS_OK;
    }
    return as_problem(AS_ENOTFOUND, "there is no listening socket %d", fd);
}

static void change_log(engine *e, order *o)
{
    as_access_log *log = o->subject;
    e->home.access_log = as_access_log_lane(log, e->home.index);
}

int as_server_set_access_log(as_server *server, int fd, int format)
{
    if (server->access_log != NULL) {
        if (as_access_log_reopen(server->access_log, fd, (as_log_format)format) != AS_OK)
            return as_problem_system("the access log cannot be changed");
        return AS_OK;
    }
    server->access_log = as_access_log_new(server->loops, fd, (as_log_format)format);
    if (server->access_log == NULL)
        return as_problem_system("the access log cannot be opened");
    post_all(server, change_log, server->access_log, 0, 0);
    return AS_OK;
}

static void change_snapshot(engine *e, order *o)
{
    as_snapshot *snapshot = o->subject;
    as_epoch *epoch = as_alloc(sizeof(*epoch));
    *epoch = (as_epoch){
        .snapshot = snapshot,
        .limits = &snapshot->limits,
        .server_software = snapshot->server_software,
        .spool_directory = snapshot->spool_directory,
        .file_cache = as_file_cache_new(&snapshot->cache, &e->counters),
        .route = as_snapshot_route,
        .error_page = as_snapshot_error_page,
        .ended = epoch_ended,
        .shortest_first = snapshot->tuning.shortest_first != 0,
    };
    retire_epoch(e);
    e->home.epoch = epoch;
    e->home.file_cache = epoch->file_cache;
    e->gate_rules = (as_gate_rules){
        .connections = snapshot->limits.connections,
        .per_client = snapshot->limits.connections_per_client,
        .wait = snapshot->limits.wait_over_limit != 0,
    };
    e->gate_rules.accept_one = snapshot->tuning.accept_one != 0;
    as_net_tune(&e->net, &snapshot->tuning);
    e->home.no_reuse = snapshot->tuning.no_reuse != 0;
    if (e->home.no_reuse)
        as_h1_free_exchanges(&e->home);
    resume_listening(e, NULL);
}

int as_server_apply(as_server *server, as_snapshot *snapshot)
{
    as_snapshot *before = server->current;
    snapshot->references = (uint32_t)server->loops + 1;
    __atomic_store_n(&snapshot->ready, server->ready, __ATOMIC_RELAXED);
    server->current = snapshot;
    post_all(server, change_snapshot, snapshot, 0, 0);
    if (before != NULL)
        as_snapshot_release(before);
    return AS_OK;
}

void as_server_set_ready(as_server *server, int ready)
{
    server->ready = ready;
    if (server->current != NULL)
        __atomic_store_n(&server->current->ready, ready, __ATOMIC_RELAXED);
}

int as_server_start(as_server *server)
{
    if (server->current == NULL)
        return as_problem(AS_EINVALID, "a server needs a snapshot before it starts");
    /* Signals are the control thread's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = 0;
    for (int i = 0; i < server->loops && err == 0; i++) {
        engine *e = server->engines[i];
        err = pthread_create(&e->thread, NULL, engine_thread, e);
        e->running = err == 0;
        char name[16];
        snprintf(name, sizeof(name), "loop-%u", (unsigned)i % 100);
        if (e->running)
            pthread_setname_np(e->thread, name);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0)
        return AS_OK;
    errno = err;
    return as_problem_system("a thread cannot be started");
}

static void drain_engine(engine *e, order *o)
{
    (void)o;
    stop_listening(e, NULL, true);
    as_net_drain(&e->net);
}

/* The others drain behind the last connections that the coordinator hands them: messages of one sender keep their order. */
static void drain_coordinator(engine *e, order *o)
{
    drain_engine(e, o);
    for (int i = 1; i < e->server->loops; i++)
        post(e->server->engines[i], drain_engine, NULL, 0, 0);
}

int as_server_drain(as_server *server)
{
    as_server_set_ready(server, 0);
    if (!server->draining && server->accept == AS_ACCEPT_COORDINATOR)
        post(server->engines[0], drain_coordinator, NULL, 0, 0);
    else if (!server->draining)
        post_all(server, drain_engine, NULL, 0, 0);
    server->draining = true;
    return AS_OK;
}

void as_server_free(as_server *server)
{
    for (int i = 0; i < server->loops; i++) {
        if (server->engines[i]->running)
            as_loop_stop(&server->engines[i]->loop);
    }
    for (int i = 0; i < server->loops; i++) {
        engine *e = server->engines[i];
        if (e->running)
            pthread_join(e->thread, NULL);
        else
            end_engine(e);
    }
    if (server->access_log != NULL)
        as_access_log_free(server->access_log);
    for (int i = 0; i < server->loops; i++)
        free_engine(server->engines[i]);
    for (int i = 0; i < server->pools_len; i++) {
        close(server->pools[i].options.queue_fd);
        close(server->pools[i].options.slots_fd);
        if (server->pools[i].segment != NULL)
            munmap(server->pools[i].segment, server->pools[i].segment_size);
        as_free(server->pools[i].name);
    }
    if (server->current != NULL)
        as_snapshot_release(server->current);
    as_metrics_free(server->metrics);
    as_incidents_free(server->incidents);
    as_gate_free(&server->gate);
    as_free(server->engines);
    as_free(server);
}

int as_server_next_event(as_server *server, as_event *event)
{
    for (int i = 0; i < server->loops; i++) {
        if (as_event_next(server->engines[i]->home.events, event))
            return 1;
    }
    return 0;
}

uint32_t as_server_add_route(as_server *server, const char *site, const char *route, const char *handler)
{
    return as_metrics_add_route(server->metrics, site, route, handler);
}

int as_server_tell_metrics(as_server *server, const char *text, size_t len)
{
    if (len > AS_METRICS_TOLD)
        return AS_EINVALID;
    as_metrics_tell(server->metrics, as_str_of(text, len));
    return AS_OK;
}

int as_server_next_incident(as_server *server, as_incident *incident)
{
    return as_incidents_next(server->incidents, incident);
}

static const char *const counter_names[] = {
#define X(name, text) #name,
    AS_COUNTERS(X)
#undef X
};

int as_server_counters(as_server *server, uint64_t *values, int len)
{
    int count = (int)AS_COUNT_OF(counter_names);
    for (int i = 0; i < count && i < len; i++) {
        values[i] = 0;
        for (int loop = 0; loop < server->loops; loop++) {
            const uint64_t *counters = (const uint64_t *)&server->engines[loop]->counters;
            values[i] += __atomic_load_n(&counters[i], __ATOMIC_RELAXED);
        }
    }
    return count;
}

const char *as_counter_name(int index)
{
    return index >= 0 && index < (int)AS_COUNT_OF(counter_names) ? counter_names[index] : "";
}
