"""What is measured: each scenario is a list of cases that are compared with each other in one run."""

from __future__ import annotations

from ablation import ablation_scenarios
from cases import Case, Scenario
from load import Load
from servers import NULL, OURS

#: In the order of the tables. nginx has two settings because neither is the better one for every size.
FILE_SERVERS = [OURS, NULL, "nginx", "nginx, sendfile off", "lighttpd", "h2o", "lwan", "apache", "cherokee", "caddy"]
SWEEP_SERVERS = [OURS, NULL, "nginx, sendfile off", "lighttpd", "h2o", "lwan", "cherokee"]
SWEEP_CONNECTIONS = [1, 32, 256, 1000, 4000]
NULL_LARGEST = 10 * 1024  #: bytes of a body: the null server's one send must fit into a socket's buffer
#: lighttpd takes half as many connections as it has descriptors.
IDLE_CONNECTIONS = {OURS: 20_000, "nginx": 20_000, "h2o": 20_000, "lighttpd": 9_000}


def _files(path: str, body: int, keep_alive: bool = True) -> list[Case]:
    servers = [name for name in FILE_SERVERS if name != NULL or body <= NULL_LARGEST]
    return [Case(name, name, Load(path, keep_alive=keep_alive), body=body) for name in servers]


def _large(name: str, connections: int = 64) -> list[Case]:
    """Large files, received without a copy: with wrk, which copies, the load is what limits."""
    servers = [server for server in FILE_SERVERS if server != NULL]
    return [Case(server, server, Load(f"/{name}", connections=connections, files=name)) for server in servers]


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


def _cgi_script(name: str) -> list[Case]:
    return [
        Case(each, each, Load(f"/cgi-bin/{name}?name=x", connections=16), kind="cgi") for each in (OURS, "lighttpd")
    ]


def _cgi_alone() -> list[Case]:
    return [
        Case(f"{name}, {warmth}", OURS, Load(f"/cgi-bin/{name}?name=x", connections=1), kind=kind)
        for name in ("python", "perl")
        for warmth, kind in (("warm", "cgi"), ("cold", "cgi-cold"))
    ]


def all_scenarios() -> dict[str, Scenario]:
    """Every scenario by name, in the order in which they run."""
    scenarios = [
        Scenario("static-1k", "1 KiB file, keep-alive, 64 connections", _files("/1k", 1024)),
        Scenario("static-1k-close", "1 KiB file, one connection per request", _files("/1k", 1024, keep_alive=False)),
        Scenario("static-10k", "10 KiB file, keep-alive, 64 connections", _files("/10k", 10 * 1024)),
        Scenario("static-100k", "100 KiB file, keep-alive, 64 connections", _large("100k")),
        Scenario("static-1m", "1 MiB file, keep-alive, 64 connections", _large("1m")),
        Scenario("static-100m", "100 MiB file, keep-alive, 8 connections", _large("100m", connections=8)),
        Scenario(
            "mix",
            "Heavy-tailed mix of 2,000 files (SURGE-like), keep-alive, 64 connections",
            [Case(server, server, Load("/mix/1", files="mix")) for server in SWEEP_SERVERS if server != NULL],
            measures="mix",
        ),
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
        Scenario("cgi-sh", "CGI script for /bin/sh, 16 connections", _cgi_script("sh")),
        Scenario("cgi-python", "CGI script in Python: json, urllib.parse, cgi; 16 connections", _cgi_script("python")),
        Scenario("cgi-perl", "CGI script in Perl: CGI.pm; 16 connections", _cgi_script("perl")),
        Scenario(
            "cgi-alone",
            "The same scripts, one connection, warm and cold",
            _cgi_alone(),
            base="python, warm",
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
            [Case(name, name, Load("/1k", files="1k")) for name in SWEEP_SERVERS],
            by_connections=SWEEP_CONNECTIONS,
        ),
        Scenario(
            "sweep-close",
            "Requests/s against connections, one connection per request (the paper's Figure 2)",
            [Case(name, name, Load("/1k", keep_alive=False, files="1k")) for name in SWEEP_SERVERS],
            by_connections=SWEEP_CONNECTIONS,
        ),
        *ablation_scenarios(),
    ]
    return {scenario.name: scenario for scenario in scenarios}
