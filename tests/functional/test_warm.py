"""Python scripts in interpreters that have started already: everything is as in a new one, and nothing stays."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from harness import Response, Server, command_of, state_of, wait_for
from programs import end_all, held, waiting

#: First lines of each script: says by what it is run, in a header that is left out when answers are compared.
WARM = (
    "import sys\nsys.stdout.write('X-Warm: %s\\nContent-Type: text/plain\\n\\n'"
    " % ('workers/zygote.' in open('/proc/self/cmdline').read()))\n"
)


def script(text: str, line: str = "#!/usr/bin/env python3") -> str:
    return f"{line}\n{WARM}{text}"


STATE = """
import json, urllib.parse, os, resource, signal, subprocess, threading, time, gc, locale
def stream(s):
    raw = s.buffer.raw if hasattr(s.buffer, 'raw') else s.buffer
    return [s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.newlines,
            s.isatty(), s.seekable(), type(s.buffer).__name__,
            type(raw).__name__, raw.name, raw.mode, raw.closefd, s.fileno(), s.closed]
status = {k: v.strip() for k, v in (l.split(':', 1) for l in open('/proc/self/status'))}
mask = os.umask(0)
leave_out = ('SERVER_PORT', 'REMOTE_PORT', 'HTTP_HOST')
print(json.dumps({
    'globals': [n for n in globals()],
    'file': [__name__, __file__, __spec__, repr(__builtins__), type(__loader__).__name__, __loader__.path, __doc__],
    'main': sys.modules['__main__'].__dict__ is globals(),
    'argv': [sys.argv, getattr(sys, 'orig_argv', None)], 'path': sys.path, 'flags': repr(sys.flags),
    'executable': [sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix],
    'modules': list(sys.modules), 'warn': sys.warnoptions, 'x': repr(sys._xoptions),
    'environ': [(k, v) for k, v in os.environ.items() if k not in leave_out],
    'environb': len(os.environb) == len(os.environ),
    'child': sorted(l for l in subprocess.run(['env'], stdout=-1, text=True).stdout.splitlines()
                    if not l.startswith(leave_out + ('_=', 'PWD='))),
    'cwd': os.getcwd(), 'mask': mask,
    'fds': sorted(os.listdir('/proc/self/fd')),
    'signals': [status[n] for n in ('SigBlk', 'SigIgn', 'SigCgt', 'Threads')],
    'ids': [os.getuid(), os.getgid(), os.getgroups(), os.getpid() == os.getpgrp(),
            os.getpid() == threading.get_native_id()],
    'limits': [resource.getrlimit(n) for n in range(16)], 'nice': os.nice(0),
    'streams': [stream(s) for s in (sys.stdin, sys.stdout, sys.stderr)],
    'same': [sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
    'handlers': [repr(signal.getsignal(n)).split(' at ')[0] for n in range(1, 65)],
    'threads': [threading.main_thread() is threading.current_thread(), threading.active_count(),
                threading.main_thread().name],
    'gc': [gc.isenabled(), gc.get_threshold()], 'recursion': sys.getrecursionlimit(),
    'locale': [locale.setlocale(locale.LC_ALL), time.tzname, sys.getfilesystemencoding(),
               locale.getpreferredencoding()],
    'hooks': [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__, sys.gettrace(),
              sys.getprofile()],
    'input': sys.stdin.read(), 'comm': open('/proc/self/comm').read(),
    'children': len(open('/proc/self/task/%d/children' % os.getpid()).read().split()),
    'attributes': sorted(n for n in dir(urllib) if not n.startswith('__'))
                  + sorted(n for n in dir(json) if not n.startswith('__')),
}, indent=1))
"""

DIRTY = """
import builtins, gc, json, locale, logging, os, random, signal, socket, string, urllib.parse, warnings
builtins.leaked = string.leaked = json.leaked = sys.leaked = 1
json.dumps = None
sys.modules['leaked'] = sys
sys.path.insert(0, '/leaked')
os.environ['LEAKED'] = '1'
os.putenv('LEAKED_TOO', '1')
os.chdir('/')
os.umask(0o777)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *a: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
kept = [open('/dev/null'), socket.socket(), os.pipe()]
os.set_inheritable(kept[1].fileno(), True)
logging.basicConfig(level=1)
warnings.simplefilter('error')
sys.setrecursionlimit(5000)
gc.disable()
random.seed(1)
os.nice(3)
sys.stdin.close()
print('dirty')
"""

FILES: dict[str, str | bytes] = {
    "cgi-bin/state.py": script(STATE),
    "cgi-bin/bare.py": script(STATE, "#!/usr/bin/python3 -SE"),
    "cgi-bin/unbuffered.py": script(STATE, "#!/usr/bin/python3 -u"),
    "cgi-bin/isolated.py": script(STATE, "#!/usr/bin/python3 -I"),
    "cgi-bin/mapped.warm": script(STATE),
    "cgi-bin/dirty.py": script(DIRTY),
    "cgi-bin/new.py": script(
        "import os, random, tempfile, uuid\n"
        "print(random.random(), os.getpid(), uuid.uuid4(), next(tempfile._get_candidate_names()))\n"
    ),
    "cgi-bin/unseen.py": script(
        "print([n for n in ('json', 'ctypes', 're', 'typing', 'select', 'socket') if n in sys.modules])\n"
        "import xml\nprint(hasattr(xml, 'dom'), hasattr(xml, 'etree'))\n"
        "import importlib.util\nprint(importlib.util.find_spec('json').loader.__class__.__name__)\n"
        "import json\nprint(json.__spec__.loader.__class__.__name__, json.__loader__ is json.__spec__.loader)\n"
        "import importlib\nold = json.loads\nprint(importlib.reload(json) is json, json.loads is old)\n"
        "del sys.modules['json']\nfirst = json\nimport json\nprint(json is first)\n"
    ),
    "cgi-bin/dom.py": script("import xml.dom, xml.etree.ElementTree, json, ctypes, re, typing\nprint('ok')\n"),
    "cgi-bin/raises.py": script("import json\ndef inner():\n    json.loads('{')\n\n\nprint('before')\ninner()\n"),
    "cgi-bin/exit3.py": script("print('three')\nsys.exit(3)\n"),
    "cgi-bin/exit-text.py": script("print('text')\nsys.exit('farewell')\n"),
    "cgi-bin/exit-now.py": script("import os\nprint('now', flush=True)\nos._exit(4)\n"),
    "cgi-bin/killed.py": script("import os\nprint('killed', flush=True)\nos.kill(os.getpid(), 11)\n"),
    "cgi-bin/interrupted.py": script("print('interrupted')\nraise KeyboardInterrupt\n"),
    "cgi-bin/hook.py": script(
        "def hook(kind, value, trace):\n"
        "    print('hook', kind.__name__, value, trace.tb_frame.f_code.co_name, sys.exc_info())\n"
        "sys.excepthook = hook\nraise ValueError('v')\n"
    ),
    "cgi-bin/bad-hook.py": script(
        "def hook(*_):\n    raise TypeError('in the hook')\nsys.excepthook = hook\nprint('h')\nraise ValueError('v')\n"
    ),
    "cgi-bin/end.py": script(
        "import atexit, threading, time, weakref\n"
        "class Thing:\n    def __del__(self):\n        print('del', '__file__' in globals())\n"
        "atexit.register(lambda: print('atexit 1', '__file__' in globals()))\natexit.register(print, 'atexit 2')\n"
        "def later():\n    time.sleep(0.1)\n    print('thread')\nthreading.Thread(target=later).start()\n"
        "def steps():\n    try:\n        yield 1\n    finally:\n        print('generator')\n"
        "g = steps()\nnext(g)\nthing = Thing()\nthing.me = thing\nweakref.finalize(steps, print, 'finalize')\n"
        "print('last line')\n"
    ),
    "cgi-bin/file.py": script(
        "import os\nf = open(os.environ['QUERY_STRING'], 'w')\nf.write('written')\nprint('left open')\n"
    ),
    "cgi-bin/own-stdout.py": script(
        "import io\nsys.stdout.flush()\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'latin-1')\nprint('\\xe4')\n"
    ),
    "cgi-bin/bytes.py": script(
        "data = sys.stdin.buffer.read()\nsys.stdout.flush()\nimport hashlib\n"
        "print(len(data), hashlib.sha1(data).hexdigest())\n"
    ),
    "cgi-bin/seed.py": script("print(hash('seed'))\n"),
    "cgi-bin/no-stdout.py": script("print('x')\ndel sys.stdout, sys.__stderr__\nsys.exit(3)\n"),
    "cgi-bin/looks.py": script("print(sys._getframe().f_back)\n"),
    "cgi-bin/logs-stack.py": script(
        "import logging\nlogging.basicConfig(stream=sys.stdout)\nlogging.error('e', stack_info=True)\n"
    ),
    "cgi-bin/dumps.py": script("import faulthandler as f\nsys.stdout.flush()\nf.dump_traceback(sys.stdout)\n"),
    "cgi-bin/broken.py": "#!/usr/bin/env python3\nprint('x'\n",
    "cgi-bin/changing.py": script("print('one')\n"),
    "cgi-bin/lib/uses.py": script("import beside\nimport json\nprint(beside.VALUE, 'loads' in dir(json))\n"),
    "cgi-bin/lib/beside.py": "VALUE = 1\n",
    "cgi-bin/sleeps.py": script(
        "import os, subprocess, time\nsubprocess.Popen(['sleep', '600'])\n"
        "print(os.getpid(), flush=True)\ntime.sleep(600)\n"
    ),
    "cgi-bin/words.py": script("print(sys.argv[1:])\n"),
    "cgi-bin/pid.py": script("import os, time\ntime.sleep(0.02)\nprint(os.getpid())\n"),
    "lib/nothing.py": "",
}

CONFIG = """
cgi:
  warm: {warm}
  environment: {{PATH: "{path}", PYTHONPATH: "{folder}/lib", PYTHONHASHSEED: "{seed}"}}
  interpreters: {{".warm": {python}}}
sites: [{{rules: [{{match: {{path: /cgi-bin/*}}, handler: {{cgi: "{folder}/cgi-bin"}}}}]}}]
"""


def config(folder: Path, warm: str, seed: str = "random") -> str:
    # Where the interpreter itself is; what is first in PATH may be a script that chooses one.
    path = f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin"
    return CONFIG.format(folder=folder, warm=warm, seed=seed, python=sys.executable, path=path)


@pytest.fixture(scope="module")
def servers(serve_module, tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, Server]:
    """The same programs, warm and cold."""
    folder = tmp_path_factory.getbasetemp() / "warm"
    warm: Server = serve_module(
        {f"../warm/{name}": text for name, text in FILES.items()}, config=config(folder, "auto")
    )
    cold: Server = serve_module({}, config=config(folder, "off"))
    warm.allowed.append("Traceback")
    cold.allowed.append("Traceback")
    return warm, cold


def is_warm(response: Response) -> bool:
    return response.header("x-warm") == "True"


def warmed(
    server: Server, target: str, fields: dict[str, str] | None = None, method: str = "GET", body: bytes | None = None
) -> Response:
    """The first answer of an interpreter that had started already. On a machine that has much to do a request may find
    none that waits, and is not kept waiting for long.
    """
    answer: Response = wait_for(
        lambda: (found := server.get(target, fields, method, body)) and is_warm(found) and found,
        f"{target} is answered by a warm interpreter",
    )
    return answer


def settled(server: Server, target: str) -> None:
    """Until the interpreter has learnt what the script imports: its processes are renewed then."""
    warmed(server, target)
    # It says so with the last of a hundred and more answers at most; what counts is that it does not matter when.
    for _ in range(8):
        server.get(target)
        time.sleep(0.05)
    warmed(server, target)


def fetch(server: Server, target: str) -> tuple[int, bytes]:
    """Status and body; a response that is cut off has none."""
    try:
        found = server.get(target)
    except http.client.IncompleteRead:
        return 0, b""
    return found.status, found.body


def differences(left: Response, right: Response) -> dict[str, tuple[object, object]]:
    """Of two answers in JSON: what is not the same."""
    ours, theirs = json.loads(left.text), json.loads(right.text)
    found = {}
    for name in ours:
        a, b = ours[name], theirs[name]
        if a != b and isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            a, b = ([x for x, y in zip(left, right, strict=True) if x != y] for left, right in ((a, b), (b, a)))
        if a != b:
            found[name] = (a, b)
    return found


def without_warmth(response: Response) -> tuple[int, list[tuple[str, str]], str]:
    # Whether the length is known in time depends on when the program has ended.
    leave_out = ("x-warm", "date", "content-length", "transfer-encoding")
    kept = [(name, value) for name, value in response.headers if name.lower() not in leave_out]
    return response.status, kept, response.text


# As in a new interpreter


@pytest.mark.parametrize("name", ["state.py", "bare.py", "unbuffered.py", "isolated.py", "mapped.warm"])
def test_all_that_a_script_can_see(servers: tuple[Server, Server], name: str) -> None:
    warm, cold = servers
    target = f"/cgi-bin/{name}/info?a=1&b=%20"
    fields = {"X-Field": "v", "Cookie": "c=1"}
    expected = cold.get(target, fields)
    assert not is_warm(expected)
    assert expected.status == 200
    assert json.loads(expected.text)["signals"][0] == "0" * 16  # none is blocked
    assert differences(warm.get(target, fields), expected) == {}
    settled(warm, target)
    found = warmed(warm, target, fields)
    assert differences(found, expected) == {}
    assert without_warmth(found) == without_warmth(expected)
    body = b"of the client " * 10
    answers = [without_warmth(server.post(target, body, fields)) for server in servers]
    assert answers[0] == answers[1]
    assert "of the client" in answers[0][2]


def test_what_is_loaded_is_not_seen(servers: tuple[Server, Server]) -> None:
    warm, cold = servers
    settled(warm, "/cgi-bin/dom.py")
    settled(warm, "/cgi-bin/unseen.py")
    assert without_warmth(warmed(warm, "/cgi-bin/unseen.py")) == without_warmth(cold.get("/cgi-bin/unseen.py"))


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("raises.py", "ended with exit code 1"),
        ("exit3.py", "ended with exit code 3"),
        ("exit-text.py", "ended with exit code 1"),
        ("exit-now.py", "ended with exit code 4"),
        ("killed.py", "killed by signal 11"),
        ("interrupted.py", "killed by signal 2"),
        ("hook.py", "ended with exit code 1"),
        ("bad-hook.py", "ended with exit code 1"),
        ("no-stdout.py", "ended with exit code 3"),
        ("end.py", ""),
        ("own-stdout.py", ""),
    ],
)
def test_how_a_script_ends(servers: tuple[Server, Server], name: str, end: str) -> None:
    warmed(servers[0], "/cgi-bin/pid.py")
    counts = [len(server.records("")) for server in servers]
    answers = [fetch(server, f"/cgi-bin/{name}") for server in servers]
    assert answers[0] == answers[1]

    def told(number: int) -> list[str]:
        """What the log has about this run: what it wrote to stderr, in that order, and its end."""
        records = servers[number].records("")[counts[number] :]
        said = [each["event"] for each in records if each.get("script") == f"/{name}" and "stream" in each]
        return said + [end] * any(f"{name}: " in each["event"] and end in each["event"] for each in records)

    wait_for(lambda: not end or (end in told(0) and told(0) == told(1)), f"both logs say the same of {name}: {end}")
    assert told(0) == told(1)


def test_a_file_that_is_left_open_is_written(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    target = warm.folder / "left-open"
    assert is_warm(warmed(warm, f"/cgi-bin/file.py?{target}"))
    wait_for(lambda: target.exists() and target.read_text() == "written", "the file is written")


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
def test_bodies(servers: tuple[Server, Server], size: int) -> None:
    warm, cold = servers
    warmed(warm, "/cgi-bin/bytes.py")
    body = os.urandom(size)
    assert without_warmth(warm.post("/cgi-bin/bytes.py", body)) == without_warmth(cold.post("/cgi-bin/bytes.py", body))


def test_words_of_a_query(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    assert warmed(warm, "/cgi-bin/words.py?one+two%20too").text == "['one', 'two too']\n"


# Nothing stays


def test_nothing_of_one_run_is_in_the_next(servers: tuple[Server, Server]) -> None:
    warm, cold = servers
    settled(warm, "/cgi-bin/dirty.py")
    settled(warm, "/cgi-bin/state.py")
    expected = without_warmth(cold.get("/cgi-bin/state.py"))
    for _ in range(5):
        assert warm.get("/cgi-bin/dirty.py").text == "dirty\n"
        assert without_warmth(warmed(warm, "/cgi-bin/state.py")) == expected


def test_each_run_is_a_process_with_its_own_randomness(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    settled(warm, "/cgi-bin/new.py")
    rows = [warm.get("/cgi-bin/new.py").text.split() for _ in range(12)]
    for column in zip(*rows, strict=True):
        assert len(set(column)) == len(column), column


def test_many_at_once(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    warmed(warm, "/cgi-bin/pid.py")
    found: list[str] = []
    workers = [
        threading.Thread(target=lambda: found.extend(warm.get("/cgi-bin/pid.py").text for _ in range(10)))
        for _ in range(12)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 120
    assert len(set(found)) == 120
    wait_for(lambda: not [pid for pid in found if state_of(int(pid)) not in ("", "Z")], "all of them have ended")


def test_hashes(serve, tmp_path: Path) -> None:
    """The seed that was configured; without one all runs of an interpreter share one, until it is started anew."""
    server = serve({"cgi-bin/seed.py": FILES["cgi-bin/seed.py"]}, config=config(tmp_path, "auto", seed="7"))
    first = server.get("/cgi-bin/seed.py")
    assert not is_warm(first)
    assert warmed(server, "/cgi-bin/seed.py").text == first.text


# Changes


def test_a_script_that_changes(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    path = warm.folder.parent / "warm/cgi-bin/changing.py"
    settled(warm, "/cgi-bin/changing.py")
    for number in range(8):
        text = script(f"print('number {number}')\n")
        if number % 2:  # in place
            path.write_text(text)
        else:
            path.with_suffix(".new").write_text(text)
            path.with_suffix(".new").chmod(0o755)
            path.with_suffix(".new").replace(path)
        for _ in range(3):
            assert warm.get("/cgi-bin/changing.py").text == f"number {number}\n"
    warmed(warm, "/cgi-bin/changing.py")


def test_modules_beside_a_script(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    folder = warm.folder.parent / "warm/cgi-bin/lib"
    settled(warm, "/cgi-bin/lib/uses.py")
    assert warm.get("/cgi-bin/lib/uses.py").text == "1 True\n"
    (folder / "beside.py").write_text("VALUE = 'other'\n")
    assert warm.get("/cgi-bin/lib/uses.py").text == "other True\n"
    (folder / "json.py").write_text("mine = 1\n")
    assert warm.get("/cgi-bin/lib/uses.py").text == "other False\n"
    warm.wait_for_log("uses.py runs cold: a file beside it takes the place of the standard library's module json")


def test_a_folder_of_modules_that_changes(servers: tuple[Server, Server]) -> None:
    warm, cold = servers
    settled(warm, "/cgi-bin/dom.py")
    module = warm.folder.parent / "warm/lib/textwrap.py"
    uses = warm.folder.parent / "warm/cgi-bin/wraps.py"
    uses.write_text(script("import textwrap\nprint(hasattr(textwrap, 'mine'))\n"))
    uses.chmod(0o755)
    settled(warm, "/cgi-bin/wraps.py")
    assert warmed(warm, "/cgi-bin/wraps.py").text == "False\n"
    module.write_text("mine = 1\n")
    try:
        assert warm.get("/cgi-bin/wraps.py").text == "True\n"
        warm.wait_for_log("warm .*: .*/lib has changed")
        settled(warm, "/cgi-bin/wraps.py")
        assert warmed(warm, "/cgi-bin/wraps.py").text == cold.get("/cgi-bin/wraps.py").text == "True\n"
    finally:
        module.unlink()


def test_what_an_interpreter_reads_at_its_start_changes(serve, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    (packages / "more.pth").write_text(f"{folders[0]}\n")
    (packages / "sitecustomize.py").write_text("import sys\nsys.custom = 'one'\n")
    text = script("print(sys.custom, sys.path[-1])\n", f"#!{tmp_path}/venv/bin/python")
    server = serve({"cgi-bin/start.py": text})
    assert warmed(server, "/cgi-bin/start.py").text == f"one {folders[0]}\n"
    (packages / "more.pth").write_text(f"{folders[1]}\n")
    for _ in range(3):
        assert server.get("/cgi-bin/start.py").text == f"one {folders[1]}\n"
    (packages / "sitecustomize.py").write_text("import sys\nsys.custom = 'other'\n")
    for _ in range(3):
        assert server.get("/cgi-bin/start.py").text == f"other {folders[1]}\n"
    assert warmed(server, "/cgi-bin/start.py").text == f"other {folders[1]}\n"


# What runs cold


def test_what_cannot_be_the_same_runs_cold_and_says_so_once(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    warmed(warm, "/cgi-bin/pid.py")
    for name, what in (("looks.py", "_getframe"), ("logs-stack.py", "stack_info"), ("dumps.py", "faulthandler")):
        for _ in range(4):
            found = warm.get(f"/cgi-bin/{name}")
            assert not is_warm(found)
            assert found.text != ""
            assert "zygote" not in found.text
        warm.wait_for_log(rf"{name} runs cold: it looks at the interpreter's stack or hooks \({what}\)")
        assert len(warm.records(f"{name} runs cold")) == 1
    for server in servers:
        assert server.get("/cgi-bin/broken.py").status == 502
        server.wait_for_log("SyntaxError: '\\(' was never closed")


def test_each_of_many_scripts_says_once_that_it_runs_cold(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    folder = warm.folder.parent / "warm/cgi-bin"
    names = [f"looks-{pow(3, number, 10007)}.py" for number in range(40)]
    for name in names:
        (folder / name).write_text(script("print(sys._getframe().f_back)\n"))
        (folder / name).chmod(0o755)
    warmed(warm, "/cgi-bin/pid.py")
    for name in (*names, *names):
        assert warm.get(f"/cgi-bin/{name}").text == "None\n"
    # The last one has been said after all others of the two rounds: reports keep their order.
    name = "looks-last.py"
    (folder / name).write_text(script("print(sys._getframe().f_back)\n"))
    (folder / name).chmod(0o755)
    wait_for(lambda: warm.get(f"/cgi-bin/{name}") and warm.records(f"{name} runs cold"), f"what the log says of {name}")
    said = [each["event"].partition(" runs cold")[0].rpartition("/")[2] for each in warm.records("looks-.* runs cold")]
    assert sorted(said) == sorted([*names, name])


def test_options_that_are_not_known_run_cold(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    path = warm.folder.parent / "warm/cgi-bin/odd.py"
    path.write_text(script("print(sys.flags.verbose, sys.warnoptions)\n", "#!/usr/bin/python3 -Wignore"))
    path.chmod(0o755)
    for _ in range(3):
        found = warm.get("/cgi-bin/odd.py")
        assert (found.text, is_warm(found)) == ("0 ['ignore']\n", False)


# Faults


def test_a_time_limit_ends_the_whole_group(serve, tmp_path: Path) -> None:
    text = config(tmp_path, "auto").replace("  warm: auto\n", "  warm: auto\n  limits: {request_time: 1s}\n")
    server = serve({name: FILES[name] for name in ("cgi-bin/sleeps.py", "cgi-bin/pid.py")}, config=text)
    warmed(server, "/cgi-bin/pid.py")
    with server.connect() as connection:
        connection.send("GET /cgi-bin/sleeps.py HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for_log("sleeps.py: killed at its time limit")
    wait_for(lambda: not server.pids("sleep 600"), "what it has started is gone")


def test_a_client_that_leaves_ends_it(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    warmed(warm, "/cgi-bin/pid.py")
    with warm.connect() as connection:
        connection.send("GET /cgi-bin/sleeps.py HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: warm.pids("sleep 600"), "it runs")
    wait_for(lambda: not warm.pids("sleep 600"), "it is gone")


def test_an_interpreter_that_is_killed_is_started_again(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    warmed(warm, "/cgi-bin/pid.py")
    before = waiting(warm)
    end_all(before)
    for _ in range(5):
        assert warm.get("/cgi-bin/pid.py").status == 200
    warm.wait_for_log("warm .*: it has ended; scripts run cold until it is there again")
    warmed(warm, "/cgi-bin/pid.py")
    assert not set(before) & set(waiting(warm))


def test_an_interpreter_that_hangs_is_not_waited_for(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    warmed(warm, "/cgi-bin/pid.py")
    with held(warm):
        for _ in range(3):
            found = warm.get("/cgi-bin/pid.py")
            assert (found.status, is_warm(found)) == (200, False)
    warmed(warm, "/cgi-bin/pid.py")


def test_reload_and_end(serve, tmp_path: Path) -> None:
    server = serve({"cgi-bin/pid.py": FILES["cgi-bin/pid.py"]}, config=config(tmp_path, "auto"))
    warmed(server, "/cgi-bin/pid.py")
    before = waiting(server)
    server.kill(signal.SIGHUP)
    wait_for(lambda: not [pid for pid in before if re.search("zygote", command_of(pid))], "the old ones are gone")
    warmed(server, "/cgi-bin/pid.py")


def test_off_is_off(servers: tuple[Server, Server]) -> None:
    _, cold = servers
    for _ in range(3):
        assert not is_warm(cold.get("/cgi-bin/pid.py"))
    assert waiting(cold) == []
