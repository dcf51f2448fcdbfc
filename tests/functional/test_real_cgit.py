"""cgit, which is C: its pages, and its static files by a rule beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Response, Server
from real_programs import Git, files_of_tar, find_program, make_repository

PROGRAM = "/usr/lib/cgit/cgit.cgi"
CONFIG = """
cgi: {{environment: {{CGIT_CONFIG: {settings}}}}}
sites:
  - rules:
      - {{match: {{path: /cgit-css/*}}, handler: {{file: {{alias: /usr/share/cgit}}}}}}
      - {{match: {{path: /cgit/*}}, handler: {{cgi: {{program: /usr/lib/cgit/cgit.cgi}}}}}}
"""
SETTINGS = """
css=/cgit-css/cgit.css
logo=/cgit-css/cgit.png
virtual-root=/cgit
cache-root={folder}/cache
cache-size=100
cache-static-ttl=-1
snapshots=tar.gz
enable-http-clone=1
scan-path={folder}/projects
"""
FILES = {"README": b"A line\n", "src/main.c": b"int main(void) { return 0; }\n", "image.bin": bytes(range(256)) * 64}


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    find_program(PROGRAM, "cgit")
    folder = tmp_path_factory.mktemp("cgit")
    git = Git(folder)
    make_repository(git, folder / "projects/garden.git", FILES)
    git("update-server-info", folder=folder / "projects/garden.git")
    (folder / "cgitrc").write_text(SETTINGS.format(folder=folder))
    return serve_module({}, config=CONFIG.format(settings=folder / "cgitrc"))


def page(server: Server, target: str) -> Response:
    response = server.get(f"/cgit{target}")
    assert response.status == 200, response.text
    return response


def test_pages(server: Server) -> None:
    assert "garden.git" in page(server, "/").text
    assert "Add src/main.c" in page(server, "/garden.git/log/").text
    tree = page(server, "/garden.git/tree/src").text
    (link,) = set(re.findall(r"href='([^']+/tree/src/main\.c)'", tree))
    assert "return 0;" in server.get(link).text
    plain = page(server, "/garden.git/plain/image.bin")
    assert (plain.body, plain.header("content-type")) == (FILES["image.bin"], "application/octet-stream")


def test_pages_from_its_cache(server: Server) -> None:
    """cgit answers from a file that it has locked and renamed: the second answer is the first one again."""
    first, second = (page(server, "/garden.git/commit/") for _ in range(2))
    assert first.body == second.body


def test_query_instead_of_a_path(server: Server) -> None:
    assert "Add src/main.c" in page(server, "?url=garden.git/log/&qt=grep&q=main").text
    response = server.get("/cgit/none.git/")
    assert (response.status, "No repositories found" in response.text) == (404, True)


def test_snapshot(server: Server) -> None:
    response = page(server, "/garden.git/snapshot/garden-main.tar.gz")
    assert response.header("content-disposition") == 'inline; filename="garden-main.tar.gz"'
    assert files_of_tar(response.body) == FILES


def test_head(server: Server) -> None:
    head = server.get("/cgit/garden.git/plain/README", method="HEAD")
    assert (head.status, head.body, head.header("content-type")) == (200, b"", "text/plain; charset=UTF-8")


def test_clone(server: Server, tmp_path: Path) -> None:
    """cgit speaks the dumb protocol itself."""
    git = Git(tmp_path)
    url = f"http://127.0.0.1:{server.port}/cgit/garden.git"
    git("clone", "-q", url, tmp_path / "clone")
    assert (tmp_path / "clone/image.bin").read_bytes() == FILES["image.bin"]


def test_static_files(server: Server) -> None:
    names = set(re.findall(r"(?:href|src)='(/cgit-css/[^']+)'", page(server, "/").text))
    assert {Path(name).name for name in names} == {"cgit.css", "cgit.png"}
    for name in names:
        response = server.get(name)
        assert (response.status, response.body) == (200, Path("/usr/share/cgit", Path(name).name).read_bytes())
