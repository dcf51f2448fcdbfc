"""Which interface an application has, WSGI (PEP 3333) or ASGI 3: found by looking at it, or set by the pool."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, Iterator, NamedTuple, Optional

from .control import LoadError

WSGI, ASGI, HANDLE = "wsgi", "asgi", "async handle"
CHOICES = ("auto", WSGI, ASGI)


class Application(NamedTuple):
    """An application and how it is called."""

    interface: str  #: WSGI, ASGI, or HANDLE for `async def handle(request)`
    call: Callable[..., Any]
    websocket: Optional[Callable[..., Any]] = None  #: of a script that has `async def websocket(socket)`

    @property
    def takes_websockets(self) -> bool:
        return self.websocket is not None or self.interface == ASGI

    @property
    def is_async(self) -> bool:
        return self.interface != WSGI


def application_of(found: Any, what: str, wanted: str = "auto") -> Application:
    """`what` names it in errors. Raises LoadError."""
    if wanted not in CHOICES:
        raise LoadError(f"interface must be one of {', '.join(CHOICES)}, not {wanted!r}")
    if not callable(found):
        raise LoadError(f"{what} cannot be called; it should be a WSGI or an ASGI application")
    if wanted == WSGI:
        if is_async(found):
            raise LoadError(f"{what} is asynchronous (ASGI), but `interface: wsgi` was set")
        return Application(WSGI, found)
    if is_async(found):
        return Application(ASGI, found)
    _check_class(found, what)
    if wanted == ASGI:
        # An ordinary function may return a coroutine, so what was said is believed.
        return Application(ASGI, found)
    return Application(WSGI, found)


def is_async(found: Any) -> bool:
    """Whether what it returns is awaited: a coroutine function, an instance with such a `__call__`, a class whose
    instances are awaitable; also through functools.partial and decorators that say what they wrap.
    """
    for each in _layers(found):
        if inspect.iscoroutinefunction(each):
            return True
        if inspect.isclass(each):
            return hasattr(each, "__await__")
        if inspect.iscoroutinefunction(getattr(each, "__call__", None)):  # noqa: B004
            return True
    return False


def _layers(found: Any) -> Iterator[Any]:
    for _ in range(16):  # a wrapper may lead to itself
        yield found
        if isinstance(found, functools.partial):
            found = found.func
            continue
        found = getattr(found, "__wrapped__", None) if inspect.isfunction(found) else None
        if found is None:
            return


def _check_class(found: Any, what: str) -> None:
    """Raises LoadError for what is asynchronous only when it is called twice."""
    while isinstance(found, functools.partial):
        found = found.func
    if inspect.isclass(found):
        method = getattr(found, "__call__", None)  # noqa: B004
        if not inspect.iscoroutinefunction(method):
            return
        if len(inspect.signature(method).parameters) > 3:
            raise LoadError(f"{what} is a class; it should be an instance of it: {found.__name__}()")
    elif not is_asgi_2(found):
        return
    raise LoadError(
        f"{what} is an ASGI 2 application, which is called twice; it should be ASGI 3: async def application(scope, "
        f"receive, send). asgiref.compatibility.guarantee_single_callable() makes one of it"
    )


def is_asgi_2(found: Any) -> bool:
    """A function of the scope alone."""
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):
        return False
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len(parameters) == 1 and parameters[0].kind in plain and parameters[0].name == "scope"
