"""What somebody sees who starts the server: the line with the URL, or what is wrong and what to do about it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import free_port, has_ipv6, run_command, server_environment, wait_for

from appserver import __version__

FILES: dict[str, str | bytes] = {"www/index.html": "index"}


def refused(folder: Path, *arguments: str) -> str:
    """What is on stderr of a command that ends with status 1 and has said nothing on stdout."""
    done = run_command(folder, *arguments)
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# It starts


def test_one_line_with_the_urls(serve) -> None:
    server = serve(FILES, "--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0")
    lines = [line for line in server.lines if "listening on" in line]
    assert len(lines) == 1
    found = re.fullmatch(
        r"cherokee-app \S+ listening on http://127\.0\.0\.1:(\d+) and http://127\.0\.0\.2:(\d+)", lines[0]
    )
    assert found
    for host, port in zip(("127.0.0.1", "127.0.0.2"), found.groups(), strict=True):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_a_folder_without_www_is_the_root(serve) -> None:
    server = serve({"index.html": "top", "handlers/h.py": "secret = 1\n", "cgi-bin/c.sh": "#!/bin/sh\n# secret\n"})
    assert server.get("/").text == "top"
    for source in ("/handlers/h.py", "/handlers/../handlers/h.py", "/%68andlers/h.py"):
        assert server.get(source).status in (403, 404)


def test_ipv6(serve) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = serve(FILES, "--listen", "[::1]:0")
    assert server.url.startswith("http://[::1]:")
    with socket.create_connection(("::1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_threads(serve) -> None:
    server = serve(FILES, "--threads", "3")
    core = server.one_pid("core_main")
    names = [(task / "comm").read_text().strip() for task in Path(f"/proc/{core}/task").iterdir()]
    assert sorted(name for name in names if name.startswith("loop-")) == ["loop-0", "loop-1", "loop-2"]


# It does not


def test_every_error_of_a_configuration_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "thread: 4\n"
        "limits:\n"
        "  body_size: 3 furlongs\n"
        "  header_timeout: 5\n"
        "  connections: 0\n"
        "log: {access: combned}\n"
        "sites:\n"
        "  - root: nowhere\n"
        "    rules:\n"
        "      - {match: {path: /a/*}, handler: {pyhton: shop}}\n"
        "      - {match: {path: /b/*}, handler: {python: shop}}\n"
    )
    for arguments in (("check", "config.yaml"), ("serve", "--config", "config.yaml", "--listen", "127.0.0.1:0")):
        errors = refused(tmp_path, *arguments)
        for place, *words in (
            ("1:1", "thread", "did you mean 'threads'"),
            ("3:14", "limits.body_size", "3 furlongs"),
            ("4:19", "limits.header_timeout", "5", "5s"),
            ("5:16", "limits.connections", "0", "1"),
            ("6:15", "log.access", "combned", "did you mean 'combined'"),
            ("8:11", "sites[0].root", "nowhere"),
            ("10:41", "pyhton", "did you mean 'python'"),
            ("11:49", "shop"),
        ):
            lines = [line for line in errors.splitlines() if f"config.yaml:{place}: " in line]
            assert lines, f"nothing about {place} in:\n{errors}"
            assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize(
    "text", ["a: [1, 2\n", "sites:\n\t- x\n", "a: b: c\n", "\x00", "{", "- just\n- a list\n", "&a [*a]\n"]
)
def test_what_is_no_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert re.match(r"config\.yaml:\d+:\d+: ", refused(tmp_path, "check", "config.yaml"))


def test_configuration_that_is_not_there(tmp_path: Path) -> None:
    assert "no.yaml" in refused(tmp_path, "serve", "--config", "no.yaml")


def test_root_that_does_not_exist(tmp_path: Path) -> None:
    errors = refused(tmp_path, "serve", "no-such-folder")
    assert len(errors.splitlines()) == 1
    assert "no-such-folder" in errors


def test_configuration_where_a_folder_is_expected(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("threads: 1\n")
    errors = refused(tmp_path, "serve", "config.yaml")
    assert len(errors.splitlines()) == 1
    assert f"cherokee-app serve --config {tmp_path}/config.yaml" in errors


def test_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        errors = refused(tmp_path, "serve", str(tmp_path), "--listen", f"127.0.0.1:{port}")
    assert f"port {port} is in use by another program" in errors.splitlines()[-1]
    assert "--listen" in errors.splitlines()[-1]


def test_port_in_use_by_another_server(serve, tmp_path: Path) -> None:
    server = serve(FILES)
    errors = refused(tmp_path, "serve", str(tmp_path), "--listen", f"127.0.0.1:{server.port}")
    assert f"port {server.port} is in use" in errors


def test_no_right_to_bind(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give up the right to bind")
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first <= 1:
        pytest.skip("here everybody may bind every port (net.ipv4.ip_unprivileged_port_start)")
    tmp_path.chmod(0o755)
    drop = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]
    done = subprocess.run(
        [*drop, sys.executable, "-m", "appserver", "serve", str(tmp_path), "--listen", "127.0.0.1:1"],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no right to bind port 1; choose a port from 1024 up" in done.stderr.splitlines()[-1]


def test_address_of_another_machine(tmp_path: Path) -> None:
    errors = refused(tmp_path, "serve", str(tmp_path), "--listen", "192.0.2.1:8080")
    assert "this machine has no address 192.0.2.1" in errors


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", "127.0.0.1:99999", ":::80", "[::1:80"])
def test_bad_listen(tmp_path: Path, listen: str) -> None:
    errors = refused(tmp_path, "serve", str(tmp_path), "--listen", listen)
    assert "--listen" in errors
    assert listen in errors


@pytest.mark.parametrize("threads", ["0", "many", "1000"])
def test_bad_threads(tmp_path: Path, threads: str) -> None:
    assert "--threads" in refused(tmp_path, "serve", str(tmp_path), "--threads", threads)


def test_nothing_is_started_when_one_port_is_taken(tmp_path: Path) -> None:
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        refused(
            tmp_path,
            "serve",
            str(tmp_path),
            "--listen",
            f"127.0.0.1:{port}",
            "--listen",
            f"127.0.0.1:{other.getsockname()[1]}",
        )
        with socket.socket() as again:
            again.bind(("127.0.0.1", port))


# Other commands


def test_check(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("threads: 1\n")
    done = run_command(tmp_path, "check", "good.yaml")
    assert (done.returncode, done.stdout) == (0, "good.yaml: valid\n")


def test_version_and_help(tmp_path: Path) -> None:
    for arguments in (("version",), ("--version",)):
        assert run_command(tmp_path, *arguments).stdout == f"cherokee-app {__version__}\n"
    text = run_command(tmp_path, "--help").stdout
    for each in ("serve", "check", "health", "version"):
        assert each in text
        assert run_command(tmp_path, each, "--help").stdout.startswith(f"usage: cherokee-app {each}")
    done = run_command(tmp_path)
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert run_command(tmp_path, "server").returncode == 2


def test_health(serve) -> None:
    server = serve(FILES)
    done = wait_for(  # on a busy machine its five seconds may be over first
        lambda: (
            (found := run_command(server.folder, "health", f"http://127.0.0.1:{server.port}")).returncode == 0 and found
        ),
        "it is healthy",
    )
    assert done.stdout == "http 200\n"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        done = run_command(server.folder, "health", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert done.returncode == 1
    assert "no answer" in done.stderr
