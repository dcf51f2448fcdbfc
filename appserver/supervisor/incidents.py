"""What went wrong with workers, put together and kept: the supervisor knows how a worker died, its stacks and its last
lines; the core knows the requests that it took along. Both meet here, in whatever order they come.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from appserver.config.model import Incidents as IncidentsConfig
from appserver.incidents.record import Incident, IncidentError, RequestRecord, request_of_frame
from appserver.incidents.store import Store, default_directories, new_id
from appserver.logging import get_logger
from appserver.native.control import Message
from appserver.supervisor.incidents_evidence import Witness
from appserver.supervisor.loop import Loop

#: Incidents that may still get more: requests from the core, what became of the worker.
OPEN = 32
#: How long a request waits for the incident that it belongs to, until it is one of its own.
WAIT_S = 1.5
#: How long after a change an incident that was written already is written again.
SETTLE_S = 0.1
#: A request frame of the core has a body of 1 MiB at most.
FRAME_MAX = 2 * 1024 * 1024


@dataclass(slots=True)
class _Open:
    incident: Incident
    at: float
    is_changed: bool = False


@dataclass(slots=True)
class _Waiting:
    """A request that the core has told of, before its incident."""

    pool: str
    executor: int
    record: RequestRecord
    at: float


@dataclass(slots=True)
class Facts:
    """Of the executor that an incident is about."""

    pool: str
    executor: int
    pid: int
    age_s: float
    requests_served: int | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    log: Sequence[str] = ()
    growth: Mapping[str, list[int]] = field(default_factory=dict)


class Incidents:
    """Of one server. Nothing that fails here fails the server: it costs a line in the log."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._log = get_logger()
        self._config: IncidentsConfig | None = None
        self._name = self._folder = ""
        self._store: Store | None = None
        self._open: deque[_Open] = deque(maxlen=OPEN)
        self._waiting: list[_Waiting] = []
        self._writes_later = False
        self.witness = Witness(loop)

    def configure(self, config: IncidentsConfig | None, name: str, folder: str = "") -> None:
        """At the start and at each reload. `name` of the configuration: its file, or the `folder` that is served."""
        self.flush()
        self._config = config
        self._name = str(Path(name).absolute())
        self._folder = str(Path(folder).absolute()) if folder else ""
        self._store = None
        if config is None:
            return
        named = config.directory != "auto"
        directories = [Path(config.directory)] if named else default_directories(os.environ)
        complaints = []
        for directory in directories:
            store = Store(directory, config.keep, config.size)
            try:
                store.prepare()
            except OSError as error:
                complaints.append(f"{directory}: {error.strerror}")
                continue
            self._store = store
            return
        level = self._log.error if named else self._log.info
        level("incidents are not kept: no directory for them can be written (incidents.directory)", tried=complaints)

    # What the pools say

    def overdue(self, facts: Facts, requests: list[RequestRecord], cause: str, stacks: str) -> str:
        """Requests that ran too long; the id of their incident."""
        return self._begin("timeout", facts, requests, cause, stacks=stacks or None)

    def died(self, facts: Facts, kind: str, requests: list[RequestRecord], cause: str, **more: Any) -> str:
        """An executor is dead, or could not boot; the id of the incident."""
        return self._begin(kind, facts, requests, cause, **more)

    def ended(self, pool: str, executor: int, request: str, ending: str) -> None:
        """What became of a worker in which that request ran too long."""
        for each in reversed(self._open):
            incident = each.incident
            if (incident.pool, incident.executor) == (pool, executor) and incident.holds(request):
                incident.ending = ending
                self._change(each)
                return

    # What the core says

    def request(self, message: Message) -> None:
        """The message `incident`. Takes its descriptors."""
        try:
            record = self._record_of(message)
        finally:
            message.close_fds()
        pool, executor = message.text("pool"), message.number("executor")
        waiting = _Waiting(pool, executor, record, self._loop.now())
        found = self._incident_for(waiting)
        if found is not None:
            found.incident.add_request(record)
            self._change(found)
            return
        self._waiting.append(waiting)
        self._loop.call_later(WAIT_S, partial(self._no_incident_came, waiting))

    def _record_of(self, message: Message) -> RequestRecord:
        config = self._config
        request = message.text("request")
        record = RequestRecord(request)
        fd = message.fds.get("request", -1)
        if fd >= 0 and config is not None:
            body_limit = config.body_size if config.keep_bodies == "on" else 0
            try:
                data = os.pread(fd, FRAME_MAX, 0)
                truncated = message.fields.get("truncated") is True
                record = request_of_frame(data, request, config.redact, body_limit, truncated)
            except (OSError, IncidentError) as error:
                self._log.warning("the request of an incident cannot be read", request=request, reason=str(error))
        now_ns, arrived, started = self._loop.now() * 1e9, message.number("queued_ns"), message.number("started_ns")
        record.cause, record.outcome = message.text("cause"), message.text("what")
        record.fingerprint = message.text("fingerprint")
        if started:
            record.thread = message.number("thread")
            record.queued_s = round((started - arrived) / 1e9, 6)
            record.ran_s = round((now_ns - started) / 1e9, 6)
        elif arrived:
            record.queued_s = round((now_ns - arrived) / 1e9, 6)
        return record

    def _incident_for(self, waiting: _Waiting) -> _Open | None:
        """The incident of the same kind and executor, else of the same executor, that knows the request best."""
        kind = "timeout" if waiting.record.cause == "timeout" else "death"
        best: _Open | None = None
        best_worth = 0
        for each in self._open:
            incident = each.incident
            if incident.pool != waiting.pool:
                continue
            same_executor = incident.executor == waiting.executor
            # A request that no slot shows has no executor: it was with the one that has just died.
            unknown = waiting.executor == 0 and incident.kind == "death" and waiting.at - each.at < WAIT_S
            if kind == "timeout":
                worth = 4 * incident.holds(waiting.record.request) if same_executor else 0
            else:
                worth = (2 if incident.kind != "timeout" else 1) if same_executor else int(unknown)
            if worth and worth >= best_worth:
                best, best_worth = each, worth
        return best

    def _no_incident_came(self, waiting: _Waiting) -> None:
        """The core's word alone: of a program that ran too long, or of an executor that nobody knows."""
        if waiting not in self._waiting:
            return
        self._waiting.remove(waiting)
        record = waiting.record
        facts = Facts(waiting.pool, waiting.executor, 0, 0.0)
        what = "ran longer than request_time" if record.cause == "timeout" else "was lost with its executor"
        about = f"{record.method} {record.target}".strip() or f"request {record.request}"
        self._begin("timeout" if record.cause == "timeout" else "death", facts, [record], f"{about} {what}")

    # Inside

    def _begin(self, kind: str, facts: Facts, requests: list[RequestRecord], cause: str, **more: Any) -> str:
        wall = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall)) + f".{int(wall * 1000) % 1000:03d}Z"
        incident = Incident(
            id=new_id(),
            time=stamp,
            kind=kind,
            cause=cause,
            pool=facts.pool,
            executor=facts.executor,
            pid=facts.pid,
            age_s=round(facts.age_s, 3) if facts.pid else None,
            requests_served=facts.requests_served,
            memory=facts.memory,
            log=list(facts.log),
            growth={route: list(pair) for route, pair in facts.growth.items()},
            configuration=self._name,
            folder=self._folder,
            **more,
        )
        for record in requests:
            incident.add_request(record)
        if len(self._open) == OPEN:
            self.flush()  # the oldest one goes
        opened = _Open(incident, self._loop.now())
        self._open.append(opened)
        for waiting in list(self._waiting):
            if self._incident_for(waiting) is opened:
                self._waiting.remove(waiting)
                incident.add_request(waiting.record)
        self._write(opened)
        return incident.id

    def _change(self, opened: _Open) -> None:
        opened.is_changed = True
        if not self._writes_later:
            self._writes_later = True
            self._loop.call_later(SETTLE_S, self.flush)

    def flush(self) -> None:
        """Writes what has changed."""
        self._writes_later = False
        for each in self._open:
            if each.is_changed:
                self._write(each)

    def _write(self, opened: _Open) -> None:
        opened.is_changed = False
        if self._store is None:
            return
        try:
            self._store.save(opened.incident)
        except OSError as error:
            self._log.error(
                "an incident cannot be written",
                incident=opened.incident.id,
                directory=str(self._store.directory),
                reason=error.strerror,
            )
