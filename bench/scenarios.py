"""What is measured: each scenario is a list of cases that are compared with each other in one run."""

from __future__ import annotations

from dataclasses import dataclass, field

from load import Load
from servers import NULL, OURS

#: In the order of the tables. nginx has two settings because neither is the better one for every size.
FILE_SERVERS = [OURS, NULL, "nginx", "nginx, sendfile off", "lighttpd", "h2o", "lwan", "apache", "cherokee", "caddy"]
SWEEP_SERVERS = [OURS, "nginx, sendfile off", "lighttpd", "h2o", "lwan", "cherokee"]
SWEEP_CONNECTIONS = [1, 32, 256, 1000, 4000]
#: lighttpd takes half as many connections as it has descriptors.
IDLE_CONNECTIONS = {OURS: 20_000, "nginx": 20_000, "h2o": 20_000, "lighttpd": 9_000}


@dataclass(frozen=True)
class Case:
    """One server under one load."""

    label: str
    peer: str
    load: Load
    kind: str = "static"
    access_log: bool = False
    loops: int = 1
    body: int = 1024


@dataclass(frozen=True)
class Scenario:
    """Cases that are compared."""

    name: str
    title: str
    cases: list[Case]
    measures: str = "requests"  #: or idle
    base: str = OURS  #: the label that ratios are of
    by_connections: list[int] = field(default_factory=list)  #: a sweep: each case under each of these


def _files(path: str, body: int, keep_alive: bool = True) -> list[Case]:
    # The null server's one send must fit into a socket's buffer.
    servers = [name for name in FILE_SERVERS if name != NULL or body <= 10 * 1024]
    return [Case(name, name, Load(path, keep_alive=keep_alive), body=body) for name in servers]


def _logs() -> list[Case]:
    return [
        Case(f"{name}, access log {'on' if on else 'off'}", name, Load("/1k"), access_log=on)
        for name in (OURS, "nginx")
        for on in (False, True)
    ]


def _cgi() -> list[Case]:
    # Not Apache: its CGI daemon ignores SIGCHLD, and the kernel then keeps no account of what the programs used.
    return [
        Case(f"{name}, {linked}", name, Load(f"/cgi-bin/{linked}", connections=16), kind="cgi")
        for linked in ("dynamic", "static")
        for name in (OURS, "lighttpd")
    ]


def all_scenarios() -> dict[str, Scenario]:
    """Every scenario by name, in the order in which they run."""
    scenarios = [
        Scenario("static-1k", "1 KiB file, keep-alive, 64 connections", _files("/1k", 1024)),
        Scenario("static-1k-close", "1 KiB file, one connection per request", _files("/1k", 1024, keep_alive=False)),
        Scenario("static-10k", "10 KiB file, keep-alive, 64 connections", _files("/10k", 10 * 1024)),
        Scenario("static-100k", "100 KiB file, keep-alive, 64 connections", _files("/100k", 100 * 1024)),
        Scenario("static-1m", "1 MiB file, keep-alive, 64 connections", _files("/1m", 1024 * 1024)),
        Scenario(
            "access-log",
            "1 KiB file with the access log off and on (ours: json)",
            _logs(),
            base=f"{OURS}, access log off",
        ),
        Scenario(
            "wsgi",
            "WSGI hello, one worker process with one thread, 64 connections",
            [Case(name, name, Load("/"), kind="wsgi") for name in (OURS, "granian")],
        ),
        Scenario(
            "cgi",
            "CGI program in C, linked dynamically and statically, 16 connections",
            _cgi(),
            base=f"{OURS}, dynamic",
        ),
        Scenario(
            "pipelining",
            "1 KiB file, requests pipelined 16 deep, 64 connections",
            [
                Case(f"{name}, depth {depth}", name, Load("/1k", pipeline=depth))
                for name in (OURS, "nginx")
                for depth in (1, 16)
            ],
            base=f"{OURS}, depth 1",
        ),
        Scenario(
            "loops",
            "1 KiB file, one loop on one CPU and two loops on two (which the load generator then shares)",
            [Case(f"{OURS}, {n} loop{'s' if n > 1 else ''}", OURS, Load("/1k"), loops=n) for n in (1, 2)],
            base=f"{OURS}, 1 loop",
        ),
        Scenario(
            "idle",
            "Idle keep-alive connections: user memory of each",
            [Case(name, name, Load("/1k", connections=count)) for name, count in IDLE_CONNECTIONS.items()],
            measures="idle",
        ),
        Scenario(
            "sweep",
            "Requests/s against connections, keep-alive (the paper's Figure 3)",
            [Case(name, name, Load("/1k")) for name in SWEEP_SERVERS],
            by_connections=SWEEP_CONNECTIONS,
        ),
        Scenario(
            "sweep-close",
            "Requests/s against connections, one connection per request (the paper's Figure 2)",
            [Case(name, name, Load("/1k", keep_alive=False)) for name in SWEEP_SERVERS],
            by_connections=SWEEP_CONNECTIONS,
        ),
    ]
    return {scenario.name: scenario for scenario in scenarios}
