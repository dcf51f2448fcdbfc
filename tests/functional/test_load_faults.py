"""Under load, while workers are killed and the configuration is reloaded: no GET is lost, each POST accounted for."""

from __future__ import annotations

import collections
import itertools
import json
import operator
import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import PATIENCE_S, Connection, Server

pytestmark = pytest.mark.alone

SCRIPT = r"""
import os, pathlib

ORDERS = str(pathlib.Path(__file__).parent.parent / "orders")

def handle(request):
    if request.method == "POST":
        fd = os.open(ORDERS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, request.body + b"\n")
        os.close(fd)
        return request.body
    return request.query["n"] * 20
"""

CONFIG = """
log: {access: "off"}
pools:
  handlers: {scripts: handlers, processes: 4, threads: 2}
sites:
  - rules: [{match: {path: /app/*}, handler: {python: handlers/app.py}}]
"""

DURATION_S = 8.0
KILL_EVERY_S = 0.2
RELOAD_EVERY_S = 1.0
GETTERS, POSTERS = 6, 2


@dataclass
class Tally:
    """What the clients saw. Each list is appended to by its own thread alone or atomically."""

    wrong: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=lambda: [0] * (GETTERS + POSTERS))  #: to each client
    gets: int = 0
    posts: dict[str, int] = field(default_factory=dict)  #: id -> status
    slowest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, began: float, wrong: str = "") -> None:
        with self.lock:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if wrong:
                self.wrong.append(wrong)


def get_on(connection: Connection, number: int, tally: Tally) -> None:
    began = time.monotonic()
    text = f"<{number}>"
    response = connection.send(f"GET /app/?n=%3C{number}%3E HTTP/1.1\r\nHost: a\r\n\r\n").response()
    good = response.status == 200 and response.text == text * 20
    tally.note(began, "" if good else f"GET {number}: {response}")
    with tally.lock:
        tally.gets += 1


def post_on(connection: Connection, name: str, tally: Tally) -> None:
    began = time.monotonic()
    head = f"POST /app/ HTTP/1.1\r\nHost: a\r\nContent-Length: {len(name)}\r\n\r\n"
    response = connection.send(head + name).response()
    if response.status == 200:
        good = response.text == name
    else:
        good = response.status == 502 and response.header("x-incident") is not None
    tally.note(began, "" if good else f"POST {name}: {response}")
    tally.posts[name] = response.status


def client(server: Server, number: int, tally: Tally, over: threading.Event) -> None:
    """One kept connection for all its requests; that it stays open is part of the test."""
    try:
        with server.connect() as connection:
            for count in itertools.count(number, 1000):
                if over.is_set():
                    return
                if number < GETTERS:
                    get_on(connection, count, tally)
                else:
                    post_on(connection, f"order-{count}", tally)
                tally.answers[number] += 1
    except BaseException as error:
        tally.note(time.monotonic(), f"client {number}: {error!r}")


def disturb(server: Server, chance: random.Random, tally: Tally) -> collections.Counter[str]:
    """Kills and reloads until the time is over and there was enough of everything.

    Every client gets an answer between two kills: a request whose second executor dies, too, is lost by design, and on
    a machine that has much to do it may run for longer than from one kill to the next.
    """
    done: collections.Counter[str] = collections.Counter()
    begin = time.monotonic()
    kills = reloads = 1
    seen = [0] * len(tally.answers)
    while (now := time.monotonic() - begin) < DURATION_S or not is_enough(done, tally):
        assert now < DURATION_S + PATIENCE_S and not tally.wrong, (done, tally.wrong[:5])
        if now >= reloads * RELOAD_EVERY_S:
            server.kill(signal.SIGHUP)
            reloads = int(now / RELOAD_EVERY_S) + 1
            done["reloads"] += 1
        if now >= kills * KILL_EVERY_S and all(map(operator.gt, tally.answers, seen)):
            workers = server.pids("workers/main.py")
            if workers:
                # What is counted from here on may have been answered by the one that dies.
                seen = [count + 1 for count in tally.answers]
                os.kill(chance.choice(workers), signal.SIGKILL)
                done["kills"] += 1
            kills = int(now / KILL_EVERY_S) + 1
        time.sleep(0.01)
    return done


def is_enough(done: collections.Counter[str], tally: Tally) -> bool:
    orders = collections.Counter(dict(tally.posts).values())
    return done["kills"] > 10 and done["reloads"] > 3 and tally.gets > 100 and orders[200] > 50


def test_nothing_is_lost_under_load(serve: Any) -> None:
    server = serve({"handlers/app.py": SCRIPT}, config=CONFIG)
    tally, over = Tally(), threading.Event()
    threads = [
        threading.Thread(target=client, args=(server, number, tally, over)) for number in range(GETTERS + POSTERS)
    ]
    for thread in threads:
        thread.start()
    try:
        done = disturb(server, random.Random(), tally)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    orders = server.folder / "orders"
    run = collections.Counter(orders.read_text().splitlines())
    statuses = collections.Counter(tally.posts.values())
    print(json.dumps({**done, "gets": tally.gets, "posts": statuses, "slowest_s": round(tally.slowest_s, 3)}))
    assert not tally.wrong, tally.wrong[:5]
    assert is_enough(done, tally)
    assert not {name: count for name, count in run.items() if count > 1}, "a POST was run twice"
    assert set(run) <= set(tally.posts), "a POST was run that nobody has sent"
    answered = {name for name, status in tally.posts.items() if status == 200}
    assert answered <= set(run), "a POST was answered without having been run"
