#include "spawner/warm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ZYGOTES_MAX = 16,
    /* Scripts that are known at once: SETS, a power of two, times WAYS. What is known of a script takes one of the places of its set. */
    SETS = 64,
    WAYS = 8,
    SCRIPTS = SETS * WAYS,
    /* A script for which no zygote is free takes the place of one that nobody asks for while it is asked for this often. */
    TURNS = 8,
    RELAX_MS = 10 * 1000,
    STRAYS_MS = 1000,
    /* A zygote that nobody has needed for this long ends. */
    IDLE_S = 300,
    DATAGRAM_SIZE = 256 * 1024,
    /* Answers may differ by chance: two runs that fall on both sides of a second. */
    DIFFERENCES_MAX = 3,
    REASON_SIZE = 448,
};

/* What is known of a script, as long as its file stays as it is. */
typedef struct known_script {
    char *path; /* NULL: an unused place */
    as_file_mark mark;
    uint64_t used;     /* as_warm.looks when it was last asked for */
    as_zygote *zygote; /* NULL: it runs cold */
    uint32_t births;   /* of the zygote when the script was chosen for it */
    bool is_told;
    bool is_refused; /* by the zygote */
    uint32_t turns;  /* how often it was asked for without a zygote, since turns_ns; 0: it does not wait for one */
    int64_t turns_ns;
    uint32_t trials;
    uint32_t differences;
    char *reason; /* of the last refusal, as the log has been told; NULL: there was none */
} known_script;

struct as_warm {
    as_zygote_home home;
    as_loop *loop;
    char *python_main;
    char *perl_main;
    void (*moved)(void *owner);
    void *owner;
    bool (*is_program)(void *owner, pid_t pid);
    as_timer relax;
    as_timer strays;
    uint64_t looks;
    as_zygote zygotes[ZYGOTES_MAX];
    known_script scripts[SCRIPTS];
};

/* Where the script is known, or would be: an unused place, or that of the one of its set that was asked for least lately. */
static known_script *place_of(as_warm *warm, const char *path)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (const char *at = path; *at != '\0'; at++)
        hash = (hash ^ (unsigned char)*at) * 16777619u;
    known_script *set = &warm->scripts[(hash & (SETS - 1)) * WAYS];
    known_script *oldest = set;
    for (known_script *each = set; each < set + WAYS; each++) {
        if (each->path != NULL && strcmp(each->path, path) == 0)
            return each;
        if (each->used < oldest->used)
            oldest = each;
    }
    return oldest;
}

static bool is_known(const known_script *script, const char *path)
{
    return script->path != NULL && strcmp(script->path, path) == 0;
}

/* And whether it is still the file that it was. */
static bool is_known_as(const known_script *script, const char *path, const as_file_mark *mark)
{
    return is_known(script, path) && as_file_mark_is_same(&script->mark, mark);
}

static void forget(known_script *script)
{
    as_free(script->path);
    as_free(script->reason);
    *script = (known_script){0};
}

static void refused(void *owner, const char *path, const char *reason)
{
    as_warm *warm = owner;
    known_script *script = place_of(warm, path);
    if (!is_known(script, path))
        return;
    script->is_refused = true;
    if (script->reason != NULL && strcmp(script->reason, reason) == 0)
        return;
    as_free(script->reason);
    script->reason = as_strdup(as_str_from(reason));
    as_event_emit(warm->home.events, AS_EVENT_NOTE, 0, -1, warm->home.executor, "%s runs cold: %s", path, reason);
}

void as_warm_take_trial(void *owner, const char *script, const char *difference)
{
    char reason[REASON_SIZE];
    as_warm *warm = owner;
    known_script *known = place_of(warm, script);
    if (!is_known(known, script))
        return;
    known->trials++;
    known->differences += difference != NULL;
    if (difference == NULL || known->differences != DIFFERENCES_MAX)
        return;
    snprintf(reason, sizeof(reason),
             "%u of %u requests had other answers warm (times, process numbers and random values always differ); %s",
             known->differences, known->trials, difference);
    refused(warm, script, reason);
}

/* --- which zygote --- */

/* By PATH, as env does; false when it is not there. */
static bool find_in_path(const as_warm *warm, const char *name, char out[AS_ZYGOTE_PATH])
{
    const char *list = NULL;
    for (char *const *each = warm->home.environment; *each != NULL; each++) {
        if (strncmp(*each, "PATH=", 5) == 0)
            list = *each + 5;
    }
    while (list != NULL && *list != '\0') {
        size_t len = strcspn(list, ":");
        int size = snprintf(out, AS_ZYGOTE_PATH, "%.*s/%s", (int)len, list, name);
        if (len > 0 && list[0] == '/' && size < AS_ZYGOTE_PATH && access(out, X_OK) == 0)
            return true;
        list += len + (list[len] == ':');
    }
    return false;
}

/* Not a script in its place, which may do anything first (pyenv has such). */
static bool is_binary(const char *path)
{
    char magic[4] = {0};
    ssize_t len = as_program_read_beginning(path, magic, sizeof(magic));
    return len == sizeof(magic) && memcmp(magic, "\177ELF", sizeof(magic)) == 0;
}

/* Of a script that is executed itself, by its #! line; else of the interpreter that runs it. False: none of ours. */
static bool read_line(const as_warm *warm, const as_program *program, as_shebang *line, char path[AS_ZYGOTE_PATH])
{
    char text[AS_SHEBANG_SIZE];
    if (program->path != program->script) {
        size_t len = strlen(program->path);
        if (len >= sizeof(line->path))
            return false;
        memcpy(line->path, program->path, len + 1);
        line->option[0] = '\0';
        line->kind = as_interpreter_kind_of(line->path);
    } else {
        ssize_t len = as_program_read_beginning(program->script, text, sizeof(text));
        if (len < 0 || as_shebang_parse(as_str_of(text, (size_t)len), line) != AS_OK)
            return false;
    }
    if (line->kind == AS_INTERPRETER_OTHER || !as_interpreter_option_is_plain(line->kind, line->option))
        return false;
    if (line->path[0] == '/')
        memcpy(path, line->path, strlen(line->path) + 1);
    else if (!find_in_path(warm, line->path, path))
        return false;
    return is_binary(path);
}

static bool is_for(const as_zygote *zygote, const as_shebang *line, const char *path, const char *script)
{
    return zygote->step != AS_ZYGOTE_UNUSED && strcmp(zygote->path, path) == 0 &&
           strcmp(zygote->name, line->path) == 0 && strcmp(zygote->option, line->option) == 0 &&
           strcmp(zygote->script, script) == 0;
}

/* An unused place; when there is none, that of the one that was needed least lately. NULL: that one is needed more often than the script, which has to wait.
 * (Were it enough to come later, scripts that are asked for in turn, one more than there are places, would end each other's zygotes before they are of use.) */
static as_zygote *free_place(as_warm *warm, known_script *script)
{
    as_zygote *oldest = &warm->zygotes[0];
    for (int i = 0; i < ZYGOTES_MAX; i++) {
        as_zygote *each = &warm->zygotes[i];
        if (each->step == AS_ZYGOTE_UNUSED)
            return each;
        if (each->used_ns < oldest->used_ns)
            oldest = each;
    }
    if (script->turns == 0 || oldest->used_ns >= script->turns_ns) {
        script->turns = 0;
        script->turns_ns = warm->loop->now_ns;
    }
    if (++script->turns < TURNS)
        return NULL;
    as_zygote_end(oldest);
    return oldest;
}

static as_zygote *zygote_for(as_warm *warm, known_script *known, const as_program *program)
{
    as_shebang line;
    char path[AS_ZYGOTE_PATH];
    if (!read_line(warm, program, &line, path))
        return NULL;
    const char *main_file = line.kind == AS_INTERPRETER_PYTHON ? warm->python_main : warm->perl_main;
    const char *script = line.kind == AS_INTERPRETER_PERL ? program->script : "";
    if (main_file == NULL || strlen(script) >= AS_ZYGOTE_PATH)
        return NULL;
    for (int i = 0; i < ZYGOTES_MAX; i++) {
        if (is_for(&warm->zygotes[i], &line, path, script))
            return &warm->zygotes[i];
    }
    as_zygote *zygote = free_place(warm, known);
    if (zygote == NULL)
        return NULL;
    known->turns = 0;
    uint32_t births = zygote->births;
    memset(zygote, 0, sizeof(*zygote));
    zygote->births = births;
    zygote->home = &warm->home;
    zygote->kind = line.kind;
    zygote->main_file = main_file;
    memcpy(zygote->path, path, strlen(path) + 1);
    memcpy(zygote->name, line.path, strlen(line.path) + 1);
    memcpy(zygote->option, line.option, strlen(line.option) + 1);
    memcpy(zygote->script, script, strlen(script) + 1);
    as_zygote_begin(zygote);
    return zygote;
}

static void look_at_script(as_warm *warm, known_script *script, const as_program *program, const as_file_mark *mark)
{
    if (!is_known_as(script, program->script, mark)) {
        forget(script);
        script->path = as_strdup(as_str_from(program->script));
        script->mark = *mark;
    }
    /* What trials have said of a file holds for it in the next zygote as well; that may do what the last one could not. */
    script->is_refused = script->differences >= DIFFERENCES_MAX;
    script->is_told = false;
    script->zygote = zygote_for(warm, script, program);
    if (script->zygote != NULL)
        script->births = script->zygote->births;
}

int as_warm_look(as_warm *warm, const as_program *program, const as_file_mark *mark, as_zygote **zygote)
{
    known_script *script = place_of(warm, program->script);
    /* A zygote that was started anew since, or whose place is another's by now. */
    bool is_old = script->zygote != NULL &&
                  (script->births != script->zygote->births || script->zygote->step == AS_ZYGOTE_UNUSED);
    if (!is_known_as(script, program->script, mark) || is_old || script->turns > 0)
        look_at_script(warm, script, program, mark);
    script->used = ++warm->looks;
    *zygote = script->zygote;
    if (script->zygote == NULL || script->is_refused)
        return AS_ENOTFOUND;
    script->zygote->used_ns = warm->loop->now_ns;
    if (!script->is_told && script->zygote->step == AS_ZYGOTE_READY) {
        script->is_told = true;
        as_zygote_tell_script(script->zygote, script->path, mark);
    }
    return as_zygote_look(script->zygote);
}

/* --- life --- */

static bool is_ours(const as_warm *warm, pid_t pid)
{
    for (int i = 0; i < ZYGOTES_MAX; i++) {
        if (warm->zygotes[i].step != AS_ZYGOTE_UNUSED && as_zygote_has(&warm->zygotes[i], pid))
            return true;
    }
    return false;
}

/* A zygote that is killed between a fork and its report leaves a child of ours that nobody knows of. It ends by itself, when its socket is closed, and is
 * waited for here. Another one that has ended hides it until its own event has come; therefore now and then. */
static void wait_for_strays(as_timer *timer)
{
    as_warm *warm = AS_CONTAINER_OF(timer, as_warm, strays);
    siginfo_t info = {0};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        if (is_ours(warm, info.si_pid) || warm->is_program(warm->owner, info.si_pid))
            break;
        waitid(P_PID, (id_t)info.si_pid, &info, WEXITED);
        info = (siginfo_t){0};
    }
    as_timer_set(warm->loop, timer, wait_for_strays, STRAYS_MS);
}

static void relax(as_timer *timer)
{
    as_warm *warm = AS_CONTAINER_OF(timer, as_warm, relax);
    int64_t now_ns = warm->loop->now_ns;
    for (int i = 0; i < ZYGOTES_MAX; i++) {
        as_zygote *each = &warm->zygotes[i];
        if (each->step == AS_ZYGOTE_UNUSED || now_ns - each->used_ns < RELAX_MS * AS_NS_PER_MS)
            continue;
        as_zygote_relax(each);
        if (now_ns - each->used_ns >= IDLE_S * AS_NS_PER_S && each->step != AS_ZYGOTE_USELESS)
            as_zygote_end(each);
    }
    as_timer_set(warm->loop, timer, relax, RELAX_MS);
}

static void moved(void *owner)
{
    as_warm *warm = owner;
    warm->moved(warm->owner);
}

static char *copy_of(const char *text)
{
    return text != NULL ? as_strdup(as_str_from(text)) : NULL;
}

as_warm *as_warm_new(const as_warm_options *options)
{
    int errors_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (errors_fd < 0)
        return NULL;
    as_warm *warm = as_alloc(sizeof(*warm));
    warm->loop = options->loop;
    warm->python_main = copy_of(options->python_main);
    warm->perl_main = copy_of(options->perl_main);
    warm->moved = options->moved;
    warm->is_program = options->is_program;
    warm->owner = options->owner;
    warm->home = (as_zygote_home){
        .loop = options->loop,
        .events = options->events,
        .executor = options->executor,
        .launcher = options->launcher,
        .environment = options->environment,
        .errors_fd = errors_fd,
        .datagram = as_alloc(DATAGRAM_SIZE),
        .moved = moved,
        .refused = refused,
        .owner = warm,
    };
    as_timer_set(warm->loop, &warm->relax, relax, RELAX_MS);
    as_timer_set(warm->loop, &warm->strays, wait_for_strays, STRAYS_MS);
    return warm;
}

void as_warm_free(as_warm *warm)
{
    if (warm == NULL)
        return;
    as_timer_clear(warm->loop, &warm->relax);
    as_timer_clear(warm->loop, &warm->strays);
    for (int i = 0; i < ZYGOTES_MAX; i++) {
        if (warm->zygotes[i].step != AS_ZYGOTE_UNUSED)
            as_zygote_end(&warm->zygotes[i]);
    }
    for (int i = 0; i < SCRIPTS; i++)
        forget(&warm->scripts[i]);
    close(warm->home.errors_fd);
    as_free(warm->home.datagram);
    as_free(warm->python_main);
    as_free(warm->perl_main);
    as_free(warm);
}
