"""What the loops and the spawner report: rare events, and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from appserver.native._core import ffi, lib


class EventKind(IntEnum):
    """What an event is about; the numbers are those of as_event_kind."""

    NOTE = lib.AS_EVENT_NOTE
    WARNING = lib.AS_EVENT_WARNING
    ERROR = lib.AS_EVENT_ERROR
    EXECUTOR_STUCK = lib.AS_EVENT_EXECUTOR_STUCK
    INCIDENT = lib.AS_EVENT_INCIDENT
    DRAINED = lib.AS_EVENT_DRAINED
    PROGRAM_STDERR = lib.AS_EVENT_PROGRAM_STDERR


_LEVELS: dict[int, str] = {
    EventKind.NOTE: "info",
    EventKind.WARNING: "warning",
    EventKind.ERROR: "error",
    EventKind.EXECUTOR_STUCK: "warning",
    EventKind.INCIDENT: "error",
    EventKind.DRAINED: "debug",
    EventKind.PROGRAM_STDERR: "info",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One as_event. `request_id` is 0 and `pool` -1 when there is none."""

    kind: int
    loop: int
    request_id: int
    pool: int
    executor: int
    slot: int
    wire_id: int
    text: str

    @property
    def level(self) -> str:
        """The log level that goes with the kind."""
        return _LEVELS.get(self.kind, "info")

    @property
    def request(self) -> str:
        """The request's id as the logs write it; empty when there is none."""
        return f"{self.request_id:016x}" if self.request_id else ""


def pull_events(next_event: Callable[[Any], int]) -> Iterator[Event]:
    """Every event that is there now; `next_event` fills in a C record and says whether it did."""
    record = ffi.new("as_event *")
    while next_event(record):
        yield Event(
            kind=int(record.kind),
            loop=int(record.loop),
            request_id=int(record.request_id),
            pool=int(record.pool),
            executor=int(record.executor),
            slot=int(record.slot),
            wire_id=int(record.wire_id),
            text=ffi.string(record.text).decode("utf-8", "replace"),
        )


def log_fields(event: Event, pool: str | None) -> dict[str, Any]:
    """An event as the fields of a `log` message; `pool` is the name of its pool."""
    fields: dict[str, Any] = {"level": event.level, "event": event.text}
    if event.kind == EventKind.PROGRAM_STDERR:
        script, _, line = event.text.partition("\t")
        fields |= {"event": line, "script": script, "stream": "stderr"}
    if event.kind == EventKind.INCIDENT:
        fields |= {"event": "a request was lost with its executor", "about": event.text}
    if event.request:
        fields["request"] = event.request
    if pool is not None:
        fields["pool"] = pool
    if event.executor:
        fields["executor"] = event.executor
    return fields


_CAUSES = {lib.AS_INCIDENT_DIED: "died", lib.AS_INCIDENT_TIMEOUT: "timeout"}
_OUTCOMES = {lib.AS_INCIDENT_RETRIED: "retried", lib.AS_INCIDENT_CUT: "cut"}


@dataclass(frozen=True, slots=True)
class Incident:
    """One as_incident. `pool` is its number; `fd` has the request frame (-1: there is none) and is the receiver's."""

    pool: int
    fields: dict[str, Any]
    fd: int


def pull_incidents(next_incident: Callable[[Any], int]) -> Iterator[Incident]:
    """Every incident that is there now; `next_incident` fills in a C record and says whether it did."""
    record = ffi.new("as_incident *")
    while next_incident(record):
        fields = {
            "executor": int(record.executor),
            "request": f"{int(record.request_id):016x}",
            "cause": _CAUSES[record.cause],
            "what": _OUTCOMES.get(record.outcome, str(record.outcome)),
            "slot": int(record.slot),
            "wire_id": int(record.wire_id),
            "thread": int(record.thread),
            "queued_ns": int(record.queued_ns),
            "started_ns": int(record.started_ns),
            "fingerprint": f"{int(record.fingerprint):016x}",
            "truncated": bool(record.truncated),
        }
        yield Incident(int(record.pool), fields, int(record.fd))


def counter_names() -> tuple[str, ...]:
    """The names of the counters, in the order of :meth:`Server.counters`."""
    names: list[str] = []
    while name := ffi.string(lib.as_counter_name(len(names))).decode():
        names.append(name)
    return tuple(names)
