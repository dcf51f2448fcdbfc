"""The ways in which the loops share a listening socket, as the kernel and the clients see them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from harness import (
    PATIENCE_S,
    Connection,
    Server,
    children_of,
    free_port,
    launch,
    listening_inodes,
    stop_process,
    wait_for,
    watches,
    write_tree,
)

MODES = ("coordinator", "independent", "self-managed", "reuseport")
LOOPS = 3
EPOLLEXCLUSIVE = 1 << 28


def config(mode: str, more: str = "") -> str:
    return f"threads: {LOOPS}\naccept: {mode}\nlog: {{access: json}}\nsites: [{{root: www}}]\n{more}"


def start(serve, mode: str, more: str = "", *arguments: str) -> Server:
    return serve({"www/a.txt": "hello\n"}, *arguments, config=config(mode, more))


def stop_core(server: Server) -> int:
    """The core's pid, once it stands still."""
    core = server.one_pid("core_main")
    stop_process(core)
    return core


def loops_of(server: Server, count: int) -> list[int]:
    """Which loop answered each request so far, once `count` are in the log."""

    def read() -> list[int]:
        records = [json.loads(line) for line in list(server.lines) if '"target":"/a.txt"' in line]
        return [int(record["request"], 16) >> 40 & 0xFF for record in records]

    return wait_for(lambda: len(found := read()) >= count and found, f"{count} requests in the log")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_serves_and_stops(serve, mode: str) -> None:
    server = start(serve, mode)
    for _ in range(40):
        assert server.get("/a.txt").text == "hello\n"
    assert len(loops_of(server, 40)) == 40


def test_a_coordinator_deals_round_robin(serve) -> None:
    server = start(serve, "coordinator")
    for _ in range(12):
        assert server.get("/a.txt").status == 200
    # One loop accepts and keeps nothing.
    assert sorted(loops_of(server, 12)) == [1] * 6 + [2] * 6
    assert len(watches(server)) == 1


def test_a_coordinator_alone_works_for_itself(serve) -> None:
    server = serve({"www/a.txt": "hello\n"}, config="threads: 1\naccept: coordinator\nsites: [{root: www}]\n")
    assert server.get("/a.txt").text == "hello\n"


def watching(server: Server) -> list[list[tuple[str, int]]]:
    """What each loop watches; the server listens a moment before that."""
    found: list[list[tuple[str, int]]] = wait_for(
        lambda: len(each := watches(server)) == LOOPS and each, "every loop watches the listening socket"
    )
    return found


@pytest.mark.parametrize(("mode", "exclusive"), [("independent", False), ("self-managed", True)])
def test_what_the_loops_watch(serve, mode: str, exclusive: bool) -> None:
    server = start(serve, mode)
    found = watching(server)
    assert len({inode for watched in found for inode, _ in watched}) == 1
    assert all(bool(events & EPOLLEXCLUSIVE) == exclusive for watched in found for _, events in watched)


def test_reuseport_has_a_socket_for_each_loop(serve) -> None:
    server = start(serve, "reuseport")
    assert len(listening_inodes(server.port)) == LOOPS
    found = watching(server)
    assert sorted(inode for watched in found for inode, _ in watched) == sorted(listening_inodes(server.port))
    assert all(len(watched) == 1 for watched in found)
    # The kernel spreads connections by a hash of their ports: with so many, all loops get some.
    for _ in range(80):
        assert server.get("/a.txt").status == 200
    assert set(loops_of(server, 80)) == {0, 1, 2}


def test_a_second_server_on_the_port_is_refused(serve, tmp_path: Path) -> None:
    server = start(serve, "reuseport")
    with pytest.raises(RuntimeError, match=rf"port {server.port} is in use by another program"):
        launch(tmp_path, "--config", str(tmp_path / "config.yaml"), "--listen", f"127.0.0.1:{server.port}")
    assert len(listening_inodes(server.port)) == LOOPS
    assert server.get("/a.txt").status == 200


@pytest.mark.parametrize("mode", MODES)
def test_the_sockets_survive_a_core(serve, mode: str) -> None:
    server = start(serve, mode)
    before = sorted(listening_inodes(server.port))
    server.allowed.append("the core was killed")
    core = stop_core(server)
    # These wait in the backlogs, of all loops with reuseport, over the death of the core.
    waiting = [server.connect().send("GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") for _ in range(20)]
    os.kill(core, signal.SIGKILL)
    for connection in waiting:
        assert connection.response().text == "hello\n"
        connection.close()
    assert sorted(listening_inodes(server.port)) == before
    server.fds_before.pop(core)


@pytest.mark.parametrize("mode", MODES)
def test_draining_takes_every_backlog(serve, mode: str) -> None:
    server = start(serve, mode)
    core = stop_core(server)
    waiting = [server.connect().send("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(30)]
    server.kill(signal.SIGTERM)
    server.wait_for_log("SIGTERM: stopping")
    # The supervisor's copies are closed by then; those of the core are what is left.
    wait_for(lambda: not shared_sockets(server), "the supervisor has closed its listening sockets")
    os.kill(core, signal.SIGCONT)
    for connection in waiting:
        assert connection.response().text == "hello\n"
        connection.close()
    assert server.process.wait(PATIENCE_S) == 0


def shared_sockets(server: Server) -> list[str]:
    """The listening sockets that the supervisor holds."""
    wanted = {f"socket:[{inode}]" for inode in listening_inodes(server.port)}
    found = []
    for entry in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return [name for name in found if name in wanted]


def test_a_reload_keeps_the_way_of_accepting(serve, tmp_path: Path) -> None:
    server = start(serve, "self-managed")
    (tmp_path / "config.yaml").write_text(config("reuseport"))
    server.kill(signal.SIGHUP)
    server.wait_for_log("accept: reuseport takes effect at the next start; self-managed holds until then")
    server.wait_for_log("configuration reloaded")
    assert len(listening_inodes(server.port)) == 1
    assert server.get("/a.txt").status == 200


def test_a_reload_adds_and_removes_listeners_of_all_loops(serve, tmp_path: Path) -> None:
    port = free_port()
    first = "listen: [127.0.0.1:0]\n"
    write_tree(tmp_path, {"www/a.txt": "hello\n", "config.yaml": first + config("reuseport")})
    # Not by the fixture: an address on the command line would replace those of the file.
    server = launch(tmp_path, "--config", str(tmp_path / "config.yaml"))
    try:
        (tmp_path / "config.yaml").write_text(f"listen: ['127.0.0.1:0', '127.0.0.1:{port}']\n" + config("reuseport"))
        server.kill(signal.SIGHUP)
        server.wait_for_log("configuration reloaded")
        assert len(listening_inodes(port)) == LOOPS
        with Connection(port) as connection:
            assert connection.send("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").response().status == 200
        (tmp_path / "config.yaml").write_text(first + config("reuseport"))
        server.kill(signal.SIGHUP)
        server.wait_for_log("configuration reloaded", 2)
        wait_for(lambda: not listening_inodes(port), "the sockets of the removed listener are closed")
        assert len(listening_inodes(server.port)) == LOOPS
        assert server.get("/a.txt").status == 200
    finally:
        assert server.stop() == 0
    assert not children_of(server.process.pid)


def test_an_unknown_way_is_refused(serve) -> None:
    with pytest.raises(RuntimeError, match="expected one of coordinator, independent, self-managed, reuseport"):
        start(serve, "thundering")
