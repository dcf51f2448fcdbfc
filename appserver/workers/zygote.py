"""A Python interpreter that has started already, for CGI programs: `PYTHON OPTIONS zygote.py SPAWNER_PID SYS_CLONE`.

The CGI spawner starts one for each interpreter that `#!` lines name, with the options of that line and the environment
that all programs share. It forks processes ahead of demand. Each waits for one request, becomes the program, and ends
with it: what a script does is never seen by the next one.

Descriptor 0 is the order socket (SOCK_SEQPACKET). Orders: `F` with a descriptor: fork a process that waits at it; `S`,
a script's identity and path: compile it. Reports: `R` ready; `P` and a pid, or `X` and an errno, in the order of the
`F`s; `G`: processes that are forked from now on know more; `C`, a path, NUL and a reason: this script cannot run here;
`W`: files and folders that what is loaded depends on (of each its identity, zeros when it is not there, its path, NUL),
which the spawner looks at before each run, because once one of them is another, so must be the zygote; `Q`: it must be
another at once.

A forked process is a child of the spawner, not of the zygote (CLONE_PARENT), so that its end, its process group and its
exit status are seen by the spawner as those of any program. It gets one datagram: `RUN`, then strings that end with
NUL (directory, program to execute, script, arguments, environment), with stdin, stdout and stderr as descriptors. What
it cannot do exactly as a fresh interpreter would, it leaves to one: it executes the program as if nothing had been.

Modules of the standard library that scripts import are loaded here once and hidden; `import` finds them by a finder
that puts a module and all that importing it has been seen to import into `sys.modules`, in that order. What a script
does not import it does not see.
"""

import sys

_BASE = dict(sys.modules)  # what a script finds at its start; before anything else is imported
_MAIN_KEYS = [name for name in globals() if name.startswith("__")]
_MAIN_LOADER = type(globals()["__loader__"])

import _socket  # noqa: E402
import atexit  # noqa: E402
import contextlib  # noqa: E402
import ctypes  # noqa: E402
import gc  # noqa: E402
import itertools  # noqa: E402
import os  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import struct  # noqa: E402
import time  # noqa: E402
import types  # noqa: E402
from typing import Any, Dict, FrozenSet, List, Optional, Set, Tuple  # noqa: E402

_FOLDER = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120
for _name, _path in (("appserver", os.path.dirname(_FOLDER)), ("appserver.workers", _FOLDER)):  # noqa: PTH120
    # The package as it is here, wherever else this interpreter would find one of its name.
    sys.modules[_name] = types.ModuleType(_name)
    sys.modules[_name].__path__ = [_path]

from appserver.workers import zygote_modules  # noqa: E402
from appserver.workers.zygote_modules import Finder, Library, may_be_shared  # noqa: E402
from appserver.workers.zygote_run import REHEARSALS, Streams, leave, run  # noqa: E402

zygote_modules.BASE.update(_BASE)

RUN = struct.Struct("=QQQqqII")  # device, inode, size, mtime_ns, ctime_ns, arguments, variables
Identity = Tuple[int, int, int, int, int]

IDENTITY = struct.Struct("=QQQqq")
NOT_THERE = IDENTITY.pack(0, 0, 0, 0, 0)

MAX_DATAGRAM = 256 * 1024
MAX_REPORT = 8000
MAX_VARIABLES = 2048
#: A file that was changed this recently may change again without its times telling.
SETTLED_S = 0.05
MAX_SCRIPTS = 512
EXIT_CANNOT = 4  #: this interpreter cannot be a zygote; stderr says why

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER, PR_GET_TID_ADDRESS = 1, 15, 36, 40
CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, SIGCHLD = 0x8000, 0x200000, 0x1000000, 17
SIGINT, SIGKILL, SIGPIPE, SIGXFSZ = 2, 9, 13, 25

#: A script that looks at these would see that something stands below it on the stack, or in front of the finders.
TELLING_NAMES = {
    *("_getframe", "_getframemodulename", "_current_frames", "currentframe", "f_back", "print_stack", "extract_stack"),
    *("format_stack", "walk_stack", "settrace", "setprofile", "meta_path", "get_objects", "faulthandler"),
}
TELLING_ARGUMENT = "stack_info"  #: of logging's functions

_STARTED_WITH = dict(os.environb)
NO_FOLDER = "/dev/null/none"  #: in place of the script's folder in sys.path, while there is no script

_HAS_FIRST_PATH = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
_INTERPRETER_WORDS = list(getattr(sys, "orig_argv", []))[: -len(sys.argv)]
_libc = ctypes.PyDLL(None, use_errno=True)
_environ = ctypes.c_void_p.in_dll(_libc, "environ")
_before_fork, _after_fork_in_parent, _after_fork_in_child = (
    getattr(ctypes.pythonapi, "PyOS_" + name) for name in ("BeforeFork", "AfterFork_Parent", "AfterFork_Child")
)


class ColdError(Exception):
    """This run has to be left to a fresh interpreter; the message says why."""


class Script:
    """A script that has been compiled."""

    __slots__ = ("beside", "code", "cold", "first_path", "folder_ns", "identity", "path", "taken")

    def __init__(self, path: str, identity: Identity) -> None:
        with open(path, "rb") as file:  # noqa: PTH123
            source = file.read()
            self.identity = identity_of(os.fstat(file.fileno()))
        if self.identity != identity:
            raise ColdError("")
        self.path = path
        try:
            self.code: types.CodeType = compile(source, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ColdError("it does not compile") from None
        self.cold = _telling(self.code)
        self.first_path = os.path.dirname(os.path.realpath(path))  # noqa: PTH120
        self.folder_ns = -1
        self.beside: FrozenSet[str] = frozenset()
        self.taken: FrozenSet[str] = frozenset()

    def look_beside(self, loaded: FrozenSet[str]) -> None:
        """Which of the modules that are loaded are taken: by what lies in the script's folder, where it comes first."""
        changed_ns = os.stat(self.first_path).st_mtime_ns  # noqa: PTH116
        if changed_ns == self.folder_ns:
            return
        own = os.path.basename(self.path)  # noqa: PTH119
        entries = os.listdir(self.first_path)  # noqa: PTH208
        self.beside = frozenset(entry.partition(".")[0] for entry in entries if entry != own)
        self.folder_ns = changed_ns if time.time() - changed_ns / 1e9 > SETTLED_S else -1
        self.taken = self.beside & loaded


def identity_of(info: os.stat_result) -> Identity:
    """What changes when the file does."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _telling(code: types.CodeType) -> str:
    """Why the script must be cold; empty when it need not."""
    pending = [code]
    while pending:
        each = pending.pop()
        for name in each.co_names:
            if name in TELLING_NAMES or (name == "stack" and "inspect" in each.co_names):
                return "it looks at the interpreter's stack or hooks (" + name + ")"
        if any(isinstance(words, tuple) and TELLING_ARGUMENT in words for words in each.co_consts):
            return "it looks at the interpreter's stack or hooks (" + TELLING_ARGUMENT + ")"
        pending += [constant for constant in each.co_consts if isinstance(constant, types.CodeType)]
    return ""


# Processes


def cannot(reason: str) -> None:
    """Ends: there will be no zygote of this interpreter."""
    print("this interpreter cannot be kept warm: " + reason, file=sys.stderr, flush=True)
    os._exit(EXIT_CANNOT)


def find_tid_address() -> int:
    """Where the C library keeps the thread's id: fork() would renew it, so clone() has to."""
    address = ctypes.c_ulong()
    if _libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) != 0 or address.value == 0:
        cannot("the kernel does not say where the thread's id is kept (PR_GET_TID_ADDRESS)")
    return address.value


def packed_identity(path: str) -> bytes:
    """Of a file or folder that a module comes from, or may come from."""
    try:
        return IDENTITY.pack(*identity_of(os.stat(path)))  # noqa: PTH116
    except OSError:
        return NOT_THERE


def files_read_at_start() -> FrozenSet[str]:
    """What has made the interpreter what it is before any script: its settings, *.pth, sitecustomize and the like."""
    names = {os.path.join(sys.prefix, "pyvenv.cfg")}  # noqa: PTH118
    for folder in filter(None, sys.path[_HAS_FIRST_PATH:]):
        with contextlib.suppress(OSError):
            names.update(os.path.join(folder, entry) for entry in os.listdir(folder) if entry.endswith(".pth"))  # noqa: PTH118, PTH208
    specs = [getattr(module, "__spec__", None) for module in _BASE.values()]
    names.update(spec.origin for spec in specs if spec is not None and spec.has_location and spec.origin)
    return frozenset(names)


def packed_at_start() -> Dict[str, bytes]:
    """The identities of these files; none that a file can have for one that may have been changed since it was read."""
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    start_ns = time.time_ns() - int((age_s + SETTLED_S) * 1e9)
    found = {}
    for name in files_read_at_start():
        packed = packed_identity(name)
        is_new = packed != NOT_THERE and start_ns <= IDENTITY.unpack(packed)[4] <= time.time_ns()
        found[name] = NOT_THERE if is_new else packed
    return found


def descriptors_of(ancillary: List[Tuple[int, int, bytes]]) -> List[int]:
    """Those that came with a message."""
    for _, kind, data in ancillary:
        if kind == _socket.SCM_RIGHTS:
            count = len(data) // 4
            return list(struct.unpack("=%di" % count, data[: count * 4]))
    return []


class Zygote:
    """The process that forks."""

    def __init__(self, spawner: int, sys_clone: int) -> None:
        self.spawner = spawner
        self.orders = _socket.socket(fileno=os.dup(0))
        # Processes tell what they have imported, and why they gave up, by an address instead of a descriptor, which a
        # program would find open.
        self.news = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        self.news.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        self.news.bind("")
        self.address = self.news.getsockname()
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        self.streams = Streams()
        self.inbox = ctypes.create_string_buffer(MAX_DATAGRAM)  # what a request does not fill costs a process nothing
        self.pointers = (ctypes.c_size_t * MAX_VARIABLES)()
        self.finder = Finder()
        self.library = Library(self.finder)
        self.scripts: Dict[str, Script] = {}
        self.unsettled: Dict[str, Identity] = {}
        self.watched: Set[str] = set()
        self.loaded: FrozenSet[str] = frozenset()  #: top names of what is loaded from files
        self.known: FrozenSet[str] = frozenset(_BASE)
        self.read_at_start = packed_at_start()
        flags = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD
        tid, zero = ctypes.c_ulong(find_tid_address()), ctypes.c_ulong(0)
        # The order of the last two is the machine's; the one that would be a thread's storage is not looked at.
        self.clone_arguments = (ctypes.c_long(sys_clone), ctypes.c_ulong(flags), zero, zero, tid, tid)
        sys.meta_path.insert(0, self.finder)

    # In the zygote

    def serve(self) -> Optional["Task"]:
        """Until the spawner is gone: None. In each process that is forked: what it is to do."""
        poller = select.poll()
        poller.register(self.orders.fileno(), select.POLLIN)
        poller.register(self.news.fileno(), select.POLLIN)
        self.rehearse()
        self.settle()
        self.orders.send(b"R")
        while True:
            has_work = bool(self.library.pending)
            timeout = 0 if has_work else 1000 * SETTLED_S if self.unsettled else None
            ready = {fd for fd, _ in poller.poll(timeout)}
            if self.orders.fileno() in ready:
                try:
                    data, ancillary, _, _ = self.orders.recvmsg(8192, _socket.CMSG_SPACE(4))
                except ConnectionError:
                    return None
                if not data:
                    return None
                task = self.obey(data, descriptors_of(ancillary))
                if task is not None:
                    return task
                if has_work:  # however many processes are wanted: they are better when it is done
                    self.learn()
            elif self.news.fileno() in ready:
                self.hear()
            elif has_work:
                self.learn()
            else:
                for path, identity in list(self.unsettled.items()):
                    self.compile(path, identity)

    def settle(self) -> None:
        """After something has been loaded: says what it depends on, and prepares the memory that processes share."""
        names = {entry for entry in sys.path[_HAS_FIRST_PATH:] if entry} | self.read_at_start.keys()
        for shared in self.finder.shared.values():
            spec = shared.module.__spec__
            if spec is not None and spec.has_location and spec.origin:
                names.add(spec.origin)
                names.add(os.path.dirname(spec.origin))  # noqa: PTH120
        self.watch(names - self.watched)
        outside = (name for name, shared in self.finder.shared.items() if shared.module.__spec__.has_location)  # type: ignore[union-attr]
        self.loaded = frozenset(name.partition(".")[0] for name in outside)
        for script in self.scripts.values():
            script.taken = script.beside & self.loaded
        self.known = frozenset(_BASE) | frozenset(self.library.probed)
        tidy_memory()

    def watch(self, names: Set[str]) -> None:
        """Reports them."""
        self.watched |= names
        report = b"W"
        for name in sorted(names):
            entry = (self.read_at_start.get(name) or packed_identity(name)) + os.fsencode(name) + b"\0"
            if len(report) + len(entry) > MAX_REPORT:
                self.orders.send(report)
                report = b"W"
            report += entry
        if len(report) > 1:
            self.orders.send(report)

    def obey(self, data: bytes, fds: List[int]) -> Optional["Task"]:
        """One order. A task in the process that it made."""
        if data[:1] == b"F" and fds:
            return self.fork(fds[0])
        if data[:1] == b"S":
            self.compile(os.fsdecode(data[1 + RUN.size :]), RUN.unpack_from(data, 1)[:5])
        return None

    def learn(self) -> None:
        """One step; processes get to know of it after the last."""
        self.library.probe_next()
        if not self.library.pending:
            is_new = self.library.load()
            self.settle()
            if is_new:
                self.orders.send(b"G")

    def compile(self, path: str, identity: Identity) -> None:
        """Notes a script's code, once it has stopped changing."""
        self.unsettled.pop(path, None)
        known = self.scripts.get(path)
        if known is not None and known.identity == identity:
            return
        if time.time() - max(identity[3], identity[4]) / 1e9 < SETTLED_S:
            self.unsettled[path] = identity
            return
        if len(self.scripts) >= MAX_SCRIPTS:
            self.scripts.clear()
        try:
            script = Script(path, identity)
            script.look_beside(self.loaded)
        except (OSError, ColdError):
            return
        self.scripts[path] = script
        tidy_memory()
        self.orders.send(refusal(path, script.cold) if script.cold else b"G")

    def hear(self) -> None:
        """What a process has said: the names of modules, or why it gave up."""
        data, ancillary, _, _ = self.news.recvmsg(65536, _socket.CMSG_SPACE(12))
        credentials = [part for _, kind, part in ancillary if kind == _socket.SCM_CREDENTIALS]
        if not credentials or struct.unpack("=iii", credentials[0][:12])[1] != os.getuid():
            return
        if data[:1] == b"M":
            self.library.ask_for([name for name in data[1:].decode("utf-8", "replace").split("\0") if name])
        elif data[:1] == b"C":
            self.orders.send(data[:MAX_REPORT])

    def fork(self, fd: int) -> Optional["Task"]:
        """A process that waits at `fd`."""
        _before_fork()
        pid = _libc.syscall(*self.clone_arguments)
        if pid == 0:
            _after_fork_in_child()
            return self.wait_for_task(fd)
        _after_fork_in_parent()
        os.close(fd)
        if pid < 0:
            self.orders.send(b"X" + struct.pack("=I", ctypes.get_errno()))
        else:
            self.orders.send(b"P" + struct.pack("=I", pid))
        return None

    # In a process that it has forked

    def wait_for_task(self, fd: int) -> "Task":
        """Until the request comes; ends when none does."""
        os.setpgid(0, 0)
        _libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if os.getppid() != self.spawner:
            os._exit(0)
        self.orders.close()
        self.news.close()
        task, fds = self.receive(_socket.socket(fileno=fd))
        if len(fds) != 3:
            os._exit(0)
        for number, each in enumerate(fds):
            os.dup2(each, number)
        for each in fds:
            os.close(each)
        return task

    def receive(self, waiting: _socket.socket) -> Tuple["Task", List[int]]:
        """The request and its descriptors; none when there will be no request."""
        size, ancillary, _, _ = waiting.recvmsg_into([self.inbox], _socket.CMSG_SPACE(12))
        waiting.close()
        if size == 0:
            os._exit(0)
        return Task(self, bytes(memoryview(self.inbox)[:size])), descriptors_of(ancillary)

    def rehearse(self) -> None:
        """Goes through what each process begins with: it would find this code as new as when it was compiled, and the
        functions of the C library not yet looked up, and write what it learns into pages that it shares.
        """
        variables = [name + b"=" + value for name, value in _STARTED_WITH.items()]
        request = RUN.pack(0, 0, 0, 0, 0, 0, len(variables)) + b"\0".join([b"", b"", b"", *variables, b""])
        for _ in range(REHEARSALS):
            near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            near.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("=3i", 0, 0, 0))])
            near.close()
            task, fds = self.receive(far)
            task.set_environment()
            for each in fds:
                os.close(each)

    def publish(self, variables: List[bytes]) -> None:
        """Makes them the C library's environment as the kernel gives it: strings, and pointers to them, in memory that
        nobody takes away. putenv() would look through all that there are for each.
        """
        text = b"\0".join(variables) + b"\0"
        start = ctypes.addressof(self.inbox)
        ctypes.memmove(start, text, len(text))
        sizes = [len(each) + 1 for each in variables[:-1]]
        self.pointers[: len(variables)] = list(itertools.accumulate(sizes, initial=start))
        _environ.value = ctypes.addressof(self.pointers)


def tidy_memory() -> None:
    """So that processes write to few of the pages that they share: the garbage collector has nothing to look at, and
    malloc() nothing to put in order.
    """
    gc.collect()
    gc.freeze()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))


def refusal(path: str, reason: str) -> bytes:
    """The report that a script cannot run here."""
    return b"C" + os.fsencode(path)[:4096] + b"\0" + reason.encode("utf-8", "replace")[:300]


def tell(address: Any, message: bytes) -> None:
    """To the zygote; it does not matter when it cannot listen: it hears from the next process."""
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            sock.sendto(message, _socket.MSG_DONTWAIT, address)
        finally:
            sock.close()
    except OSError:
        pass


class Task:
    """One run, in the process that does it."""

    def __init__(self, zygote: Zygote, data: bytes) -> None:
        fields = RUN.unpack_from(data)
        parts = data[RUN.size :].split(b"\0")
        self.zygote = zygote
        self.identity: Identity = fields[:5]
        self.directory, self.program, self.script = parts[:3]
        self.arguments = parts[3 : 3 + fields[5]]
        self.variables = parts[3 + fields[5] : 3 + fields[5] + fields[6]]

    def become(self) -> Tuple[types.CodeType, Dict[str, Any]]:
        """Makes the process what it would be at the first line of the script."""
        try:
            os.chdir(self.directory)
            script = self.find_script()
            self.check_folder(script)
        except (ColdError, OSError) as error:
            self.execute_cold(str(error))
        self.set_environment()
        _libc.prctl(PR_SET_NAME, self.command_name(), 0, 0, 0)
        self.zygote.streams.settle()
        words = [os.fsdecode(word) for word in self.arguments[self.arguments.index(self.script) :]]
        sys.argv = words
        if hasattr(sys, "orig_argv"):
            sys.orig_argv = _INTERPRETER_WORDS + words
        if _HAS_FIRST_PATH:
            sys.path[0] = script.first_path
            sys.path_importer_cache.pop(NO_FOLDER, None)
        main = types.ModuleType("__main__")
        scope = vars(main)
        values = {**scope, "__builtins__": _BASE["builtins"], "__file__": script.path, "__annotations__": {}}
        values["__loader__"] = _MAIN_LOADER("__main__", script.path)
        scope.clear()
        scope.update({name: values.get(name) for name in _MAIN_KEYS})
        sys.modules["__main__"] = main
        self.zygote.finder.is_active = True
        return script.code, scope

    def command_name(self) -> bytes:
        """As the kernel gives it: the file that is executed; through env it is the interpreter."""
        by_env = _INTERPRETER_WORDS and "/" not in _INTERPRETER_WORDS[0]
        path = os.fsencode(_INTERPRETER_WORDS[0]) if by_env else self.program
        return path.rpartition(b"/")[2][:15]

    def find_script(self) -> Script:
        """Compiled by the zygote, or here."""
        path = os.fsdecode(self.script)
        script = self.zygote.scripts.get(path)
        if script is None or script.identity != self.identity:
            script = Script(path, self.identity)
        if script.cold:
            tell(self.zygote.address, refusal(path, script.cold))
            raise ColdError
        return script

    def check_folder(self, script: Script) -> None:
        """Whether what has been loaded is what would be loaded beside the script."""
        if not _HAS_FIRST_PATH:
            return
        script.look_beside(self.zygote.loaded)
        if script.taken:
            reason = "a file beside it takes the place of the standard library's module " + min(script.taken)
            tell(self.zygote.address, refusal(script.path, reason))
            raise ColdError

    def set_environment(self) -> None:
        """For os.environ, and for what reads the C library's."""
        variables = self.variables
        pairs = dict(variable.split(b"=", 1) for variable in variables)
        for name, value in _STARTED_WITH.items():
            # All programs get what the zygote got; the rest the interpreter has set at its start (LC_CTYPE, PEP 538).
            if name not in pairs:
                pairs[name] = value
                variables.append(name + b"=" + value)
        if sum(map(len, variables)) + len(variables) > MAX_DATAGRAM or len(variables) >= MAX_VARIABLES:
            self.execute_cold("its environment is too large")
        self.zygote.publish(variables)
        data = os.environ._data  # type: ignore[attr-defined]
        data.clear()
        data.update(pairs)

    def execute_cold(self, reason: str) -> None:
        """Leaves the request to a fresh interpreter, in this same process."""
        if reason:
            tell(self.zygote.address, refusal(os.fsdecode(self.script), reason))
        for number in (SIGPIPE, SIGXFSZ):  # Python ignores them, and what is ignored stays so
            signal.signal(number, signal.SIG_DFL)
        pairs = dict(variable.split(b"=", 1) for variable in self.variables)
        try:
            os.execve(self.program, self.arguments, pairs)
        except OSError as error:
            os.write(2, b"it cannot be executed: " + os.strerror(error.errno or 0).encode() + b"\n")
        os._exit(127)

    def tell_imports(self) -> None:
        """The zygote learns what is worth having."""
        if len(sys.modules) <= len(_BASE) + len(self.zygote.finder.served):
            return
        news = [name for name in sys.modules.keys() - self.zygote.known if may_be_shared(name)]
        if news:
            tell(self.zygote.address, b"M" + "\0".join(sorted(news)).encode("utf-8", "replace")[:60000])


def main(arguments: List[str]) -> Any:
    """In the zygote it does not return; in a process that was forked it returns what the script leaves with."""
    own = [name for name in sys.modules if name not in _BASE]
    for name in own:  # what was imported for this file alone
        parent, _, child = name.rpartition(".")
        if parent in _BASE and vars(_BASE[parent]).get(child) is sys.modules[name]:
            delattr(_BASE[parent], child)
    sys.modules.clear()
    sys.modules.update(_BASE)
    if _HAS_FIRST_PATH:
        sys.path_importer_cache.pop(sys.path[0], None)
        sys.path[0] = NO_FOLDER
    task = Zygote(int(arguments[1]), int(arguments[2])).serve()
    if task is None:
        os._exit(0)
    code, scope = task.become()
    status = run(code, scope)
    with contextlib.suppress(Exception):  # the script may have made something else of sys.modules
        task.tell_imports()
    leave(status, scope, task.zygote.finder.shared)
    return status


if __name__ == "__main__":
    _left = main(sys.argv)
    if isinstance(_left, KeyboardInterrupt):
        atexit._run_exitfuncs()
        for _stream in (sys.stdout, sys.stderr):
            _stream.flush()
        signal.signal(SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), SIGINT)
    sys.exit(_left)
