"""The servers that are measured: each with a configuration and a folder of its own, on a free loopback port."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cgi_scripts import write_scripts
from load import MANY, BenchError, Wanted, write_list
from measure import tree_of
from mix import make_mix
from python_scenarios import write_lists
from python_servers import python_peers, version_command
from setups import BUILT, FILE_SIZES, HERE, NULL, OURS, PYTHON_APPS, TOP, Command, Make, Setup

START_S = 20.0
STOP_S = 20.0
WARM_UP = 40  #: requests to CGI scripts before they are measured


@dataclass(frozen=True)
class Peer:
    """A kind of server: a program and how to start it."""

    name: str
    program: str  #: on the PATH, or a path
    make: Make
    version: list[str] = field(default_factory=list)  #: command line that prints it

    @property
    def missing(self) -> str | None:
        """Why it cannot be measured, if so."""
        return None if shutil.which(self.program) else f"there is no program {self.program}"

    def version_text(self) -> str:
        """What the program says of itself."""
        if not self.version:
            return ""
        done = subprocess.run(self.version, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        found = re.search(r"\d+\.\d+(\.\d+)?\S*", done.stdout)
        return found[0].rstrip(",") if found else ""


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _ours(setup: Setup, folder: Path, port: int) -> Command:
    site: dict[str, Any] = {"name": "bench", "root": str(setup.root)}
    config: dict[str, Any] = {
        "listen": f"127.0.0.1:{port}",
        "threads": setup.loops,
        "log": {"level": "warning", "access": "off"},
        "limits": {"connections": 100_000, "idle_timeout": "1h"},
        "sites": [site],
    }
    if setup.access_log:
        config["log"] = {"level": "warning", "access": "json", "access_file": "access.log"}
    if setup.kind in PYTHON_APPS:
        config["pools"] = {
            "app": {
                "python": f"{PYTHON_APPS[setup.kind]}:application",
                "directory": str(HERE / "apps"),
                "interpreter": str(BUILT / "venv/bin/python"),
                "processes": setup.loops,
                "threads": setup.threads,
                **setup.pool,
            }
        }
        site["rules"] = [{"match": {"path": "/*"}, "handler": {"python": "app"}}]
    elif setup.kind in ("cgi", "cgi-cold"):
        config["cgi"] = {"user": str(os.geteuid()), "warm": "off" if setup.kind == "cgi-cold" else "auto"}
        site["rules"] = [{"match": {"path": "/cgi-bin/*"}, "handler": {"cgi": str(setup.root / "cgi-bin")}}]
    path = _write(folder, "config.yaml", yaml.safe_dump({**config, **setup.config}, sort_keys=False))
    return Command([str(TOP / ".venv/bin/cherokee-app"), "serve", "--config", str(path)])


def _null(setup: Setup, _folder: Path, port: int) -> Command:
    return Command([str(BUILT / "null_server"), str(port), str(setup.body), "keep" if setup.keep_alive else "close"])


def _nginx(sendfile: bool) -> Make:
    def make(setup: Setup, folder: Path, port: int) -> Command:
        log = f"{folder}/access.log combined" if setup.access_log else "off"
        config = _write(
            folder,
            "nginx.conf",
            f"""daemon off; pid {folder}/nginx.pid; error_log stderr; user {_user()} {_group()};
worker_processes {setup.loops};
events {{ worker_connections 32768; use epoll; multi_accept off; }}
http {{
  access_log {log}; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  sendfile {"on" if sendfile else "off"}; tcp_nopush {"on" if sendfile else "off"}; tcp_nodelay on; server_tokens off;
  keepalive_timeout 1h; keepalive_requests 1000000000; reset_timedout_connection on;
  open_file_cache max=1000 inactive=1h; open_file_cache_valid 60s; output_buffers 2 64k;
  default_type application/octet-stream;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {setup.root}; }}
}}
""",
        )
        return Command(["nginx", "-p", str(folder), "-c", str(config)])

    return make


def _lighttpd(setup: Setup, folder: Path, port: int) -> Command:
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    modules, extra = ['"mod_access"'], ""
    if setup.access_log:
        modules.append('"mod_accesslog"')
        extra += f'accesslog.filename = "{folder}/access.log"\n'
    if setup.kind in ("cgi", "cgi-cold"):
        modules.append('"mod_cgi"')
        extra += '$HTTP["url"] =~ "^/cgi-bin/" { cgi.assign = ( "" => "" ) }\n'
    config = _write(
        folder,
        "lighttpd.conf",
        f"""server.modules = ( {", ".join(modules)} )
server.document-root = "{setup.root}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{folder}/error.log"
server.event-handler = "linux-sysepoll"
server.network-backend = "sendfile"
server.max-fds = {descriptors}
server.max-connections = {descriptors // 2 - 1}
server.max-keep-alive-requests = 65535
server.max-keep-alive-idle = 3600
server.listen-backlog = 4096
mimetype.assign = ( "" => "application/octet-stream" )
{extra}""",
    )
    return Command(["lighttpd", "-D", "-f", str(config)])


def _apache(setup: Setup, folder: Path, port: int) -> Command:
    modules = "/usr/lib/apache2/modules"
    log = (
        f'LogFormat "%h %l %u %t \\"%r\\" %>s %b" common\nCustomLog {folder}/access.log common\n'
        if setup.access_log
        else ""
    )
    config = _write(
        folder,
        "apache.conf",
        f"""ServerRoot {folder}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
ListenBacklog 4096
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
User {_user()}
Group {_group()}
StartServers 1
ServerLimit 1
ThreadLimit 64
ThreadsPerChild 64
MaxRequestWorkers 64
AsyncRequestWorkerFactor 512
KeepAlive On
KeepAliveTimeout 3600
MaxKeepAliveRequests 0
EnableSendfile On
EnableMMAP On
DocumentRoot {setup.root}
<Directory {setup.root}>
AllowOverride None
Require all granted
</Directory>
{log}""",
    )
    return Command(["apache2", "-DFOREGROUND", "-f", str(config)])


def _h2o(setup: Setup, folder: Path, port: int) -> Command:
    log = f"access-log: {folder}/access.log\n" if setup.access_log else ""
    config = _write(
        folder,
        "h2o.conf",
        f"""user: {_user()}
num-threads: {setup.loops}
max-connections: 32768
http1-request-timeout: 3600
error-log: {folder}/error.log
{log}listen: {{host: 127.0.0.1, port: {port}}}
hosts:
  default:
    paths:
      /: {{file.dir: {setup.root}}}
""",
    )
    return Command(["h2o", "-m", "worker", "-c", str(config)])


def _caddy(setup: Setup, folder: Path, port: int) -> Command:
    log = f"log {{\n output file {folder}/access.log\n }}" if setup.access_log else ""
    config = _write(
        folder,
        "Caddyfile",
        f"""{{
  admin off
  auto_https off
  servers {{
    timeouts {{
      idle 1h
    }}
  }}
}}
http://127.0.0.1:{port} {{
  {log}
  root * {setup.root}
  file_server
}}
""",
    )
    environment = {"GOMAXPROCS": str(setup.loops), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return Command(["caddy", "run", "--adapter", "caddyfile", "--config", str(config)], environment)


def _cherokee(program: str) -> Make:
    def make(setup: Setup, folder: Path, port: int) -> Command:
        config = _write(
            folder,
            "cherokee.conf",
            f"""server!bind!1!port = {port}
server!bind!1!interface = 127.0.0.1
server!keepalive = 1
server!keepalive_max_requests = 1000000000
server!thread_number = {setup.loops}
server!fdlimit = 65536
server!pid_file = {folder}/cherokee.pid
vserver!1!nick = default
vserver!1!document_root = {setup.root}
vserver!1!rule!1!match = default
vserver!1!rule!1!handler = file
vserver!1!rule!1!handler!iocache = 1
""",
        )
        return Command([program, "-C", str(config)])

    return make


def _lwan(program: str) -> Make:
    def make(setup: Setup, folder: Path, port: int) -> Command:
        config = _write(
            folder,
            "lwan.conf",
            f"threads = {setup.loops}\nkeep_alive_timeout = 65\nquiet = true\n"
            f"listener 127.0.0.1:{port} {{\n  serve_files / {{\n    path = {setup.root}\n  }}\n}}\n",
        )
        return Command([program, "-c", str(config)])

    return make


def _user() -> str:
    """Who the peers' workers run as when they are started by root."""
    return "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def _group() -> str:
    return grp.getgrgid(pwd.getpwnam(_user()).pw_gid).gr_name


def all_peers(binaries: dict[str, str]) -> dict[str, Peer]:
    """Every server by name. `binaries` has the paths of those that Debian has no package of."""
    python = str(TOP / ".venv/bin/python")
    our_version = [python, "-c", "import appserver; print(appserver.__version__)"]
    peers = [
        Peer(OURS, str(TOP / ".venv/bin/cherokee-app"), _ours, our_version),
        Peer(NULL, str(BUILT / "null_server"), _null),
        Peer("nginx", "nginx", _nginx(sendfile=True), ["nginx", "-v"]),
        Peer("nginx, sendfile off", "nginx", _nginx(sendfile=False), ["nginx", "-v"]),
        Peer("lighttpd", "lighttpd", _lighttpd, ["lighttpd", "-v"]),
        Peer("h2o", "h2o", _h2o, ["h2o", "--version"]),
        Peer("apache", "apache2", _apache, ["apache2", "-v"]),
        Peer("caddy", "caddy", _caddy, ["caddy", "version"]),
        *(Peer(name, str(program), make, version_command(name)) for name, program, make in python_peers()),
    ]
    if path := binaries.get("cherokee"):
        peers.append(Peer("cherokee", path, _cherokee(path), [path, "-V"]))
    if path := binaries.get("lwan"):
        peers.append(Peer("lwan", path, _lwan(path)))
    return {peer.name: peer for peer in peers}


@dataclass
class Running:
    """A server that has been started."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def pid(self) -> int:
        """The root of its tree of processes."""
        return self.process.pid


def free_port() -> int:
    """A loopback port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return client.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _output_of(folder: Path) -> str:
    texts = [
        path.read_text(errors="replace").strip() for path in (folder / "output", folder / "error.log") if path.exists()
    ]
    return "\n".join(text for text in texts if text)[-2000:]


def _stop(running: Running) -> None:
    """Asks the root to stop and waits; what is left of its own session after that is killed."""
    family = tree_of(running.pid)
    with contextlib.suppress(ProcessLookupError):
        running.process.send_signal(signal.SIGTERM)
    try:
        running.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()
    for pid in family[1:]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == running.pid:
                os.kill(pid, signal.SIGKILL)


@contextmanager
def serving(peer: Peer, setup: Setup, path: str, cpus: str) -> Iterator[Running]:
    """The server, ready to answer `path`, on the CPUs named; stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    folder.chmod(0o755)
    port = free_port()
    command = peer.make(setup, folder, port)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", cpus, *command.argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, **command.environment},
            start_new_session=True,
        )
    running = Running(process, port, folder)
    try:
        end = time.monotonic() + START_S
        while not _answers(port, path):
            if process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"{peer.name} does not answer {path}:\n{_output_of(folder)}")
            time.sleep(0.02)
        if setup.kind == "cgi":  # what is measured is not how soon interpreters are warm
            for _ in range(WARM_UP):
                _answers(port, path)
                time.sleep(0.05)
        yield running
    finally:
        _stop(running)
        shutil.rmtree(folder, ignore_errors=True)


def prepare(root: Path) -> None:
    """Compiles the programs that are measured against or with, and makes the files that are served."""
    BUILT.mkdir(parents=True, exist_ok=True)
    (root / "cgi-bin").mkdir(parents=True)
    root.chmod(0o755)
    _compile("null_server.c", BUILT / "null_server")
    _compile("many.c", MANY)
    _compile("cgi_hello.c", root / "cgi-bin" / "dynamic")
    _compile("cgi_hello.c", root / "cgi-bin" / "static", "-static")
    write_scripts(root / "cgi-bin", BUILT / "venv/bin/python")
    for name, size in FILE_SIZES.items():
        (root / name).write_bytes(os.urandom(size))
        write_list(root, name, [Wanted(0, 1.0, size, f"/{name}")])
    make_mix(root)
    write_lists(root)


def _compile(source: str, target: Path, *flags: str) -> None:
    subprocess.run(["gcc", "-O2", "-Wall", "-D_GNU_SOURCE", *flags, "-o", str(target), str(HERE / source)], check=True)
