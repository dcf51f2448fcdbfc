"""The command `cherokee-app`. What is slow to import is imported by the subcommand that needs it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from appserver import __version__
from appserver.control import commands as control
from appserver.errors import AppError, ConfigError, StartError
from appserver.incidents import commands as incidents

if TYPE_CHECKING:
    from appserver.config.model import Address, Config
    from appserver.config.plan import LoadedConfig

COMMAND = "cherokee-app"
DEFAULT_READY_PATH = "/readyz"
HEALTH_TIMEOUT_S = 5.0
PROCESS_1 = Path("/proc/1/cmdline")

_DESCRIPTION = "A web server for static files, Python handlers and CGI programs, in one command."
_EXAMPLES = """\
examples:
  cherokee-app serve                    serve the current folder on http://localhost:8080
  cherokee-app serve site --dev         serve the folder `site`; changed handlers work at once
  cherokee-app serve --config site.yaml
  cherokee-app check site.yaml          is the configuration valid?

`cherokee-app COMMAND --help` tells more.
"""
_SERVE = """\
Serves a folder. No configuration is needed; what is in the folder decides:

  DIR/www/            files, served as they are (without it: the files of DIR itself)
  DIR/handlers/*.py   Python handlers: hello.py answers http://localhost:8080/hello/
  DIR/cgi-bin/        CGI programs, below http://localhost:8080/cgi-bin/

With --config, a YAML file says it all (see docs/configuration.md). With neither DIR nor --config,
/etc/cherokee-app/config.yaml is read if it exists, else /srv is served if it has such folders, else the
current folder.
"""
_SERVE_EXAMPLES = """\
a first handler, in DIR/handlers/hello.py:
  def handle(request):
      return "Hello"

examples:
  cherokee-app serve                                 the current folder
  cherokee-app serve site --listen 127.0.0.1:0       a free port, which is printed
  cherokee-app serve site --listen 0.0.0.0:80 --listen '[::]:80'
  cherokee-app serve --config /etc/cherokee-app/config.yaml

signals: TERM and INT finish what runs and stop, HUP reads the configuration again (as `cherokee-app reload`
does), USR1 reopens log files
"""
_CHECK = """\
Reads a configuration, looks whether the files and folders that it names are there, and starts nothing.
Prints "FILE: valid" and ends with status 0, or lists every error with its place and ends with status 1.
Without FILE it checks what `cherokee-app serve` would serve.
"""
_HEALTH = """\
Asks a running server whether it is ready; ends with status 0 when it is, else 1. Without URL it asks the first
address of the configuration; inside a container it follows the options that the container's server was started with.
"""
_HEALTH_EXAMPLES = """\
examples:
  cherokee-app health
  cherokee-app health http://127.0.0.1:8080/readyz

in a Dockerfile:
  HEALTHCHECK CMD ["cherokee-app", "health"]
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the result is the exit status: 0 good, 1 a fault that was told, 2 wrong use."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command == "serve":
            return _serve(options)
        if options.command is not None:
            return _answer(options)
    except ConfigError as error:
        print("\n".join(_told(line) for line in error.lines), file=sys.stderr)
        return 1
    except AppError as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 1
    parser.print_help(sys.stderr)
    return 2


def _answer(options: argparse.Namespace) -> int:
    """The commands that print something and end; also when nobody reads it to its end (`| head`)."""
    answers = {
        "check": _check,
        "health": _health,
        "incidents": _incidents,
        "reload": control.reload,
        "status": control.status,
        "version": _version,
    }
    try:
        status = answers[options.command](options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is written at the exit
        return 1
    return status


def _version(_: argparse.Namespace) -> int:
    print(f"{COMMAND} {__version__}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _plain(argparse.ArgumentParser, prog=COMMAND, description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("--version", action="version", version=f"{COMMAND} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    serve = _plain(
        commands.add_parser,
        "serve",
        help="serve a folder, or what a configuration says",
        description=_SERVE,
        epilog=_SERVE_EXAMPLES,
    )
    serve.add_argument("directory", nargs="?", metavar="DIR", type=Path, help="folder to serve")
    _add_config_options(serve)
    serve.add_argument(
        "--threads", metavar="N", help="event loops of the core (default: auto, one for each usable CPU)"
    )
    serve.add_argument(
        "--dev", action="store_true", help="for development: reload what changes, show tracebacks in the browser"
    )
    check = _plain(commands.add_parser, "check", help="say whether a configuration is valid", description=_CHECK)
    check.add_argument("file", nargs="?", metavar="FILE", type=Path, help="YAML file")
    health = _plain(
        commands.add_parser,
        "health",
        help="ask a running server whether it is ready",
        description=_HEALTH,
        epilog=_HEALTH_EXAMPLES,
    )
    health.add_argument("url", nargs="?", metavar="URL", help="http://HOST:PORT, with or without a path")
    _add_config_options(health)
    control.add_parsers(partial(_plain, commands.add_parser))
    incidents.add_parser(partial(_plain, commands.add_parser))
    commands.add_parser("version", help="print the version", description="Prints the version.")
    return parser


def _plain(make: object, *names: str, **about: object) -> argparse.ArgumentParser:
    """A parser whose texts are printed as they are written; made by `make`."""
    assert callable(make)
    parser = make(*names, formatter_class=argparse.RawDescriptionHelpFormatter, **about)
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def _add_config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", type=Path, help="YAML configuration")
    parser.add_argument(
        "--listen",
        metavar="ADDR",
        action="append",
        help="HOST:PORT, may be given several times (default: 0.0.0.0:8080, or what the configuration says)",
    )


def _serve(options: argparse.Namespace) -> int:
    from appserver.config.source import open_source, parse_overrides

    overrides = parse_overrides(options.listen, options.threads, options.dev)
    source = open_source(options.config, options.directory, overrides)
    source.load()  # a fault is told before anything is started
    from appserver.supervisor import run

    return int(run(source))


def _check(options: argparse.Namespace) -> int:
    from appserver.config.source import Overrides, default_file, load_config

    file: Path | None = options.file or default_file()
    loaded = load_config(file, None, Overrides())
    for warning in (*loaded.warnings, *_objections(loaded)):
        print(f"{loaded.name}: warning: {warning}", file=sys.stderr)
    print(
        f"{loaded.name}: valid" if file else f"{loaded.name}: valid (a folder served by convention, no configuration)"
    )
    return 0


def _objections(loaded: LoadedConfig) -> Iterator[str]:
    """What depends on who starts the server, who may be another than who asks."""
    from appserver.supervisor.identity import check_program_identities, find_identity

    try:
        check_program_identities(loaded.pools, find_identity(loaded.user, loaded.group))
    except StartError as error:
        yield f"started by this user (uid {os.geteuid()}), the server ends at once: {error}"


def _incidents(options: argparse.Namespace) -> int:
    if options.action != "replay":
        return incidents.run(options)
    from appserver.supervisor.replay import replay

    return replay(options)


def _told(line: str) -> str:
    """A line about a folder or an option has no file at its front; it gets the command's name as other programs' do."""
    return f"{COMMAND}: {line}" if line.startswith(("'", "--")) else line


# health


def _health(options: argparse.Namespace) -> int:
    """Any HTTP answer will do when the configuration has no health paths; else the readiness path must answer 200."""
    from http.client import HTTPException

    host, port, path = _health_target(options)
    try:
        status = _get_status(host, port, path or "/")
    except (OSError, HTTPException) as error:
        print(f"{COMMAND}: no answer from {host} port {port}: {_reason(error)}", file=sys.stderr)
        return 1
    healthy = path is None or 200 <= status < 300
    print(f"http {status}", file=sys.stdout if healthy else sys.stderr)
    return 0 if healthy else 1


def _health_target(options: argparse.Namespace) -> tuple[str, int, str | None]:
    """Host, port and path to ask; path None when there is no readiness path. Raises AppError."""
    if options.url:
        return _split_url(options.url)
    config = _health_config(options)
    address = config.listen[0]
    if address.port == 0:
        raise AppError(
            f"'{address.text}' picks a free port, which is not known here; give the URL: {COMMAND} health URL"
        )
    return _own_host(address), address.port, config.health.ready if config.health else None


def _split_url(url: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if host is None or parts.scheme != "http":
        raise AppError(f"'{url}' is no URL to ask; expected http://HOST:PORT or http://HOST:PORT/path")
    return host, port, parts.path or DEFAULT_READY_PATH


def _health_config(options: argparse.Namespace) -> Config:
    """The addresses and health paths that the server has: from the options, or those of the container's server."""
    from dataclasses import replace

    from appserver.config.model import Config
    from appserver.config.source import default_file, parse_overrides

    if options.config is None and options.listen is None:
        options = _container_options() or options
    file = options.config
    if file is None and getattr(options, "directory", None) is None:
        file = default_file()
    config = Config()
    if file is not None:
        from appserver.config.load import peek

        config = peek(file)
    overrides = parse_overrides(options.listen, None, False)
    return replace(config, listen=overrides.listen or config.listen)


def _container_options() -> argparse.Namespace | None:
    """How process 1 was started, when it is `cherokee-app serve` as in the image; None when it is something else."""
    try:
        words = PROCESS_1.read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
    except OSError:
        return None
    if "serve" not in words:
        return None
    before, after = words[: words.index("serve")], words[words.index("serve") :]
    ours = any(Path(word).name == COMMAND for word in before) or before[-2:] == ["-m", "appserver"]
    if not ours:
        return None
    with contextlib.suppress(SystemExit):
        return _parser().parse_args(after)
    return None


def _own_host(address: Address) -> str:
    """Where this machine reaches a server that listens on `address`.

    "::" takes both families, and a container often has no IPv6: of "localhost" every address is tried.
    """
    return {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(address.host, address.host)


def _get_status(host: str, port: int, path: str) -> int:
    from http.client import HTTPConnection

    connection = HTTPConnection(host, port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request(
            "GET", path, headers={"User-Agent": f"{COMMAND}-health/{__version__}", "Connection": "close"}
        )
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
