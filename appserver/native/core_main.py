"""The core process: `python -m appserver.native.core_main CONTROL_FD`.

Its work is done by the loops, which are C threads. This thread only carries orders from the supervisor to the core
and events from the core to the supervisor; it sleeps in poll() otherwise, so the interpreter's lock is nobody's
hindrance.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from appserver.native import report
from appserver.native.control import Channel, ControlError, Message
from appserver.native.process import raise_descriptor_limit
from appserver.native.server import CoreError, Server, clear_event_fd, make_event_fd
from appserver.native.snapshot import Plan, build_snapshot, pool_settings

EXIT_BROKEN = 70  #: the supervisor's messages make no sense
EXIT_NO_BOOT = 3  #: the configuration was refused


class _OverError(Exception):
    """The process ends with `status`."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


class CoreProcess:
    """Orders in, events out."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._event_fd = make_event_fd()
        self._server: Server | None = None
        self._loops = 0
        self._pools: dict[str, int] = {}  #: name -> the core's number; pools are never taken away
        self._abilities: dict[str, Message] = {}
        """name -> what was last said of a pool's executors, maybe before the pool itself was heard of."""
        self._is_ready = False
        self._listeners: dict[str, list[int]] = {}
        """id -> our descriptors: one, or one for each loop. The first is also the core's name for the listener."""
        self._fds: dict[str, int] = {}  #: for the next start or apply
        self._log_format = "off"
        self._drained: set[int] = set()
        self._drain_ends: float | None = None  #: CLOCK_MONOTONIC, seconds

    def run(self) -> int:
        """Until the supervisor says so or goes away. The result is the exit status."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        poller.register(self._event_fd, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poller.poll(self._wait_ms())}
                if self._event_fd in ready:
                    self._forward_events()
                if self._channel.fileno() in ready:
                    self._obey(self._channel.receive())
                self._end_when_drained()
        except _OverError as over:
            return over.status
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the supervisor is gone
        except ControlError as error:
            print(error, file=sys.stderr)
            return EXIT_BROKEN
        finally:
            if self._server is not None:
                self._server.close()

    # Orders

    def _obey(self, message: Message | None) -> None:
        if message is None:
            raise _OverError(0)
        match message.type:
            case "descriptors":
                self._fds |= message.fds
            case "start" | "apply":
                self._configure(message)
            case "capacity":
                self._abilities[message.text("pool")] = message
                self._with_pool(message, partial(_set_capacity, message))
            case "executor-died":
                self._with_pool(message, partial(_bury, message))
            case "metrics":
                self._the_server().tell_metrics(message.text("text"))
            case "readiness":
                self._is_ready = bool(message.fields.get("ready"))
                if self._server is not None:
                    self._server.set_ready(self._is_ready)
            case "confirm":
                self._channel.send("confirmed")
            case "reopen":
                self._reopen(message)
            case "drain":
                self._drain(message.number("timeout_ms") / 1000)
            case other:
                message.close_fds()
                raise ControlError(f"the core got a control message that it does not know: {other}")

    def _configure(self, message: Message) -> None:
        self._fds |= message.fds
        fds, self._fds = self._fds, {}
        try:
            plan = _read_plan(fds.pop("plan"))
            if message.type == "start":
                self._start(message, plan, fds)
            else:
                self._apply(self._the_server(), message, plan, fds)
        except (CoreError, KeyError, ValueError) as error:
            reason = str(error) if isinstance(error, CoreError) else f"{type(error).__name__}: {error}"
            self._channel.send("refused", reason=reason)
            if message.type == "start":
                raise _OverError(EXIT_NO_BOOT) from error
        finally:
            for fd in fds.values():
                os.close(fd)

    def _start(self, message: Message, plan: Plan, fds: dict[str, int]) -> None:
        if self._server is not None:
            raise ControlError("the core was started twice")
        self._loops = message.number("loops", 1)
        server = self._server = Server(self._loops, message.number("generation"), self._event_fd)
        server.set_accept(message.text("accept"))
        self._apply(server, message, plan, fds)
        server.set_ready(self._is_ready)
        server.start()
        self._channel.send("ready")

    def _apply(self, server: Server, message: Message, plan: Plan, fds: dict[str, int]) -> None:
        """Everything that can be refused comes before the first thing that clients can see."""
        for pool in plan["pools"]:
            self._set_pool(server, pool, fds)
        snapshot = build_snapshot(plan, self._pools, server.add_route)
        self._add_listeners(server, fds)
        self._set_access_log(server, plan, fds)
        server.apply(snapshot)
        wanted = {_listener_id(name) for name in message.fields.get("listeners") or []}
        for key in [key for key in self._listeners if key not in wanted]:
            self._remove_listener(server, key)
        if message.type == "apply":
            self._channel.send("applied")

    def _set_pool(self, server: Server, pool: Mapping[str, Any], fds: dict[str, int]) -> None:
        name = pool["name"]
        if name in self._pools:
            server.set_pool(self._pools[name], pool_settings(pool), -1, -1, ())
            return
        index = len(self._pools)
        answers = [fds.pop(f"answer:{name}:{loop}") for loop in range(self._loops)]
        server.set_pool(index, pool_settings(pool), fds[f"queue:{name}"], fds[f"slots:{name}"], answers)
        self._pools[name] = index
        if name in self._abilities:
            _set_capacity(self._abilities[name], server, index)

    def _add_listeners(self, server: Server, fds: dict[str, int]) -> None:
        """All of them or none."""
        added: list[str] = []
        try:
            for key, names in _group_listeners(fds).items():
                if key not in self._listeners:
                    self._add_listener(server, key, [fds.pop(name) for name in names])
                    added.append(key)
        except CoreError:
            for key in added:
                self._remove_listener(server, key)
            raise

    def _add_listener(self, server: Server, key: str, fds: list[int]) -> None:
        try:
            server.add_listener(fds)
        except CoreError:
            _close_all(fds)
            raise
        self._listeners[key] = fds

    def _remove_listener(self, server: Server, key: str) -> None:
        fds = self._listeners.pop(key)
        server.remove_listener(fds[0])
        _close_all(fds)

    def _set_access_log(self, server: Server, plan: Plan, fds: dict[str, int]) -> None:
        if "access-log" in fds:
            server.set_access_log(fds["access-log"], plan["access_log"]["format"])
            self._log_format = plan["access_log"]["format"]

    def _reopen(self, message: Message) -> None:
        try:
            self._the_server().set_access_log(message.fds["access-log"], self._log_format)
        except (CoreError, KeyError) as error:
            self._log("error", f"the access log was not reopened: {error}")
        finally:
            message.close_fds()

    def _with_pool(self, message: Message, act: Any) -> None:
        """Orders about a pool that the core does not have (yet) are for nobody."""
        pool = self._pools.get(message.text("pool"))
        if pool is not None:
            act(self._the_server(), pool)

    def _the_server(self) -> Server:
        if self._server is None:
            raise ControlError("the core got an order before it was started")
        return self._server

    # The end

    def _drain(self, timeout_s: float) -> None:
        server = self._the_server()
        server.set_ready(False)
        # Our descriptors go first: the loops then take what waits in the backlog and close the last ones.
        for fds in self._listeners.values():
            _close_all(fds)
        self._listeners.clear()
        server.drain()
        self._drain_ends = time.monotonic() + timeout_s

    def _end_when_drained(self) -> None:
        if self._drain_ends is None:
            return
        if len(self._drained) < self._loops:
            if time.monotonic() < self._drain_ends:
                return
            left = self._the_server().counters().get("connections_open", 0)
            self._log("warning", f"{left} connections were still open after drain_timeout and are cut")
        self._channel.send("drained")
        raise _OverError(0)

    def _wait_ms(self) -> int | None:
        if self._drain_ends is None:
            return None
        return max(0, int((self._drain_ends - time.monotonic()) * 1000) + 1)

    # Events

    def _forward_events(self) -> None:
        clear_event_fd(self._event_fd)
        names = {number: name for name, number in self._pools.items()}
        self._forward_incidents(names)
        for event in self._the_server().events():
            if event.kind == report.EventKind.DRAINED:
                self._drained.add(event.loop)
                continue
            pool = names.get(event.pool)
            if event.kind == report.EventKind.EXECUTOR_STUCK:
                self._channel.send(
                    "executor-stuck",
                    pool=pool,
                    executor=event.executor,
                    request=event.request,
                    slot=event.slot,
                    wire_id=event.wire_id,
                    about=event.text,
                )
                continue
            self._channel.send("log", **report.log_fields(event, pool))

    def _forward_incidents(self, names: Mapping[int, str]) -> None:
        for incident in self._the_server().incidents():
            fds = {} if incident.fd < 0 else {"request": incident.fd}
            try:
                self._channel.send("incident", fds, pool=names[incident.pool], **incident.fields)
            finally:
                _close_all(list(fds.values()))

    def _log(self, level: str, event: str) -> None:
        self._channel.send("log", level=level, event=event)


def _bury(message: Message, server: Server, pool: int) -> None:
    server.executor_died(pool, message.number("executor"), expected=bool(message.fields.get("expected")))


def _set_capacity(message: Message, server: Server, pool: int) -> None:
    server.set_capacity(
        pool,
        message.number("capacity"),
        message.number("at_once"),
        stream_bodies=bool(message.fields.get("stream_bodies")),
        upgrades=bool(message.fields.get("upgrades")),
    )


def _listener_id(name: str) -> str:
    """`ID` of a socket for all loops, or of `ID@LOOP`, the one of a single loop."""
    return name.partition("@")[0]


def _group_listeners(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of the listening sockets among `names`, by the listener's id and in the order of the loops."""
    found: dict[str, dict[int, str]] = {}
    for name in names:
        if name.startswith("listener:"):
            key, _, loop = name.removeprefix("listener:").partition("@")
            found.setdefault(key, {})[int(loop or 0)] = name
    return {key: [by_loop[loop] for loop in sorted(by_loop)] for key, by_loop in found.items()}


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _read_plan(fd: int) -> Plan:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        plan = json.loads(file.read())
    assert isinstance(plan, dict)
    return plan


def main(arguments: list[str]) -> int:
    """`arguments`: the number of the control descriptor."""
    faulthandler.enable()
    raise_descriptor_limit()
    return CoreProcess(Channel.from_fd(int(arguments[0]))).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
