"""What blocks say about each other: pool names, one kind for each handler, nothing twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from appserver.config import selfcheck
from appserver.config.cgi_model import CGI_POOL, OWNER
from appserver.config.keys import keys_of
from appserver.config.model import SCRIPT_POOL, Config, Handler, Rule, Site
from appserver.config.pool_model import Pool
from appserver.config.units import nearest

if TYPE_CHECKING:
    from appserver.config.load import Reading


def complete(config: Config, base: Path) -> Config:
    """Fills in what follows from other keys: names of sites, the folder of applications (`base`, where the
    configuration file is).
    """
    pools = {
        name: replace(pool, directory=str(base)) if pool.python is not None and pool.directory is None else pool
        for name, pool in config.pools.items()
    }
    sites = tuple(replace(site, name=_site_name(site)) if not site.name else site for site in config.sites)
    return replace(config, pools=pools, sites=sites)


def check(reading: Reading) -> None:
    """Notes every reference that leads nowhere and everything that is there twice."""
    config = reading.config
    _check_listen(reading)
    for name, pool in config.pools.items():
        _check_pool(reading, name, pool)
    _check_health(reading)
    _check_program_group(reading, "cgi", config.cgi.group, config.cgi.user)
    _check_sites(reading)
    for number, site in enumerate(config.sites):
        for index, rule in enumerate(site.rules):
            _check_rule(reading, f"sites[{number}].rules[{index}]", rule)


def _site_name(site: Site) -> str:
    return site.hosts[0] if site.hosts and site.hosts[0] != "*" else "main"


def _check_listen(reading: Reading) -> None:
    seen: set[tuple[str, int]] = set()
    for address in reading.config.listen:
        if (address.host, address.port) in seen:
            reading.report("listen", f"found '{address.text}' twice; expected each address once")
        seen.add((address.host, address.port))


def _check_pool(reading: Reading, name: str, pool: Pool) -> None:
    path = f"pools.{name}"
    if name == CGI_POOL:
        reading.report(
            path,
            f"found '{CGI_POOL}', the server's own pool (see the key cgi); expected another name",
        )
    if pool.processes.min > pool.processes.max:
        reading.report(
            f"{path}.processes.max", f"found {pool.processes.max}; expected at least `min`, {pool.processes.min}"
        )
    limits = pool.limits
    if 0 < limits.memory_max <= limits.memory:
        reading.report(
            f"{path}.limits.memory_max",
            "found no more than `memory`; expected more, so that a worker can be replaced before it must die",
        )
    _check_self_check(reading, name, pool)
    given = [key for key in ("python", "scripts") if key in reading.given.get(path, ())]
    if name == SCRIPT_POOL:
        if "python" in given:
            reading.report(
                f"{path}.python",
                f"found an application in '{SCRIPT_POOL}', the pool of handler scripts; expected it under another name",
            )
    elif len(given) != 1:
        reading.report(path, f"found {_and(given)}; expected exactly one of python, scripts")


def _check_self_check(reading: Reading, name: str, pool: Pool) -> None:
    if pool.check is None:
        return
    path = f"pools.{name}.check"
    if pool.python is None:
        reading.report(path, "found in a pool of scripts; expected it with `python`: each script answers for itself")
    elif selfcheck.environment_of(reading.config, name, "") is None:
        places = ", ".join(selfcheck.paths_to(reading.config, name))
        expected = f"a path that fits {places}" if places else "a rule with this pool"
        reading.report(path, f"found '{pool.check}', from which no rule leads to the pool; expected {expected}")


def _check_health(reading: Reading) -> None:
    health = reading.config.health
    if health is None:
        return
    if health.live == health.ready:
        reading.report("health", f"found '{health.live}' for live and ready; expected two paths")
    if health.metrics in (health.live, health.ready):
        reading.report("health.metrics", f"found '{health.metrics}', a health path; expected another path")


def _check_sites(reading: Reading) -> None:
    hosts: dict[str, str] = {}
    names: dict[str, str] = {}
    for number, site in enumerate(reading.config.sites):
        path = f"sites[{number}]"
        if site.name in names and "name" in reading.given.get(path, ()):
            reading.report(
                f"{path}.name", f"found '{site.name}', the name of {names[site.name]}; expected another name"
            )
        names.setdefault(site.name, path)
        for host in site.hosts or ("*",):
            if host in hosts:
                what = "no hosts (or '*')" if host == "*" else f"'{host}'"
                reading.report(
                    f"{path}.hosts", f"found {what} as in {hosts[host]}; expected each host in one site only"
                )
            hosts.setdefault(host, path)
        _check_files(reading, path, site)


def _check_files(reading: Reading, path: str, site: Site) -> None:
    handlers = {f"{path}.rules[{index}].handler.file": rule.handler.file for index, rule in enumerate(site.rules)}
    codings = {path: site.precompressed}
    codings |= {place: files.precompressed or () for place, files in handlers.items() if files is not None}
    for place, given in codings.items():
        for coding in sorted({each for each in given if given.count(each) > 1}):
            reading.report(f"{place}.precompressed", f"found '{coding}' twice; expected each coding once")
    if site.fallback is not None and site.root is None and not any(handlers.values()):
        reading.report(
            f"{path}.fallback",
            f"found '{site.fallback}' on a site without files; expected it with a root or a rule with file",
        )


def _check_rule(reading: Reading, path: str, rule: Rule) -> None:
    path_of_handler = f"{path}.handler"
    given = reading.given.get(path_of_handler)
    if given is None:
        return
    kinds = list(keys_of(Handler))
    known = [key for key in given if key in kinds]
    if len(known) != 1 and len(known) == len(given):
        reading.report(path_of_handler, f"found {_and(known)}; expected exactly one of {', '.join(kinds)}")
    handler = rule.handler
    if handler.python is not None and not handler.python.startswith("/"):
        pool = reading.config.pools.get(handler.python)
        if not _is_single_script(pool):
            _check_pool_name(reading, f"{path_of_handler}.python", handler.python, "python")
    if handler.scripts is not None:
        if _is_single_script(reading.config.pools.get(handler.scripts)):
            reading.report(
                f"{path_of_handler}.scripts",
                f"found pool '{handler.scripts}', which has a single script; expected a pool with a folder;"
                f" did you mean 'python: {handler.scripts}'?",
            )
        elif not handler.scripts.startswith("/"):
            _check_pool_name(reading, f"{path_of_handler}.scripts", handler.scripts, "scripts")
        _check_prefix(reading, path, rule, "for the handler scripts")
    if handler.file is not None and _one_of(reading, f"{path_of_handler}.file", ("root", "alias")) == "alias":
        _check_prefix(reading, path, rule, "that the folder takes the place of")
    if handler.cgi is not None:
        place = f"{path_of_handler}.cgi"
        _check_program_group(reading, place, handler.cgi.group, handler.cgi.user, reading.config.cgi.user)
        if _one_of(reading, place, ("directory", "program")) == "program":
            for key in ("extensions", "fallback", "index", "symlinks"):
                if key in reading.given[place]:
                    reading.report(f"{place}.{key}", "found it beside program; expected it with a directory only")


def _check_program_group(reading: Reading, path: str, group: str | None, *users: str | None) -> None:
    if group is not None and OWNER in users:
        reading.report(f"{path}.group", f"found '{group}' beside `user: owner`; expected no group: it is the owner's")


def _one_of(reading: Reading, path: str, keys: tuple[str, ...]) -> str:
    """Which of the keys the block has, exactly one; the first for a block that is written as one value."""
    given = [key for key in reading.given.get(path, keys[:1]) if key in keys]
    if len(given) == 1:
        return given[0]
    if not any(problem.text.startswith(f"{path}: ") for problem in reading.problems):  # what is no block has been told
        reading.report(path, f"found {_and(given)}; expected exactly one of {', '.join(keys)}")
    return ""


def _is_single_script(pool: Pool | None) -> bool:
    return pool is not None and pool.scripts is not None and pool.scripts.endswith(".py")


def _check_prefix(reading: Reading, path: str, rule: Rule, purpose: str) -> None:
    """What is looked up needs a place in the path."""
    if rule.match.path is not None and rule.match.path.endswith("/*"):
        return
    found = "nothing" if rule.match.path is None else f"'{rule.match.path}'"
    question = f"; did you mean '{rule.match.path.rstrip('/')}/*'?" if rule.match.path else ""
    reading.report(f"{path}.match.path", f'found {found}; expected a path that ends in "/*" {purpose}{question}')


def _check_pool_name(reading: Reading, path: str, name: str, kind: str) -> None:
    """`name` must be a pool that has the key `kind`."""
    pools = reading.config.pools
    if name not in pools:
        fitting = [each for each in pools if _has(reading, each, kind)]
        close = nearest(name, fitting)
        question = f"; did you mean '{close}'?" if close else ""
        what = f"one of {', '.join(fitting)}" if fitting else f"the name of a pool with {kind}"
        alternative = " or the path of a .py file" if kind == "python" else " or a folder"
        reading.report(path, f"found '{name}', which is no pool; expected {what}{alternative}{question}")
    elif not _has(reading, name, kind):
        other = "scripts" if kind == "python" else "python"
        question = f"; did you mean '{other}: {name}'?" if _has(reading, name, other) else ""
        folder = f", or './{name}' for the folder" if kind == "scripts" else ""
        reading.report(path, f"found pool '{name}', which has no {kind}; expected one that has{folder}{question}")


def _has(reading: Reading, pool: str, kind: str) -> bool:
    """Whether the file gives `kind` for `pool`, rightly or not: a fault is told once, not for each rule."""
    return kind in reading.given.get(f"pools.{pool}", ())


def _and(names: Iterable[str]) -> str:
    return " and ".join(names) or "none"
