"""Rules with CGI settings of their own: environment, interpreters, limits, and new ones after a reload."""

from __future__ import annotations

import signal
import threading

import pytest
from harness import Response, Server, wait_for
from programs import HEAD

FILES: dict[str, str | bytes] = {
    "cgi-bin/env.sh": HEAD + "env\n",
    "cgi-bin/turn.sh": HEAD + "echo in >>../turns\nuntil [ -e ../go ]; do sleep 0.02; done\necho ended\n",
    "cgi-bin/plain.words": "Content-Type: text/plain\n\nas it stands\n",
}
CONFIG = """
threads: 1
cgi: {environment: {A: all, B: all}, pass_environment: [OF_ALL], limits: {programs: 8}}
sites:
  - rules:
      - {match: {path: /all/*}, handler: {cgi: cgi-bin}}
      - match: {path: /own/*}
        handler:
          cgi:
            directory: cgi-bin
            environment: {B: own, C: own}
            pass_environment: [OF_ONE]
            interpreters: {".words": /bin/cat}
      - {match: {path: /few/*}, handler: {cgi: {directory: cgi-bin, limits: {programs: 1, queue: 1, queue_time: 1h}}}}
"""


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG, environment={"OF_ALL": "1", "OF_ONE": "2"})
    return started


def variables(server: Server, rule: str) -> dict[str, str]:
    lines = server.get(f"/{rule}/env.sh").text.splitlines()
    return dict(line.split("=", 1) for line in lines if line.split("=")[0] in ("A", "B", "C", "OF_ALL", "OF_ONE"))


def test_environment_of_a_rule(server: Server) -> None:
    assert variables(server, "all") == {"A": "all", "B": "all", "OF_ALL": "1"}
    assert variables(server, "own") == {"A": "all", "B": "own", "C": "own", "OF_ALL": "1", "OF_ONE": "2"}
    assert variables(server, "few") == variables(server, "all")


def test_interpreters_of_a_rule(server: Server) -> None:
    assert server.get("/own/plain.words").text == "as it stands\n"
    assert server.get("/all/plain.words").status == 500
    server.wait_for_log("plain.words: it has no #! line")


def test_programs_of_a_rule(server: Server) -> None:
    """One runs, one waits, the others are refused at once, and the other rules do not notice."""
    found: list[Response] = []
    threads = [threading.Thread(target=lambda: found.append(server.get("/few/turn.sh"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(found) == 4, "all but two are refused")
    assert {answer.status for answer in found} == {503}
    assert all(answer.header("Retry-After") for answer in found)
    turns = server.folder / "turns"
    wait_for(lambda: turns.exists() and turns.read_text(), "the one that runs says so")
    assert variables(server, "all")["A"] == "all"
    assert turns.read_text() == "in\n"  # and nobody else does
    (server.folder / "go").write_text("")
    for thread in threads:
        thread.join()
    assert [answer.text for answer in found[4:]] == ["ended\n", "ended\n"]
    assert turns.read_text() == "in\nin\n"


def test_a_reload_takes_new_settings(serve) -> None:
    server: Server = serve(FILES, config=CONFIG)
    assert variables(server, "own")["C"] == "own"
    text = CONFIG.replace("C: own", "C: new").replace("/few/", "/more/").replace("programs: 1,", "programs: 2,")
    (server.folder / "config.yaml").write_text(text)
    server.kill(signal.SIGHUP)
    server.wait_for_log("configuration reloaded")
    assert variables(server, "own") == {"A": "all", "B": "own", "C": "new"}
    assert server.get("/few/env.sh").status == 404
    assert variables(server, "more") == variables(server, "all") == {"A": "all", "B": "all"}
    wait_for(lambda: len(server.pids("spawner_main")) == 3, "the spawners of the old rules have ended")
    server.remember_fds()  # the queue of a pool stays when its rule has gone
