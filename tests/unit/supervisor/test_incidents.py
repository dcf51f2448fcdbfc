"""What the supervisor and the core know of one incident meets, in any order; what the system says of the dead."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from appserver.config.model import Incidents as Config
from appserver.incidents.record import Incident, RequestRecord
from appserver.incidents.store import Store
from appserver.native.control import Message
from appserver.supervisor.frames import request_frame
from appserver.supervisor.incidents import SETTLE_S, WAIT_S, Facts, Incidents
from appserver.supervisor.incidents_evidence import MemoryLook, OomKills, look_at_memory, memory_fields
from appserver.supervisor.incidents_pool import Circumstances, cause_of, named_threads
from appserver.supervisor.loop import Loop
from appserver.supervisor.process import Death

REQUEST = "00000000000000aa"


class Clock:
    """Seconds, by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """The recorder with a store of its own."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.incidents = Incidents(self.loop)
        self.incidents.configure(Config(directory=str(folder), **config), "site.yaml")
        self.store = Store(folder)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.loop.turn(0)

    def all(self) -> list[Incident]:
        return [each for each in self.store.all() if isinstance(each, Incident)]

    def one(self) -> Incident:
        (found,) = self.all()
        return found

    def died(self, executor: int = 3, *requests: str) -> str:
        records = [RequestRecord(each, cause="died", thread=1) for each in requests]
        return self.incidents.died(Facts("shop", executor, 77, 5.0), "death", records, f"executor {executor} died")

    def overdue(self, executor: int = 3, *requests: str) -> str:
        records = [RequestRecord(each, cause="timeout") for each in requests]
        return self.incidents.overdue(Facts("shop", executor, 77, 5.0), records, "GET /x", "Thread 0x1")

    def told(self, executor: int = 3, cause: str = "died", what: str = "502", request: str = REQUEST) -> None:
        fd = os.memfd_create("request")
        environment = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/x", "HTTP_COOKIE": "secret"}
        os.write(fd, request_frame(0, 1, environment, b"body", False))
        fields = {
            "pool": "shop",
            "executor": executor,
            "request": request,
            "cause": cause,
            "what": what,
            "thread": 1,
            "queued_ns": int((self.clock.now - 2) * 1e9),
            "started_ns": int((self.clock.now - 1.5) * 1e9),
            "fingerprint": "f" * 16,
            "truncated": False,
        }
        self.incidents.request(Message("incident", fields, {"request": fd}))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "incidents")


def test_the_death_first(scene: Scene) -> None:
    identifier = scene.died(3, REQUEST)
    assert scene.one().requests == [RequestRecord(REQUEST, cause="died", thread=1)]
    scene.told()
    scene.after(SETTLE_S)
    found = scene.one()
    assert (found.id, found.cause, found.configuration) == (
        identifier,
        "executor 3 died",
        str(Path("site.yaml").absolute()),
    )
    (request,) = found.requests
    assert (request.method, request.target, request.outcome, request.thread) == ("GET", "/x", "502", 1)
    assert (request.queued_s, request.ran_s) == (0.5, 1.5)
    assert "secret" not in scene.store.path_of(found).read_text()


@pytest.mark.parametrize("kind", ["died", "overdue"])
def test_the_core_first(scene: Scene, kind: str) -> None:
    scene.told(cause="timeout" if kind == "overdue" else "died")
    assert scene.all() == []
    scene.after(0.2)
    getattr(scene, kind)(3, REQUEST)
    assert scene.one().requests[0].target == "/x"
    scene.after(WAIT_S)
    assert len(scene.all()) == 1


def test_the_core_alone(scene: Scene) -> None:
    """Of a CGI program the supervisor knows nothing."""
    scene.told(executor=1, cause="timeout", what="504")
    scene.after(WAIT_S)
    found = scene.one()
    assert (found.kind, found.cause, found.pid) == ("timeout", "GET /x ran longer than request_time", 0)


def test_each_goes_to_its_executor(scene: Scene) -> None:
    scene.died(3, REQUEST)
    scene.died(4, "00000000000000bb")
    scene.told(4, request="00000000000000bb")
    scene.told(3)
    scene.after(SETTLE_S)
    assert {each.executor: [r.request for r in each.requests if r.target] for each in scene.all()} == {
        3: [REQUEST],
        4: ["00000000000000bb"],
    }


def test_a_request_that_no_slot_showed_was_with_the_one_that_has_just_died(scene: Scene) -> None:
    scene.died(3)
    scene.after(0.2)
    scene.told(executor=0)
    scene.after(SETTLE_S)
    assert [each.request for each in scene.one().requests] == [REQUEST]


def test_what_was_lost_with_a_worker_that_was_replaced_is_in_the_story_of_that(scene: Scene) -> None:
    scene.overdue(3, REQUEST)
    scene.told(3, request="00000000000000bb")
    scene.incidents.ended("shop", 3, REQUEST, "it did not end")
    scene.after(SETTLE_S)
    found = scene.one()
    assert [each.request for each in found.requests] == [REQUEST, "00000000000000bb"]
    assert found.ending == "it did not end"


def test_bodies(tmp_path: Path) -> None:
    kept = Scene(tmp_path / "a")
    kept.died(3, REQUEST)
    kept.told()
    kept.after(SETTLE_S)
    assert kept.one().requests[0].body_kept == 4
    without = Scene(tmp_path / "b", keep_bodies="off")
    without.died(3, REQUEST)
    without.told()
    without.after(SETTLE_S)
    assert (without.one().requests[0].body, without.one().requests[0].body_size) == (None, 4)


def test_keep(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "a", keep=2)
    for number in range(4):
        scene.died(number)
    assert len(scene.all()) == 2


def test_a_full_disk_costs_a_line_in_the_log(scene: Scene, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "save", full)
    scene.died(3)
    assert scene.all() == []
    assert "an incident cannot be written" in "".join(capfd.readouterr())


def test_off(tmp_path: Path) -> None:
    incidents = Incidents(Loop())
    incidents.configure(None, "site.yaml")
    assert len(incidents.died(Facts("shop", 1, 2, 3.0), "death", [], "x")) == 12


# Sentences


@pytest.mark.parametrize(
    ("status", "about", "oom", "expected"),
    [
        (-11, Circumstances(was_ready=True), None, "executor 3 was killed by SIGSEGV"),
        (
            -6,
            Circumstances(was_ready=True, stacks="Fatal Python error: Aborted\n\n"),
            None,
            "executor 3 was killed by SIGABRT (Aborted)",
        ),
        (5, Circumstances(was_ready=True), None, "executor 3 ended with exit status 5, which nobody had told it to"),
        (0, Circumstances(), None, "executor 3 ended with exit status 0 before it was ready"),
        (3, Circumstances(reason="ImportError: x"), None, "executor 3 could not boot: ImportError: x"),
        (-9, Circumstances(was_killed=True), None, "executor 3 was not ready in time and was killed"),
        (
            -9,
            Circumstances(was_ready=True, was_leaving=True, was_killed=True),
            None,
            "executor 3 did not stop within stop_time and was killed",
        ),
        (-9, Circumstances(was_ready=True), "oom_kill", "executor 3 was killed by the kernel for want of memory"),
        (
            -9,
            Circumstances(was_ready=True),
            None,
            "executor 3 was killed by SIGKILL (by somebody, or for want of memory)",
        ),
    ],
)
def test_causes(status: int, about: Circumstances, oom: str | None, expected: str) -> None:
    assert cause_of(3, Death(1, status, 1.0), about, oom) == expected


def test_threads_get_their_names() -> None:
    stacks = (
        'Thread 0x01 (most recent call first):\n  File "Thread 0x01"\n\nCurrent thread 0x02 (most recent call first):\n'
    )
    assert named_threads(stacks, {"0x01": "request-0", "0x02": "main"}) == (
        'Thread 0x01 [request-0] (most recent call first):\n  File "Thread 0x01"\n\n'
        "Current thread 0x02 [main] (most recent call first):\n"
    )
    assert named_threads("", {}) == ""


# Evidence


def machine(folder: Path, cgroup: str, counter: str) -> OomKills:
    (folder / "proc" / "7").mkdir(parents=True)
    (folder / "proc" / "7" / "cgroup").write_text(cgroup)
    (folder / "proc" / "vmstat").write_text("pgfault 3\noom_kill 5\n")
    path = folder / "cgroups" / counter
    path.parent.mkdir(parents=True)
    path.write_text("under_oom 0\noom_kill 1\n")
    return OomKills(folder / "proc", folder / "cgroups")


@pytest.mark.parametrize(
    ("cgroup", "counter"),
    [
        ("0::/pool\n", "pool/memory.events"),
        ("0::/pool\n", "memory.events"),
        ("3:cpu:/\n4:memory:/pool\n0::/\n", "memory/pool/memory.oom_control"),
        ("4:memory:/docker/x\n", "memory/memory.oom_control"),
    ],
)
def test_oom_kills_of_a_cgroup(tmp_path: Path, cgroup: str, counter: str) -> None:
    kills = machine(tmp_path, cgroup, counter)
    kills.started(7)
    assert kills.evidence() is None
    (tmp_path / "cgroups" / counter).write_text("oom_kill 3\n")
    kills.look([7])  # between the death and its discovery
    evidence = kills.evidence()
    assert evidence is not None
    assert counter in evidence
    assert kills.evidence()  # two processes
    assert kills.evidence() is None
    kills.look([7])
    kills.look([7])
    assert kills.evidence() is None


def test_oom_kills_of_the_machine(tmp_path: Path) -> None:
    kills = machine(tmp_path, "0::/elsewhere\n", "other/memory.events")
    kills.started(7)
    (tmp_path / "proc" / "vmstat").write_text("oom_kill 6\n")
    assert "vmstat has risen from 5 to 6" in str(kills.evidence())


def test_memory() -> None:
    look = look_at_memory(os.getpid(), 10.0)
    assert look is not None
    assert 1024 * 1024 < look.resident <= look.peak
    assert look_at_memory(0, 10.0) is None
    assert memory_fields(MemoryLook(5, 7, 10.0), 0, 11.5) == {"rss": 5, "looked_s_before": 1.5, "peak": 7}
    assert memory_fields(None, 1 << 50, 11.5) == {"peak": 1 << 50}
    assert memory_fields(None, 4096, 11.5) == {}  # not more than this process has itself


def test_json_has_signal_names(scene: Scene) -> None:
    scene.incidents.died(Facts("shop", 1, 2, 3.0), "death", [], "x", signal=signal.Signals(11).name)
    assert json.loads(scene.store.paths()[0].read_text())["signal"] == "SIGSEGV"
