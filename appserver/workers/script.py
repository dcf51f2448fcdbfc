"""Loads what a pool runs: its application by name, and handler scripts by path.

A handler script is a Python file with a WSGI or ASGI `application` (or `app`), or a function `handle(request)`, plain
or `async def`. It may have `async def websocket(socket)` besides, or instead.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import importlib.util
import inspect
import linecache
import os
import pkgutil
import sys
import threading
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Dict, Iterable, Optional, Union

from . import interface, packages
from .control import LoadError, describe, has_foreign_frames
from .interface import Application
from .request import Request, Response, application_of


def add_import_folder(folder: str, *, first: bool) -> None:
    """Puts a folder on `sys.path`: first, or behind the standard library and before installed packages.

    Scripts have the names of URLs (calendar.py, email.py), so their folder must not hide the standard library.
    """
    if folder in sys.path:
        return
    installed = (at for at, entry in enumerate(sys.path) if Path(entry).name in ("site-packages", "dist-packages"))
    sys.path.insert(0 if first else next(installed, len(sys.path)), folder)


def load_application(name: str, wanted: str = "auto") -> Application:
    """The application `module:attribute` (attribute: `application` when left out); `wanted` is the interface that the
    configuration says. Raises LoadError.
    """
    module_name, _, attribute = name.partition(":")
    what = f"application {name} cannot be loaded"
    try:
        found: Any = importlib.import_module(module_name)
        for part in (attribute or "application").split("."):
            if not hasattr(found, part):
                raise LoadError(f"{what}: {_missing_attribute(found, part)}")
            found = getattr(found, part)
    except LoadError:
        raise
    except BaseException as error:  # also SystemExit at import
        summary, trace = describe(error)
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            summary += _missing_module(str(error.name))
            trace = trace if has_foreign_frames(error) else ""
        raise LoadError(f"{what}: {summary}", trace) from None
    return interface.application_of(found, f"application {name}", wanted)


def _missing_attribute(found: Any, name: str) -> str:
    names = [each for each in dir(found) if not each.startswith("__")]
    usual = [each for each in ("application", "app") if each in names]
    close = (difflib.get_close_matches(name, names, n=1) or usual or [""])[0]
    where = getattr(found, "__file__", None)
    return f"{getattr(found, '__name__', type(found).__name__)}{f' ({where})' if where else ''} has no {name!r}" + (
        f"; did you mean {close!r}?" if close else ""
    )


def _missing_module(name: str) -> str:
    """Where the module `name` was looked for, and what it may have been meant to be."""
    package, _, last = name.rpartition(".")
    if last == "py":
        return f"; did you mean {package!r}? A module is named without the '.py' of its file"
    folders = list(getattr(sys.modules.get(package), "__path__", ())) if package else [str(Path.cwd())]
    close = difflib.get_close_matches(last, [module.name for module in pkgutil.iter_modules(folders)], n=1)
    place = "" if package else f"; looked in {folders[0]} (the pool's directory) and in what {sys.executable} has"
    question = f"; did you mean {f'{package}.{close[0]}'.lstrip('.')!r}?" if close else ""
    return place + question


class Scripts:
    """The handler scripts of this worker, loaded when first needed and then kept, also when they are broken: a
    repaired script needs a new worker. Any thread."""

    def __init__(self, folders: Iterable[str] = ()) -> None:
        """`folders` are those whose scripts have URLs."""
        self._folders = tuple(folders)
        self._loaded: Dict[str, Union[Application, LoadError]] = {}
        self._lock = threading.RLock()  # one at a time: scripts share helper modules

    def preload(self, path: str) -> None:
        """Raises LoadError."""
        self.get(os.fsencode(path).decode("latin-1"))

    def get(self, path: str) -> Application:
        """`path` as an environment has it: its bytes as latin-1. Raises LoadError."""
        found = self._loaded.get(path)
        if found is None:
            with self._lock:
                found = self._loaded.get(path) or self._load(path)
        if isinstance(found, LoadError):
            raise LoadError(str(found), found.trace)
        return found

    def find(self, path: str) -> Optional[Application]:
        """The same, None for what cannot be loaded."""
        found = self._loaded.get(path)
        if found is None:
            with self._lock:
                found = self._loaded.get(path) or self._load(path)
        return None if isinstance(found, LoadError) else found

    @property
    def any_async(self) -> bool:
        """Among those that have been loaded: whether one needs the event loop."""
        return any(each.is_async or each.takes_websockets for each in self._applications())

    @property
    def any_websocket(self) -> bool:
        """Among those that have been loaded."""
        return any(each.takes_websockets for each in self._applications())

    def _applications(self) -> Iterable[Application]:
        return (each for each in self._loaded.values() if isinstance(each, Application))

    def _load(self, path: str) -> Union[Application, LoadError]:
        found: Union[Application, LoadError]
        try:
            found = load_script(os.fsdecode(path.encode("latin-1")), self._folders)
        except LoadError as error:
            found = error
        self._loaded[path] = found
        return found


def load_script(path: str, folders: Iterable[str] = ()) -> Application:
    """Imports a handler script as a module of the packages that its folders are. Raises LoadError."""
    add_import_folder(str(packages.top_of(Path(path), folders)), first=False)
    try:
        name = packages.module_name(Path(path), folders)
    except BaseException as error:  # of an __init__.py
        summary, trace = describe(error)
        raise LoadError(f"script {path} cannot be loaded: {summary}", trace) from None
    spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        summary, trace = describe(error)
        if isinstance(error, OSError) and not has_foreign_frames(error):  # the file itself cannot be read
            trace = ""
        raise LoadError(f"script {path} cannot be loaded: {summary}", trace) from None
    return _application_of_script(module, path)


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Always compiles the source: cached bytecode is looked up by time in seconds and size, so a script that was
    repaired at once could stay broken; and no `__pycache__` appears among the user's scripts.

    The lines stay in `linecache`, so that a traceback shows what runs and not what the file says by then.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        data = self.get_data(path)
        text = importlib.util.decode_source(data)
        linecache.cache[path] = (len(data), None, text.splitlines(True), path)
        code: CodeType = compile(data, path, "exec", dont_inherit=True)
        return code


def _application_of_script(module: ModuleType, path: str) -> Application:
    talk = getattr(module, "websocket", None)
    if inspect.ismodule(talk) or inspect.isclass(talk):  # an import of that name
        talk = None
    application = _http_of_script(module, path, talk is not None)
    if talk is None:
        return application
    if not inspect.iscoroutinefunction(talk):
        raise LoadError(f"`websocket` of script {path} must be a coroutine function: async def websocket(socket)")
    if application.interface == interface.ASGI:
        raise LoadError(f"script {path} has an ASGI application, which takes WebSockets itself, and `websocket`")
    from .websocket_handle import websocket_application_of  # imports asyncio, which most workers do without

    return application._replace(websocket=websocket_application_of(talk))


def _http_of_script(module: ModuleType, path: str, has_websocket: bool) -> Application:
    for name in ("application", "app"):
        found = getattr(module, name, None)
        if found is not None:
            return interface.application_of(found, f"`{name}` of script {path}")
    handle = getattr(module, "handle", None)
    if handle is None:
        if has_websocket:
            return Application(interface.WSGI, application_of(_only_a_websocket))
        raise LoadError(
            f"script {path} has neither `application` nor `def handle(request)`; if it is for other scripts to import,"
            " let its name begin with `_`"
        )
    if not callable(handle):
        raise LoadError(f"`handle` of script {path} is not a function")
    if interface.is_async(handle) or inspect.isasyncgenfunction(handle):
        from .ahandle import async_application_of  # imports asyncio, which most workers do without

        return Application(interface.HANDLE, async_application_of(handle))
    return Application(interface.WSGI, application_of(handle))


def _only_a_websocket(request: Request) -> Response:
    """Any other request; what to upgrade to is the server's to say."""
    return Response("Here is a WebSocket, and nothing else.\n", 426)
