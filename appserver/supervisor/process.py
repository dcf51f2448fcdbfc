"""One child process: start, control channel, output, signals, death. It knows nothing of pools."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from appserver.logging import Logger
from appserver.native.control import Channel, ControlError, Message, channel_pair
from appserver.supervisor.identity import Identity
from appserver.supervisor.loop import Loop
from appserver.supervisor.output import Lines

READ_SIZE = 65536
#: Messages of one child that are handled in one turn, so that no child keeps the others waiting.
MESSAGES_PER_TURN = 64
#: What is read of a dead child's output at most; a grandchild may still be writing.
LAST_OUTPUT = 1 << 20
#: From the end of its control channel to its death.
CLOSED_GRACE_S = 5.0
#: How often a child is looked at where there are no pidfds.
LOOK_S = 0.1
#: Lines of a child that are remembered for its death, and characters of each.
LAST_LINES = 50
LAST_LINE_LEN = 2000
LEVELS = frozenset(("debug", "info", "warning", "error"))


@dataclass(frozen=True, slots=True)
class Command:
    """What to start, and as whom."""

    arguments: Sequence[str]  #: the number of the control descriptor is added
    environment: Mapping[str, str]
    identity: Identity | None = None

    def refusal(self, error: OSError) -> str:
        """Why it could not be started, for the log."""
        who = "" if self.identity is None else f" as user {self.identity.name}"
        hint = "; it and the folders above it must be open to that user" if who and error.errno == errno.EACCES else ""
        return f"{self.arguments[0]} cannot be run{who}: {error.strerror or error}{hint}"


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended."""

    pid: int
    status: int  #: exit status, or minus the signal, as subprocess says it
    life_s: float
    max_rss: int = 0  #: bytes
    user_s: float = 0.0
    system_s: float = 0.0
    last_lines: tuple[str, ...] = ()  #: the last that it wrote, and that it logged

    @property
    def is_clean(self) -> bool:
        return self.status == 0

    def sentence(self) -> str:
        """For the log, without a subject: "was killed by SIGKILL (...)"."""
        if self.status >= 0:
            return f"ended with exit status {self.status}"
        try:
            name = signal.Signals(-self.status).name
        except ValueError:
            name = f"signal {-self.status}"
        hint = " (by somebody, or for want of memory)" if self.status == -signal.SIGKILL else ""
        return f"was killed by {name}{hint}"


@dataclass(frozen=True, slots=True)
class Adopted:
    """A process that a child of ours has forked and that has become our child. Whoever makes a :class:`Child` of it
    gives away the channel and the descriptors.
    """

    pid: int
    channel: Channel
    stdout: int
    stderr: int


class _Process:
    """One that was started, or adopted."""

    def __init__(self, source: subprocess.Popen[bytes] | Adopted) -> None:
        self.pid = source.pid
        self._popen: subprocess.Popen[bytes] | None = None
        self.outputs: list[IO[bytes]]
        if isinstance(source, Adopted):
            self.outputs = [os.fdopen(fd, "rb", buffering=0) for fd in (source.stdout, source.stderr)]
        else:
            self._popen = source
            assert source.stdout is not None and source.stderr is not None
            self.outputs = [source.stdout, source.stderr]

    def wait(self) -> tuple[int, resource.struct_rusage]:
        """Its status as subprocess says it, and what it has used. Only for one that is dead, or about to be."""
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if self._popen is not None:
            self._popen.returncode = code
        return code, usage

    def kill(self) -> None:
        """It and its descriptors are gone after this."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()
        self.close()

    def close(self) -> None:
        for file in self.outputs:
            file.close()


class Child:
    """A running child. `on_message` gets its messages except `log`, `on_death` its end; both from the loop."""

    def __init__(
        self,
        loop: Loop,
        command: Command | Adopted,
        log: Logger,
        on_message: Callable[[Message], None],
        on_death: Callable[[Death], None],
    ) -> None:
        """Starts it, unless it is adopted. Raises OSError when that is impossible; nothing is left behind then."""
        self._loop = loop
        self._on_message = on_message
        self._on_death = on_death
        if isinstance(command, Adopted):
            self._channel, self._process = command.channel, _Process(command)
        else:
            self._channel, theirs = channel_pair()
            try:
                self._process = _Process(_start(command, theirs.fileno()))
            except BaseException:
                self._channel.close()
                raise
            finally:
                theirs.close()
        self.pid = self._process.pid
        self._pidfd = self._open_pidfd()
        self._log = log.bind(pid=self.pid)
        self._started = loop.now()
        self._streams: dict[int, tuple[str, Lines]] = {}
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._is_channel_open = True
        self._is_alive = True
        if self._pidfd >= 0:
            loop.watch(self._pidfd, self._died)
        else:
            loop.call_later(LOOK_S, self._look)
        loop.watch(self._channel.fileno(), self._receive)
        for name, file in zip(("stdout", "stderr"), self._process.outputs, strict=True):
            os.set_blocking(file.fileno(), False)
            self._streams[file.fileno()] = (name, Lines(self._started))
            loop.watch(file.fileno(), partial(self._readable, file.fileno()))

    def _open_pidfd(self) -> int:
        """-1 where a seccomp filter or kernel is older than the call. Raises OSError (no descriptors left), the child
        is gone then.
        """
        try:
            return os.pidfd_open(self.pid)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOSYS):
                return -1
            self._process.kill()
            self._channel.close()
            raise

    def _look(self) -> None:
        """In place of a pidfd: is it dead? Looks again until it is."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._loop.call_later(LOOK_S, self._look)
        else:
            self._died()

    @property
    def life_s(self) -> float:
        return self._loop.now() - self._started

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last that it wrote, and that it logged."""
        return tuple(self._last_lines)

    def _write(self, line: str, stream: str) -> None:
        self._last_lines.append(line[:LAST_LINE_LEN])
        self._log.info(line, stream=stream)

    def send(self, type_: str, fds: Mapping[str, int] | None = None, **fields: Any) -> None:
        """Sends a message. A child that is so stuck that its channel is full is killed; its death tells the rest."""
        if not self._is_channel_open:
            return
        try:
            self._channel.send(type_, fds, **fields)
        except BlockingIOError:
            self._log.error("the process does not read its control channel and is killed")
            self.signal(signal.SIGKILL)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is ending by itself; _receive() comes to the end of the channel and gives it its time
        except OSError as error:
            self._log.error("a message to the process failed", message=type_, reason=str(error))
            self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Nothing happens when it is dead. It reaches nobody else: the number stays taken until :meth:`_died` waits for
        it.
        """
        if self._is_alive:
            os.kill(self.pid, number)

    # Reading

    def _receive(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            try:
                message = self._channel.receive()
            except BlockingIOError:
                return
            except (ControlError, OSError) as error:
                self._log.error("the process broke the control protocol and is killed", reason=str(error))
                self._close_channel()
                self.signal(signal.SIGKILL)
                return
            if message is None:
                # Its death follows; if not, it has closed the channel and is of no use any more.
                self._close_channel()
                self._loop.call_later(CLOSED_GRACE_S, partial(self.signal, signal.SIGKILL))
                return
            self._take(message)
            if not self._is_channel_open:
                return

    def _take(self, message: Message) -> None:
        if message.type != "log":
            self._on_message(message)
            return
        fields = {str(key): value for key, value in message.fields.items()}
        level, event = fields.pop("level", "info"), fields.pop("event", "")
        log_line(self._log, str(level), str(event), fields)
        more = "".join(f" {key}={value}" for key, value in fields.items() if key != "traceback")
        self._last_lines.append(f"{level}: {event}{more}"[:LAST_LINE_LEN])

    def _readable(self, fd: int) -> None:
        self._read(fd)

    def _read(self, fd: int) -> bool:
        """False when there is nothing more to read for now."""
        name, lines = self._streams[fd]
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        for line in lines.feed(data, self._loop.now()) if data else lines.finish():
            self._write(line, name)
        if not data:
            self._loop.unwatch(fd)
            del self._streams[fd]
        return bool(data)

    # The end

    def _died(self) -> None:
        # Until it is waited for, the zombie keeps the number of its group from being given to others.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        status, usage = self._process.wait()
        self._is_alive = False
        if self._pidfd >= 0:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
        self._drain()
        self._close_channel()
        for file in self._process.outputs:
            self._loop.unwatch(file.fileno())
        self._process.close()
        self._on_death(
            Death(
                self.pid,
                status,
                self.life_s,
                usage.ru_maxrss * 1024,
                usage.ru_utime,
                usage.ru_stime,
                self.last_lines,
            )
        )

    def _drain(self) -> None:
        """What it had to say before it died."""
        while self._is_channel_open and select.select([self._channel], [], [], 0)[0]:
            self._receive()
        for fd in list(self._streams):
            left = LAST_OUTPUT // READ_SIZE
            while left > 0 and fd in self._streams and self._read(fd):
                left -= 1
            if fd in self._streams:
                name, lines = self._streams.pop(fd)
                for line in lines.finish():
                    self._write(line, name)

    def _close_channel(self) -> None:
        if self._is_channel_open:
            self._is_channel_open = False
            self._loop.unwatch(self._channel.fileno())
            self._channel.close()


def log_line(log: Logger, level: str, event: str, fields: Mapping[str, Any]) -> None:
    """A line whose level and fields came from a child."""
    getattr(log, level if level in LEVELS else "info")(event, **fields)


def _start(command: Command, control_fd: int) -> subprocess.Popen[bytes]:
    """In a session of its own, so that a terminal's Ctrl-C reaches only the supervisor and so that its group can be
    killed.

    Raises OSError.
    """
    who = command.identity
    try:
        return subprocess.Popen(
            [*command.arguments, str(control_fd)],
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(control_fd,),
            start_new_session=True,
            user=None if who is None else who.uid,
            group=None if who is None else who.gid,
            extra_groups=None if who is None else who.groups,
        )
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
