"""What runs for a configuration: the plan for the core (JSON), and what the supervisor starts and binds.

`build()` is pure apart from reading the folders of handler scripts, the CPUs and the environment that CGI programs get.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from appserver import __version__
from appserver.config.cgi_model import CGI_POOL, Cgi, CgiFolder
from appserver.config.conventions import list_scripts, url_path
from appserver.config.cpus import usable_cpus
from appserver.config.media_types import read_types
from appserver.config.model import MAX_THREADS, SCRIPT_POOL, Config, Files, Log, Match, Rule, Site
from appserver.config.pool_model import Pool
from appserver.config.selfcheck import environment_of

Plan = dict[str, Any]

MIN_SLOTS_PER_LOOP = 64
SERVER_SOFTWARE = f"cherokee-app/{__version__}"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What runs programs that say nothing of it themselves (no `#!` line), by their extension.
USUAL_INTERPRETERS = {
    ".php": "php-cgi",
    ".pl": "perl",
    ".py": "python3",
    ".rb": "ruby",
    ".lua": "lua",
    ".tcl": "tclsh",
    ".sh": "sh",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket to bind. `host` is without brackets and may be a name; port 0 picks a free one, then `listener_url()`
    makes the real URL.
    """

    id: str
    host: str
    port: int
    url: str


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """The executors' side of one pool: what the supervisor starts. The order of `LoadedConfig.pools` is that of the
    plan's pools.
    """

    name: str
    kind: str  #: "python" or "cgi"
    slots: int  #: of the slot segment, a multiple of the loops
    queue_limit: int
    queue_time_ms: int
    request_time_ms: int
    idle_time_ms: int
    stop_time_ms: int  #: from "stop" to SIGKILL
    retry: str = "idempotent"  #: never, idempotent or always
    quarantine_ms: int = 0
    processes: int = 1  #: at least
    processes_max: int = 0  #: at most; 0: `processes`
    spare_time_ms: int = 0  #: how long one process less must have been enough before one goes
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    """python: added to what the supervisor passes on. cgi: all that programs get besides the request's own variables,
    PATH included.
    """
    interpreter: str = ""  #: python: absolute path
    application: str | None = None  #: python: "module:attribute"
    interface: str = "auto"  #: python: what that is: wsgi, asgi, or auto
    concurrency: int = 100  #: python: requests that a process with an event loop holds at once
    websocket: Mapping[str, Any] = field(default_factory=dict)  #: python: ping_interval_ms and so on, for the worker
    directory: str = "/"  #: python: working directory and first place for imports
    scripts: tuple[str, ...] = ()  #: python: absolute paths of handler scripts to load before the first request
    script_folders: tuple[str, ...] = ()  #: python: those below which scripts have URLs
    dev: bool = False
    interrupt_time_ms: int = 5000  #: python: from the interrupt of a request to the replacement of its worker
    interpreters: Mapping[str, str] = field(default_factory=dict)  #: cgi: ".ext" to the interpreter's absolute path
    usual_interpreters: Mapping[str, str] = field(default_factory=dict)
    """cgi: likewise, for programs that the system cannot execute."""
    programs: int = 0  #: cgi: running at once
    kill_grace_ms: int = 0  #: cgi: from SIGTERM to SIGKILL
    warm: str = "off"  #: cgi: whether interpreters are started beforehand
    output_limit: int = 0  #: cgi: bytes of an answer's body; 0: no limit
    on_disconnect: str = "kill"  #: cgi: what becomes of a program whose client has gone
    daemons: str = "end"  #: cgi: what becomes of them when their program has ended
    program_limits: Mapping[str, int] = field(default_factory=dict)  #: cgi: as_program_limits, by its fields
    user: str | None = None  #: cgi: that programs run as; None: as the server does; OWNER
    group: str | None = None
    check_owner: bool = True  #: cgi: of programs that run as another user
    min_uid: int = 0  #: cgi: of owners
    min_gid: int = 0
    directories: tuple[str, ...] = ()  #: cgi: folders of programs
    check: Mapping[str, str] | None = None  #: python: the request that executors of a new version must answer first
    preload: bool = False  #: python: executors are forked from one process that has loaded the application
    requests_limit: int = 0  #: that an executor serves; this and the next ones: 0 is no limit
    lifetime_ms: int = 0  #: of an executor
    memory_limit: int = 0  #: bytes of resident memory with which an executor is replaced
    memory_max: int = 0  #: bytes of memory that an executor never exceeds

    @property
    def most_processes(self) -> int:
        """`processes` where their number is fixed."""
        return max(self.processes, self.processes_max)

    @property
    def is_observed(self) -> bool:
        """Whether somebody must look at what its executors use."""
        return bool(self.requests_limit or self.lifetime_ms or self.memory_limit or self.memory_max)

    @property
    def capacity(self) -> int:
        """Requests that the whole pool runs at once when all the executors that it can have are up."""
        return self.programs if self.kind == "cgi" else self.most_processes * self.threads


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration, ready to run."""

    name: str  #: of the file, or of the folder that is served by convention; for messages
    folder: str  #: that folder; "" when the file says all
    model: Config
    plan: Plan
    pools: tuple[PoolSpec, ...]
    listeners: tuple[Listener, ...]
    threads: int  #: loops of the core
    accept: str  #: how they share the listening sockets
    user: str | None  #: name or number; None: stay who we are
    group: str | None
    log: Log
    control: str | None  #: path of the control socket, "auto" or None
    drain_timeout_s: float
    dev: bool
    warnings: tuple[str, ...] = ()  #: sentences for the log, at start and at each reload
    watch: tuple[Path, ...] = ()  #: files and folders whose change matters to a server with --dev


def build(
    name: str,
    config: Config,
    *,
    folder: str = "",
    dev: bool = False,
    warnings: Iterable[str] = (),
    watch: Iterable[Path] = (),
) -> LoadedConfig:
    """Turns a valid model into what runs. `warnings` and `watch` are added to what is found here. Raises nothing of its
    own.
    """
    threads = config.threads or min(MAX_THREADS, usable_cpus())
    planner = _Planner(config, dev, threads)
    plan = planner.plan()
    return LoadedConfig(
        name=name,
        folder=folder,
        model=config,
        plan=plan,
        pools=planner.pool_specs,
        listeners=tuple(
            Listener(each.text, each.host, each.port, listener_url(each.host, each.port)) for each in config.listen
        ),
        threads=threads,
        accept=config.accept,
        user=config.user,
        group=config.group,
        log=config.log,
        control=config.control,
        drain_timeout_s=config.limits.drain_timeout_ms / 1000,
        dev=dev,
        warnings=(*warnings, *planner.warnings),
        watch=tuple(dict.fromkeys((*watch, *planner.watch))),
    )


def listener_url(host: str, port: int) -> str:
    """The address as a browser on this machine takes it: wildcard addresses as localhost, port 80 left out."""
    if host in ("0.0.0.0", "::", ""):
        host = "localhost"
    elif ":" in host:
        host = f"[{host}]"
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"


def slots_for(queue: int, capacity: int, loops: int) -> int:
    """Records of a pool's slot segment: all that wait, and twice what runs (cancelled requests keep theirs for a
    while), in equal parts for each loop.
    """
    wanted = max(queue + capacity * 2, MIN_SLOTS_PER_LOOP * loops)
    return -(-wanted // loops) * loops


class _Planner:
    """Collects handlers and pools while it walks over the sites."""

    def __init__(self, config: Config, dev: bool, loops: int) -> None:
        self.config = config
        self.dev = dev
        self.loops = loops
        self.handlers: list[dict[str, Any]] = []
        self.scripts: dict[str, list[str]] = {}  #: pool -> scripts, in the order of the rules
        self.folders: dict[str, list[str]] = {}  #: pool -> folders of its scripts, in the order of the rules
        self.last_rules: list[dict[str, Any]] = []  #: of the site: for what no other rule of it takes
        self.used: set[str] = set()
        self.cgi: dict[str, Cgi] = {}  #: pool -> its settings
        self.cgi_folders: dict[str, list[str]] = {}  #: pool -> folders of its programs
        self.warnings: list[str] = []
        self.watch: list[Path] = []
        self.pool_specs: tuple[PoolSpec, ...] = ()

    def plan(self) -> Plan:
        config = self.config
        sites = [self._site(site) for site in config.sites]
        self.pool_specs = self._pools()
        return {
            "version": 1,
            "server_software": SERVER_SOFTWARE,
            "limits": {
                "header_size": config.limits.header_size,
                "target_size": config.limits.target_size,
                "body_size": config.limits.body_size,
                "header_timeout_ms": config.limits.header_timeout_ms,
                "body_timeout_ms": config.limits.body_timeout_ms,
                "idle_timeout_ms": config.limits.idle_timeout_ms,
                "send_timeout_ms": config.limits.send_timeout_ms,
                "keep_alive_requests": config.limits.keep_alive_requests,
                "min_rate": config.limits.min_rate,
                "connections": config.limits.connections,
                "wait_over_limit": config.limits.over_limit == "wait",
                "connections_per_client": config.limits.connections_per_client,
            },
            "cache": {
                "bytes": config.cache.memory,
                "entries": config.cache.entries,
                "file_size": config.cache.file_size,
                "revalidate_ms": config.cache.revalidate_ms,
                "recent": config.cache.policy == "recent",
            },
            "tuning": {
                "accept_one": config.tuning.accept_batch == "one",
                "write_separate": config.tuning.write == "separate",
                "cork": config.tuning.cork,
                "no_sendfile": config.tuning.sendfile == "off",
                "no_reuse": config.tuning.reuse == "off",
                "shortest_first": config.schedule == "shortest-first",
            },
            "spool": config.spool,
            "access_log": {"format": config.log.access},
            "types_of_file": self._types_of_file(),
            "types": {extension.lstrip("."): media for extension, media in config.types.items()},
            "listeners": [{"id": each.text, "url": listener_url(each.host, each.port)} for each in config.listen],
            "pools": [_core_pool(spec) for spec in self.pool_specs],
            "handlers": self.handlers,
            "sites": sites,
        }

    def _types_of_file(self) -> dict[str, str]:
        if self.config.types_file is None:
            return {}
        found = read_types(Path(self.config.types_file))
        self.warnings += found.warnings
        self.watch.append(Path(self.config.types_file))
        return found.types

    # Sites and rules

    def _site(self, site: Site) -> dict[str, Any]:
        rules = self._health_rules()
        self.last_rules = []
        for rule in site.rules:
            rules += self._rules(rule, site)
        rules += sorted(self.last_rules, key=lambda each: -len(each["path"]))
        return {
            "name": site.name,
            "hosts": list(site.hosts) or ["*"],
            "fallback": None if site.root is None else self._handler(_files(Files(root=site.root), site)),
            "rules": rules,
            "errors": {str(status): path for status, path in site.errors.items()},
        }

    def _health_rules(self) -> list[dict[str, Any]]:
        """First in every site, so that no other rule can hide them."""
        health = self.config.health
        if health is None:
            return []
        paths = ((health.live, "live"), (health.ready, "ready"))
        rules = [_rule(path, self._handler({"kind": "health", "what": what})) for path, what in paths]
        if health.metrics is not None:
            rules.append(_rule(health.metrics, self._handler({"kind": "metrics"})))
        return rules

    def _rules(self, rule: Rule, site: Site) -> list[dict[str, Any]]:
        """One rule of the configuration is one of the core, except that a folder of scripts is one for each script."""
        match, handler = rule.match, rule.handler
        if handler.scripts is not None:
            return self._script_rules(rule, handler.scripts, site)
        return [_rule(match.path, self._handler(self._plain(rule, site)), match.extension, match.method)]

    def _plain(self, rule: Rule, site: Site) -> dict[str, Any]:
        handler = rule.handler
        if handler.python is not None:
            return self._python(handler.python, site)
        if handler.cgi is not None:
            return self._programs(handler.cgi, rule, site)
        if handler.redirect is not None:
            return {"kind": "redirect", "status": handler.redirect.status, "location": handler.redirect.to}
        if handler.respond is not None:
            answer = handler.respond
            return {
                "kind": "respond",
                "status": answer.status,
                "content_type": "text/plain; charset=utf-8",
                "body": answer.body,
            }
        assert handler.file is not None, "the loader lets exactly one kind through"
        return _files(handler.file, site, rule.match)

    def _programs(self, folder: CgiFolder, rule: Rule, site: Site) -> dict[str, Any]:
        name = self._cgi_pool_of(folder, rule, site)
        folders = self.cgi_folders.setdefault(name, [])
        where = folder.directory or str(Path(folder.program or "").parent)
        if where not in folders:
            folders.append(where)
        passed = {
            "authorization": _either(folder.pass_authorization, self.config.cgi.pass_authorization),
            "stream_bodies": _either(folder.stream_bodies, self.config.cgi.stream_bodies),
        }
        if folder.directory is None:
            return self._pool(name, site, _one_program(folder, rule.match)) | passed
        extra = {"appserver.cgi.root": folder.directory}
        symlinks = folder.symlinks or site.symlinks
        if symlinks != "beneath":
            extra["appserver.cgi.symlinks"] = symlinks
        if not folder.extensions:
            pool = self._pool(name, site, extra) | passed
            is_plain = not folder.index and folder.fallback is None
            return pool if is_plain else self._among_files(pool, folder, site, folder.index or ())
        prefix = (rule.match.path or "/*").removesuffix("/*")
        pool = self._pool(name, site, {**extra, "appserver.cgi.extensions": ",".join(folder.extensions)}) | passed
        if not prefix and rule.match.path != "/":
            pool["document_root"] = folder.directory
        index = (*(f"index{extension}" for extension in folder.extensions), *site.index)
        return self._among_files(pool, folder, site, index if folder.index is None else folder.index)

    def _among_files(
        self, pool: dict[str, Any], folder: CgiFolder, site: Site, index: tuple[str, ...]
    ) -> dict[str, Any]:
        """Programs by their extension, and files beside them; without extensions only programs, also for folders."""
        plain = [name for name in index if not name.lower().endswith(folder.extensions or ("",))]
        beside = Files(root=folder.directory, index=tuple(plain), symlinks=folder.symlinks)
        files = _files(beside, site) | {"fallback": None}
        return {
            "kind": "programs",
            "files": self._handler(files) if folder.extensions else None,
            "pool": self._handler(pool),
            "root": folder.directory,
            "symlinks": folder.symlinks or site.symlinks,
            "extensions": list(folder.extensions),
            "index": list(index),
            "fallback": folder.fallback,
        }

    def _python(self, value: str, site: Site) -> dict[str, Any]:
        script = value if value.startswith("/") else self.config.pools[value].scripts
        if script is None:
            self.used.add(value)
            return self._pool(value, site, {"appserver.application": value})
        return self._script(script, str(Path(script).parent), site)

    def _script(self, script: str, folder: str, site: Site) -> dict[str, Any]:
        """The handler for a script in or below `folder`."""
        pool = self._pool_of(script)
        self._use(pool, folder)
        known = self.scripts.setdefault(pool, [])
        if script not in known:
            known.append(script)
        return self._pool(pool, site, {"appserver.script": script})

    def _pool(self, pool: str, site: Site, extra: dict[str, str]) -> dict[str, Any]:
        return {
            "kind": "pool",
            "pool": pool,
            "mounted": True,
            "authorization": True,
            "stream_bodies": False,
            "document_root": site.root or "",
            "extra": extra,
            "sendfile": self._sendfile(pool),
        }

    def _sendfile(self, pool: str) -> dict[str, Any] | None:
        """What the core is told of the files that the pool's applications may name; None: nothing."""
        key = "cgi.sendfile" if pool in self.cgi else f"pools.{pool}.sendfile"
        owner = self.config.cgi if pool in self.cgi else self.config.pools.get(pool, Pool())
        sendfile = owner.sendfile
        if not sendfile.roots and not sendfile.locations:
            return None
        return {"roots": list(sendfile.roots), "locations": dict(sendfile.locations), "key": key}

    def _use(self, pool: str, folder: str) -> None:
        self.used.add(pool)
        known = self.folders.setdefault(pool, [])
        if folder not in known:
            known.append(folder)

    def _pool_of(self, path: str) -> str:
        """The pool of a script or folder: the one whose `scripts` it is or lies below, the nearest when there are
        several; else the shared one.
        """
        around = {
            name: Path(pool.scripts)
            for name, pool in self.config.pools.items()
            if pool.scripts is not None and Path(pool.scripts) in (Path(path), *Path(path).parents)
        }
        return max(around, key=lambda name: len(around[name].parts), default=SCRIPT_POOL)

    def _script_rules(self, rule: Rule, value: str, site: Site) -> list[dict[str, Any]]:
        folder = value if value.startswith("/") else self.config.pools[value].scripts
        assert folder is not None, "the loader checks that the pool has scripts"
        found = list_scripts(Path(folder))
        self.warnings += found.warnings
        self.watch.append(Path(folder))
        prefix = (rule.match.path or "/*").removesuffix("/*")
        rules = []
        for name, path in found.scripts.items():
            script = self._handler(self._script(str(path), folder, site))
            if name == "index":
                handler = self._handler(self._behind_files(script, site))
                self.last_rules.append(_rule(f"{prefix}/*", handler, rule.match.extension, rule.match.method))
            else:
                where = f"{prefix}{url_path(name)}/*"
                rules.append(_rule(where, script, rule.match.extension, rule.match.method))
        if not found.scripts:
            # Also an empty folder has its pool, so that the first script in it needs no more than a reload.
            self._use(self._pool_of(folder), folder)
        self.warnings += self._hidden(prefix, list(found.scripts))
        return rules

    def _behind_files(self, script: int, site: Site) -> dict[str, Any]:
        """For what the site has no file."""
        if site.root is None:
            return self.handlers[script]
        return {"kind": "otherwise", "first": self._handler(_files(Files(root=site.root), site)), "second": script}

    def _hidden(self, prefix: str, names: list[str]) -> list[str]:
        """A script whose own URL a health path takes."""
        health = self.config.health
        taken = () if health is None else (health.live, health.ready, health.metrics)
        return [
            f"handler script {name}.py: its path {prefix}{url_path(name)} is a health path; rename one"
            for name in names
            if f"{prefix}{url_path(name)}" in taken
        ]

    def _handler(self, handler: dict[str, Any]) -> int:
        """The index of `handler` in the plan; equal ones are one."""
        if handler in self.handlers:
            return self.handlers.index(handler)
        self.handlers.append(handler)
        return len(self.handlers) - 1

    # Pools

    def _pools(self) -> tuple[PoolSpec, ...]:
        """Those of the configuration in its order, then the shared ones when something needs them."""
        pools = dict(self.config.pools)
        if SCRIPT_POOL in self.used:
            pools.setdefault(SCRIPT_POOL, Pool())
        self.warnings += [f"pool {name}: no rule leads to it" for name in pools if name not in self.used]
        specs = [self._python_pool(name, pool) for name, pool in pools.items()]
        specs += [self._cgi_pool(name, cgi) for name, cgi in self.cgi.items()]
        return tuple(specs)

    def _cgi_pool_of(self, folder: CgiFolder, rule: Rule, site: Site) -> str:
        """The pool for the programs of a rule: that of all rules with these settings."""
        settings = cgi_settings(self.config.cgi, folder)
        for name, known in self.cgi.items():
            if known == settings:
                return name
        # By the rule and not by the settings, so that a rule whose settings change keeps its pool, and its queue.
        slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{site.name}{rule.match.path or ''}")[:48].strip("-")
        base = CGI_POOL if settings == self.config.cgi else f"{CGI_POOL}-{slug}"
        name, number = base, 1
        while name in self.cgi or name in self.config.pools:
            number += 1
            name = f"{base}-{number}"
        self.cgi[name] = settings
        return name

    def _python_pool(self, name: str, pool: Pool) -> PoolSpec:
        scripts = tuple(self.scripts.get(name, ()))
        folders = tuple(self.folders.get(name, ()))
        directory = pool.directory or _folder_of(pool.scripts) or (folders or (str(Path.cwd()),))[0]
        if pool.python is not None:
            self.watch.append(Path(directory))
        self.watch += [Path(script) for script in scripts]
        return PoolSpec(
            name=name,
            kind="python",
            # Whether it is threads or an event loop that run requests is known when the application is loaded.
            slots=slots_for(pool.limits.queue, pool.processes.max * max(pool.threads, pool.concurrency), self.loops),
            queue_limit=pool.limits.queue,
            queue_time_ms=pool.limits.queue_time_ms,
            request_time_ms=pool.limits.request_time_ms,
            interrupt_time_ms=pool.limits.interrupt_time_ms,
            idle_time_ms=0,
            stop_time_ms=pool.limits.stop_time_ms,
            retry=pool.retry,
            quarantine_ms=pool.quarantine_ms,
            processes=pool.processes.min,
            processes_max=pool.processes.max,
            spare_time_ms=pool.processes.idle_time_ms,
            check=environment_of(self.config, name, SERVER_SOFTWARE) if name in self.config.pools else None,
            preload=pool.preload,
            requests_limit=pool.limits.requests,
            lifetime_ms=pool.limits.lifetime_ms,
            memory_limit=pool.limits.memory,
            memory_max=pool.limits.memory_max,
            threads=pool.threads,
            environment=dict(pool.environment),
            interpreter=pool.interpreter or sys.executable,
            application=pool.python,
            interface=pool.interface,
            concurrency=pool.concurrency,
            websocket={
                "ping_interval_ms": pool.websocket.ping_interval_ms,
                "ping_timeout_ms": pool.websocket.ping_timeout_ms,
                "message_size": pool.websocket.message_size,
                "compression": pool.websocket.compression == "on",
            },
            directory=directory,
            scripts=scripts,
            script_folders=folders,
            dev=self.dev,
        )

    def _cgi_pool(self, name: str, cgi: Cgi) -> PoolSpec:
        if cgi.limits.processes and cgi.user in (None, "root", "0"):
            self.warnings.append(
                f"{name}: limits.processes counts all processes of the user that programs run as, and does not hold for"
                " root; give them a `user` of their own"
            )
        environment = cgi_environment(cgi.pass_environment, cgi.environment)
        return PoolSpec(
            name=name,
            kind="cgi",
            slots=slots_for(cgi.limits.queue, cgi.limits.programs, self.loops),
            queue_limit=cgi.limits.queue,
            queue_time_ms=cgi.limits.queue_time_ms,
            request_time_ms=cgi.limits.request_time_ms,
            idle_time_ms=cgi.limits.idle_time_ms,
            # The spawner ends what still runs itself; it needs a moment more than the programs get.
            stop_time_ms=cgi.limits.kill_grace_ms + 5000,
            environment=environment,
            dev=self.dev,
            interpreters=dict(cgi.interpreters),
            usual_interpreters=usual_interpreters(environment["PATH"]),
            programs=cgi.limits.programs,
            kill_grace_ms=cgi.limits.kill_grace_ms,
            warm=cgi.warm,
            output_limit=cgi.limits.output,
            daemons=cgi.daemons,
            on_disconnect=cgi.on_disconnect,
            program_limits={
                "cpu_s": -(-cgi.limits.cpu_time_ms // 1000),
                "memory": cgi.limits.memory,
                "file_size": cgi.limits.file_size,
                "processes": cgi.limits.processes,
                "open_files": cgi.limits.open_files,
            },
            user=cgi.user,
            group=cgi.group,
            check_owner=cgi.check_owner,
            min_uid=cgi.min_uid,
            min_gid=cgi.min_gid,
            # A spawner that needs them all; for the others a new folder is no reason for another one.
            directories=tuple(self.cgi_folders[name]) if cgi.user is not None or cgi.group is not None else (),
        )


def _either(own: bool | None, shared: bool) -> bool:
    return shared if own is None else own


def cgi_settings(cgi: Cgi, folder: CgiFolder) -> Cgi:
    """What holds for the programs of a rule: the server's settings with the rule's own over them."""
    return replace(
        cgi,
        environment={**cgi.environment, **folder.environment},
        pass_environment=tuple(dict.fromkeys((*cgi.pass_environment, *folder.pass_environment))),
        interpreters={**cgi.interpreters, **folder.interpreters},
        warm=folder.warm or cgi.warm,
        on_disconnect=folder.on_disconnect or cgi.on_disconnect,
        daemons=folder.daemons or cgi.daemons,
        user=folder.user or cgi.user,
        group=folder.group if folder.group is not None or folder.user is not None else cgi.group,
        check_owner=cgi.check_owner if folder.check_owner is None else folder.check_owner,
        limits=replace(cgi.limits, **folder.limits),
    )


def cgi_environment(passed: Iterable[str], added: Mapping[str, str]) -> dict[str, str]:
    """What every CGI program gets: PATH, the variables of our own that are passed on, and those that the configuration
    adds (they win).
    """
    environment = {"PATH": os.environ.get("PATH") or DEFAULT_PATH}
    environment |= {name: os.environ[name] for name in passed if name in os.environ}
    return environment | dict(added)


def usual_interpreters(search: str) -> dict[str, str]:
    """Those of USUAL_INTERPRETERS in the folders `search`; one that is not there has a path nevertheless, which the log
    then names.
    """
    return {
        extension: shutil.which(name, path=search) or f"/usr/bin/{name}"
        for extension, name in USUAL_INTERPRETERS.items()
    }


def _folder_of(scripts: str | None) -> str | None:
    """The folder of a pool's `scripts`, which may be a single one."""
    return str(Path(scripts).parent) if scripts is not None and scripts.endswith(".py") else scripts


def _rule(path: str | None, handler: int, extension: Iterable[str] = (), method: Iterable[str] = ()) -> dict[str, Any]:
    return {"path": path, "extension": list(extension), "method": list(method), "handler": handler}


def _one_program(folder: CgiFolder, match: Match) -> dict[str, str]:
    """What the spawner is told of a rule's only program. Links are followed, because its path has been chosen."""
    program = Path(folder.program or "")
    extra = {"appserver.cgi.root": str(program.parent), "appserver.cgi.program": program.name}
    if match.path is not None and not match.path.endswith("/*"):
        extra["appserver.cgi.whole_path"] = "1"
    return extra | {"appserver.cgi.symlinks": "follow"}


def _files(files: Files, site: Site, match: Match | None = None) -> dict[str, Any]:
    return {
        "kind": "file",
        "root": files.root or files.alias,
        "prefix": match.path.removesuffix("/*") if files.alias and match and match.path else None,
        "index": list(site.index if files.index is None else files.index),
        "symlinks": files.symlinks or site.symlinks,
        "precompressed": list(site.precompressed if files.precompressed is None else files.precompressed),
        "fallback": files.fallback or site.fallback,
    }


def _core_pool(spec: PoolSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "kind": spec.kind,
        "slots": spec.slots,
        "queue_limit": spec.queue_limit,
        "queue_time_ms": spec.queue_time_ms,
        "request_time_ms": spec.request_time_ms,
        "idle_time_ms": spec.idle_time_ms,
        "output_limit": spec.output_limit,
        "retry": spec.retry,
        "cancel": spec.kind == "cgi",
        "finishes": spec.on_disconnect == "finish",
        "quarantine_ms": spec.quarantine_ms,
    }


__all__ = ["Listener", "LoadedConfig", "Plan", "PoolSpec", "build", "listener_url"]
