"""The subcommands that talk to a running server."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appserver import paths
from appserver.control.client import Answer, Found, Refusal, ask, find

STATUS_TIMEOUT_S = 30.0
#: Growth that is worth a line, in bytes, and routes that are shown.
MIB = 1024 * 1024
GROWTH_WORTH = MIB
GROWTH_ROUTES = 5

_RELOAD = """\
Makes a running server read its configuration again and replace all workers, or only those of POOL, as SIGHUP does:
new workers take over when they are ready, old ones finish what they hold. Waits until it is done. When the
configuration is not valid or new workers cannot start, the old ones go on, the reason is printed, and the status is 1.
"""
_STATUS = """\
Prints what a running server does: its pools, their workers (process, age, requests, memory, state), and how the
last ones died.
"""
_WHICH = """\
Of several servers of this user, --pid or --config says which one. Only the user who started a server, and root, may
talk to it (the key `control` of the configuration).
"""


def add_parsers(add: Callable[..., argparse.ArgumentParser]) -> None:
    """`add(name, **about)` makes the parser of a subcommand."""
    reload = add(
        "reload", help="make a running server take a new configuration and code", description=_RELOAD, epilog=_WHICH
    )
    reload.add_argument("pool", nargs="?", metavar="POOL", help="only this pool; the configuration is not read")
    add_server_options(reload)
    status = add("status", help="say what a running server does", description=_STATUS, epilog=_WHICH)
    status.add_argument("--json", action="store_true", help="as one JSON object")
    add_server_options(status)


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Which server is meant; for :func:`find_server`."""
    parser.add_argument(
        "--config", metavar="FILE|DIR", type=Path, help="the configuration or folder that the server was started with"
    )
    parser.add_argument("--pid", metavar="N", type=int, help="its process id")


def find_server(options: argparse.Namespace) -> Found:
    """The server that the options mean. Raises AppError when there is none, or several."""
    from appserver.config.source import default_file

    file: Path | None = options.config
    if file is None and options.pid is None:
        file = default_file()
        path = None if file is None else _named_socket(file)
        return find(path)
    path = None if file is None else _named_socket(file)
    return find(path, options.pid, None if file is None else str(file.absolute()))


def _named_socket(file: Path) -> str | None:
    """The path that a configuration gives for the socket, when it does."""
    if not paths.is_file(file):
        return None
    from appserver.config.load import peek

    control = peek(file).control
    return None if control in (None, "auto") else control


def reload(options: argparse.Namespace) -> int:
    """`cherokee-app reload`: the exit status."""
    server = find_server(options)
    try:
        answer = ask(server.path, "reload", pool=options.pool)
    except Refusal as refusal:
        problems = refusal.answer.get("problems") or [str(refusal)]
        for problem in problems:
            print(f"cherokee-app: {problem}", file=sys.stderr)
        traceback = str(refusal.answer.get("traceback") or "").rstrip()
        if traceback:
            print(traceback, file=sys.stderr)
        return 1
    pools = answer.get("pools") or []
    what = f"pool {options.pool}" if options.pool else str(answer.get("configuration"))
    print(f"{what} reloaded" + (f"; new workers: {', '.join(pools)}" if pools and not options.pool else ""))
    return 0


def status(options: argparse.Namespace) -> int:
    """`cherokee-app status`: the exit status."""
    answer = ask(find_server(options).path, "status", timeout_s=STATUS_TIMEOUT_S)
    if options.json:
        print(json.dumps({key: value for key, value in answer.items() if key != "ok"}, indent=2))
        return 0
    for line in status_lines(answer):
        print(line)
    return 0


def status_lines(answer: Answer) -> list[str]:
    """The status for people."""
    core = answer["core"]
    ready = "ready" if answer["ready"] else "not ready"
    lines = [
        f"cherokee-app {answer['version']}, process {answer['pid']}, {answer['phase']}, {ready}",
        f"configuration  {answer['configuration']}",
        f"listening      {' and '.join(answer['listening'])}",
        "core           "
        + (
            f"process {core['pid']}, {core['state']}, {_age(core['age_s'])}, {_memory(core['memory'])}"
            if "pid" in core
            else "none"
        ),
    ]
    for pool in answer["pools"]:
        lines += ["", *_pool_lines(pool)]
    return lines


def _pool_lines(pool: dict[str, Any]) -> list[str]:
    ready = sum(each["state"] == "ready" for each in pool["executors"])
    what = pool["application"] or ("CGI programs" if pool["kind"] == "cgi" else "handler scripts")
    scale = ""
    if pool["most_processes"] > pool["fewest_processes"]:
        scale = f" ({pool['fewest_processes']} to {pool['most_processes']})"
    lines = [
        f"pool {pool['name']} ({what}): {ready} of {pool['processes']}{scale} ready, {pool['running']} running,"
        f" {pool['queued']} waiting"
    ]
    rows = [("worker", "pid", "state", "age", "requests", "memory", "its share")]
    rows += [
        (
            str(each["executor"]),
            str(each["pid"]),
            each["state"],
            _age(each["age_s"]),
            "" if each.get("requests") is None else str(each["requests"]),
            _memory(each["memory"]),
            _memory(each["pss"]),
        )
        for each in pool["executors"]
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines += [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    for template in pool["templates"]:
        lines.append(
            f"  template  process {template['pid']}, {template['state']}, {_age(template['age_s'])},"
            f" {_memory(template['memory'])}, {_memory(template['pss'])}"
        )
    lines += _growth_lines(pool["executors"])
    for death in pool["deaths"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(death["time"]))
        held = f", with requests {', '.join(death['requests'])}" if death.get("requests") else ""
        lines.append(f"  {when}  worker {death['executor']} (pid {death['pid']}) {death['about']}{held}")
    return lines


def _growth_lines(executors: list[dict[str, Any]]) -> list[str]:
    """The routes with which memory grew most, over all workers that live."""
    routes: dict[str, list[int]] = {}
    for each in executors:
        for route, pair in each.get("growth", {}).items():
            known = routes.setdefault(route, [0, 0])
            known[:] = [known[0] + pair[0], known[1] + pair[1]]
    most = sorted(routes.items(), key=lambda item: (max(item[1]), item[0]), reverse=True)[:GROWTH_ROUTES]
    return [
        f"  memory has grown with {route or '/'}: {alone / MIB:.1f} MiB while it ran alone,"
        f" {shared / MIB:.1f} MiB while others ran too"
        for route, (alone, shared) in most
        if max(alone, shared) >= GROWTH_WORTH
    ]


def _age(seconds: float) -> str:
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 172800 else f"{whole // 86400} d"


def _memory(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB" if size else ""
