"""The wheel and the source archive: built from what is committed, used where the source tree is not."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from harness import Connection

from appserver import __version__

TOP = Path(__file__).resolve().parents[2]
NAME = f"cherokee_app-{__version__}"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
#: Without the network: what builds and what is needed is in the environment that runs the tests.
OFFLINE = ["--no-build-isolation", "--no-deps", "--no-index"]


def call(*words: str | Path, where: Path, **environment: str) -> str:
    """The output of a program that must succeed, with nothing of the source tree on Python's path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CHEROKEE"))}
    result = subprocess.run(
        [str(word) for word in words], cwd=where, env={**clean, **environment}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, so that nothing built or forgotten helps."""
    folder = tmp_path_factory.mktemp("source")
    if not (TOP / ".git").exists():
        pytest.skip("this is no git working tree, so what belongs to the source is not known")
    names = call("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", where=TOP).split("\0")
    for name in filter(None, names):
        if (TOP / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((TOP / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    build = "import setuptools.build_meta as build, sys; print(build.build_sdist(sys.argv[1]))"
    call(sys.executable, "-c", build, tree / "dist", where=tree)
    return tree / "dist" / f"{NAME}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """From the source archive, so that it is shown to be complete; unoptimised, because it is the compiler's time."""
    folder = sdist.parent / "wheels"
    call(*PIP, "wheel", *OFFLINE, "-w", folder, sdist, where=sdist.parent, CFLAGS="-O0 -U_FORTIFY_SOURCE -Wno-cpp")
    (found,) = folder.iterdir()
    return found


def test_the_source_archive_has_what_a_build_needs_and_nothing_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "README.md", "Makefile", "Dockerfile"} <= names
    assert {"appserver/core/server.c", "appserver/core/api.h", "deploy/www/index.html", "handlers/hello.py"} <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc", "_core.c"))]


def test_the_wheel_is_for_the_stable_abi_and_has_no_c(wheel: Path) -> None:
    assert wheel.name.startswith(f"{NAME}-cp311-abi3-linux_")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith((".c", ".h", ".o"))]
    assert [name for name in names if name.endswith(".so")] == ["appserver/native/_core.abi3.so"]
    assert {name.split("/")[0] for name in names} == {"appserver", f"{NAME}.dist-info"}


def test_the_wheel_serves_from_a_virtual_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", venv, where=tmp_path)
    site = next(venv.glob("lib/python3*/site-packages"))
    call(*PIP, "--python", venv / "bin/python", "install", "--no-deps", "--no-index", wheel, where=tmp_path)
    # Its three dependencies, from the environment of the tests.
    outside = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(outside) + "\n")
    assert call(venv / "bin/cherokee-app", "version", where=tmp_path) == f"cherokee-app {__version__}\n"
    where = "import appserver.native._core as core; print(core.__file__)"
    assert call(venv / "bin/python", "-c", where, where=tmp_path).startswith(str(venv))
    (tmp_path / "site/handlers").mkdir(parents=True)
    (tmp_path / "site/handlers/hello.py").write_text("def handle(request):\n    return 'from the wheel'\n")
    serve_and_ask(venv / "bin/cherokee-app", tmp_path / "site")


def serve_and_ask(command: Path, site: Path) -> None:
    arguments = [command, "serve", site, "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(arguments, cwd=site, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        said = next((line for line in process.stdout if "listening on" in line), "")
        with Connection(int(said.rpartition(":")[2])) as connection:
            response = connection.send("GET /hello/ HTTP/1.0\r\n\r\n").response()
        assert response.text == "from the wheel"
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
