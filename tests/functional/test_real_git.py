"""git http-backend: git's own client clones, fetches and pushes through the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Server
from real_programs import Git, add_commit, find_program, make_repository, random_bytes

MIB = 1 << 20
#: One `want` line each: 100 KB of them are more than the smallest `http.postBuffer`, so that git sends chunks.
BRANCHES = 2000
CONFIG = """
cgi: {{environment: {{GIT_PROJECT_ROOT: {repositories}, GIT_HTTP_EXPORT_ALL: ""}}}}
sites:
  - rules:
      - {{match: {{path: /git/*}}, handler: {{cgi: {{program: {program}}}}}}}
      - {{match: {{path: /streamed/*}}, handler: {{cgi: {{program: {program}, stream_bodies: true}}}}}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def git(home: Path) -> Git:
    return Git(home, GIT_TRACE_CURL="1", GIT_TRACE_CURL_NO_DATA="1")


@pytest.fixture(scope="module")
def repositories(home: Path, git: Git) -> Path:
    folder = home / "repositories"
    make_repository(git, folder / "large.git", {f"file-{n}": random_bytes(10 * MIB, n) for n in range(5)})
    make_repository(git, folder / "branches.git", {"file": b"content"}, BRANCHES)
    git("update-server-info", folder=folder / "branches.git")
    for name in ("empty.git", "streamed.git", "closed.git"):
        git("init", "-q", "--bare", "--initial-branch=main", folder / name)
    # Who may push is for the server in front of it to say, unless the repository is open to everybody.
    for name in ("empty.git", "streamed.git"):
        git("config", "http.receivepack", "true", folder=folder / name)
    return folder


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], repositories: Path) -> Server:
    program = find_program("git-http-backend", "git")
    return serve_module({}, config=CONFIG.format(repositories=repositories, program=program))


def url_of(server: Server, name: str) -> str:
    return f"http://127.0.0.1:{server.port}/git/{name}"


def test_clone_of_50_mib(server: Server, git: Git, repositories: Path, tmp_path: Path) -> None:
    """The client hashes every object that it gets."""
    trace = git.traced("clone", "-q", "--bare", url_of(server, "large.git"), tmp_path / "clone")
    assert "=> Send header: Git-Protocol: version=2" in trace
    assert "<= Recv header: Content-Type: application/x-git-upload-pack-result" in trace
    tip = git("rev-parse", "main", folder=tmp_path / "clone")
    assert tip == git("rev-parse", "main", folder=repositories / "large.git")
    count = git("count-objects", "-v", folder=tmp_path / "clone")
    assert "in-pack: 15\n" in count and int(count.split("size-pack: ")[1].split()[0]) > 50 * 1024


@pytest.mark.parametrize("version", ["0", "2"])
@pytest.mark.parametrize(
    ("buffer", "sent"),
    [
        (MIB, "=> Send header: Content-Encoding: gzip"),
        (65536, "=> Send header: Transfer-Encoding: chunked"),
    ],
    ids=["gzip", "chunked"],
)
def test_large_request(server: Server, git: Git, tmp_path: Path, version: str, buffer: int, sent: str) -> None:
    """The server hands a coded body on as it is: http-backend decodes it."""
    options = ("-c", f"protocol.version={version}", "-c", f"http.postBuffer={buffer}")
    trace = git.traced(*options, "clone", "-q", "--mirror", url_of(server, "branches.git"), tmp_path / "clone")
    assert sent in trace
    assert ("=> Send header: Git-Protocol: version=2" in trace) == (version == "2")
    refs = git("for-each-ref", "refs/heads/", folder=tmp_path / "clone").splitlines()
    assert len(refs) == BRANCHES + 1


def test_fetch_of_what_is_new(server: Server, git: Git, repositories: Path, tmp_path: Path) -> None:
    """The client says what it has, until the server knows enough."""
    clone = tmp_path / "clone"
    git("clone", "-q", url_of(server, "branches.git"), clone)
    for number in range(20):
        git("commit", "-q", "--allow-empty", "-m", f"own {number}", folder=clone)
    add_commit(git, repositories / "branches.git", "main", "later", b"added later")
    git("fetch", "-q", "origin", "main", folder=clone)
    assert git("show", "FETCH_HEAD:later", folder=clone) == "added later"


def test_shallow_clone(server: Server, git: Git, tmp_path: Path) -> None:
    git("clone", "-q", "--bare", "--depth=1", url_of(server, "branches.git"), tmp_path / "clone")
    assert git("rev-list", "--count", "main", folder=tmp_path / "clone") == "1"


def test_push(server: Server, git: Git, repositories: Path, tmp_path: Path) -> None:
    """50 MiB in chunks of unknown number, then a few bytes with their length."""
    work = tmp_path / "work"
    git("clone", "-q", repositories / "large.git", work)
    trace = git.traced("push", url_of(server, "empty.git"), "main", folder=work)
    assert "=> Send header: Transfer-Encoding: chunked" in trace
    git("commit", "-q", "--allow-empty", "-m", "small", folder=work)
    trace = git.traced("push", url_of(server, "empty.git"), "main", "main:other", folder=work)
    assert "=> Send header: Transfer-Encoding: chunked" not in trace
    tip = git("rev-parse", "main", folder=work)
    for branch in ("main", "other"):
        assert git("rev-parse", branch, folder=repositories / "empty.git") == tip
    git("fsck", "--connectivity-only", folder=repositories / "empty.git")
    done = git.run("push", url_of(server, "empty.git"), "+main~2:main", folder=work)
    assert done.status == 0, done.errors
    git("config", "receive.denyNonFastForwards", "true", folder=repositories / "empty.git")
    done = git.run("push", url_of(server, "empty.git"), "+main~3:main", folder=work)
    assert done.status != 0 and "denying non-fast-forward" in done.errors


def test_push_that_is_read_while_it_comes(server: Server, git: Git, repositories: Path) -> None:
    """Without a CONTENT_LENGTH http-backend reads to the end."""
    url = url_of(server, "streamed.git").replace("/git/", "/streamed/")
    trace = git.traced("push", url, "main~4:refs/heads/main", folder=repositories / "large.git")
    assert "=> Send header: Transfer-Encoding: chunked" in trace
    tip = git("rev-parse", "main~4", folder=repositories / "large.git")
    assert git("rev-parse", "main", folder=repositories / "streamed.git") == tip
    git("fsck", "--connectivity-only", folder=repositories / "streamed.git")


def test_push_to_a_closed_repository(server: Server, git: Git, repositories: Path) -> None:
    done = git.run("push", url_of(server, "closed.git"), "main", folder=repositories / "branches.git")
    assert done.status != 0
    assert "The requested URL returned error: 403" in done.errors
    server.wait_for_log("Service not enabled: 'receive-pack'")


def test_a_repository_that_is_not_there(server: Server, git: Git) -> None:
    done = git.run("ls-remote", url_of(server, "none.git"))
    assert done.status != 0
    assert "not found" in done.errors
    server.wait_for_log("Not a git repository: '.*none.git'")


def test_dumb_protocol(server: Server, repositories: Path, git: Git, tmp_path: Path) -> None:
    """Old clients read the repository's files; git http-backend hands them out with a length and a date."""
    dumb = Git(tmp_path, GIT_SMART_HTTP="0")
    assert len(dumb("ls-remote", url_of(server, "branches.git")).splitlines()) >= BRANCHES
    (pack,) = (repositories / "branches.git/objects/pack").glob("*.pack")
    response = server.get(f"/git/branches.git/objects/pack/{pack.name}")
    assert response.header("content-type") == "application/x-git-packed-objects"
    assert response.header("content-length") == str(pack.stat().st_size)
    assert response.body == pack.read_bytes()
