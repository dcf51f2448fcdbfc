"""With as few rights as an engine can leave a container: any user, nothing writable, no capability, old filters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from containers import Container, Run, mounts_of
from harness import write_tree

LOCKED: dict[str, Any] = {
    "user": "12345:12345",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
#: More than the core keeps in memory: with nothing writable there is no file for it.
UPLOAD = b"x" * (3 << 20)
FILES = {
    "www/index.html": "page",
    "handlers/size.py": "def handle(request):\n    return str(len(request.body))\n",
    "cgi-bin/size.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nwc -c\n",
}
#: What filters refuse that are older than these calls.
RECENT_CALLS = ["openat2", "pidfd_open", "pidfd_send_signal", "close_range", "faccessat2", "statx"]
#: With EPERM for clone3 (engines before 20.10.10) the base image's C library starts no thread in any program.
REFUSALS = {"EPERM": (1, RECENT_CALLS), "ENOSYS": (38, [*RECENT_CALLS, "clone3"])}


def assert_serves(container: Container) -> None:
    assert container.get("/").text == "page"
    assert container.get("/none").status == 404
    assert container.get("/size/", "POST", UPLOAD).text == str(len(UPLOAD))
    assert container.get("/cgi-bin/size.sh", "POST", UPLOAD).text.strip() == str(len(UPLOAD))


@pytest.mark.parametrize(
    ("arguments", "environment", "config", "port"),
    [
        ((), {}, None, 80),
        ((), {"CHEROKEE_LISTEN": "0.0.0.0:8080"}, None, 8080),
        ((), {}, "listen: 0.0.0.0:8080\n", 8080),
        (("serve", "--listen", "0.0.0.0:8080"), {}, None, 8080),
        (("serve", "/srv", "--listen", "[::]:8080", "--listen", "127.0.0.1:8081"), {}, None, 8080),
    ],
    ids=["port 80", "environment", "configuration", "option", "folder"],
)
def test_it_serves_with_no_rights_at_all(
    run: Run,
    tmp_path: Path,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    config: str | None,
    port: int,
) -> None:
    write_tree(tmp_path, FILES if config is None else {**FILES, "config.yaml": config})
    container = run(*arguments, port=port, environment=environment, volumes=mounts_of(tmp_path), **LOCKED)
    container.wait_until_ready()
    assert_serves(container)
    container.run("cherokee-app", "check")
    assert container.run("cherokee-app", "health") == "http 200\n"
    assert not [record for record in container.records() if record["level"] in ("warning", "error")]
    assert container.stop() == 0


def test_no_right_to_bind_is_one_line_that_says_what_to_do(run: Run) -> None:
    container = run(sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"}, **LOCKED)
    assert container.wait() == 1
    lines = container.log().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("cherokee-app: cannot listen on 0.0.0.0:80: no right to bind port 80; choose a port")
    assert all(way in lines[0] for way in ("--listen", "CHEROKEE_LISTEN", "CAP_NET_BIND_SERVICE"))


@pytest.mark.parametrize("error", list(REFUSALS))
def test_a_filter_that_is_older_than_the_kernel_calls(run: Run, tmp_path: Path, error: str) -> None:
    write_tree(tmp_path, FILES)
    outside = tmp_path / "www/outside.txt"
    outside.symlink_to("/etc/passwd")
    number, calls = REFUSALS[error]
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": number}],
    }
    container = run(volumes=mounts_of(tmp_path), security_opt=[f"seccomp={json.dumps(profile)}"])
    container.wait_until_ready()
    assert_serves(container)
    assert container.get("/outside.txt").status in (403, 404)
    assert container.stop() == 0
