"""`cherokee-app incidents replay`: the request of an incident again, in a worker of its pool that is started for it.

This process is supervisor and core at once, for one worker and one request. No server need run, and one that runs is
not touched: the queue is this one's own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path

from appserver import paths
from appserver.config.load import peek
from appserver.config.plan import LoadedConfig, PoolSpec
from appserver.config.source import Overrides, default_file, load_config
from appserver.errors import AppError
from appserver.incidents.commands import find, find_store, printable
from appserver.incidents.record import REDACTED, Incident, RequestRecord, body_of
from appserver.logging import configure, get_logger
from appserver.native.control import Message
from appserver.supervisor.executors import executor_command, executor_configuration
from appserver.supervisor.frames import (
    DATAGRAM_MAX,
    END,
    FILE,
    INFORMATIONAL,
    INLINE_BODY_MAX,
    RESPONSE,
    SKIPPED,
    STREAM,
    Answer,
    answers,
    request_frame,
)
from appserver.supervisor.identity import find_identity
from appserver.supervisor.loop import Loop, Timer
from appserver.supervisor.pool import BOOT_TIME_S
from appserver.supervisor.process import Child, Death
from appserver.supervisor.segments import Links
from appserver.supervisor.stacks import SIGNAL, Stacks

NUMBER = 1  #: of the executor
GENERATION = 1
SLOT = 0
REQUEST_ID = GENERATION << 48 | 1
#: What a worker gets to end when it has answered.
STOP_TIME_S = 5.0
#: Where a pool has no request_time.
DEFAULT_TIME_S = 60.0
STACKS_TIME_S = 0.3


def replay(options: argparse.Namespace) -> int:
    """0 when the worker answered, 1 when it did not. Raises AppError."""
    incident = find(find_store(options), options.id)
    record = _record(incident, options.id)
    body = _body(record, options.body)
    config = _config(incident, options.config)
    spec = _spec(config, incident, record)
    configure(config.log.level, "console")
    environment = {name: value for name, value in record.environment.items() if value != REDACTED}
    left_out = sorted(set(record.environment) - set(environment))
    if left_out:
        names = ", ".join(name.removeprefix("HTTP_").replace("_", "-").title() for name in left_out)
        print(f"without what was not kept: {names}", file=sys.stderr)
    if "CONTENT_LENGTH" in environment or body:
        environment["CONTENT_LENGTH"] = str(len(body))
    return _Replay(spec, config, environment, body).run()


def _record(incident: Incident, wanted: str) -> RequestRecord:
    usable = [each for each in incident.requests if each.environment]
    if len(wanted) == 16:
        usable = [each for each in usable if each.request == wanted.lower()]
    if not usable:
        raise AppError(f"incident {incident.id} has no request that could be sent again: its head was not kept")
    if len(usable) > 1:
        ids = ", ".join(each.request for each in usable[:5])
        raise AppError(f"incident {incident.id} has several requests; replay one of them by its id: {ids}")
    return usable[0]


def _body(record: RequestRecord, file: Path | None) -> bytes:
    if file is None:
        try:
            return body_of(record)
        except AppError as error:
            raise AppError(f"{error}; --body FILE gives it") from None
    try:
        return file.read_bytes()
    except OSError as error:
        raise AppError(f"--body: '{file}' cannot be read: {error.strerror}") from None


def _config(incident: Incident, named: Path | None) -> LoadedConfig:
    """That of the options, else the one that the server had, else the default. Raises ConfigError."""
    where = named or (Path(incident.configuration) if incident.configuration else default_file())
    if where is None:
        raise AppError("the incident does not say with which configuration the server ran; --config does")
    if paths.is_dir(where):
        return load_config(None, where, Overrides())
    folder = Path(incident.folder) if incident.folder and not peek(where).sites else None
    return load_config(where, folder, Overrides())


def _spec(config: LoadedConfig, incident: Incident, record: RequestRecord) -> PoolSpec:
    spec = next((each for each in config.pools if each.name == incident.pool), None)
    if spec is None:
        names = ", ".join(each.name for each in config.pools) or "none"
        raise AppError(f"{config.name} has no pool '{incident.pool}'; it has {names}")
    if spec.kind != "python":
        raise AppError(f"pool '{spec.name}' runs CGI programs; run the program itself to see what it does")
    script = record.environment.get("appserver.script")
    if script is not None and script not in spec.scripts:
        raise AppError(f"pool '{spec.name}' of {config.name} does not have the script {script}")
    return spec


class _Replay:
    """One worker, one request. `run` may be called once."""

    def __init__(self, spec: PoolSpec, config: LoadedConfig, environment: Mapping[str, str], body: bytes) -> None:
        self._spec = spec
        self._config = config
        self._environment = environment
        self._body = body
        self._loop = Loop()
        self._status = 1
        self._is_answered = False
        self._is_stopping = False
        self._timer: Timer | None = None
        self._failure = ""
        self._pipe = -1  #: of an answer that comes as a stream

    def run(self) -> int:
        """The exit status. Raises AppError."""
        try:
            self._links = Links(self._spec.name, 64, 1)
            self._stacks = Stacks()
        except OSError as error:
            raise AppError(f"the links to a worker cannot be made: {error.strerror}") from None
        self._links.segment.set_generation(GENERATION)
        self._core_answers = self._links.core_socket(f"answer:{self._spec.name}:0")
        identity = find_identity(self._config.user, self._config.group)
        try:
            self._child = Child(
                self._loop, executor_command(self._spec, identity), get_logger(), self._take, self._died
            )
        except OSError as error:
            raise AppError(f"{self._spec.interpreter} cannot be run: {error.strerror or error}") from None
        self._child.send(
            "start",
            self._links.executor_fds() | {"stacks": self._stacks.fd},
            pool=self._spec.name,
            executor=NUMBER,
            threads=1,
            loops=1,
            stacks_signal=SIGNAL,
            configuration=executor_configuration(self._spec),
        )
        self._loop.watch(self._core_answers.fileno(), self._on_answers)
        self._wait(BOOT_TIME_S, f"the worker was not ready after {BOOT_TIME_S:.0f} s")
        try:
            self._loop.run()
        except BaseException:
            self._child.signal(signal.SIGKILL)
            raise
        finally:
            self._links.close()
            self._stacks.close()
            self._loop.close()
        return self._status

    # The worker

    def _take(self, message: Message) -> None:
        message.close_fds()
        if message.type == "ready":
            limit_s = self._spec.request_time_ms / 1000 or DEFAULT_TIME_S
            self._wait(limit_s, f"no answer after {limit_s:g} s (request_time)")
            self._send()
        elif message.type == "failed":
            self._failure = f"could not boot: {message.text('reason')}\n{message.text('traceback')}"

    def _send(self) -> None:
        in_file = len(self._body) > INLINE_BODY_MAX
        frame = request_frame(SLOT, REQUEST_ID, self._environment, self._body, in_file)
        if len(frame) > DATAGRAM_MAX:
            self._complain(f"the request's head is too long for a datagram ({len(frame)} bytes)")
            self._stop()
            return
        self._links.segment.queue(SLOT, REQUEST_ID)
        fds: list[int] = []
        try:
            if in_file:
                fds = [os.memfd_create("body", os.MFD_CLOEXEC)]
                with os.fdopen(os.dup(fds[0]), "wb") as file:
                    file.write(self._body)
            socket.send_fds(self._links.core_socket(f"queue:{self._spec.name}"), [frame], fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _on_answers(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._core_answers, DATAGRAM_MAX, 4, socket.MSG_DONTWAIT)
        try:
            for answer in answers(data):
                if answer.request_id == REQUEST_ID:
                    self._print(answer, fds[0] if fds else -1)
        finally:
            for fd in fds:
                os.close(fd)

    def _print(self, answer: Answer, fd: int) -> None:
        out = sys.stdout.buffer
        if answer.kind == END:
            if answer.status:
                self._complain("the answer was broken off")
            self._answered(answer.status == 0)
            return
        if answer.kind == SKIPPED:
            self._complain("the worker did not run the request")
            self._answered(False)
            return
        if answer.kind not in (RESPONSE, FILE, STREAM, INFORMATIONAL):
            self._complain("the request asks for another protocol, which cannot be replayed")
            self._answered(False)
            return
        out.write(f"HTTP/1.1 {answer.status} {_reason(answer.status)}\r\n".encode() + answer.fields + b"\r\n")
        if answer.kind == RESPONSE:
            out.write(answer.body)
        elif answer.kind == FILE:
            self._copy_file(fd, answer)
        elif answer.kind == STREAM:
            self._stream(os.dup(fd))
        out.flush()
        if answer.kind in (RESPONSE, FILE):
            self._answered(True)

    def _copy_file(self, fd: int, answer: Answer) -> None:
        at, left = answer.file_offset, answer.body_len
        while left > 0 and (data := os.pread(fd, min(left, 1 << 20), at)):
            sys.stdout.buffer.write(data)
            at, left = at + len(data), left - len(data)

    def _stream(self, fd: int) -> None:
        """Until its writer has closed it; the `end` frame says whether it was whole."""
        os.set_blocking(fd, False)
        self._pipe = fd
        self._loop.watch(fd, self._read_pipe)

    def _read_pipe(self) -> None:
        """All that is there."""
        while self._pipe >= 0:
            try:
                data = os.read(self._pipe, 65536)
            except BlockingIOError:
                return
            if data:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
                continue
            self._loop.unwatch(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    # The end

    def _answered(self, is_good: bool) -> None:
        self._is_answered = True
        self._status = 0 if is_good else 1
        self._stop()

    def _stop(self) -> None:
        self._is_stopping = True
        self._child.send("stop", time_ms=int(STOP_TIME_S * 1000))
        self._links.hang_up()
        self._clear_timer()
        self._timer = self._loop.call_later(STOP_TIME_S, partial(self._child.signal, signal.SIGKILL))

    def _wait(self, seconds: float, complaint: str) -> None:
        self._clear_timer()
        self._timer = self._loop.call_later(seconds, partial(self._too_late, complaint))

    def _too_late(self, complaint: str) -> None:
        self._complain(complaint)
        self._is_stopping = True
        self._stacks.clear()
        self._child.signal(SIGNAL)
        self._timer = self._loop.call_later(STACKS_TIME_S, self._kill)

    def _kill(self) -> None:
        self._print_stacks()
        self._child.signal(signal.SIGKILL)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _died(self, death: Death) -> None:
        self._clear_timer()
        # What it has sent before.
        while not self._is_answered and select.select([self._core_answers], [], [], 0)[0]:
            self._on_answers()
        self._read_pipe()
        if not self._is_stopping or self._failure:
            self._status = 1
            self._complain(f"the worker {self._failure.rstrip() or death.sentence()}")
            self._print_stacks()
        self._loop.stop()

    def _print_stacks(self) -> None:
        for line in self._stacks.read().splitlines():
            print(printable(line), file=sys.stderr)

    def _complain(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        print("\n".join(map(printable, text.splitlines())), file=sys.stderr)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
