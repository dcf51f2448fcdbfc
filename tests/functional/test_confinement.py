"""Never a byte from outside the root, whatever the path says and wherever links lead."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from harness import Server, wait_for

SECRET = "secret-of-the-house"


def lay_out(folder: Path) -> None:
    (folder / "outside").mkdir()
    (folder / "outside/secret.txt").write_text(SECRET)
    (folder / "wwwsecret.txt").write_text(SECRET)
    www = folder / "www"
    (www / "sub").mkdir(exist_ok=True)
    (www / "sub/file.txt").write_text("inside")
    (www / "inner").symlink_to("sub")
    (www / "inner.txt").symlink_to("sub/file.txt")
    (www / "updown.txt").symlink_to("sub/../sub/file.txt")
    (www / "out").symlink_to("../outside")
    (www / "out.txt").symlink_to("../outside/secret.txt")
    (www / "absolute.txt").symlink_to(folder / "outside/secret.txt")
    (www / "round").symlink_to("round")
    (www / "passwd").symlink_to("/etc/passwd")
    (www / "proc").symlink_to("/proc/self/root")
    (www / ".env").write_text(SECRET)
    (www / ".git").mkdir()
    (www / ".git/config").write_text(SECRET)
    (www / ".well-known").mkdir()
    (www / ".well-known/security.txt").write_text("Contact: x")
    os.mkfifo(www / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(www / "socket"))
    (www / "null").symlink_to("/dev/null")


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    config = """
sites:
  - {name: beneath, root: www, rules: [{match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}]}
  - {name: deny, hosts: [deny], root: www, symlinks: deny}
  - {name: follow, hosts: [follow], root: www, symlinks: follow}
"""
    started: Server = serve_module(
        {"www/index.html": "index", "cgi-bin/x.sh": "#!/bin/sh\necho Content-Type: text/plain\necho\necho cgi"},
        config=config,
    )
    lay_out(started.folder)
    return started


ESCAPES = [
    "/../outside/secret.txt",
    "/..",
    "/../",
    "/sub/../../outside/secret.txt",
    "/%2e%2e/outside/secret.txt",
    "/%2E%2e%2foutside/secret.txt",
    "/..%2foutside%2fsecret.txt",
    "/sub/%2e%2e/%2e%2e/outside/secret.txt",
    "/..%5coutside%5csecret.txt",
    "/..\\outside\\secret.txt",
    "/%252e%252e/outside/secret.txt",
    "/..;/outside/secret.txt",
    "/.../outside/secret.txt",
    "//../outside/secret.txt",
    "/./../outside/secret.txt",
    "/sub/..//../outside/secret.txt",
    "/%c0%ae%c0%ae/outside/secret.txt",
    "/%e0%80%ae%e0%80%ae/outside/secret.txt",
    "/%c0%af..%c0%afoutside/secret.txt",
    "/sub/file.txt%00.html",
    "/%00",
    "/out.txt%00",
    "/%ff%fe",
    "/out/secret.txt",
    "/out.txt",
    "/absolute.txt",
    "/passwd",
    "/proc/etc/passwd",
    "/round",
    "/.env",
    "/.git/config",
    "/sub/../.env",
    "/%2eenv",
    "/../wwwsecret.txt",
    "/../cgi-bin/x.sh",
    "/cgi-bin/../www/.env",
    "/cgi-bin/../../outside/secret.txt",
    "/cgi-bin/%2e%2e/outside/secret.txt",
    "/cgi-bin/..%2f..%2foutside/secret.txt",
]


@pytest.mark.parametrize("target", ESCAPES)
@pytest.mark.parametrize("host", ["beneath", "deny"])
def test_no_way_out(server: Server, target: str, host: str) -> None:
    response = server.exchange(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    assert response.status in (400, 403, 404), response.status
    assert SECRET.encode() not in response.body
    assert b"root:" not in response.body


@pytest.mark.parametrize("target", [each for each in ESCAPES if ".env" in each or ".." in each or "%" in each])
def test_following_links_is_no_way_out_for_paths(server: Server, target: str) -> None:
    """`symlinks: follow` trusts who writes the tree, not who asks."""
    response = server.exchange(f"GET {target} HTTP/1.1\r\nHost: follow\r\nConnection: close\r\n\r\n")
    if target != "/out.txt%00":
        assert response.status in (400, 403, 404)
    assert SECRET.encode() not in response.body


@pytest.mark.parametrize("target", ["/inner/file.txt", "/inner.txt", "/updown.txt"])
def test_links_that_stay_inside(server: Server, target: str) -> None:
    assert server.get(target, {"Host": "beneath"}).text == "inside"
    assert server.get(target, {"Host": "deny"}).status in (403, 404)
    assert server.get(target, {"Host": "follow"}).text == "inside"


def test_follow_follows(server: Server) -> None:
    assert server.get("/out/secret.txt", {"Host": "follow"}).text == SECRET
    assert server.get("/absolute.txt", {"Host": "follow"}).text == SECRET


@pytest.mark.parametrize("target", ["/fifo", "/socket", "/null"])
def test_what_is_no_file_stops_nobody(server: Server, target: str) -> None:
    for _ in range(4):
        assert server.get(target).status in (403, 404)
    assert server.get("/").text == "index"


def test_well_known(server: Server) -> None:
    assert server.get("/.well-known/security.txt").text == "Contact: x"


def test_normalised_before_routing(server: Server) -> None:
    assert server.get("/a/../cgi-bin/x.sh").text == "cgi\n"
    assert server.get("/%63gi-bin/x.sh").text == "cgi\n"
    assert server.get("/sub/./../sub//file.txt").text == "inside"


def test_a_link_that_is_switched(server: Server) -> None:
    """A link inside the root that is turned outside is refused as soon as the entry is looked at again."""
    link = server.folder / "www/switch.txt"
    link.symlink_to("sub/file.txt")
    assert server.get("/switch.txt").text == "inside"
    link.unlink()
    link.symlink_to("../outside/secret.txt")
    wait_for(lambda: server.get("/switch.txt").status in (403, 404), "the link is refused")
