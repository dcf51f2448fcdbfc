"""The examples in deploy/examples: images on top of this one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from containers import TOP, Container, unique_name
from real_programs import Git, make_repository

FILES = {"README": b"A line\n", "src/main.c": b"int main(void) { return 0; }\n"}


@pytest.fixture(scope="module")
def gitweb(engine: docker.DockerClient, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Built by the README's commands, on repositories that are not its user's."""
    folder = tmp_path_factory.mktemp("git")
    make_repository(Git(folder), folder / "repositories/garden.git", FILES)
    tag = unique_name()
    with contextlib.ExitStack() as stack:
        path = str(TOP / "deploy/examples/gitweb")
        try:
            engine.images.build(path=path, tag=tag, rm=True, forcerm=True, buildargs={"BASE": image})
        except docker.errors.BuildError as error:
            pytest.fail("".join(line.get("stream") or line.get("error") or "" for line in error.build_log))
        stack.callback(engine.images.remove, tag)
        mount = {str(folder / "repositories"): {"bind": "/var/lib/git", "mode": "ro"}}
        inner = engine.containers.create(tag, volumes=mount, ports={"80/tcp": ("127.0.0.1", None)})
        stack.callback(inner.remove, force=True, v=True)
        inner.start()
        yield Container(inner, 80).wait_until_ready()


def test_gitweb_shows_a_repository(gitweb: Container) -> None:
    page = gitweb.get("/")
    assert page.status == 200 and "garden.git" in page.text
    linked = set(re.findall(r'(?:href|src)="(static/[^"]+)"', page.text))
    assert len(linked) >= 3
    for name in linked:
        assert gitweb.get(f"/{name}").status == 200, name
    (tree,) = set(re.findall(r'href="(\?p=garden\.git;a=tree)"', page.text))
    assert "README" in gitweb.get(f"/{tree}").text
    assert gitweb.get("/?p=garden.git;a=blob_plain;f=src/main.c;hb=HEAD").body == FILES["src/main.c"]
    snapshot = gitweb.get("/?p=garden.git;a=snapshot;h=HEAD;sf=tgz")
    assert snapshot.status == 200 and snapshot.body.startswith(b"\x1f\x8b")


def test_gitweb_lets_it_be_cloned(gitweb: Container, tmp_path: Path) -> None:
    git = Git(tmp_path)
    git("clone", "-q", f"http://127.0.0.1:{gitweb.port}/git/garden.git", tmp_path / "clone")
    assert {name: (tmp_path / "clone" / name).read_bytes() for name in FILES} == FILES


def test_gitweb_has_no_complaints(gitweb: Container) -> None:
    gitweb.run("cherokee-app", "check")
    assert not [record for record in gitweb.records() if record["level"] in ("warning", "error")]
