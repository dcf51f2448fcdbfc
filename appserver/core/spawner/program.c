#include "spawner/program.h"
#include "spawner/shebang.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CHILD_STACK = 64 * 1024,
    GUARD = 64 * 1024, /* a page of any architecture */
};

/* What parent and child share until the exec. */
typedef struct child_plan {
    const as_launcher *launcher;
    const as_program *program;
    volatile int error;
    volatile as_program_step step;
} child_plan;

int as_launcher_init(as_launcher *launcher)
{
    *launcher = (as_launcher){.null_fd = -1};
    do {
        launcher->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (launcher->null_fd < 0)
            return AS_ESYSTEM;
    } while (launcher->null_fd <= STDERR_FILENO);
    launcher->stack = mmap(NULL, GUARD + CHILD_STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (launcher->stack == MAP_FAILED) {
        launcher->stack = NULL;
        return AS_ESYSTEM;
    }
    return mprotect(launcher->stack + GUARD, CHILD_STACK, PROT_READ | PROT_WRITE) < 0 ? AS_ESYSTEM : AS_OK;
}

void as_launcher_free(as_launcher *launcher)
{
    if (launcher->stack != NULL)
        munmap(launcher->stack, GUARD + CHILD_STACK);
    if (launcher->null_fd >= 0)
        close(launcher->null_fd);
}

/* As the kernel has it (rt_sigaction(2)). The C library's sigaction() refuses the two signals that it keeps for itself, and its posix_spawn() leaves those
 * ignored in programs: whatever is started by make, for one, would hand that on. */
typedef struct kernel_action {
    void (*handler)(int);
    unsigned long rest[3]; /* flags, restorer, mask */
} kernel_action;

AS_NO_SANITIZE static long kernel_sigaction(int number, const kernel_action *set, kernel_action *get)
{
    return syscall(SYS_rt_sigaction, number, set, get, sizeof(unsigned long));
}

void as_launcher_note_process(as_launcher *launcher)
{
    kernel_action now;
    struct sigaction action;
    launcher->own_pid = getpid();
    launcher->signal_count = 0;
    if (sigaction(SIGCHLD, NULL, &action) == 0 && action.sa_handler == SIG_IGN) {
        action.sa_handler = SIG_DFL;
        sigaction(SIGCHLD, &action, NULL);
    }
    for (int number = 1; number < _NSIG; number++) {
        if (number == SIGKILL || number == SIGSTOP || kernel_sigaction(number, NULL, &now) < 0)
            continue;
        if (now.handler != SIG_DFL)
            launcher->signals[launcher->signal_count++] = (unsigned char)number;
    }
}

AS_NO_SANITIZE static int fail(child_plan *plan, as_program_step step)
{
    plan->error = errno;
    plan->step = step;
    return 127;
}

/* What this process has raised for itself is not for programs: select() cannot deal with numbers above 1023, and some close every number up to the limit. */
AS_NO_SANITIZE static int set_descriptor_limit(rlim_t soft)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -1;
    limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit);
}

/* The child, on its own stack but in the parent's memory: system calls only. All signals are blocked until the last step, because a handler of the
 * parent would run on the parent's data; by then those that have one are back at their default. */
AS_NO_SANITIZE static int child_main(void *argument)
{
    child_plan *plan = argument;
    const as_program *program = plan->program;
    const as_launcher *launcher = plan->launcher;
    if (setpgid(0, 0) < 0)
        return fail(plan, AS_PROGRAM_PREPARE);
    if (program->limits != NULL &&
        (as_rlimits_apply(program->limits, 0) != AS_OK || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0))
        return fail(plan, AS_PROGRAM_PREPARE);
    if (program->identity != NULL && as_identity_assume(program->identity) < 0)
        return fail(plan, AS_PROGRAM_IDENTITY);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) /* after the identity, whose change takes it away */
        return fail(plan, AS_PROGRAM_PREPARE);
    if (getppid() != launcher->own_pid) /* the parent died before the prctl */
        return fail(plan, AS_PROGRAM_PREPARE);
    if (dup2(program->stdin_fd, STDIN_FILENO) < 0 || dup2(program->stdout_fd, STDOUT_FILENO) < 0 ||
        dup2(program->stderr_fd, STDERR_FILENO) < 0)
        return fail(plan, AS_PROGRAM_PREPARE);
    /* Everything is close-on-exec already; this is for what a library in this process opened without. */
    syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    if (chdir(program->directory) < 0)
        return fail(plan, AS_PROGRAM_DIRECTORY);
    if (launcher->descriptors != 0 && (program->limits == NULL || program->limits->wanted.open_files == 0) &&
        set_descriptor_limit(launcher->descriptors) < 0)
        return fail(plan, AS_PROGRAM_PREPARE);
    const kernel_action action = {.handler = SIG_DFL};
    for (int i = 0; i < launcher->signal_count; i++)
        kernel_sigaction(launcher->signals[i], &action, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(program->path, program->argv, program->envp);
    return fail(plan, AS_PROGRAM_EXEC);
}

static void reap(pid_t pid)
{
    siginfo_t info;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0 && errno == EINTR) {
    }
}

int as_program_start(as_launcher *launcher, as_program *program)
{
    child_plan plan = {.launcher = launcher, .program = program};
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    program->pidfd = -1;
    program->pid = clone(child_main, launcher->stack + GUARD + CHILD_STACK,
                         CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan, &program->pidfd);
    int error = program->pid < 0 ? errno : plan.error;
    program->failed_at = program->pid < 0 ? AS_PROGRAM_CLONE : plan.step;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        return AS_OK;
    if (program->pid > 0) {
        reap(program->pid);
        close(program->pidfd);
    }
    errno = error;
    return AS_ESYSTEM;
}

ssize_t as_program_read_beginning(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return -1;
    ssize_t len = read(fd, out, size);
    int saved = errno;
    close(fd);
    errno = saved;
    return len;
}

typedef enum first_line {
    FIRST_LINE_OTHER, /* no #!, or it cannot be read */
    FIRST_LINE_NAMES,
    FIRST_LINE_NOTHING, /* #! and no name behind it */
    FIRST_LINE_LONG,    /* the name goes on behind what the kernel reads */
    FIRST_LINE_MARKED,  /* a byte order mark stands before #! */
    FIRST_LINE_EMPTY,   /* so is the file */
} first_line;

/* How the script begins; the interpreter that its #! line names into `name`, else "". */
static first_line read_first_line(const char *script, char name[AS_SHEBANG_SIZE + 1])
{
    char line[AS_SHEBANG_SIZE + 1];
    name[0] = '\0';
    ssize_t len = as_program_read_beginning(script, line, AS_SHEBANG_SIZE);
    if (len <= 0)
        return len == 0 ? FIRST_LINE_EMPTY : FIRST_LINE_OTHER;
    line[len] = '\0';
    if (strncmp(line, "\xef\xbb\xbf#!", 5) == 0)
        return FIRST_LINE_MARKED;
    if (strncmp(line, "#!", 2) != 0)
        return FIRST_LINE_OTHER;
    const char *start = line + 2 + strspn(line + 2, " \t");
    size_t name_len = strcspn(start, " \t\n");
    memcpy(name, start, name_len);
    name[name_len] = '\0';
    if (name_len == 0)
        return FIRST_LINE_NOTHING;
    return start + name_len == line + AS_SHEBANG_SIZE ? FIRST_LINE_LONG : FIRST_LINE_NAMES;
}

bool as_program_has_gone(const as_program *program)
{
    return access(program->script, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR);
}

bool as_program_is_explicit(const as_program *program)
{
    char name[AS_SHEBANG_SIZE + 1];
    int saved = errno;
    bool is_explicit = read_first_line(program->script, name) != FIRST_LINE_OTHER;
    errno = saved;
    return is_explicit;
}

static bool is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static void explain_missing(const as_program *program, char *text, size_t size)
{
    char name[AS_SHEBANG_SIZE + 1];
    if (program->path != program->script) {
        snprintf(text, size, "its interpreter %s is missing", program->path);
    } else if (read_first_line(program->script, name) != FIRST_LINE_NAMES) {
        snprintf(text, size, "the loader that it was linked for is missing");
    } else if (name[strlen(name) - 1] == '\r') {
        snprintf(text, size, "its #! line ends in CR LF: its line ends must be those of Unix");
    } else if (name[0] != '/') {
        snprintf(text, size, "its #! line must name its interpreter by an absolute path, not as %s", name);
    } else if (access(name, F_OK) < 0) {
        snprintf(text, size, "its interpreter %s is missing", name);
    } else {
        snprintf(text, size, "its interpreter %s needs another one, which is missing", name);
    }
}

static const char names_nothing[] = "its #! line names no interpreter";
static const char refused_by_policy[] =
    "it may not be executed: it lies on a mount with noexec, or a security policy refuses it";

static void explain_refused_interpreter(const char *interpreter, char *text, size_t size)
{
    if (access(interpreter, F_OK) == 0 && !is_file(interpreter))
        snprintf(text, size, "its interpreter %s is no file", interpreter);
    else if (faccessat(AT_FDCWD, interpreter, X_OK, AT_EACCESS) < 0)
        snprintf(text, size, "its interpreter %s is not executable: chmod +x", interpreter);
    else
        snprintf(text, size, "%s", refused_by_policy);
}

static void explain_refused(const as_program *program, char *text, size_t size)
{
    char name[AS_SHEBANG_SIZE + 1];
    first_line line;
    if (program->path != program->script)
        explain_refused_interpreter(program->path, text, size);
    else if (!is_file(program->path))
        snprintf(text, size, "%s is no file any more", program->path);
    else if (faccessat(AT_FDCWD, program->path, X_OK, AT_EACCESS) < 0)
        snprintf(text, size, "%s is not executable: chmod +x", program->path);
    else if ((line = read_first_line(program->script, name)) == FIRST_LINE_NAMES)
        explain_refused_interpreter(name, text, size);
    else
        snprintf(text, size, "%s", line == FIRST_LINE_NOTHING ? names_nothing : refused_by_policy);
}

static void explain_format(const as_program *program, char *text, size_t size)
{
    char name[AS_SHEBANG_SIZE + 1];
    if (program->path != program->script) {
        snprintf(text, size, "its interpreter %s is no program of this machine", program->path);
        return;
    }
    switch (read_first_line(program->script, name)) {
    case FIRST_LINE_NAMES:
        snprintf(text, size, "its interpreter %s is no program of this machine", name);
        break;
    case FIRST_LINE_NOTHING:
        snprintf(text, size, "%s", names_nothing);
        break;
    case FIRST_LINE_LONG:
        snprintf(text, size, "its #! line is too long: the system reads %d bytes", AS_SHEBANG_SIZE);
        break;
    case FIRST_LINE_MARKED:
        snprintf(text, size, "it begins with a byte order mark: save it without one, so that #! comes first");
        break;
    case FIRST_LINE_EMPTY:
        snprintf(text, size, "it is empty");
        break;
    case FIRST_LINE_OTHER:
        snprintf(text, size, "it has no #! line and is no program of this machine");
        break;
    }
}

static void explain_exec(const as_program *program, int error, char *text, size_t size)
{
    switch (error) {
    case ENOENT:
        explain_missing(program, text, size);
        break;
    case EACCES:
        explain_refused(program, text, size);
        break;
    case ENOEXEC:
        explain_format(program, text, size);
        break;
    case ELOOP:
        snprintf(text, size,
                 "its interpreter is a script, whose interpreter is one, and so on: one has to be a program");
        break;
    case ETXTBSY:
        snprintf(text, size, "it is being written to: write a new file and rename it");
        break;
    case E2BIG:
        snprintf(text, size, "its environment and arguments are too large for the system");
        break;
    default:
        errno = error;
        snprintf(text, size, "it cannot be executed: %m");
    }
}

void as_program_explain(const as_program *program, int error, char *text, size_t size)
{
    if (program->failed_at != AS_PROGRAM_CLONE && as_program_has_gone(program)) {
        snprintf(text, size, "it has gone since it was looked up");
        return;
    }
    switch (program->failed_at) {
    case AS_PROGRAM_CLONE:
        errno = error;
        snprintf(text, size, "no process could be made: %m");
        break;
    case AS_PROGRAM_PREPARE:
        errno = error;
        snprintf(text, size, "its process could not be set up: %m");
        break;
    case AS_PROGRAM_IDENTITY:
        errno = error;
        snprintf(text, size, "it could not become the user uid %u: %m", (unsigned)program->identity->uid);
        break;
    case AS_PROGRAM_DIRECTORY:
        errno = error;
        snprintf(text, size, "its directory %s cannot be entered: %m", program->directory);
        break;
    case AS_PROGRAM_EXEC:
        explain_exec(program, error, text, size);
        break;
    }
}
