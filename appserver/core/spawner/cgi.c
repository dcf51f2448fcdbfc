#include "spawner/cgi.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handler/programs.h"
#include "spawner/script_path.h"
#include "spawner/shebang.h"

enum {
    REASON_SIZE = 320,
};

/* A request on its way to becoming a program. */
struct as_attempt {
    as_cgi_runner *runner;
    as_request_frame frame;
    as_slot *slot;
    uint64_t log_id;
    int64_t start_ns;
    int body_fd; /* -1: none, or handed on */
    as_script script;
    as_str url_name; /* what of the path behind the rule's prefix names the program */
    char *file;      /* absolute path of the program */
    as_program program;
    bool is_executable;
    char *argv[AS_QUERY_WORDS_MAX + 3];
    char *cold_argv[4]; /* of a program that an interpreter has to run which it does not name to the system */
};

/* --- answers without a program --- */

void as_cgi_refuse(const as_cgi_runner *runner, const as_request_head *head, uint16_t status)
{
    as_str fields =
        status == 503 ? AS_STR("Retry-After: 1\r\nContent-Type: text/plain; charset=utf-8\r\n") : AS_STR("");
    as_str body = status == 503 ? AS_STR("503 Service Unavailable\n") : AS_STR("");
    as_answer_head answer = {
        .slot = head->slot,
        .status = status,
        .request_id = head->request_id,
        .fields_len = (uint32_t)fields.len,
        .body_len = body.len,
    };
    as_answers_send(runner->answers, head->loop, AS_ANSWER_RESPONSE, &answer, fields, body, -1);
}

void as_cgi_skip(const as_cgi_runner *runner, const as_request_head *head)
{
    as_answer_head answer = {.slot = head->slot, .request_id = head->request_id};
    as_answers_send(runner->answers, head->loop, AS_ANSWER_SKIPPED, &answer, AS_STR_NONE, AS_STR_NONE, -1);
}

static void respond(const as_attempt *request, uint16_t status)
{
    as_cgi_refuse(request->runner, &request->frame.head, status);
}

/* The owner of the program reads why in the log, the client only that it failed. */
static void refuse(const as_attempt *request, const char *what, const char *reason, uint16_t status)
{
    as_event_emit(request->runner->events, AS_EVENT_WARNING, request->log_id, -1, request->runner->running->executor,
                  "%s: %s", what, reason);
    respond(request, status);
}

/* The system is short of something that may be there again in a moment. */
static void refuse_for_now(const as_attempt *request, const char *what, int error)
{
    errno = error;
    as_event_emit(request->runner->events, AS_EVENT_ERROR, request->log_id, -1, request->runner->running->executor,
                  "%s: not run, because the system is short of something: %m", what);
    respond(request, 503);
}

static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN || error == ENOSPC;
}

/* --- look-up --- */

static const char *why_forbidden(int error)
{
    switch (error) {
    case EXDEV:
        return "is or leads through a symbolic link that leads out of the folder: `symlinks: follow` allows that, for "
               "folders that only trusted people can write";
    case ELOOP:
        return "is or leads through a symbolic link that is not followed, because of `symlinks: deny` or because it "
               "leads in a circle";
    case ENOTSUP:
        return "is neither a file nor a folder";
    default:
        return "cannot be reached by the server's user, who may not enter one of the folders";
    }
}

static void refuse_lookup(const as_attempt *request, int verdict, int error)
{
    char reason[REASON_SIZE];
    const char *root = request->runner->variables.root;
    const char *path = request->runner->variables.path_info;
    if (verdict == AS_ESYSTEM) {
        if (is_shortage(error)) {
            refuse_for_now(request, root, error);
            return;
        }
        errno = error;
        snprintf(reason, sizeof(reason), "the folder of programs cannot be opened: %m");
        refuse(request, root, reason, 500);
        return;
    }
    if (verdict == AS_EFORBIDDEN && error != 0)
        as_event_emit(request->runner->events, AS_EVENT_WARNING, request->log_id, -1,
                      request->runner->running->executor, "%s: %.200s %s", root, path, why_forbidden(error));
    if (verdict == AS_EFORBIDDEN)
        respond(request, 403);
    else
        respond(request, 404);
}

static as_symlinks symlinks_of(const as_variables *variables)
{
    if (strcmp(variables->symlinks, "follow") == 0)
        return AS_SYMLINKS_FOLLOW;
    return strcmp(variables->symlinks, "deny") == 0 ? AS_SYMLINKS_DENY : AS_SYMLINKS_BENEATH;
}

/* AS_OK and so on as as_script_find(). A program that the rule names is looked up as if it stood in front of the path, which is then nearly all its own. */
static int look_up(as_attempt *request)
{
    const as_variables *variables = &request->runner->variables;
    as_script *script = &request->script;
    as_symlinks symlinks = symlinks_of(variables);
    if (variables->program[0] == '\0') {
        int verdict = as_script_find(variables->root, variables->path_info, symlinks, script);
        request->url_name = script->name;
        return verdict;
    }
    const char *rest = variables->path_info + (variables->whole_path[0] != '\0' ? strlen(variables->path_info) : 0);
    as_str path = as_arena_printf(&request->runner->arena, "/%s%s", variables->program, rest);
    int verdict = as_script_find(variables->root, path.ptr, symlinks, script);
    script->path_info = as_str_from(rest);
    request->url_name = as_str_of(variables->path_info, (size_t)(rest - variables->path_info));
    return verdict;
}

/* True when the program has been found. */
static bool find_script(as_attempt *request)
{
    const as_variables *variables = &request->runner->variables;
    if (variables->root[0] != '/') {
        refuse(request, "cgi", "the request names no folder of programs (appserver.cgi.root)", 500);
        return false;
    }
    int verdict = look_up(request);
    if (verdict == AS_OK && variables->extensions[0] != '\0' &&
        !as_programs_has_extension(as_str_from(variables->extensions), request->script.name))
        verdict = AS_ENOTFOUND;
    if (verdict != AS_OK) {
        refuse_lookup(request, verdict, errno);
        return false;
    }
    as_str root = as_str_from(variables->root);
    while (root.len > 0 && root.ptr[root.len - 1] == '/')
        root.len--;
    as_str name = request->script.name;
    const char *slash = name.ptr[0] == '/' ? "" : "/";
    as_str file =
        as_arena_printf(&request->runner->arena, "%.*s%s%.*s", (int)root.len, root.ptr, slash, (int)name.len, name.ptr);
    request->file = (char *)file.ptr;
    return true;
}

/* --- environment and command line --- */

static char *print_variable(as_arena *arena, const char *name, as_str first, as_str second)
{
    return (char *)as_arena_printf(arena, "%s=%.*s%.*s", name, (int)first.len, first.ptr, (int)second.len, second.ptr)
        .ptr;
}

/* What the split of the path decides, and what names the same in another way. The client's name is not looked up, for which its address may stand (RFC 3875 section
 * 4.1.9). CONTEXT_* are Apache's: the prefix of the rule, and the folder that it stands for. */
static int complete_environment(as_attempt *request)
{
    as_cgi_runner *runner = request->runner;
    as_variables *variables = &runner->variables;
    as_str path_info = request->script.path_info;
    as_str prefix = as_str_from(variables->script_name);
    const struct {
        const char *name;
        as_str first;
        as_str second;
        bool is_left_out;
    } added[] = {
        {"SCRIPT_NAME", prefix, request->url_name, false},
        {"SCRIPT_FILENAME", as_str_from(request->file), AS_STR(""), false},
        {"PATH_INFO", path_info, AS_STR(""), false},
        {"PATH_TRANSLATED", as_str_from(variables->document_root), path_info,
         path_info.len == 0 || variables->document_root[0] == '\0'},
        {"REMOTE_HOST", as_str_from(variables->remote_address), AS_STR(""), variables->remote_address[0] == '\0'},
        {"CONTEXT_PREFIX", prefix, AS_STR(""), false},
        {"CONTEXT_DOCUMENT_ROOT", as_str_from(variables->root), AS_STR(""), false},
    };
    for (size_t i = 0; i < AS_COUNT_OF(added); i++) {
        if (added[i].is_left_out)
            continue;
        char *entry = print_variable(&runner->arena, added[i].name, added[i].first, added[i].second);
        if (as_variables_add(variables, entry) != AS_OK)
            return AS_EFULL;
    }
    return as_variables_add_absent(variables, runner->defaults, runner->defaults_count);
}

/* ISINDEX words only for programs that are executed themselves: an interpreter would have to be trusted not to take them for its own. */
static uint32_t add_query_words(as_attempt *request, char **argv, uint32_t count)
{
    const as_variables *variables = &request->runner->variables;
    if (strcmp(variables->method, "GET") != 0 && strcmp(variables->method, "HEAD") != 0)
        return count;
    if (variables->query[0] == '\0' || strchr(variables->query, '=') != NULL)
        return count;
    as_str copy = as_arena_copy(&request->runner->arena, as_str_from(variables->query));
    return count + as_query_words((char *)copy.ptr, argv + count);
}

/* What the #! line of a file says: 1 or 2 words, 0 for none. */
static uint32_t read_line(as_attempt *request, char *words[2])
{
    char text[AS_SHEBANG_SIZE];
    as_str path;
    as_str option;
    ssize_t len = as_program_read_beginning(request->file, text, sizeof(text));
    if (len < 0 || as_shebang_split(as_str_of(text, (size_t)len), &path, &option) != AS_OK)
        return 0;
    words[0] = (char *)as_arena_copy(&request->runner->arena, path).ptr;
    words[1] = (char *)as_arena_copy(&request->runner->arena, option).ptr;
    return option.len > 0 ? 2 : 1;
}

/* For a program that the system will not execute by itself, because it lacks the mode for it. */
static const char *plan_unexecutable(as_attempt *request)
{
    uint32_t count = read_line(request, request->cold_argv);
    request->cold_argv[count] = count > 0 ? request->file : NULL;
    return count > 0 ? NULL : as_script_interpreter(request->runner->usual_interpreters, request->script.name);
}

/* The command line; the interpreter when it begins with one, else NULL. */
static const char *plan_arguments(as_attempt *request, char **argv)
{
    const char *interpreter = as_script_interpreter(request->runner->interpreters, request->script.name);
    uint32_t count = 0;
    request->is_executable = (request->script.mode & (S_IXUSR | S_IXGRP | S_IXOTH)) != 0;
    request->cold_argv[0] = NULL;
    if (interpreter == NULL && !request->is_executable && request->runner->variables.extensions[0] != '\0')
        interpreter = plan_unexecutable(request);
    if (interpreter != NULL)
        argv[count++] = (char *)interpreter;
    argv[count++] = request->file;
    if (interpreter == NULL && request->is_executable)
        count = add_query_words(request, argv, count);
    argv[count] = NULL;
    return interpreter;
}

static void plan_program(as_attempt *request, as_program *program, char **argv)
{
    const char *interpreter = plan_arguments(request, argv);
    size_t directory_len = (size_t)(strrchr(request->file, '/') - request->file);
    as_str directory = as_str_of(request->file, directory_len > 0 ? directory_len : 1);
    *program = (as_program){
        .path = interpreter != NULL ? interpreter : request->file,
        .script = request->file,
        .argv = argv,
        .envp = request->runner->variables.entries,
        .directory = as_arena_copy(&request->runner->arena, directory).ptr,
        .limits = request->runner->running->limits,
    };
}

/* True when it may run, as whom it is said. */
static bool find_identity(as_attempt *request)
{
    char reason[REASON_SIZE];
    as_cgi_runner *runner = request->runner;
    if (as_identities_find(&runner->identities, runner->variables.root, request->file, request->start_ns,
                           &request->program.identity, reason, sizeof(reason)) == AS_OK)
        return true;
    refuse(request, request->file, reason, 403);
    return false;
}

/* --- descriptors --- */

/* A small body in memory: unlike a pipe it takes all of it at once and the program may seek in it. */
static int open_inline_body(as_str body)
{
    int fd = memfd_create("request-body", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    for (size_t at = 0; at < body.len;) {
        ssize_t len = pwrite(fd, body.ptr + at, body.len - at, (off_t)at);
        if (len < 0 && errno != EINTR) {
            int saved = errno;
            close(fd);
            errno = saved;
            return -1;
        }
        at += len > 0 ? (size_t)len : 0;
    }
    return fd;
}

/* -1 with errno. An fd that is not null_fd is the caller's. */
static int open_stdin(as_attempt *request)
{
    const as_request_frame *frame = &request->frame;
    if (frame->head.flags & (AS_REQUEST_BODY_FD | AS_REQUEST_BODY_STREAM)) {
        int fd = request->body_fd;
        request->body_fd = -1;
        if (fd < 0)
            errno = EMFILE; /* there was no room for it when the datagram came */
        else
            lseek(fd, 0, SEEK_SET); /* fails for a socket or pipe, which has no beginning to go to */
        return fd;
    }
    return frame->body.len > 0 ? open_inline_body(frame->body) : request->runner->launcher.null_fd;
}

static void close_pipe(int pipe_fds[2])
{
    for (int i = 0; i < 2; i++) {
        if (pipe_fds[i] >= 0)
            close(pipe_fds[i]);
        pipe_fds[i] = -1;
    }
}

static int open_pipes(int output[2], int errors[2])
{
    if (pipe2(output, O_CLOEXEC) < 0 || fcntl(output[0], F_SETFL, O_NONBLOCK) < 0)
        return AS_ESYSTEM;
    if (pipe2(errors, O_CLOEXEC) < 0 || fcntl(errors[0], F_SETFL, O_NONBLOCK) < 0)
        return AS_ESYSTEM;
    return AS_OK;
}

/* --- start --- */

/* Programs that write the whole HTTP response (RFC 3875 section 5) are known by their name, as everywhere. */
static bool is_nph(const as_attempt *request)
{
    const char *name = strrchr(request->file, '/');
    return strncmp(name, "/nph-", 5) == 0;
}

static void refuse_start(const as_attempt *request, const as_program *program, int error)
{
    char reason[REASON_SIZE];
    if (is_shortage(error)) {
        refuse_for_now(request, request->file, error);
        return;
    }
    as_program_explain(program, error, reason, sizeof(reason));
    /* The system's limit for one variable is 128 KiB; only a client's field or target comes near it. */
    bool is_too_large = program->failed_at == AS_PROGRAM_EXEC && error == E2BIG;
    refuse(request, request->file, reason, is_too_large ? 431 : as_program_has_gone(program) ? 404 : 500);
}

/* One run of a request. */
typedef struct run_plan {
    as_program program;
    as_zygote *zygote; /* NULL: it starts cold */
    as_trial *trial;   /* NULL: the only run */
    as_trial_side side;
} run_plan;

/* Whether somebody waits for its answer. */
static bool is_answered(const run_plan *run)
{
    return run->trial == NULL || run->side == AS_TRIAL_COLD;
}

/* Takes the reading end of `output` and both of `errors`. AS_OK or AS_ESYSTEM. */
static int started(const as_attempt *request, const run_plan *run, int output[2], int errors[2])
{
    as_cgi_runner *runner = request->runner;
    const as_running_start start = {
        .program = &run->program,
        .trial = run->trial,
        .side = run->side,
        .slot = is_answered(run) ? request->slot : NULL,
        .request = &request->frame.head,
        .log_id = request->log_id,
        .start_ns = request->start_ns,
        .name = request->script.name,
        .document_flags = is_nph(request) ? AS_DOCUMENT_NPH : 0,
        .script_len = (uint64_t)(request->script.path_info.ptr - runner->variables.path_info),
        .output_fd = output[0],
        .errors_fd = errors[0],
        .errors_writer_fd = errors[1],
    };
    output[0] = errors[0] = errors[1] = -1;
    if (as_running_add(runner->running, &start) != AS_OK)
        return AS_ESYSTEM;
    if (is_answered(run))
        AS_SLOT_STORE(request->slot, process, run->program.pid);
    return AS_OK;
}

/* The system says that it is no program of this machine, and it does not say itself what runs it: 7-bit text as a rule. */
static bool has_usual_interpreter(as_attempt *request, as_program *program)
{
    const char *interpreter = as_script_interpreter(request->runner->usual_interpreters, request->script.name);
    if (program->failed_at != AS_PROGRAM_EXEC || errno != ENOEXEC || program->path != request->file ||
        interpreter == NULL || as_program_is_explicit(program))
        return false;
    request->cold_argv[0] = (char *)interpreter;
    request->cold_argv[1] = request->file;
    request->cold_argv[2] = NULL;
    return true;
}

static int start_cold(as_attempt *request, as_program *program)
{
    as_launcher *launcher = &request->runner->launcher;
    int verdict = as_program_start(launcher, program);
    if (verdict == AS_OK || !has_usual_interpreter(request, program))
        return verdict;
    program->path = request->cold_argv[0];
    program->argv = request->cold_argv;
    return as_program_start(launcher, program);
}

/* Warm, else cold; to be compared with the cold one a warm run is nothing else. */
static int start_process(as_attempt *request, run_plan *run)
{
    if (run->zygote != NULL && as_zygote_become(run->zygote, &run->program, &request->script.mark) == AS_OK)
        return AS_OK;
    return is_answered(run) ? start_cold(request, &run->program) : AS_ESYSTEM;
}

/* AS_OK or AS_ESYSTEM; in that case the request, if it is answered by this run, has been refused. */
static int start_run(as_attempt *request, run_plan *run)
{
    as_program *program = &run->program;
    int output[2] = {-1, -1};
    int errors[2] = {-1, -1};
    int verdict = AS_ESYSTEM;
    program->stdin_fd = open_stdin(request);
    if (program->stdin_fd < 0 || open_pipes(output, errors) != AS_OK) {
        if (is_answered(run))
            refuse_for_now(request, request->file, errno);
        goto release;
    }
    if (run->trial != NULL)
        as_trial_widen(output[0]);
    /* A warm process may have to execute it after all. */
    if (request->cold_argv[0] != NULL) {
        program->path = request->cold_argv[0];
        program->argv = request->cold_argv;
    }
    program->stdout_fd = output[1];
    program->stderr_fd = errors[1];
    verdict = start_process(request, run);
    if (verdict != AS_OK && is_answered(run))
        refuse_start(request, program, errno);
    if (verdict != AS_OK)
        goto release;
    verdict = started(request, run, output, errors);
    if (verdict != AS_OK && is_answered(run))
        refuse_for_now(request, request->file, errno);
release:
    close_pipe(errors);
    close_pipe(output);
    if (program->stdin_fd >= 0 && program->stdin_fd != request->runner->launcher.null_fd)
        close(program->stdin_fd);
    return verdict;
}

/* Only what is safe by its method (RFC 9110 section 9.2.1), and has no body, whose descriptor could be read only once. */
static bool may_run_twice(const as_attempt *request)
{
    const as_running_set *running = request->runner->running;
    const char *method = request->runner->variables.method;
    const as_request_frame *frame = &request->frame;
    return (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0) && frame->body.len == 0 &&
           (frame->head.flags & AS_REQUEST_FD_FLAGS) == 0 && running->limit - running->count >= 2;
}

static void start_trial_run(as_attempt *request, run_plan *run)
{
    if (start_run(request, run) == AS_OK)
        return;
    as_trial_abandon(run->trial);
    as_trial_end(run->trial, run->side, -1, 0);
}

static void start_twice(as_attempt *request, as_zygote *zygote)
{
    as_trial *trial = as_trial_new(request->program.script, as_warm_take_trial, request->runner->warm);
    run_plan cold = {.program = request->program, .trial = trial, .side = AS_TRIAL_COLD};
    run_plan warm = {.program = request->program, .zygote = zygote, .trial = trial, .side = AS_TRIAL_WARM};
    start_trial_run(request, &cold);
    start_trial_run(request, &warm);
}

/* AS_OK, also when the request has been refused; AS_EAGAIN when a warm process is on its way. */
static int start_program(as_attempt *request)
{
    as_cgi_runner *runner = request->runner;
    as_zygote *zygote = NULL;
    int warmth = runner->warm != NULL ? as_warm_look(runner->warm, &request->program, &request->script.mark, &zygote)
                                      : AS_ENOTFOUND;
    if (warmth == AS_EAGAIN)
        return AS_EAGAIN;
    if (warmth == AS_OK && runner->verifies && may_run_twice(request)) {
        start_twice(request, zygote);
        return AS_OK;
    }
    bool is_warm = warmth == AS_OK && !runner->verifies;
    run_plan only = {.program = request->program, .zygote = is_warm ? zygote : NULL};
    start_run(request, &only);
    return AS_OK;
}

/* PHP's own CGI program refuses to run without it, as a guard against being called directly with whatever path (its cgi.force_redirect). */
static bool is_redirect_wanted(const as_attempt *request)
{
    return request->argv[0] != request->file || as_programs_has_extension(AS_STR(".php"), request->script.name);
}

static int add_redirect_status(as_variables *variables)
{
    static char entry[] = "REDIRECT_STATUS=200";
    char *const entries[] = {entry};
    return as_variables_add_absent(variables, entries, 1);
}

static const char too_many[] = "the environment has too many variables";

/* AS_OK, also when the request has been refused; AS_EBADFRAME; AS_EAGAIN. */
static int run_attempt(as_attempt *request)
{
    as_cgi_runner *runner = request->runner;
    as_variables *variables = &runner->variables;
    as_str block = request->frame.environment;
    int verdict = as_variables_take(variables, (char *)block.ptr, block.len);
    if (verdict == AS_EBADFRAME)
        return verdict;
    request->log_id = strtoull(variables->log_id, NULL, 16);
    if (request->log_id == 0)
        request->log_id = request->frame.head.request_id;
    if (verdict == AS_OK && !find_script(request))
        return AS_OK;
    if (verdict == AS_OK)
        verdict = complete_environment(request);
    if (verdict != AS_OK) {
        refuse(request, variables->path_info, too_many, 500);
        return AS_OK;
    }
    plan_program(request, &request->program, request->argv);
    if (is_redirect_wanted(request) && add_redirect_status(variables) != AS_OK) {
        refuse(request, request->file, too_many, 500);
        return AS_OK;
    }
    if (request->argv[0] == request->file && !request->is_executable && request->cold_argv[0] == NULL)
        refuse(request, request->file, "not executable: chmod +x", 500);
    else if (find_identity(request))
        return start_program(request);
    return AS_OK;
}

static int attempt_ends(as_attempt *request, int verdict)
{
    request->runner->is_held = verdict == AS_EAGAIN;
    if (verdict == AS_EAGAIN)
        return verdict;
    if (request->body_fd >= 0)
        close(request->body_fd);
    request->body_fd = -1;
    return verdict;
}

int as_cgi_run(as_cgi_runner *runner, const as_request_frame *frame, as_slot *slot, int64_t now_ns, int body_fd)
{
    as_attempt *request = runner->attempt;
    assert(!runner->is_held);
    *request = (as_attempt){.runner = runner, .frame = *frame, .slot = slot, .start_ns = now_ns, .body_fd = body_fd};
    as_arena_reset(&runner->arena);
    return attempt_ends(request, run_attempt(request));
}

int as_cgi_resume(as_cgi_runner *runner)
{
    as_attempt *request = runner->attempt;
    assert(runner->is_held);
    if (AS_SLOT_LOAD(request->slot, cancelled) != 0) {
        as_cgi_skip(runner, &request->frame.head);
        return attempt_ends(request, AS_OK);
    }
    return attempt_ends(request, start_program(request));
}

/* --- life --- */

/* Bytes of "NAME\0value\0...\0" with its ending empty name. */
static size_t pairs_size(const char *pairs)
{
    const char *at = pairs;
    while (*at != '\0') {
        at += strlen(at) + 1;
        at += strlen(at) + 1;
    }
    return (size_t)(at - pairs) + 1;
}

static char *copy_pairs(const char *pairs)
{
    return pairs == NULL ? as_strdup(AS_STR("")) : as_strdup(as_str_of(pairs, pairs_size(pairs)));
}

static int take_defaults(as_cgi_runner *runner, const char *pairs)
{
    runner->defaults_text = copy_pairs(pairs);
    for (char *name = runner->defaults_text; *name != '\0';) {
        char *value = name + strlen(name) + 1;
        if (runner->defaults_count == AS_DEFAULTS_MAX)
            return AS_EINVALID;
        runner->defaults[runner->defaults_count++] = name;
        value[-1] = '=';
        name = value + strlen(value) + 1;
    }
    return AS_OK;
}

int as_cgi_runner_init(as_cgi_runner *runner, const as_spawner_options *options)
{
    as_arena_init(&runner->arena);
    runner->attempt = as_alloc(sizeof(*runner->attempt));
    runner->attempt->body_fd = -1;
    runner->interpreters = copy_pairs(options->interpreters);
    runner->usual_interpreters = copy_pairs(options->usual_interpreters);
    as_identities_init(&runner->identities, &options->identity);
    int verdict = as_launcher_init(&runner->launcher);
    runner->launcher.descriptors = options->program_descriptors;
    return verdict != AS_OK ? verdict : take_defaults(runner, options->environment);
}

static bool is_program(void *owner, pid_t pid)
{
    const as_cgi_runner *runner = owner;
    return as_running_has(runner->running, pid);
}

static void warm_has_moved(void *owner)
{
    as_cgi_runner *runner = owner;
    if (runner->is_held)
        runner->resumable(runner->owner);
}

int as_cgi_runner_warm(as_cgi_runner *runner, const as_spawner_options *options, as_loop *loop,
                       void (*resumable)(void *owner), void *owner)
{
    /* An interpreter that is kept belongs to one user. */
    if ((options->python_zygote == NULL && options->perl_zygote == NULL) || options->identity.is_owner)
        return AS_OK;
    const as_warm_options wanted = {
        .loop = loop,
        .events = runner->events,
        .executor = options->executor,
        .launcher = &runner->launcher,
        .environment = runner->defaults,
        .python_main = options->python_zygote,
        .perl_main = options->perl_zygote,
        .moved = warm_has_moved,
        .is_program = is_program,
        .owner = runner,
    };
    runner->resumable = resumable;
    runner->owner = owner;
    runner->verifies = options->verifies_warm;
    runner->warm = as_warm_new(&wanted);
    return runner->warm != NULL ? AS_OK : AS_ESYSTEM;
}

void as_cgi_runner_free(as_cgi_runner *runner)
{
    as_warm_free(runner->warm);
    if (runner->attempt != NULL && runner->attempt->body_fd >= 0)
        close(runner->attempt->body_fd);
    as_free(runner->attempt);
    as_launcher_free(&runner->launcher);
    as_identities_free(&runner->identities);
    as_arena_free(&runner->arena);
    as_free(runner->defaults_text);
    as_free(runner->interpreters);
    as_free(runner->usual_interpreters);
}
