"""The template process of a pool with `preload`: it has loaded the application, and forks executors on request.

An executor is forked in two steps, so that it becomes a child of ours: we watch it, wait for it and know how it ended,
whether its template still lives or not. Between the request and the word that it is there, nobody may wait for
children that nobody knows (:attr:`Template.is_forking`).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from appserver.config.plan import PoolSpec
from appserver.logging import Logger
from appserver.native.control import Channel, Message, channel_pair
from appserver.supervisor.backoff import Backoff
from appserver.supervisor.loop import Loop, Timer
from appserver.supervisor.memory import proportional, resident
from appserver.supervisor.process import Adopted, Child, Command, Death

#: From its start to the last module that it loads; as for an executor.
BOOT_TIME_S = 60.0
STOP_TIME_S = 2.0


class TemplateOwner(Protocol):
    """Who wants executors. Every call comes from the loop."""

    def forked(self, number: int, process: Adopted) -> None:
        """The executor with this number is there."""

    def not_forked(self, number: int, reason: str, traceback: str, could_not_boot: bool) -> None:
        """It will not be."""

    def unfit(self, numbers: list[int], reason: str) -> None:
        """Executors cannot be forked; these were asked for, and must be started in another way."""

    def template_ended(self) -> None:
        """There is one process less."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What we keep of a fork that was asked for: our ends."""

    channel: Channel
    stdout: int
    stderr: int

    def close(self) -> None:
        self.channel.close()
        os.close(self.stdout)
        os.close(self.stderr)


class Template:
    """That of one version of a pool's specification, whichever process it is just now."""

    def __init__(
        self,
        loop: Loop,
        spec: PoolSpec,
        command: Command,
        configuration: Mapping[str, Any],
        log: Logger,
        owner: TemplateOwner,
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._command = command
        self._configuration = configuration
        self._log = log.bind(process="template")
        self._owner = owner
        self._child: Child | None = None
        self._is_loaded = False
        self._is_wanted = True
        self._unfit = ""  #: why
        self._failure: tuple[str, str] | None = None  #: reason and traceback of the one that could not load
        self._waiting: list[int] = []  #: for a process that has loaded
        self._asked: dict[int, _Request] = {}
        self._timer: Timer | None = None  #: the next start, or the end of somebody's time
        self._backoff = Backoff()

    @property
    def pids(self) -> set[int]:
        return set() if self._child is None else {self._child.pid}

    @property
    def is_running(self) -> bool:
        return self._child is not None

    @property
    def is_forking(self) -> bool:
        """An executor may be our child already, and we do not know it yet."""
        return bool(self._asked)

    @property
    def is_unfit(self) -> bool:
        """Executors must be started in another way."""
        return bool(self._unfit)

    def status(self) -> dict[str, Any] | None:
        """For people who ask."""
        child = self._child
        if child is None:
            return None
        return {
            "pid": child.pid,
            "state": "ready" if self._is_loaded else "booting",
            "age_s": round(child.life_s, 3),
            "memory": resident(child.pid),
            "pss": proportional(child.pid),
        }

    # Orders

    def fork(self, number: int) -> None:
        """Asks for an executor, as soon as there is a process that has loaded."""
        self._waiting.append(number)
        if self._child is None:
            self._start()
        elif self._is_loaded:
            self._ask_for_all()

    def withdraw(self, number: int) -> bool:
        """Nobody wants that executor any more. False when it may be there already."""
        if number not in self._waiting:
            return False
        self._waiting.remove(number)
        return True

    def stop(self) -> None:
        """Its time is over; executors stay."""
        self._is_wanted = False
        self._clear_timer()
        if self._child is not None:
            self._child.send("stop")
            self._timer = self._loop.call_later(STOP_TIME_S, self.kill)

    def kill(self) -> None:
        """Now."""
        self._is_wanted = False
        self._clear_timer()
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    # Inside

    def _start(self) -> None:
        self._clear_timer()
        self._is_loaded, self._failure = False, None
        try:
            self._child = Child(self._loop, self._command, self._log, self._take, self._died)
        except OSError as error:
            reason = f"{self._command.arguments[0]} cannot be started: {error}"
            self._log.error("the template cannot be started", reason=reason)
            # Not at once: whoever asks is in the middle of something.
            self._loop.call_later(0, partial(self._fail_all, reason, "", True))
            return
        self._child.send("preload", pool=self._spec.name, configuration=self._configuration)
        self._timer = self._loop.call_later(BOOT_TIME_S, self._give_up)

    def _give_up(self) -> None:
        self._log.error(f"the application was not loaded after {BOOT_TIME_S:.0f} s, its template is killed")
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    def _take(self, message: Message) -> None:
        match message.type:
            case "preloaded":
                self._clear_timer()
                self._is_loaded = True
                self._backoff.booted()
                assert self._child is not None
                self._log.info("the template is ready", pid=self._child.pid)
                self._ask_for_all()
            case "unfit":
                self._unfit = message.text("reason")
                self._log.warning("preload is not possible; workers are started without it", reason=self._unfit)
                self.stop()
                numbers, self._waiting = self._waiting, []
                self._owner.unfit(numbers, self._unfit)
            case "failed":
                self._failure = (message.text("reason"), message.text("traceback"))
                traceback = {"traceback": self._failure[1]} if self._failure[1] else {}
                self._log.error("the application cannot be loaded", reason=self._failure[0], **traceback)
            case "forked":
                self._forked(message.number("executor"), message.number("pid"))
            case "not-forked":
                self._not_forked(message.number("executor"), message.text("reason"))
            case other:
                message.close_fds()
                self._log.warning("the template sent a message that is not known", message=other)

    def _ask_for_all(self) -> None:
        numbers, self._waiting = self._waiting, []
        for number in numbers:
            self._ask(number)

    def _ask(self, number: int) -> None:
        assert self._child is not None
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            try:
                channel, their_channel = channel_pair()
                theirs.callback(their_channel.close)
                ours.callback(channel.close)
                pipes = []
                for _ in range(2):
                    reader, writer = os.pipe()
                    theirs.callback(os.close, writer)
                    ours.callback(os.close, reader)
                    pipes.append((reader, writer))
            except OSError as error:
                reason = f"no descriptors for it: {error.strerror}"
                self._loop.call_later(0, partial(self._owner.not_forked, number, reason, "", False))
                return
            (stdout, their_stdout), (stderr, their_stderr) = pipes
            ours.pop_all()
            self._asked[number] = _Request(channel, stdout, stderr)
            fds = {"control": their_channel.fileno(), "stdout": their_stdout, "stderr": their_stderr}
            self._child.send("fork", fds, executor=number)

    def _forked(self, number: int, pid: int) -> None:
        request = self._asked.pop(number, None)
        if request is None:
            return
        if not _is_ours(pid):
            self._log.error("the template names a process that is no child of ours, and is killed", process=pid)
            request.close()
            assert self._child is not None
            self._child.signal(signal.SIGKILL)
            self._owner.not_forked(number, "its template has lied", "", False)
            return
        self._owner.forked(number, Adopted(pid, request.channel, request.stdout, request.stderr))

    def _not_forked(self, number: int, reason: str) -> None:
        request = self._asked.pop(number, None)
        if request is not None:
            request.close()
            self._owner.not_forked(number, f"it cannot be forked: {reason}", "", False)

    def _died(self, death: Death) -> None:
        self._child = None
        self._is_loaded = False
        self._clear_timer()
        if self._is_wanted:
            reason, traceback = self._failure or (f"its template {death.sentence()}", "")
            no_boot = self._failure is not None
            delay_s = self._backoff.after_boot_failure() if no_boot else self._backoff.after_crash(death.life_s)
            if not no_boot:
                self._log.error(f"the template {death.sentence()}; workers go on", pid=death.pid, replaced_in_s=delay_s)
                self._timer = self._loop.call_later(delay_s, self._start_again)
            self._fail_all(reason, traceback, no_boot)
        else:
            self._fail_all("its template was stopped", "", False)
        self._owner.template_ended()

    def _start_again(self) -> None:
        self._timer = None
        if self._is_wanted and self._child is None:
            self._start()

    def _fail_all(self, reason: str, traceback: str, could_not_boot: bool) -> None:
        """Nobody will fork these. Should one be there already, it sees its control channel close and ends."""
        numbers, self._waiting = [*self._waiting, *self._asked], []
        for request in self._asked.values():
            request.close()
        self._asked.clear()
        for number in numbers:
            self._owner.not_forked(number, reason, traceback, could_not_boot)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_ours(pid: int) -> bool:
    """Whether it is a child of this process, living or dead. A template runs an application's code: we do not send
    signals to whatever it names.
    """
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, ValueError, OverflowError):
        return False
    return pid > 0
