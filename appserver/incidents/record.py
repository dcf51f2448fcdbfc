"""One incident: what is known of a worker's death or of requests that ran too long, and its JSON. docs/incidents.md has
the format. Pure: no clock, no files.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appserver.errors import AppError

FORMAT = 1
REDACTED = "[redacted]"
#: Fields whose values are never written.
REDACT_ALWAYS = ("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie")
#: Requests in one incident; a worker holds no more than a few threads' worth and a batch.
MAX_REQUESTS = 256
#: The head of a request frame, docs/executor-protocol.md section 3: up to its body's length.
FRAME_HEAD = struct.Struct("=IHHIIQQIIQ")
_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)


class IncidentError(AppError):
    """An incident that cannot be read or used."""


@dataclass(slots=True)
class RequestRecord:
    """A request that the worker held, or that ran too long."""

    request: str  #: its id in the logs
    method: str = ""
    target: str = ""
    host: str = ""
    client: str = ""
    cause: str = ""  #: "died" or "timeout"
    outcome: str = ""  #: "retried", "cut", or the status of the answer
    thread: int | None = None
    queued_s: float | None = None  #: from its arrival until it began
    ran_s: float | None = None  #: from its begin until the incident
    fingerprint: str = ""
    environment: dict[str, str] = field(default_factory=dict)  #: as the worker got it, redacted
    body: str | None = None  #: base64; None when it was not kept
    body_size: int = 0
    body_kept: int = 0  #: bytes of `body`


@dataclass(slots=True)
class Incident:
    """The whole record. Times are seconds, sizes bytes."""

    id: str
    time: str  #: UTC, ISO 8601 with milliseconds
    kind: str  #: "death", "timeout" or "boot"
    cause: str  #: one sentence
    pool: str
    executor: int = 0
    pid: int = 0
    age_s: float | None = None
    requests_served: int | None = None
    signal: str | None = None
    exit_status: int | None = None
    oom: str | None = None  #: what says that the kernel was out of memory
    memory: dict[str, Any] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    ending: str | None = None  #: what became of a worker whose request ran too long
    reason: str | None = None  #: why it could not boot
    traceback: str | None = None  #: of that
    stacks: str | None = None  #: Python stacks of every thread
    requests: list[RequestRecord] = field(default_factory=list)
    log: list[str] = field(default_factory=list)  #: the worker's last lines
    growth: dict[str, Any] = field(default_factory=dict)  #: by route: bytes while it ran alone, while others ran too
    configuration: str = ""  #: file or folder that the server was started with
    folder: str = ""  #: what was served by convention; "" when the file said all
    left_out: list[str] = field(default_factory=list)  #: what did not fit

    def holds(self, request: str) -> bool:
        return any(each.request == request for each in self.requests)

    def add_request(self, new: RequestRecord) -> None:
        """Adds a request, or what was not known yet of one that is there."""
        for index, old in enumerate(self.requests):
            if old.request == new.request:
                values = {each.name: getattr(new, each.name) for each in dataclasses.fields(new)}
                known = {name: value for name, value in values.items() if value not in ("", None, {})}
                self.requests[index] = dataclasses.replace(old, **known)
                return
        if len(self.requests) < MAX_REQUESTS:
            self.requests.append(new)
        elif "requests" not in self.left_out:
            self.left_out.append("requests")


# Requests


def request_of_frame(
    data: bytes, request: str, redact: Iterable[str], body_limit: int, truncated: bool = False
) -> RequestRecord:
    """The request in a frame as an executor receives it; `truncated`: its body was longer. Raises IncidentError when it
    is not one.
    """
    if len(data) < FRAME_HEAD.size:
        raise IncidentError(f"a request frame of {len(data)} bytes; expected at least {FRAME_HEAD.size}")
    *_, environment_len, _, _ = FRAME_HEAD.unpack_from(data)
    end = FRAME_HEAD.size + environment_len
    if end > len(data):
        raise IncidentError(f"a request frame of {len(data)} bytes; its environment ends at {end}")
    environment = environment_of(data[FRAME_HEAD.size : end])
    body = data[end:]
    found = RequestRecord(
        request=request,
        method=environment.get("REQUEST_METHOD", ""),
        target=environment.get("REQUEST_URI", ""),
        host=environment.get("HTTP_HOST", ""),
        client=environment.get("REMOTE_ADDR", ""),
        environment=redacted(environment, redact),
        body_size=len(body),
    )
    if truncated:
        length = environment.get("CONTENT_LENGTH", "")
        found.body_size = max(len(body) + 1, int(length) if re.fullmatch("[0-9]{1,18}", length, re.ASCII) else 0)
    kept = body[:body_limit]
    if kept or not body:
        found.body, found.body_kept = base64.b64encode(kept).decode("ascii"), len(kept)
    return found


def environment_of(block: bytes) -> dict[str, str]:
    """An environment block, docs/executor-protocol.md section 8."""
    parts = block.decode("latin-1").split("\0")
    return dict(zip(parts[0::2], parts[1::2], strict=False))


def redacted(environment: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """With the values of those header fields, and of those that are always secret, replaced."""
    secret = {"HTTP_" + name.upper().replace("-", "_") for name in (*REDACT_ALWAYS, *names)}
    return {name: REDACTED if name in secret else value for name, value in environment.items()}


def body_of(record: RequestRecord) -> bytes:
    """Raises IncidentError when not all of it was kept."""
    if record.body is None:
        if record.body_size:
            raise IncidentError(f"the body of request {record.request} ({record.body_size} bytes) was not kept")
        return b""
    if record.body_kept < record.body_size:
        raise IncidentError(
            f"of the body of request {record.request} only {record.body_kept} of {record.body_size} bytes were kept"
            " (incidents.body_size)"
        )
    try:
        return base64.b64decode(record.body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IncidentError(f"the body of request {record.request} is not base64: {error}") from None


# JSON


def encode(incident: Incident, limit: int) -> bytes:
    """At most `limit` bytes of JSON; what does not fit is left out in the order of its worth, and named."""
    data = _dump(incident)
    if len(data) <= limit:
        return data
    small = dataclasses.replace(incident, requests=list(incident.requests), left_out=list(incident.left_out))
    for name, shrink in _SHRINKS:
        shrink(small)
        if name not in small.left_out:
            small.left_out.append(name)
        data = _dump(small)
        if len(data) <= limit:
            break
    return data


def _dump(incident: Incident) -> bytes:
    content = {"format": FORMAT, **dataclasses.asdict(incident)}
    return json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace") + b"\n"


def _without_bodies(incident: Incident) -> None:
    incident.requests = [dataclasses.replace(each, body=None, body_kept=0) for each in incident.requests]


def _with_short_stacks(incident: Incident) -> None:
    incident.stacks = _cut(incident.stacks, 64 * 1024)
    incident.traceback = _cut(incident.traceback, 16 * 1024)


def _with_few_lines(incident: Incident) -> None:
    incident.log = [line[:200] for line in incident.log[-10:]]


def _without_environments(incident: Incident) -> None:
    short = {"method": 16, "target": 500, "host": 100}
    incident.requests = [
        dataclasses.replace(
            each, environment={}, **{name: getattr(each, name)[:length] for name, length in short.items()}
        )
        for each in incident.requests[:16]
    ]


def _nearly_nothing(incident: Incident) -> None:
    # A character of JSON may be six bytes, and the smallest limit is 16 KiB.
    incident.stacks, incident.traceback = _cut(incident.stacks, 800), _cut(incident.traceback, 800)
    incident.log, incident.growth, incident.memory = [], {}, {}
    incident.requests = [dataclasses.replace(each, target=each.target[:100], host="") for each in incident.requests[:2]]
    incident.cause, incident.reason = incident.cause[:200], _cut(incident.reason, 200)
    incident.oom, incident.configuration = _cut(incident.oom, 100), incident.configuration[:200]
    incident.folder = incident.folder[:200]


_SHRINKS = (
    ("bodies", _without_bodies),
    ("stacks", _with_short_stacks),
    ("log", _with_few_lines),
    ("environments", _without_environments),
    ("more", _nearly_nothing),
)


def _cut(text: str | None, limit: int) -> str | None:
    return text if text is None or len(text) <= limit else text[:limit] + "\n[...]\n"


def decode(data: bytes, name: str) -> Incident:
    """The incident in a file called `name`. Raises IncidentError with what is wrong and where."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IncidentError(f"{name}: not an incident: {error}; expected the JSON that the server writes") from None
    if not isinstance(content, dict):
        raise IncidentError(f"{name}: not an incident: found a {type(content).__name__}; expected a JSON object")
    form = content.pop("format", None)
    if form != FORMAT:
        raise IncidentError(f"{name}: not an incident that can be read: format is {form!r}; expected {FORMAT}")
    requests = content.pop("requests", [])
    if not isinstance(requests, list):
        raise IncidentError(f"{name}: requests: found a {type(requests).__name__}; expected a list")
    incident: Incident = _build(Incident, content, name, "")
    incident.requests = [_build(RequestRecord, each, name, f"requests[{at}].") for at, each in enumerate(requests)]
    if not _ID.fullmatch(incident.id):
        raise IncidentError(f"{name}: id: found {incident.id!r}; expected 12 hex digits")
    return incident


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "float | None": (float, int, type(None)),
    "dict[str, Any]": (dict,),
    "dict[str, str]": (dict,),
    "dict[str, float]": (dict,),
    "list[str]": (list,),
    "list[RequestRecord]": (list,),
}


def _build(kind: type[Any], content: Any, name: str, path: str) -> Any:
    """An object of `kind`; names that are not known are of a later version, and are ignored."""
    if not isinstance(content, dict):
        raise IncidentError(f"{name}: {path.rstrip('.')}: found a {type(content).__name__}; expected an object")
    values = {}
    for each in dataclasses.fields(kind):
        if each.name in content:
            value: Any = content[each.name]
            expected = _TYPES[str(each.type)]
            if not isinstance(value, expected) or isinstance(value, bool):
                raise IncidentError(
                    f"{name}: {path}{each.name}: found {type(value).__name__}; expected {expected[0].__name__}"
                )
            if str(each.type) in ("list[str]", "dict[str, str]"):
                texts = content[each.name]
                if not all(isinstance(text, str) for text in (texts.values() if type(texts) is dict else texts)):
                    raise IncidentError(f"{name}: {path}{each.name}: expected texts only")
            if each.name == "growth":
                for route, pair in content["growth"].items():
                    if type(pair) is not list or [type(item) for item in pair] != [int, int]:
                        raise IncidentError(f"{name}: growth.{route}: expected two whole numbers")
            values[each.name] = value
        elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            raise IncidentError(f"{name}: {path}{each.name} is missing")
    return kind(**values)
