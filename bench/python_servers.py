"""The peers that run Python applications, each with as many processes and threads as the setup says."""

from __future__ import annotations

from pathlib import Path

from setups import BUILT, HERE, PYTHON_APPS, Command, Make, Setup

APPS = HERE / "apps"
BIN = BUILT / "venv" / "bin"
ADDRESS = "127.0.0.1"


def _application(setup: Setup) -> str:
    return f"{PYTHON_APPS[setup.kind]}:application"


def _command(argv: list[str]) -> Command:
    return Command(argv, {"PYTHONPATH": str(APPS)})


def _granian(setup: Setup, _folder: Path, port: int) -> Command:
    interface = "asgi" if setup.kind == "asgi" else "wsgi"
    argv = [str(BIN / "granian"), "--interface", interface, "--host", ADDRESS, "--port", str(port), "--no-ws"]
    argv += ["--workers", str(setup.loops), "--runtime-threads", "1", "--http", "1", "--backlog", "4096"]
    if interface == "wsgi":
        argv += ["--blocking-threads", str(setup.threads)]
    else:
        argv += ["--loop", "uvloop"]
    return _command([*argv, "--no-access-log", "--log-level", "warning", _application(setup)])


def _bjoern(setup: Setup, _folder: Path, port: int) -> Command:
    program = [str(BIN / "python"), str(APPS / "run_bjoern.py")]
    return _command([*program, str(port), PYTHON_APPS[setup.kind], str(setup.loops)])


def _gunicorn(setup: Setup, _folder: Path, port: int) -> Command:
    argv = [str(BIN / "gunicorn"), "--bind", f"{ADDRESS}:{port}", "--workers", str(setup.loops), "--keep-alive", "3600"]
    argv += ["--worker-class", "gthread", "--threads", str(setup.threads), "--backlog", "4096"]
    return _command([*argv, "--log-level", "warning", _application(setup)])


def _uvicorn(setup: Setup, _folder: Path, port: int) -> Command:
    argv = [str(BIN / "uvicorn"), "--host", ADDRESS, "--port", str(port), "--workers", str(setup.loops)]
    argv += ["--http", "httptools", "--loop", "uvloop", "--ws", "none", "--lifespan", "off", "--no-access-log"]
    argv += ["--timeout-keep-alive", "3600", "--backlog", "4096", "--log-level", "warning"]
    return _command([*argv, _application(setup)])


def _uwsgi(setup: Setup, folder: Path, port: int) -> Command:
    argv = [str(BIN / "uwsgi"), "--http11-socket", f"{ADDRESS}:{port}", "--master", "--processes", str(setup.loops)]
    argv += ["--threads", str(setup.threads), "--module", _application(setup), "--disable-logging", "--need-app"]
    argv += ["--listen", "1024"]
    return _command([*argv, "--virtualenv", str(BIN.parent), "--die-on-term", "--pidfile", str(folder / "pid")])


def version_command(package: str) -> list[str]:
    """A command line that prints its version. One of them is a module without a command of its own."""
    return [str(BIN / "python"), "-c", f"from importlib.metadata import version; print(version({package!r}))"]


def python_peers() -> list[tuple[str, Path, Make]]:
    """Name, program and maker of each."""
    return [
        ("granian", BIN / "granian", _granian),
        ("bjoern", BIN / "python", _bjoern),
        ("gunicorn", BIN / "gunicorn", _gunicorn),
        ("uvicorn", BIN / "uvicorn", _uvicorn),
        ("uwsgi", BIN / "uwsgi", _uwsgi),
    ]
