"""The life of a worker process: start, batches, slots, stop, exit statuses."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_core import MAIN, PATIENCE_S, FakeCore, write_scripts

from appserver.workers import wire
from tests.interpreters import other_cpythons

Run = Callable[..., FakeCore]
STOP_ATTEMPTS = 20

ECHO = """
import os
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/wait/"):
        with open(path[6:]) as gate:
            gate.read()
    start_response("200 OK", [])
    return [path.encode()]
"""


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a named pipe: opening it for writing lets `/wait/NAME` go on."""

    def make(name: str) -> Path:
        os.mkfifo(tmp_path / name)
        return tmp_path / name

    return make


def open_gate(path: Path) -> None:
    path.open("w").close()


def test_cpu_time_is_that_of_the_thread(run: Run) -> None:
    core = run(
        """
import time
def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(0.05)
        return []
    return [str(sum(range(200_000))).encode()]
"""
    )
    for path in ("/work", "/sleep", "/work"):
        answer = core.fetch("GET", path)
        assert 0 < answer.cpu_us <= answer.run_us + 5000  # the one is looked at a little after the other
        if path == "/sleep":
            assert answer.cpu_us < 50_000


def test_stop(run: Run) -> None:
    core = run(ECHO)
    assert core.fetch("GET", "/a").body == b"/a"
    core.stop()
    assert core.exit_status() == 0


@pytest.mark.parametrize("threads", [1, 4])
def test_stop_while_busy_finishes_the_answer(run: Run, gate: Callable[[str], Path], threads: int) -> None:
    pipe = gate("g")
    core = run(ECHO, threads=threads)
    frame = core.frame("GET", "/wait/g", slot=5)
    core.send(frame)
    core.wait_until_running(5)
    core.stop()
    open_gate(pipe)
    assert core.next_answer().body == b"/wait/g"
    assert core.exit_status() == 0


def test_sigterm_is_a_stop_and_sigint_is_nothing(run: Run, gate: Callable[[str], Path]) -> None:
    pipe = gate("g")
    core = run(ECHO)
    core.process.send_signal(signal.SIGINT)
    core.process.send_signal(signal.SIGHUP)
    core.send(core.frame("GET", "/wait/g", slot=5))
    core.wait_until_running(5)
    core.process.send_signal(signal.SIGTERM)
    open_gate(pipe)
    assert core.next_answer().body == b"/wait/g"
    assert core.exit_status() == 0


def test_end_of_the_control_channel_is_a_stop(run: Run) -> None:
    core = run(ECHO)
    core.close_control()
    assert core.exit_status() == 0


def test_end_of_the_control_channel_is_an_end_for_the_busy(run: Run, gate: Callable[[str], Path]) -> None:
    gate("g")
    core = run(ECHO)
    core.send(core.frame("GET", "/wait/g", slot=5))
    core.wait_until_running(5)
    core.close_control()
    assert core.exit_status() == 1


def test_end_of_the_queue_is_an_end(run: Run) -> None:
    core = run(ECHO)
    core.queue.close()
    assert core.exit_status() == 0


@pytest.mark.parametrize("data", [b"x", b"x" * 48, b"\0" * 100])
def test_malformed_frame_is_70(run: Run, data: bytes) -> None:
    core = run(ECHO)
    core.send(data)
    assert core.log("malformed request frame: the worker ends")
    assert core.exit_status() == 70


def test_slot_out_of_range_is_malformed(run: Run) -> None:
    core = run(ECHO)
    frame = bytearray(core.frame(slot=5))
    frame[8:12] = (64).to_bytes(4, sys.byteorder)
    core.send(bytes(frame))
    assert core.exit_status() == 70


def test_killed_worker(run: Run) -> None:
    core = run("import os\ndef application(environ, start_response):\n    os._exit(9)\n")
    core.send(core.frame())
    assert core.exit_status() == 9


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        ("raise LookupError('at import')", "site_app:application", "LookupError: at import"),
        ("def broken(:", "site_app:application", "SyntaxError"),
        ("import sys; sys.exit(0)", "site_app:application", "SystemExit"),
        ("x = 1", "site_app:application", "/site_app.py) has no 'application'"),
        ("aplication = 1", "site_app:application", "/site_app.py) has no 'application'; did you mean 'aplication'?"),
        ("app = 1", "site_app:application", "/site_app.py) has no 'application'; did you mean 'app'?"),
        (
            "import email.message",
            "site_app:email.mesage",
            "email/__init__.py) has no 'mesage'; did you mean 'message'?",
        ),
        ("application = 5", "site_app", "cannot be called"),
        ("", "absent_module:application", "No module named 'absent_module'; looked in "),
        ("", "siteapp:application", "; did you mean 'site_app'?"),
        ("", "email.mesage:application", "No module named 'email.mesage'; did you mean 'email.message'?"),
        ("", "site_app.py:application", "; did you mean 'site_app'? A module is named without the '.py' of its file"),
    ],
)
def test_application_that_cannot_be_loaded(run: Run, source: str, name: str, reason: str) -> None:
    core = run(source, application=name, ready=False)
    message = core.message()
    assert message["type"] == "failed"
    assert reason in message["reason"]
    assert message["traceback"]
    assert str(MAIN.parent) not in message["traceback"]
    assert core.exit_status() == 3


def test_failed_import_shows_its_place(run: Run, tmp_path: Path) -> None:
    write_scripts(tmp_path, {"helper.py": "x = 1\ny = x / 0\n"})
    core = run("import helper\n", ready=False)
    trace = core.message()["traceback"]
    assert trace.split("\n")[1].startswith(f'  File "{tmp_path}/site_app.py", line 1')
    assert f'File "{tmp_path}/helper.py", line 2' in trace


def test_absent_directory(run: Run) -> None:
    core = run(directory="/does/not/exist", ready=False)
    assert core.message()["reason"] == "directory /does/not/exist: No such file or directory"
    assert core.exit_status() == 3


def test_nonsense_on_the_control_channel(run: Run) -> None:
    core = run(ECHO)
    core.control.send(b"nonsense")
    assert core.exit_status() == 0  # a broken supervisor is one that has gone


def test_environment_and_directory(run: Run, tmp_path: Path) -> None:
    core = run(
        "import os\ndef application(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [f'{os.getcwd()} {os.environ[\"COLOUR\"]}'.encode()]\n",
        environment={"COLOUR": "red"},
    )
    assert core.fetch().body == f"{tmp_path} red".encode()


def test_slots_are_marked(run: Run, gate: Callable[[str], Path]) -> None:
    pipe = gate("g")
    core = run(ECHO, threads=1)
    core.send(core.frame("GET", "/wait/g", slot=5), core.frame(slot=6), core.frame(slot=7))
    core.wait_until_running(5)
    core.wait_until_running(7)
    marked = [core.slot(index) for index in (5, 6, 7)]
    assert [each[:3] for each in marked] == [(2, 3, 0)] * 3  # all of a batch before the first is run
    assert len({each[3] for each in marked}) == 1
    assert marked[0][3] > 0
    open_gate(pipe)
    for path in (b"/wait/g", b"/", b"/"):
        assert core.next_answer().body == path


def test_batch_is_answered_in_one_datagram(run: Run) -> None:
    core = run(ECHO)
    core.fetch()
    sizes: set[int] = set()
    until = time.monotonic() + PATIENCE_S
    while 4 not in sizes:
        assert time.monotonic() < until, sizes
        core.send(*(core.frame("GET", f"/{n}") for n in range(4)))
        answers = core.datagram()
        sizes.add(len(answers))
        while len(answers) < 4:  # a slow moment of the machine
            answers += core.datagram()
        assert [each.body for each in answers] == [b"/0", b"/1", b"/2", b"/3"]


def test_loops_get_their_own_answers(run: Run) -> None:
    core = run(ECHO, loops=2)
    core.send(core.frame("GET", "/a", loop=1), core.frame("GET", "/b", loop=0), core.frame("GET", "/c", loop=1))
    assert core.next_answer(0).body == b"/b"
    found = []
    while len(found) < 2:
        found += [each.body for each in core.datagram(1)]
    assert found == [b"/a", b"/c"]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_answers_do_not_wait_for_a_slow_request_of_their_batch(
    run: Run, gate: Callable[[str], Path], threads: int
) -> None:
    pipe = gate("g")
    core = run(ECHO, threads=threads)
    core.send(core.frame("GET", "/fast"), core.frame("GET", "/wait/g"), core.frame("GET", "/behind"))
    assert core.next_answer().body == b"/fast"
    if threads > 1:  # another thread takes what is left
        assert core.next_answer().body == b"/behind"
        assert core.fetch("GET", "/later").body == b"/later"
    open_gate(pipe)
    assert core.next_answer().body == b"/wait/g"
    if threads == 1:
        assert core.next_answer().body == b"/behind"


def test_as_many_requests_run_as_there_are_threads(run: Run, gate: Callable[[str], Path]) -> None:
    pipes = [gate(f"g{number}") for number in range(4)]
    core = run(ECHO, threads=4)
    for number in range(4):
        core.send(core.frame("GET", f"/wait/g{number}", slot=10 + number))
    for number in range(4):
        core.wait_until_running(10 + number)
    assert len({core.slot(10 + number)[2] for number in range(4)}) == 4
    for pipe in reversed(pipes):
        open_gate(pipe)
        assert core.next_answer().body == f"/wait/{pipe.name}".encode()


def test_many_requests_from_many_threads(run: Run) -> None:
    core = run(ECHO, threads=4, slots=512)
    for _ in range(10):
        for start in range(0, 200, 5):
            core.send(*(core.frame("GET", f"/{start + n}") for n in range(5)))
        found = sorted(int(core.next_answer().body[1:]) for _ in range(200))
        assert found == list(range(200))


def test_cancelled_requests_are_skipped(run: Run, gate: Callable[[str], Path]) -> None:
    core = run(ECHO)
    frame = core.frame(slot=9)
    core.cancel(9)
    core.send(frame)
    assert core.next_answer().kind == wire.SKIPPED
    fd = os.memfd_create("body")
    core.send(core.frame(slot=9, body=b"x", body_fd=True), fd=fd)
    answer = core.next_answer()
    assert answer.kind == wire.SKIPPED
    assert os.path.sameopenfile(answer.fd, fd)  # what came with it goes back with it
    os.close(answer.fd)
    os.close(fd)


def test_requests_of_another_core_are_skipped(run: Run) -> None:
    core = run(ECHO)
    core.send(core.frame(request_id=6 << 48 | 1))
    answer = core.next_answer()
    assert (answer.kind, answer.request_id) == (wire.SKIPPED, 6 << 48 | 1)


def test_requests_that_the_core_has_given_up_are_not_run(run: Run) -> None:
    """Their slots are other requests' by now, and must stay as they are."""
    core = run(ECHO)
    late = core.frame(path="/late", slot=5)
    with_fd = core.frame("POST", "/late", body=b"x", body_fd=True, slot=6)
    core.frame(path="/other", slot=6)
    current = core.frame(path="/current", slot=5)
    read_end, write_end = os.pipe()
    core.send(with_fd, fd=read_end)
    os.close(read_end)
    core.send(late, current)
    answers = core.datagram()
    assert [answer.body for answer in answers] == [b"/current"]
    until = time.monotonic() + PATIENCE_S
    with pytest.raises(BrokenPipeError):  # nobody holds the body's descriptor any more
        while time.monotonic() < until:
            os.write(write_end, b"x")
            time.sleep(0.01)
    os.close(write_end)
    assert core.slot(6)[0] == 1


@pytest.mark.parametrize("threads", [1, 4])
def test_requests_that_come_after_stop_are_handed_back(run: Run, threads: int) -> None:
    """Or stay in the queue for another executor, when the worker has ended between two of them: then once more."""
    kinds: set[int] = set()
    for _ in range(STOP_ATTEMPTS):
        core = run(ECHO, threads=threads)
        core.stop()
        while core.process.poll() is None and wire.SKIPPED not in kinds:
            core.send(core.frame("POST", "/late"))
            if select.select(core.answers[:1], [], [], 0.05)[0]:
                kinds |= {answer.kind for answer in core.datagram()}
        assert core.exit_status() == 0
        assert kinds <= {wire.RESPONSE, wire.SKIPPED}
        if wire.SKIPPED in kinds:
            return
    pytest.fail(f"no request was handed back in {STOP_ATTEMPTS} attempts")


def test_cancel_frames_are_ignored(run: Run) -> None:
    core = run(ECHO)
    core.send(wire.REQUEST.pack(48, wire.VERSION, wire.CANCEL, 1, 0, 1, 0, 0, 0, 0))
    assert core.fetch().status == 200


def test_modules_of_users_do_not_meet_ours(run: Run, tmp_path: Path) -> None:
    write_scripts(tmp_path, {"wsgi.py": "", "wire.py": "", "control.py": "mine = True"})
    core = run(
        "import sys, wsgi, wire, control\nassert control.mine\n"
        "assert all('workers' not in p for p in sys.path), sys.path\n" + ECHO
    )
    assert core.fetch("GET", "/x").body == b"/x"


def test_usage() -> None:
    main = Path(wire.__file__).parent / "main.py"
    done = subprocess.run([sys.executable, str(main)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("interpreter", other_cpythons())
def test_other_interpreters(run: Run, tmp_path: Path, interpreter: str, threads: int) -> None:
    (script,) = write_scripts(
        tmp_path, {"form.py": "def handle(request):\n    return {'a': request.form()['a'], 'q': dict(request.query)}\n"}
    )
    core = run(ECHO, interpreter=interpreter, threads=threads)
    assert core.fetch("GET", "/a").body == b"/a"
    core.send(*(core.frame("GET", f"/{n}") for n in range(10)))
    assert [core.next_answer().body for _ in range(10)] == [f"/{n}".encode() for n in range(10)]
    core.stop()
    assert core.exit_status() == 0
    assert core.output() == ""
    core = run(interpreter=interpreter, threads=threads)
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    body = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--B--'
    answer = core.fetch("POST", "/?b=2", script=script, body=body, headers=kind)
    assert json.loads(answer.body) == {"a": "1", "q": {"b": "2"}}
