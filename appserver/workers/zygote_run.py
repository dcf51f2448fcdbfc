"""How a process that a Python zygote has forked runs its script, and ends (zygote.py)."""

import _thread
import _weakref
import atexit
import ctypes
import gc
import io
import os
import stat
import sys
import types
from typing import Any, Dict, Set, Tuple

from appserver.workers.zygote_modules import BASE, Shared

REHEARSALS = 20  #: of what each process begins with: more than the interpreter needs to specialise code

_exit = ctypes.PyDLL(None).exit  # of the C library, with what it does at exit
_REFERENCE = type(_weakref.ref(type("", (), {})))


class Streams:
    """sys.stdin, stdout and stderr, made before the fork for what nearly all programs get: /dev/null and two pipes."""

    def __init__(self) -> None:
        reader, writer = os.pipe()
        saved = [os.dup(fd) for fd in (1, 2)]
        for fd in (1, 2):
            os.dup2(writer, fd)
        for fd in (0, 1, 2):
            _make_stream(fd)
        self.kinds = [_kind_of(fd) for fd in (0, 1, 2)]
        for _ in range(REHEARSALS):
            self.settle()
        for fd in (1, 2):
            os.dup2(saved[fd - 1], fd)
        for fd in (reader, writer, *saved):
            os.close(fd)

    def settle(self) -> None:
        """In the process that has its descriptors: makes those anew that are of another kind."""
        for fd in (0, 1, 2):
            if _kind_of(fd) != self.kinds[fd]:
                _make_stream(fd)


def _kind_of(fd: int) -> Tuple[int, int, int]:
    """All that an interpreter looks at when it makes a stream."""
    info = os.fstat(fd)
    return stat.S_IFMT(info.st_mode), info.st_rdev, info.st_blksize


def _make_stream(fd: int) -> None:
    """As the interpreter does at its start, on what the descriptor is now."""
    stream: Any = (sys.stdin, sys.stdout, sys.stderr)[fd]
    unbuffered = stream.write_through  # -u
    name = stream.name
    buffer: Any = io.open(fd, "rb" if fd == 0 else "wb", 0 if unbuffered and fd != 0 else -1, closefd=False)  # noqa: SIM115
    raw = getattr(buffer, "raw", buffer)
    raw.name = name
    stream.__init__(
        buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        newline="\n",
        line_buffering=not unbuffered and (fd == 2 or raw.isatty()),
        write_through=unbuffered,
    )
    stream.mode = "r" if fd == 0 else "w"


def run(code: types.CodeType, scope: Dict[str, Any]) -> Any:
    """Runs the script; what it leaves with: an exit code, or whatever it gave to sys.exit()."""
    try:
        exec(code, scope)
    except SystemExit as error:
        return error.code
    except BaseException as error:
        failure = error
    else:
        forget_file(scope)
        return 0
    report(failure)
    forget_file(scope)
    if isinstance(failure, KeyboardInterrupt):
        return failure
    return 1


def forget_file(scope: Dict[str, Any]) -> None:
    """The interpreter takes these away once the last line has run."""
    for name in ("__file__", "__cached__"):
        scope.pop(name, None)


def report(error: BaseException) -> None:
    """As the interpreter reports what nobody caught, without the frame below the script's."""
    kind, trace = type(error), error.__traceback__
    trace = trace.tb_next if trace is not None else None
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        print("sys.excepthook is missing", file=sys.stderr)
        sys.__excepthook__(kind, error, trace)
        return
    try:
        hook(kind, error, trace)
    except SystemExit:
        raise
    except BaseException as second:
        print("Error in sys.excepthook:", file=sys.stderr)
        if second.__traceback__ is not None:
            second.__traceback__ = second.__traceback__.tb_next
        sys.__excepthook__(type(second), second, second.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(kind, error, trace)


class End:
    """What has to be told of the end of a run, among all that the run has made: only when nobody wants to know, or the
    library's own objects alone do, the interpreter need not be taken down piece by piece, which is half of a run.

    What was there before the fork is frozen and not looked at.
    """

    def __init__(self, shared: Dict[str, Shared]) -> None:
        self.shared = shared
        self.streams: Set[int] = set()
        for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
            buffer = getattr(stream, "buffer", None)
            self.streams.update((id(stream), id(buffer), id(getattr(buffer, "raw", None))))

    def _is_known(self, each: Any, kind: type) -> bool:
        """Finalizers of the library: they close and flush, in whatever order."""
        if kind is types.GeneratorType or kind is types.CoroutineType:
            return each.gi_frame is None if kind is types.GeneratorType else False
        return kind.__module__ in ("_io", "_socket") or kind.__module__ in self.shared

    def _is_quiet(self, callback: Any) -> bool:
        """The callback of a weak reference, which keeps some table of the library in order."""
        owner = getattr(callback, "__module__", None)
        return (
            callback is None or isinstance(callback, types.BuiltinMethodType) or owner in self.shared or owner in BASE
        )

    def wanted_by(self) -> Tuple[bool, bool]:
        """Whether an object of the library, and whether any other one, wants to be told."""
        objects = gc.get_objects()
        telling = {kind for kind in set(map(type, objects)) if hasattr(kind, "__del__")}
        library = False
        for each in objects:
            kind = type(each)
            if kind in telling:
                if id(each) in self.streams:
                    continue
                if not self._is_known(each, kind):
                    return library, True
                library = True
            elif kind is type:
                if "__del__" in vars(each):
                    return library, True
            elif kind is _REFERENCE and not self._is_quiet(each.__callback__):
                return library, True
        return library, False

    def tell(self, scope: Dict[str, Any]) -> bool:
        """Lets go of all that the script holds, as the interpreter does. True when nobody is left."""
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):
                setattr(sys, name, None)
        for is_private in (True, False):
            for name in list(scope):
                if (name[:1] == "_" and name[1:2] != "_") == is_private and name != "__builtins__":
                    scope[name] = None
        gc.collect()
        return self.wanted_by() == (False, False)


def leave(status: Any, scope: Dict[str, Any], shared: Dict[str, Shared]) -> None:
    """Ends the process as the interpreter would: quickly, when taking everything down has no effect. Returns when that
    is left to the interpreter.
    """
    threading = sys.modules.get("threading")
    if status is None:
        status = 0
    if not isinstance(status, int) or not 0 <= status <= 255 or _thread._count() > 0:
        return
    if threading is not None and getattr(threading, "_threading_atexits", None):
        return
    if atexit._ncallbacks() > 0:
        if sys.version_info < (3, 10):
            return
        atexit._run_exitfuncs()
    if any(getattr(sys, name, None) is not getattr(sys, f"__{name}__", None) for name in ("stdout", "stderr")):
        return
    end = End(shared)
    by_library, by_others = end.wanted_by()
    if by_others:
        return
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        return
    if by_library and not end.tell(scope):
        return
    _exit(ctypes.c_int(status))
