"""The modules that a Python zygote shares with the programs that it becomes (zygote.py).

Loaded once and hidden: :class:`Finder` hands them out as `import` asks for them, :class:`Library` decides which.
"""

import _warnings
import atexit
import gc
import os
import select
import signal
import sys
import time
import types
from typing import Any, Dict, List, Optional, Set, Tuple

#: sys.modules as a script finds it at its start; filled by zygote.py before anything else is imported.
BASE: Dict[str, Any] = {}
#: What importing a module brings into sys.modules, and what it warns of.
Found = Tuple[List[str], List[Tuple[str, type]]]

PROBE_S = 5.0  #: importing a module must not take longer
PROBE_WARNING = "<probe>:1: "
SIGKILL = 9

#: Modules of the standard library that may not be shared: loading them starts something, reads a terminal, or makes
#: what must be new in each process (multiprocessing: its key).
NEVER_SHARED = {
    *("__main__", "antigravity", "this", "idlelib", "tkinter", "turtle", "turtledemo", "test", "lib2to3", "readline"),
    *("multiprocessing", "distutils", "ensurepip", "venv", "site", "sitecustomize", "usercustomize", "curses", "pty"),
}
#: What takes the place of modules that the standard library had and has no more (PyPI: legacy-cgi).
LEGACY = {"cgi", "cgitb"}
#: What notes in `_startTime` when it was imported.
KNOWS_ITS_START = {"logging"}


class Shared:
    """A module that is loaded here and hidden."""

    __slots__ = ("brings", "bundle", "callbacks", "module", "unusual", "warnings")

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module
        self.brings: Tuple[str, ...] = ()  #: what importing it adds to sys.modules, itself included, in that order
        self.callbacks: List[Tuple[Any, Any, Any]] = []  #: what it gave to atexit
        self.warnings: List[Tuple[str, type]] = []  #: what it says to who imports it
        self.bundle: Dict[str, types.ModuleType] = {}  #: `brings` without itself, ready for sys.modules
        self.unusual: Tuple[str, ...] = ()  #: those of `brings` for which there is more to do than that


class Finder:
    """First of the finders: hands out what is loaded already, once in each process."""

    def __init__(self) -> None:
        self.shared: Dict[str, Shared] = {}
        self.hidden: Set[str] = set()  #: those that are attributes of their packages, while they are loaded
        self.served: Set[str] = set()  #: in a process: what it has been given
        self.is_active = False

    def prepare(self) -> None:
        """What processes need to hand out many modules at once. To look at each of them is to write to it (its count of
        references), and to write to a page that is shared costs more than all else here.
        """
        for name, shared in self.shared.items():
            shared.bundle = {each: self.shared[each].module for each in shared.brings if each != name}
            shared.unusual = tuple(
                each
                for each in shared.brings
                if each in self.hidden or self.shared[each].callbacks or each in KNOWS_ITS_START
            )

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The module's own spec, with this object as the loader for the moment."""
        found = self.shared.get(name)
        if found is None or name in self.served or not found.brings or not self.is_active or target is not None:
            return None
        # importlib.util.find_spec() asks as well, and has to hear what it would hear without us.
        if sys._getframe(2).f_code.co_name != "_find_and_load_unlocked":
            return None
        modules = sys.modules
        if self.served.isdisjoint(found.brings) and modules.keys().isdisjoint(found.bundle):
            modules.update(found.bundle)
            self.served.update(found.brings)
            for each in found.unusual:
                self._introduce(each, self.shared[each], is_new=each != name)
        else:
            for each in found.brings:
                if each not in self.served:
                    is_new = each != name and each not in modules
                    if is_new:
                        modules[each] = self.shared[each].module
                    self.served.add(each)
                    self._introduce(each, self.shared[each], is_new)
        for message, category in found.warnings:
            _warn_importer(message, category)
        spec = found.module.__spec__
        self._loader = spec.loader  # type: ignore[union-attr]
        spec.loader = self  # type: ignore[union-attr]
        return spec

    def create_module(self, spec: Any) -> types.ModuleType:
        return self.shared[spec.name].module

    def exec_module(self, module: types.ModuleType) -> None:
        """It has been executed long ago."""
        module.__spec__.loader = self._loader  # type: ignore[union-attr]

    def _bind(self, name: str, module: types.ModuleType) -> None:
        """As an attribute of its package."""
        parent, _, child = name.rpartition(".")
        holder = self.shared[parent].module if parent in self.shared else BASE.get(parent)
        if holder is not None:
            setattr(holder, child, module)

    def _introduce(self, name: str, shared: Shared, is_new: bool) -> None:
        """What its body would have done beside making the module."""
        if is_new and name in self.hidden:
            self._bind(name, shared.module)
        for function, positional, named in shared.callbacks:
            atexit.register(function, *positional, **named)
        if name in KNOWS_ITS_START:
            start = shared.module._startTime
            shared.module._startTime = time.time_ns() if isinstance(start, int) else time.time()  # type: ignore[attr-defined]

    def hide(self) -> None:
        """Leaves of sys.modules, and of packages' attributes, what a fresh interpreter has."""
        for name, shared in self.shared.items():
            parent, _, child = name.rpartition(".")
            holder = self.shared[parent].module if parent in self.shared else BASE.get(parent)
            if holder is not None and vars(holder).get(child) is shared.module:
                delattr(holder, child)
                self.hidden.add(name)
        sys.modules.clear()
        sys.modules.update(BASE)

    def show(self) -> None:
        """The other way round: everything that is loaded is there for the next module."""
        for name, shared in self.shared.items():
            sys.modules[name] = shared.module
            if name in self.hidden:
                self._bind(name, shared.module)
        self.hidden.clear()


def _warn_importer(message: str, category: type) -> None:
    """As warnings.warn() of the module's body would: for the frame that has the import statement."""
    frame: Optional[types.FrameType] = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_code.co_filename and "_bootstrap" in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        return
    scope = frame.f_globals
    registry = scope.setdefault("__warningregistry__", {})
    _warnings.warn_explicit(
        message, category, frame.f_code.co_filename, frame.f_lineno, scope.get("__name__"), registry
    )


def may_be_shared(name: str) -> bool:
    """Whether the name is one of the standard library's; where the module comes from is looked at when it is found."""
    top = name.partition(".")[0]
    if top in NEVER_SHARED or name.endswith(".__main__"):
        return False
    known = getattr(sys, "stdlib_module_names", None)
    return known is None or top in known or top in LEGACY


def comes_from_library(module: Any) -> bool:
    """Built in, frozen, or a file of the standard library (or one of LEGACY, wherever it is installed)."""
    spec = getattr(module, "__spec__", None)
    if spec is None or spec.loader is None:
        return False
    if not spec.has_location:
        return spec.origin in ("built-in", "frozen")
    origin = os.path.realpath(spec.origin)
    library = os.path.dirname(os.path.realpath(os.__file__))  # noqa: PTH120
    if spec.name in LEGACY:
        return True
    return origin.startswith(library + "/") and "/site-packages/" not in origin and "/dist-packages/" not in origin


def state_of_process() -> Tuple[Any, ...]:
    """What importing a module must leave alone to be shared."""
    old = os.umask(0o077)
    os.umask(old)
    hooks = [getattr(sys, name, None) for name in ("excepthook", "displayhook", "unraisablehook", "breakpointhook")]
    hooks += [sys.stdin, sys.stdout, sys.stderr, sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace()]
    return (
        sorted(os.listdir("/proc/self/fd")),  # noqa: PTH208
        os.listdir("/proc/self/task"),  # noqa: PTH208
        [signal.getsignal(number) for number in range(1, 65) if number not in (32, 33)],
        dict(os.environ),
        (os.getcwd(), old),  # noqa: PTH109
        (list(sys.path), list(sys.meta_path), list(sys.path_hooks), list(sys.argv)),
        hooks,
        list(_warnings.filters),
        {name: id(value) for name, value in vars(BASE["builtins"]).items() if name != "_"},
        (signal.getitimer(0), gc.isenabled(), gc.get_threshold()),
    )


class Library:
    """Loads what scripts import, after looking in a process of its own at what importing it does."""

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        #: name -> what importing it brings (nothing when it cannot be imported by itself), and warns of; None: it may
        #: not be shared
        self.probed: Dict[str, Optional[Found]] = {}
        self.pending: List[str] = []
        self._callbacks: List[Tuple[Any, Any, Any]] = []

    def ask_for(self, names: List[str]) -> None:
        """Notes names that a script has imported."""
        self.pending += [name for name in names if name not in self.probed and name not in self.pending]

    def probe_next(self) -> None:
        """Looks at one of them; what it brings is looked at as well, because a script may import that by itself."""
        name = self.pending.pop(0)
        found = self._probe(name) if name not in BASE and may_be_shared(name) else None
        self.probed[name] = found
        if found is not None:
            self.ask_for(found[0])

    def load(self) -> bool:
        """Loads what can be shared, once all has been looked at. True when there is something new."""
        is_new = False
        while True:
            good = self._good()
            for name in sorted(good, key=lambda each: len(good[each][0])):
                if good[name][0] and name not in self.finder.shared and not self._import(name):
                    self.probed[name] = None
                    break
            else:
                break
        for name, (brings, warnings) in good.items():
            if brings:
                shared = self.finder.shared[name]
                is_new = is_new or not shared.brings
                shared.brings, shared.warnings = tuple(brings), warnings
        self.finder.prepare()
        return is_new

    def _good(self) -> Dict[str, Found]:
        """A module is shared only together with all that it brings: there must never be two of one."""
        good = {name: found for name, found in self.probed.items() if found is not None}
        while True:
            bad = [name for name, (brings, _) in good.items() if not all(each in good for each in brings)]
            if not bad:
                return good
            for name in bad:
                del good[name]

    def _import(self, name: str) -> bool:
        self.finder.show()
        before = set(sys.modules)
        register, self._callbacks = atexit.register, []
        atexit.register = self._catch  # type: ignore[assignment]
        errors, null = os.dup(2), os.open("/dev/null", os.O_WRONLY)
        os.dup2(null, 2)  # its warnings are for those who import it
        try:
            __import__(name)
        except Exception:
            return False
        finally:
            os.dup2(errors, 2)
            os.close(errors)
            os.close(null)
            atexit.register = register
            for each in list(sys.modules):
                if each not in before:
                    self.finder.shared[each] = Shared(sys.modules[each])
            self.finder.hide()
        for function, positional, named in self._callbacks:
            owner = self.finder.shared.get(getattr(function, "__module__", ""))
            if owner is None:
                return False
            owner.callbacks.append((function, positional, named))
        return name in self.finder.shared

    def _catch(self, function: Any, *positional: Any, **named: Any) -> Any:
        self._callbacks.append((function, positional, named))
        return function

    def _probe(self, name: str) -> Optional[Found]:
        """What importing it in a fresh interpreter adds to sys.modules, and warns of; None when it does more."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _probe_child(name, writer)
        os.close(writer)
        try:
            answer = _read_until(reader, time.monotonic() + PROBE_S)
        finally:
            os.close(reader)
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)
        if not answer.endswith(b"\nend"):
            return None
        warnings = []
        lines = answer.decode().split("\n")[:-1]
        for line in lines:
            if line.startswith(PROBE_WARNING):
                category, _, message = line[len(PROBE_WARNING) :].partition(": ")
                kind = getattr(BASE["builtins"], category, None)
                if not isinstance(kind, type) or not issubclass(kind, Warning):
                    return None
                warnings.append((message, kind))
        return [line for line in lines if line and not line.startswith(PROBE_WARNING)], warnings


def _read_until(fd: int, end: float) -> bytes:
    data = b""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while poller.poll(max(0.0, (end - time.monotonic()) * 1000)):
        piece = os.read(fd, 65536)
        if not piece:
            break
        data += piece
    return data


def _probe_child(name: str, writer: int) -> None:
    """Imports it as a script would, and writes what that did. Never returns."""
    try:
        sys.modules.clear()
        sys.modules.update(BASE)
        sink = os.open("/tmp", os.O_TMPFILE | os.O_RDWR) if not hasattr(os, "memfd_create") else os.memfd_create("p")
        null = os.open("/dev/null", os.O_RDWR)
        for number, fd in enumerate((null, sink, sink)):
            os.dup2(fd, number)
        before, known = state_of_process(), set(sys.modules)
        try:
            exec(compile("import " + name, "<probe>", "exec"), {"__name__": "__main__"})
        except (ImportError, AttributeError):
            os.write(writer, b"\nend")  # it works only as a part of others, like genericpath
            return
        if before == state_of_process():
            sys.stdout.flush()
            said = os.pread(sink, 65536, 0).decode("utf-8", "replace").splitlines()
            names = [each for each in sys.modules if each not in known]
            is_ours = all(comes_from_library(sys.modules[each]) for each in names)
            if is_ours and all(line.startswith(PROBE_WARNING) for line in said):
                os.write(writer, ("\n".join(names + said) + "\nend").encode())
    finally:
        os._exit(0)
