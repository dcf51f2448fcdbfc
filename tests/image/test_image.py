"""What the image is: its labels and metadata, what is in it and what is not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import docker
import pytest
from containers import TOP, Run, unique_name

from appserver import __version__

LABELS = "org.opencontainers.image."
STANDARD_LIBRARY = """
import asyncio, bz2, ctypes, curses, dbm, decimal, email.message, hashlib, http.client, json, lzma, multiprocessing
import readline, sqlite3, ssl, sysconfig, tempfile, unittest, urllib.request, uuid, wsgiref.validate, zlib, zoneinfo
import xml.etree.ElementTree
zoneinfo.ZoneInfo("Europe/Madrid")
ssl.create_default_context()
assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
hashlib.scrypt(b"a", salt=b"b", n=2, r=1, p=1)
print("all there")
"""


def test_what_it_says_of_itself(engine: docker.DockerClient, image: str) -> None:
    config = engine.images.get(image).attrs["Config"]
    assert config["Labels"][f"{LABELS}title"] == "cherokee-app"
    assert config["Labels"][f"{LABELS}description"]
    assert config["Labels"][f"{LABELS}version"] == __version__
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["ExposedPorts"]) == ["80/tcp"]
    assert config["Healthcheck"]["Test"] == ["CMD", "cherokee-app", "health"]
    # A number, because an orchestrator that refuses root cannot look a name up.
    uid, gid = config["User"].split(":")
    assert int(uid) > 0 and int(gid) > 0
    assert not config.get("Volumes")


def test_another_version_than_the_package_has_is_refused(
    engine: docker.DockerClient, image: str, context: Path
) -> None:
    arguments = {"VERSION": "0.0.999"}
    with pytest.raises(docker.errors.BuildError) as caught:
        engine.images.build(path=str(context), target="builder", rm=True, forcerm=True, buildargs=arguments)
    log = "".join(line.get("stream", "") for line in caught.value.build_log)
    assert f"VERSION is 0.0.999, but the package says {__version__}" in log


def test_it_has_no_compiler_and_no_sources_of_the_core(run: Run) -> None:
    container = run().wait_until_ready()
    assert container.run("sh", "-c", "command -v gcc cc ld make pip curl; true") == ""
    assert container.run("find", "/opt", "/usr/local", "-name", "*.[cho]") == ""
    assert container.run("sh", "-c", "ls /srv") == ""


def test_the_standard_library_is_whole(run: Run) -> None:
    assert run().run("python3", "-c", STANDARD_LIBRARY) == "all there\n"


def test_nothing_is_left_of_the_packages_installation(run: Run) -> None:
    container = run()
    lists = container.run("sh", "-c", "ls /var/lib/apt/lists /var/cache/apt/archives | grep -c deb; true")
    assert lists.strip() == "0"


def test_the_demo_is_served_when_nothing_is_mounted(run: Run) -> None:
    container = run().wait_until_ready()
    page = container.get("/")
    assert page.header("Content-Type") == "text/html; charset=utf-8"
    asked = re.findall(r'data-path="([^"]+)"', page.text)
    assert len(asked) >= 6
    linked = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    for target in [*asked, *linked, "/favicon.ico"]:
        response = container.get("/" + target.removeprefix("/"))
        assert response.status == 200, f"{target}: {response.text}"
    form = container.get("/cgi-bin/form.py", "POST", b"color=cherry+red")
    assert "'color' = 'cherry red'" in form.text


def test_it_is_built_by_buildkit_too(engine: docker.DockerClient) -> None:
    if not shutil.which("docker"):
        pytest.skip("BuildKit is driven by the docker command, which is not here")
    if subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode:
        pytest.skip("the docker command here has no buildx plugin, so no BuildKit")
    tag = unique_name()
    built = subprocess.run(
        ["docker", "build", "-q", "-t", tag, "--build-arg", f"VERSION={__version__}", str(TOP)],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    try:
        assert engine.containers.run(tag, ["version"], remove=True).decode() == f"cherokee-app {__version__}\n"
    finally:
        engine.images.remove(tag)
