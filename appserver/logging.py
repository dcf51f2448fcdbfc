"""The server's own log, set up with structlog: to stderr, one JSON object a line, or for people on a terminal.

Only the supervisor writes it; its children send it what they have to say. Writing never raises and never waits long:
a reader that has gone or does not read costs log lines, not the server.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import MutableMapping
from typing import Any, cast

import structlog

STDERR = 2
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FIRST_KEYS = ("timestamp", "level", "event")
WRITE_TIMEOUT_MS = 1000
#: A pipe that polls as writable takes this much without blocking (PIPE_BUF).
CHUNK = 4096

EventDict = MutableMapping[str, Any]
Logger = structlog.typing.FilteringBoundLogger


class Output:
    """A descriptor that takes whole lines. What cannot be written within WRITE_TIMEOUT_MS is dropped and counted."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._stuck = False
        self.dropped = 0

    def write_line(self, line: str) -> None:
        """Never raises."""
        data = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
        while data:
            written = self._write(data[:CHUNK])
            if written == 0:
                self.dropped += 1
                return
            data = data[written:]

    def _write(self, data: memoryview) -> int:
        """Bytes written; 0 when the line is given up."""
        try:
            # Once a reader is known to be stuck, the next lines do not wait for it again.
            ready = self._poll.poll(0 if self._stuck else WRITE_TIMEOUT_MS)
            self._stuck = not ready
            return os.write(self._fd, data) if ready else 0
        except InterruptedError:
            return self._write(data)
        except OSError:
            return 0


class _LineLogger:
    """What structlog hands its rendered lines to."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def msg(self, message: str) -> None:
        self._output.write_line(message)

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def configure(level: str = "info", form: str = "auto", fd: int = STDERR) -> None:
    """Sets the log up, or anew. `form`: auto (console on a terminal, else json), console, json."""
    is_terminal = _is_terminal(fd)
    console = form == "console" or (form == "auto" and is_terminal)
    output = Output(fd)
    last: list[Any] = [_Console(is_terminal)] if console else [_in_order, _json()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S" if console else "iso", utc=not console),
            structlog.processors.format_exc_info,
            _traceback_of_exception,
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _LineLogger(output),
        cache_logger_on_first_use=False,
    )


def get_logger(**values: Any) -> Logger:
    """A logger with fields for each of its lines."""
    return cast(Logger, structlog.get_logger(**values))


def _json() -> structlog.processors.JSONRenderer:
    return structlog.processors.JSONRenderer(default=str, ensure_ascii=False)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _traceback_of_exception(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """One name for a traceback, whether it is our own or came from a worker."""
    if "exception" in event:
        event["traceback"] = event.pop("exception")
    return event


def _in_order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    ordered = {key: event[key] for key in FIRST_KEYS if key in event}
    return ordered | {key: value for key, value in event.items() if key not in ordered}


class _Console:
    """For people: one line, and a traceback below it as it is."""

    def __init__(self, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, sort_keys=False)

    def __call__(self, logger: Any, method: str, event: EventDict) -> str:
        traceback = str(event.pop("traceback", "") or "").rstrip()
        line = self._render(logger, method, {key: _printable(value) for key, value in event.items()})
        if not traceback:
            return line
        return line + "\n" + "\n".join(f"    {_printable(each)}" for each in traceback.splitlines())


def _printable(value: Any) -> Any:
    """Text without what a terminal would act on: programs and clients have a say in it."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in value)
