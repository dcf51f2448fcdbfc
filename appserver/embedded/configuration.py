"""What an embedded server was told, as the model that the rest of the server works with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import yaml

from appserver.config import files
from appserver.config.load import read_text
from appserver.config.model import Config
from appserver.config.plan import LoadedConfig, PoolSpec, build
from appserver.errors import ConfigError
from appserver.workers import interface
from appserver.workers.ahandle import async_application_of
from appserver.workers.control import LoadError
from appserver.workers.interface import Application
from appserver.workers.request import application_of

POOL = "embedded"  #: the one that runs the program's callables
NAME = "Server"  #: of the configuration, in messages
LOOPS = 1  #: event loops when nobody says how many: a program that embeds a server is busy with something else
#: Keys that ask for a supervisor, and what that would have.
SUPERVISED = {
    "pools": "worker processes",
    "cgi": "CGI programs",
    "control": "control socket",
    "user": "processes of another user",
    "group": "processes of another group",
}
#: Keys of a pool that mean something for threads of this process.
POOL_KEYS = ("threads", "concurrency", "websocket", "limits")


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that one run needs."""

    loaded: LoadedConfig
    pool: PoolSpec | None  #: None when nothing but files is served
    applications: dict[str, Application]  #: by the name that a request's `appserver.application` has


@dataclass(slots=True)
class _Rule:
    """One callable, until the plan knows it by name."""

    label: str
    application: Application


def configure(
    settings: Mapping[str, Any],
    *,
    root: str | PathLike[str] | None,
    handlers: Mapping[str, Callable[..., Any]] | None,
    address: str,
    pool: Mapping[str, Any],
    dev: bool,
) -> Configuration:
    """Reads `settings`, the blocks of a configuration file as Python values, in which a rule's `python` is a callable.

    `root` and `handlers` stand for a single site. Raises ConfigError with a line for each fault.
    """
    values: dict[str, Any] = {"listen": [address], "threads": LOOPS, **settings}
    _refuse_supervised(values, pool)
    if isinstance(values.setdefault("log", {}), Mapping):
        values["log"] = {"access": "off", **values["log"]}
    if root is not None or handlers is not None:
        if "sites" in values:
            raise ConfigError([f"{NAME}: found sites beside root or handlers; expected one or the other"])
        values["sites"] = [_site(root, handlers or {})]
    if not values.get("sites"):
        raise ConfigError([f"{NAME}: found nothing to serve; expected root, handlers or sites"])
    rules: dict[str, _Rule] = {}
    values["sites"] = _take_callables(values["sites"], rules)
    # The loader knows no callables, but pools by name: one for each, which become one below.
    values["pools"] = {name: {"python": "embedded:application", **pool} for name in rules}
    loaded = build(NAME, _read(values, rules), dev=dev)
    return Configuration(
        loaded=loaded,
        pool=_join_pools(loaded, rules),
        applications={rule.label: rule.application for rule in rules.values()},
    )


def application_from(handler: Any, what: str) -> Application:
    """A WSGI or ASGI application, or what calls `handle(request)`. Raises ConfigError."""
    if not callable(handler):
        found = type(handler).__name__
        raise ConfigError([f"{what}: found {found}; expected a WSGI or ASGI application or handle(request)"])
    if _takes_one(handler) and not interface.is_asgi_2(handler):
        if interface.is_async(handler) or inspect.isasyncgenfunction(handler):
            return Application(interface.HANDLE, async_application_of(handler))
        return Application(interface.WSGI, application_of(handler))
    try:
        return interface.application_of(handler, what)
    except LoadError as error:
        raise ConfigError([str(error)]) from None


def _takes_one(handler: Callable[..., Any]) -> bool:
    """Whether it wants one argument, the request, and not the two of WSGI."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # written in C
        return False
    required = [
        each
        for each in signature.parameters.values()
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return len(required) == 1


def _refuse_supervised(values: Mapping[str, Any], pool: Mapping[str, Any]) -> None:
    lines = [
        f"{key}: an embedded server has no {what}; leave it out, or run `cherokee-app serve`"
        for key, what in SUPERVISED.items()
        if key in values
    ]
    lines += [
        f"pool.{key}: unknown key of an embedded server's pool; expected one of {', '.join(POOL_KEYS)}"
        for key in pool
        if key not in POOL_KEYS
    ]
    if lines:
        raise ConfigError(lines)


def _site(root: str | PathLike[str] | None, handlers: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    rules: list[dict[str, Any]] = []
    # The longest prefix first, whatever the order in which they were given.
    for prefix in sorted(handlers, key=len, reverse=True):
        path = f"{prefix.removesuffix('*').rstrip('/')}/*" if prefix.startswith("/") else prefix
        if any(path == rule["match"]["path"] for rule in rules):
            raise ConfigError([f"handlers: found '{prefix}' twice; expected each prefix once"])
        rules.append({"match": {"path": path}, "handler": {"python": handlers[prefix]}})
    return {"root": root, "rules": rules}


def _take_callables(sites: Any, rules: dict[str, _Rule]) -> Any:
    """The sites with a pool's name in place of each callable, which go into `rules`."""
    if not isinstance(sites, Sequence) or isinstance(sites, str):
        return sites
    return [
        {**site, "rules": [_take_callable(rule, rules) for rule in site["rules"]]}
        if isinstance(site, Mapping) and isinstance(site.get("rules"), Sequence)
        else site
        for site in sites
    ]


def _take_callable(rule: Any, rules: dict[str, _Rule]) -> Any:
    if not isinstance(rule, Mapping) or not isinstance(rule.get("handler"), Mapping):
        return rule
    handler = rule["handler"]
    match = rule.get("match")
    path = str(match["path"]) if isinstance(match, Mapping) and "path" in match else ""
    if "python" not in handler:
        for kind in ("scripts", "cgi"):
            if kind in handler:
                raise ConfigError(
                    [f"sites: found {kind} for '{path}'; an embedded server runs callables; run `cherokee-app serve`"]
                )
        return rule
    label = path.removesuffix("/*") or "/"
    application = application_from(handler["python"], f"handler of '{label}'")
    if any(label == each.label for each in rules.values()):
        label = f"{label} ({len(rules)})"
    name = f"application-{len(rules)}"
    rules[name] = _Rule(label, application)
    return {**rule, "handler": {**handler, "python": name}}


def _read(values: Mapping[str, Any], rules: Mapping[str, _Rule]) -> Config:
    """The model of `values`, by way of the loader, so that every key is checked as in a file. Raises ConfigError."""
    text = yaml.safe_dump(_plain(values, ""), allow_unicode=True, sort_keys=False)
    reading = read_text(text, NAME, Path.cwd())
    files.check(reading)
    lines = [_without_pools(each.text, rules) for each in sorted(set(reading.problems))]
    if lines:
        raise ConfigError(dict.fromkeys(lines))
    # A working directory is a matter of processes.
    pools = {name: replace(pool, directory=None) for name, pool in reading.config.pools.items()}
    return replace(reading.config, pools=pools)


def _without_pools(text: str, rules: Mapping[str, _Rule]) -> str:
    """A fault of `pool`, which was written for each callable."""
    for name in rules:
        text = text.replace(f"pools.{name}.", "pool.")
    return text


def _plain(value: Any, path: str) -> Any:
    """As YAML takes it: every scalar as its text, in which nothing is interpolated. Raises ConfigError."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each, f"{path}.{key}".lstrip(".")) for key, each in value.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(each, f"{path}[{index}]") for index, each in enumerate(value)]
    if isinstance(value, PathLike):
        value = fspath(value)
    if isinstance(value, (str, int, float)):
        return str(value).replace("${", "$${")
    raise ConfigError([f"{path}: found {type(value).__name__}; expected text, a number, a list or a mapping"])


def _join_pools(loaded: LoadedConfig, rules: Mapping[str, _Rule]) -> PoolSpec | None:
    """Makes the pools of the plan one, in which each callable is known by its label."""
    if not loaded.pools:
        return None
    for handler in _pool_handlers(loaded.plan["handlers"]):
        handler["extra"] = {"appserver.application": rules[handler["pool"]].label}
        handler["pool"] = POOL
    loaded.plan["pools"] = [{**loaded.plan["pools"][0], "name": POOL}]
    return replace(loaded.pools[0], name=POOL)


def _pool_handlers(handlers: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (handler for handler in handlers if handler["kind"] == "pool")
