"""`cherokee-app incidents`: what is kept, as a table, as text, as JSON. (Replaying is in supervisor/replay.py.)"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from appserver import paths
from appserver.errors import AppError
from appserver.incidents.record import Incident, IncidentError, RequestRecord, body_of
from appserver.incidents.store import Store, default_directories

_ABOUT = """\
Lists workers that died and requests that ran too long, the newest first; `show` tells all about one: why, the Python
stacks of every thread, the requests that were lost, the worker's last lines. ID is an incident's, the first digits of
it, or a request's, as in X-Incident, on error pages and in the logs.

`replay` sends the request of an incident again to a fresh worker of its pool, which gets nothing else to do and ends
then: no server need run, and one that runs takes no notice. The application does what it does: a POST posts again.
"""
_EXAMPLES = """\
examples:
  cherokee-app incidents
  cherokee-app incidents show 3fa9
  cherokee-app incidents show 0001000000000003 --json
  cherokee-app incidents replay 3fa9
"""
_COLUMNS = ("ID", "TIME (UTC)", "POOL", "CAUSE", "REQUEST")
_CAUSE_WIDTH = 60
_REQUEST_WIDTH = 60


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """`add(name, **about)` makes the parser of a subcommand."""
    parser = add(
        "incidents",
        help="say why workers died and which requests ran too long",
        description=_ABOUT,
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "show", "replay"), default="list", help="what to do (default: list)"
    )
    parser.add_argument("id", nargs="?", metavar="ID", help="an incident or a request; for show and replay")
    parser.add_argument("--json", action="store_true", help="list, show: as JSON")
    parser.add_argument(
        "--config", metavar="FILE|DIR", type=Path, help="the configuration or folder that the server is started with"
    )
    parser.add_argument("--directory", metavar="DIR", type=Path, help="where the incidents are (incidents.directory)")
    parser.add_argument(
        "--body", metavar="FILE", type=Path, help="replay: the request's body, when it was not kept whole"
    )


def run(options: argparse.Namespace) -> int:
    """All but `replay`: the exit status. Raises AppError."""
    store = find_store(options)
    if options.action == "show":
        return _show(find(store, options.id), options.json)
    if options.id is not None:
        raise AppError(f"'{options.id}' is not expected here; did you mean: incidents show {options.id}")
    return _list(store, options.json)


def find_store(options: argparse.Namespace) -> Store:
    """Where the incidents are by the options, the configuration, and what is there. Raises AppError."""
    if options.directory is not None:
        if not paths.is_dir(options.directory):
            raise AppError(f"--directory: {_why_no_folder(options.directory)}; expected a folder with incidents")
        return Store(options.directory)
    named = _named_directory(options.config)
    tried = [named] if named is not None else default_directories(os.environ)
    there = [Store(path) for path in tried if paths.is_dir(path)]
    if not there:
        raise AppError(
            f"no incidents: {' and '.join(map(_why_no_folder, tried))}; --config or --directory says where they are"
        )
    return next((store for store in there if _has_some(store)), there[0])


def _why_no_folder(path: Path) -> str:
    return paths.absence(path) or f"'{path}' is not a folder"


def _named_directory(config: Path | None) -> Path | None:
    """Raises AppError when the configuration keeps none."""
    from appserver.config.source import default_file

    file = default_file() if config is None else config
    if file is None or paths.is_dir(file):
        return None
    from appserver.config.load import peek

    if not paths.is_file(file):
        why = paths.absence(file) or f"'{file}' is neither"
        raise AppError(f"--config: {why}; expected a file or a folder")
    incidents = peek(file).incidents
    if incidents is None:
        raise AppError(f"{file}: incidents are off, so none are kept")
    return None if incidents.directory == "auto" else Path(incidents.directory)


def _has_some(store: Store) -> bool:
    try:
        return bool(store.paths())
    except OSError:
        return False


def find(store: Store, wanted: str | None) -> Incident:
    """Raises AppError."""
    if wanted is None:
        raise AppError("ID is missing; `cherokee-app incidents` lists them")
    try:
        return store.find(wanted)
    except OSError as error:
        raise IncidentError(f"{store.directory}: cannot be read: {error.strerror}") from None


# The table


def _list(store: Store, as_json: bool) -> int:
    try:
        found = list(store.all())
    except OSError as error:
        raise AppError(f"{store.directory}: cannot be read: {error.strerror}") from None
    incidents = [each for each in found if isinstance(each, Incident)]
    if as_json:
        print(json.dumps([_summary(each) for each in incidents], indent=1))
    elif incidents:
        print("\n".join(table(incidents)))
    else:
        print(f"no incidents in {store.directory}")
    for each in found:
        if not isinstance(each, Incident):
            print(printable(str(each)), file=sys.stderr)
    return 0 if len(incidents) == len(found) else 1


def _summary(incident: Incident) -> dict[str, object]:
    names = ("id", "time", "kind", "cause", "pool", "executor", "pid", "signal", "exit_status", "ending")
    values = asdict(incident)
    requests = [
        {name: getattr(each, name) for name in ("request", "method", "target", "cause", "outcome")}
        for each in incident.requests
    ]
    return {**{name: values[name] for name in names}, "requests": requests}


def table(incidents: list[Incident]) -> Iterator[str]:
    """Lines: a head, and one for each."""
    rows = [_COLUMNS]
    for each in incidents:
        time = each.time.replace("T", " ")[:19]
        cause = "ran too long: " + each.cause if each.kind == "timeout" else each.cause
        rows.append((each.id, time, each.pool, shortened(cause, _CAUSE_WIDTH), _requests_in_short(each)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _requests_in_short(incident: Incident) -> str:
    if not incident.requests:
        return "-"
    first = incident.requests[0]
    text = shortened(f"{first.method} {first.target}".strip(), _REQUEST_WIDTH - 20) or first.request
    more = len(incident.requests) - 1
    return f"{text} (and {more} more)" if more else text


# One


def _show(incident: Incident, as_json: bool) -> int:
    if as_json:
        print(json.dumps(asdict(incident), indent=1))
    else:
        print("\n".join(printable(line) for line in text(incident)))
    return 0


def text(incident: Incident) -> Iterator[str]:
    """All about one, as lines for people."""
    yield incident.cause
    yield ""
    facts = {
        "incident": incident.id,
        "time": incident.time,
        "kind": incident.kind,
        "pool": incident.pool,
        "executor": f"{incident.executor}, process {incident.pid}" if incident.pid else str(incident.executor),
        "configuration": incident.configuration,
        "folder": incident.folder if incident.folder != incident.configuration else "",
        "age": _seconds(incident.age_s),
        "requests served": incident.requests_served,
        "signal": incident.signal,
        "exit status": incident.exit_status,
        "out of memory": incident.oom,
        "memory": _memory(incident),
        "CPU": ", ".join(f"{_seconds(value)} {name.removesuffix('_s')}" for name, value in incident.cpu.items()),
        "what then": incident.ending,
        "left out": ", ".join(incident.left_out),
    }
    for name, value in facts.items():
        if value not in (None, ""):
            yield f"{name + ':':<17}{value}"
    if incident.traceback:
        yield from _titled("Traceback", incident.traceback.splitlines())
    for request in incident.requests:
        yield from _titled(f"Request {request.request}", _request_lines(request))
    if incident.stacks:
        yield from _titled("Stacks", incident.stacks.splitlines())
    if incident.growth:
        yield from _titled("Memory growth by route (bytes while it ran alone, while others ran too)", _growth(incident))
    if incident.log:
        yield from _titled("Last lines", incident.log)


def _growth(incident: Incident) -> list[str]:
    return [f"{route}: {alone:+d}, {shared:+d}" for route, (alone, shared) in incident.growth.items()]


def _request_lines(request: RequestRecord) -> Iterator[str]:
    parts = []
    if request.client:
        parts.append(f"from {request.client}")
    if request.outcome:
        parts.append(f"answered {request.outcome}" if request.outcome.isdigit() else request.outcome)
    if request.thread is not None:
        parts.append(f"thread {request.thread}")
    if request.queued_s is not None:
        parts.append(f"waited {_seconds(request.queued_s)}")
    if request.ran_s is not None:
        parts.append(f"ran {_seconds(request.ran_s)}")
    if parts:
        yield ", ".join(parts)
    yield from head_lines(request)
    if request.body_size:
        yield f"({request.body_size} bytes of body, {_kept(request)})"


def _kept(request: RequestRecord) -> str:
    try:
        body_of(request)
    except IncidentError:
        return f"of which {request.body_kept} were kept" if request.body_kept else "not kept"
    return "kept"


def head_lines(request: RequestRecord) -> Iterator[str]:
    """The request's head as it came, as far as its environment tells."""
    environment = request.environment
    if not environment:
        return
    yield f"{request.method} {request.target} {environment.get('SERVER_PROTOCOL', 'HTTP/1.1')}"
    for name, value in environment.items():
        if name.startswith("HTTP_"):
            yield f"{name[5:].replace('_', '-').title()}: {value}"
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            yield f"{name.replace('_', '-').title()}: {value}"


def _titled(title: str, lines: Iterator[str] | list[str]) -> Iterator[str]:
    yield ""
    yield f"{title}:"
    for line in lines:
        yield f"  {line}".rstrip()


def _memory(incident: Incident) -> str:
    memory = incident.memory
    parts = []
    if "rss" in memory:
        parts.append(f"{_mib(memory['rss'])} resident, {_seconds(memory.get('looked_s_before'))} before")
    if "peak" in memory:
        parts.append(f"peak {_mib(memory['peak'])}")
    return ", ".join(parts)


def _mib(size: object) -> str:
    return f"{size / 1024 / 1024:.1f} MiB" if isinstance(size, int | float) else "?"


def _seconds(value: object) -> str | None:
    return f"{value:.3f} s" if isinstance(value, int | float) else None


def shortened(text: str, width: int) -> str:
    """One printable line."""
    text = printable(text)
    return text if len(text) <= width else text[: width - 3] + "..."


def printable(text: str) -> str:
    """Without what a terminal would act on: clients and applications have a say in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
