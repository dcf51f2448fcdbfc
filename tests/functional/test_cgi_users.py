"""CGI programs as another user than the server's: a given one, the owner of each file, and the checks before."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import (
    Server,
    children_of,
    command_of,
    launch,
    run_command,
    server_environment,
    serving,
    wait_for,
    write_tree,
)
from programs import HEAD, programs

WHO = HEAD + "id -u; id -g; id -G; echo $HOME; grep -c . /proc/self/environ >/dev/null && echo own\n"
PYTHON = (
    "#!/usr/bin/python3\nimport os\nprint('Content-Type: text/plain\\n')\n"
    "print(os.getuid(), os.geteuid(), os.getgid(), sorted(os.getgroups()), open('/proc/self/cmdline').read())\n"
)
FILES: dict[str, str | bytes] = {
    "cgi-bin/who.sh": WHO,
    "cgi-bin/who.py": PYTHON,
    "cgi-bin/daemon.sh": HEAD + "setsid sleep 1000 &\necho done\n",
    "cgi-bin/bomb.py": "#!/usr/bin/python3\nimport os, time\nprint('Content-Type: text/plain\\n')\ncount = 0\n"
    "try:\n    while count < 200:\n        if os.fork() == 0:\n            time.sleep(1000)\n        count += 1\n"
    "except OSError as error:\n    print(error.errno, count)\n",
    "cgi-bin/users/daemon.sh": WHO,
    "cgi-bin/users/other.sh": WHO,
    "cgi-bin/users/root.sh": WHO,
    "cgi-bin/users/nobody-there.sh": WHO,
    "cgi-bin/users/leaves.sh": HEAD + "setsid sleep 1000 &\necho done\n",
}
USER = "daemon"
CROWD = "news"  # whose processes are counted: no other test may have any
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run programs as other users")


def account(name: str) -> pwd.struct_passwd:
    return pwd.getpwnam(name)


@contextmanager
def served(config: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """A server on files that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="cherokee-users-"))
    try:
        folder.chmod(0o755)
        write_tree(folder, FILES)
        (folder / "config.yaml").write_text(config)
        arguments = ("--config", str(folder / "config.yaml"), "--listen", "127.0.0.1:0")
        with serving(folder, *arguments, environment=environment or {}) as server:
            yield server
    finally:
        shutil.rmtree(folder)


CONFIG = """
threads: 1
cgi: {limits: {processes: 4000, kill_grace: 100ms}, min_uid: 1, min_gid: 1}
sites:
  - rules:
      - {match: {path: /plain/*}, handler: {cgi: cgi-bin}}
      - {match: {path: /given/*}, handler: {cgi: {directory: cgi-bin, user: USER}}}
      - {match: {path: /group/*}, handler: {cgi: {directory: cgi-bin, user: USER, group: "4711"}}}
      - {match: {path: /loose/*}, handler: {cgi: {directory: cgi-bin, user: USER, check_owner: false}}}
      - {match: {path: /few/*}, handler: {cgi: {directory: cgi-bin, user: CROWD, limits: {processes: 40}}}}
      - {match: {path: /owner/*}, handler: {cgi: {directory: cgi-bin, user: owner}}}
""".replace("USER", USER).replace("CROWD", CROWD)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served(CONFIG) as started:
        users = started.folder / "cgi-bin/users"
        os.chown(users / "daemon.sh", account(USER).pw_uid, account(USER).pw_gid)
        os.chown(users / "leaves.sh", account(USER).pw_uid, account(USER).pw_gid)
        os.chown(users / "other.sh", account("games").pw_uid, account("games").pw_gid)
        os.chown(users / "nobody-there.sh", 54321, 54321)
        yield started


def groups_of(name: str) -> list[int]:
    return sorted(os.getgrouplist(name, account(name).pw_gid))


def expect(text: str, name: str) -> None:
    lines = text.splitlines()
    assert lines[:2] == [str(account(name).pw_uid), str(account(name).pw_gid)]
    assert sorted(map(int, lines[2].split())) == groups_of(name)
    assert lines[3:] == ["", "own"]  # no HOME, as with suexec


@needs_root
def test_a_given_user(server: Server) -> None:
    expect(server.get("/given/who.sh").text, USER)
    assert server.get("/plain/who.sh").text.startswith("0\n0\n")
    lines = server.get("/group/who.sh").text.splitlines()
    assert lines[:2] == [str(account(USER).pw_uid), "4711"]
    assert "4711" in lines[2].split()


@needs_root
def test_a_given_user_warm(server: Server) -> None:
    def is_warm() -> bool:
        text = server.get("/given/who.py").text
        uid, gid = account(USER).pw_uid, account(USER).pw_gid
        assert text.startswith(f"{uid} {uid} {gid} {groups_of(USER)} ")
        return "zygote" in text

    wait_for(is_warm, "the script runs in an interpreter that is kept")


@needs_root
def test_processes_of_a_user(server: Server) -> None:
    """A fork bomb of one user stops at its limit, and nobody else notices."""
    for _ in range(3):  # cold, and warm
        error, count = map(int, server.get("/few/bomb.py").text.split())
        assert error == errno.EAGAIN
        assert 0 < count < 40
        wait_for(lambda: not programs(server), "those that it has made have ended")
        # The kernel counts a process until it has been reaped; from its end on it has no command line.
        wait_for(lambda: all(map(command_of, children_of(server.process.pid))), "they count no more")
    expect(server.get("/few/who.sh").text, CROWD)
    warnings = [line for line in server.lines if "limits.processes" in line]
    assert len(warnings) == 1  # about the rule whose programs are root's
    assert "cgi: limits.processes counts all processes of the user that programs run as" in warnings[0]


@needs_root
def test_the_owner_of_each(server: Server) -> None:
    expect(server.get("/owner/users/daemon.sh").text, USER)
    expect(server.get("/owner/users/other.sh").text, "games")


@needs_root
@pytest.mark.parametrize("target", ["/given/daemon.sh", "/owner/users/leaves.sh"])
def test_nobody_is_left_behind(server: Server, target: str) -> None:
    assert server.get(target).text == "done\n"
    wait_for(lambda: not programs(server), "nobody that the program has started lives")


def refused(server: Server, target: str, reason: str) -> None:
    assert server.get(target).status == 403
    server.wait_for_log(rf"{target.rpartition('/')[2]}: .*{reason}")


@needs_root
def test_owners_who_may_not(server: Server) -> None:
    refused(server, "/owner/users/root.sh", "its owner has uid 0, and programs run as their owners from min_uid 1 on")
    refused(server, "/owner/users/nobody-there.sh", r"its owner \(uid 54321\) is no user of this system")


@needs_root
@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (0o775, r"its file can be written to by its group or others: chmod go-w \(it would run as uid 1\)"),
        (0o757, "its file can be written to by its group or others"),
        (0o4755, "its file is setuid or setgid: chmod ug-s"),
        (0o2755, "its file is setuid or setgid"),
    ],
)
def test_modes_of_a_program(server: Server, mode: int, reason: str) -> None:
    name = f"mode-{mode:o}.sh"
    for folder in ("cgi-bin", "cgi-bin/users"):
        program = server.folder / folder / name
        program.write_text(WHO)
        os.chown(program, account(USER).pw_uid, account(USER).pw_gid)
        program.chmod(mode)
    refused(server, f"/given/{name}", reason)
    refused(server, f"/owner/users/{name}", reason)
    assert server.get(f"/loose/{name}").status == 200


@needs_root
def test_whose_a_program_is(server: Server) -> None:
    expect(server.get("/given/users/daemon.sh").text, USER)  # its own
    expect(server.get("/given/users/root.sh").text, USER)  # root's
    refused(server, "/given/users/other.sh", "its file belongs neither to that user nor to root")
    expect(server.get("/loose/users/other.sh").text, USER)


@needs_root
def test_folders_of_a_program(server: Server) -> None:
    folder = server.folder / "cgi-bin/outer/inner"
    folder.mkdir(parents=True)
    program = folder / "in-folder.sh"
    program.write_text(WHO)
    program.chmod(0o755)
    for path in (program, folder):
        os.chown(path, account(USER).pw_uid, account(USER).pw_gid)
    expect(server.get("/given/outer/inner/in-folder.sh").text, USER)
    expect(server.get("/owner/outer/inner/in-folder.sh").text, USER)
    folder.parent.chmod(0o777)
    refused(server, "/given/outer/inner/in-folder.sh", f"its folder {folder.parent} can be written to by its group or")
    refused(server, "/owner/outer/inner/in-folder.sh", f"its folder {folder.parent} can be written to by its group or")
    folder.parent.chmod(0o755)
    os.chown(folder, account("games").pw_uid, account("games").pw_gid)
    refused(server, "/given/outer/inner/in-folder.sh", f"its folder {folder} belongs neither to that user nor to root")
    link = server.folder / "cgi-bin/link.sh"
    link.symlink_to("outer/inner/in-folder.sh")
    refused(server, "/given/link.sh", f"its folder {folder} belongs neither to that user nor to root")


# The start


SITE = "sites: [{rules: [{match: {path: /*}, handler: {cgi: cgi-bin}}]}]\n"


@needs_root
@pytest.mark.parametrize("config", [None, SITE])
def test_root_has_to_say_who(tmp_path: Path, config: str | None) -> None:
    write_tree(tmp_path, {"cgi-bin/who.sh": WHO, "www/index.html": "x"})
    where = [str(tmp_path)]
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
        where = ["--config", str(tmp_path / "config.yaml")]
    ended = run_command(tmp_path, "serve", *where, "--listen", "127.0.0.1:0", CHEROKEE_CGI_USER="")
    assert ended.returncode != 0
    assert "CGI programs would run as root" in ended.stderr
    assert "`cgi: {user: NAME}`" in ended.stderr
    assert "Traceback" not in ended.stderr


@needs_root
def test_what_root_can_say(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cgi-bin/who.sh": WHO})
    for config, environment in ((SITE + "cgi: {user: root}\n", ""), (SITE, "root")):
        (tmp_path / "config.yaml").write_text(config)
        arguments = ("--config", str(tmp_path / "config.yaml"), "--listen", "127.0.0.1:0")
        with serving(tmp_path, *arguments, environment={"CHEROKEE_CGI_USER": environment}) as server:
            assert server.get("/who.sh").text.startswith("0\n0\n")


@needs_root
def test_the_user_of_the_environment_is_not_checked() -> None:
    with served(SITE, {"CHEROKEE_CGI_USER": USER}) as server:
        os.chown(server.folder / "cgi-bin/who.sh", account("games").pw_uid, account("games").pw_gid)
        expect(server.get("/who.sh").text, USER)


@needs_root
def test_a_reload_that_would_run_programs_as_root() -> None:
    with served(SITE + f"cgi: {{user: {USER}}}\n", {"CHEROKEE_CGI_USER": ""}) as server:
        expect(server.get("/who.sh").text, USER)
        (server.folder / "config.yaml").write_text(SITE)
        server.kill(signal.SIGHUP)
        server.wait_for_log("nothing was reloaded.*CGI programs would run as root")
        (server.folder / "config.yaml").write_text(SITE + "cgi: {user: games}\n")
        server.kill(signal.SIGHUP)
        server.wait_for_log("configuration reloaded")
        expect(server.get("/who.sh").text, "games")


WITHOUT_RIGHT = """
import os, sys
from appserver.config.plan import PoolSpec
from appserver.errors import StartError
from appserver.supervisor.identity import find_program_identity

os.setgroups([]), os.setgid(1), os.setuid(1)
for user, group in (("games", None), ("owner", None), ("daemon", "60"), (None, "60"), ("daemon", None), (None, None)):
    spec = PoolSpec("cgi", "cgi", 1, 1, 1, 1, 1, 1, user=user, group=group)
    try:
        print(find_program_identity(spec, None))
    except StartError as error:
        print(error)
"""


@needs_root
def test_without_the_right() -> None:
    """The interpreter may lie where only root can reach it, so the process changes its user after it has started."""
    command = [sys.executable, "-c", WITHOUT_RIGHT]
    ended = subprocess.run(command, env=server_environment(), capture_output=True, text=True, timeout=60, check=True)
    games, owner, own, group, *allowed = ended.stdout.splitlines()
    assert "(cgi) are to run as user games, group 60, but the server runs as uid 1 and may not change users" in games
    assert "(cgi) are to run as their owners, but" in owner
    assert "are to run as user daemon, group 60, but" in own
    assert "are to run as user daemon, group 60, but" in group
    assert allowed == ["None", "None"]


def test_the_servers_own_user_needs_no_right(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cgi-bin/who.sh": WHO})
    name = pwd.getpwuid(os.geteuid()).pw_name
    (tmp_path / "config.yaml").write_text(SITE + f"cgi: {{user: {name}}}\n")
    server = launch(tmp_path, "--config", str(tmp_path / "config.yaml"), "--listen", "127.0.0.1:0")
    try:
        assert server.get("/who.sh").text.startswith(f"{os.geteuid()}\n")
    finally:
        assert server.stop() == 0
