"""Finds what answers a request: the pool's application, or a handler script by its path.

A script that does not import is an answer of 500 on its own URL and a record in the log; the others go on. Scripts are loaded once for each worker; a reload
replaces the workers.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
import threading
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any, Dict, Optional

from .request import application_of

if TYPE_CHECKING:
    from .control import Control
    from .wsgi import Application


class BrokenScript(Exception):
    """A script whose import failed; carries the traceback of that failure."""


def import_application(name: str) -> "Application":
    """``module:attribute`` (attribute may be dotted, or end in ``()`` for a factory); raises what the import raises, or AttributeError."""
    module_name, _, attribute = name.partition(":")
    module = importlib.import_module(module_name)
    target: Any = module
    attribute = attribute or "application"
    factory = attribute.endswith("()")
    for part in (attribute[:-2] if factory else attribute).split("."):
        target = getattr(target, part)
    if factory:
        target = target()
    if not callable(target):
        raise TypeError(f"{name} is {type(target).__name__}, which cannot be called as a WSGI application")
    application: "Application" = target
    return application


def load_script(path: str) -> "Application":
    """Imports the script under a name of its own and finds its ``application`` or ``handle``; raises what the script raises."""
    folder, file_name = os.path.split(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    stem = os.path.splitext(file_name)[0]
    name = f"handler_{stem}_{hashlib.sha1(path.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        return entry_of(module, path)
    except BaseException:
        del sys.modules[name]
        raise


def entry_of(module: ModuleType, path: str) -> "Application":
    """``application`` (WSGI) wins over ``handle``."""
    application: Optional["Application"] = getattr(module, "application", None)
    if callable(application):
        return application
    handle = getattr(module, "handle", None)
    if callable(handle):
        return application_of(handle)
    raise AttributeError(f"{path} has neither a WSGI 'application' nor a function 'handle(request)'")


class Applications:
    """What a worker can run. ``find`` may be called by any thread."""

    def __init__(self, control: "Control", configuration: Dict[str, Any]) -> None:
        self._control = control
        self._name: Optional[str] = configuration.get("application")
        self._preload = list(configuration.get("preload") or [])
        self._application: Optional["Application"] = None
        self._scripts: Dict[str, "Application"] = {}
        self._lock = threading.Lock()

    def load(self) -> None:
        """Loads the application (raises when it cannot be) and every known script, so that the first request finds it ready. A script that
        fails is in the log and says so on its own URL."""
        if self._name:
            self._application = import_application(self._name)
        for path in self._preload:
            self._script(path)

    def find(self, environ: Dict[str, Any]) -> "Application":
        """The application for a request; that of a broken script raises :exc:`BrokenScript` when it is called."""
        path = environ.get("appserver.script")
        if path is None:
            if self._application is None:
                raise LookupError("the request names no script, and the pool has no application")
            return self._application
        found = self._scripts.get(path)
        return found if found is not None else self._script(path)

    def _script(self, path: str) -> "Application":
        with self._lock:
            found = self._scripts.get(path)
            if found is None:
                found = self._scripts[path] = self._load(path)
        return found

    def _load(self, path: str) -> "Application":
        try:
            return load_script(path)
        except BaseException as problem:  # also SystemExit: a script written as a program
            text = "".join(traceback.format_exception(type(problem), problem, problem.__traceback__))
            self._control.log(
                "error", "handler does not import", handler=path, problem=f"{type(problem).__name__}: {problem}", traceback=text
            )
            return _Broken(text)


class _Broken:
    """Stands for a script that does not import, so that it is tried once and not at every request."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, environ: Dict[str, Any], start_response: Any) -> Any:
        raise BrokenScript(self.text)
