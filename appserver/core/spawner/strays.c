#include "spawner/strays.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LIST_SIZE = 4096,
    /* One look after the other: who is killed leaves its own children to us. */
    ROUNDS_AT_ONCE = 8,
    AGAIN_MS = 10,
    AGAIN_LATE_MS = 1000,
    /* Then somebody cannot be killed: a program of another user, or one that the kernel keeps. */
    ROUNDS_MANY = 800,
    LAST_LOOKS = 100,
};

void as_strays_init(as_strays *strays)
{
    char path[64];
    strays->children_fd = -1;
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    strays->children_fd = open(path, O_RDONLY | O_CLOEXEC);
}

/* The group as well, when the stray has made one: its members need not be looked for. */
static void end(pid_t pid)
{
    siginfo_t info;
    if (getpgid(pid) == pid)
        kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG);
}

/* How many there were. */
static uint32_t end_all(as_strays *strays)
{
    char list[LIST_SIZE + 1];
    uint32_t count = 0;
    ssize_t len = pread(strays->children_fd, list, LIST_SIZE, 0);
    if (len <= 0)
        return 0;
    while (len > 0 && list[len - 1] != ' ') /* a number that is cut off */
        len--;
    list[len] = '\0';
    for (char *at = list; *at != '\0'; count++) {
        char *next;
        long pid = strtol(at, &next, 10);
        if (next == at || pid <= 1)
            break;
        end((pid_t)pid);
        at = next + (*next == ' ');
    }
    return count;
}

static void look_again(as_timer *timer)
{
    as_strays_kill(AS_CONTAINER_OF(timer, as_strays, again));
}

void as_strays_kill(as_strays *strays)
{
    /* Where the loop runs in the first thread its children are programs. */
    if (strays->children_fd < 0 || syscall(SYS_gettid) == getpid())
        return;
    for (int i = 0; i < ROUNDS_AT_ONCE; i++) {
        if (end_all(strays) == 0) {
            as_timer_clear(strays->loop, &strays->again);
            strays->rounds = 0;
            return;
        }
        strays->rounds++;
    }
    if (strays->rounds == ROUNDS_MANY)
        as_event_emit(
            strays->events, AS_EVENT_WARNING, 0, -1, strays->executor,
            "processes that programs have left behind cannot be ended; they run as another user, or outrun us: "
            "limit `processes`");
    if (!as_timer_is_set(&strays->again))
        as_timer_set(strays->loop, &strays->again, look_again, strays->rounds < ROUNDS_MANY ? AGAIN_MS : AGAIN_LATE_MS);
}

void as_strays_free(as_strays *strays)
{
    if (strays->loop != NULL)
        as_timer_clear(strays->loop, &strays->again);
    if (strays->children_fd < 0)
        return;
    for (int i = 0; i < LAST_LOOKS && end_all(strays) > 0; i++)
        usleep(AGAIN_MS * 1000);
    close(strays->children_fd);
    strays->children_fd = -1;
}
