"""Python applications: this server, whose workers are processes of their own, against servers of every kind."""

from __future__ import annotations

from pathlib import Path

from cases import Case, Scenario
from load import Load, Wanted, write_list
from setups import OURS

WSGI_PEERS = ["bjoern", "granian", "uwsgi", "gunicorn"]
ASGI_PEERS = ["granian", "uvicorn"]
SLOW_LIST = "slow"  #: of `many`: one in twenty requests takes 50 ms
FAST_LIST = "fast"
WAITING_THREADS = 8


def _wsgi(load: Load, peers: list[str], kind: str = "wsgi", loops: int = 1) -> list[Case]:
    return [Case(peer, peer, load, kind=kind, loops=loops) for peer in (OURS, *peers)]


def _slow(server: str) -> list[Case]:
    """With a free thread for whoever comes while slow ones wait; batches must not put fast ones behind them."""
    return [
        Case(f"{server}, {text}", server, Load("/", connections=8, files=files), kind="wsgi", threads=WAITING_THREADS)
        for text, files in (("fast ones alone", FAST_LIST), ("one in 20 takes 50 ms", SLOW_LIST))
    ]


def write_lists(root: Path) -> None:
    """What `many` asks applications for."""
    write_list(root, "wsgi-1m", [Wanted(0, 1.0, 2**20, "/1m")])
    write_list(root, "wsgi-100m", [Wanted(0, 1.0, 100 * 2**20, "/100m")])
    write_list(root, FAST_LIST, [Wanted(0, 1.0, 13, "/")])
    write_list(root, SLOW_LIST, [Wanted(0, 0.95, 13, "/"), Wanted(1, 0.05, 13, "/slow")])


def python_scenarios() -> list[Scenario]:
    """In the order in which they run."""
    hello = Load("/")
    both = "on both CPUs, which the load generator shares"
    return [
        Scenario("wsgi-hello", "WSGI hello, one process, 64 connections", _wsgi(hello, WSGI_PEERS)),
        Scenario("wsgi-json", "WSGI, a small JSON document, 64 connections", _wsgi(Load("/json"), WSGI_PEERS)),
        Scenario("wsgi-echo", "WSGI, 10 KiB in and out, 64 connections", _wsgi(Load("/echo", post=10240), WSGI_PEERS)),
        Scenario("wsgi-hello-two", f"WSGI hello, two processes {both}", _wsgi(hello, WSGI_PEERS, loops=2)),
        Scenario(
            "wsgi-1m", "WSGI, 1 MiB from memory, 8 connections", _wsgi(Load("/1m", 8, files="wsgi-1m"), WSGI_PEERS)
        ),
        Scenario(
            "wsgi-100m",
            "WSGI, a file of 100 MiB through wsgi.file_wrapper, 2 connections",
            _wsgi(Load("/100m", 2, files="wsgi-100m"), ["bjoern", "uwsgi", "gunicorn"]),
        ),
        Scenario("wsgi-one", "WSGI hello, one connection", _wsgi(Load("/", connections=1), WSGI_PEERS)),
        Scenario(
            "wsgi-slow",
            "WSGI, one process with eight threads, 8 connections: times by class",
            [case for server in (OURS, "gunicorn") for case in _slow(server)],
            classes=["fast", "slow"],
            base=f"{OURS}, fast ones alone",
        ),
        Scenario("asgi-hello", "ASGI hello, one process, 64 connections", _wsgi(hello, ASGI_PEERS, kind="asgi")),
        Scenario("flask-hello", "Flask hello, one process, 64 connections", _wsgi(hello, WSGI_PEERS, kind="flask")),
        Scenario(
            "django-memory",
            "Memory of four worker processes with a Django application",
            [
                Case(OURS, OURS, hello, kind="django", loops=4, config={"threads": 1}),
                Case(f"{OURS}, preload", OURS, hello, kind="django", loops=4, pool={"preload": True}),
                Case("gunicorn", "gunicorn", hello, kind="django", loops=4),
            ],
        ),
    ]
