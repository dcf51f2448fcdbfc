"""The request that new workers of a pool must answer before they take over: what `check` of the pool means.

Pure. The worker gets it as an environment (docs/executor-protocol.md, sections 8 and 9) and asks itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote_to_bytes, urlsplit

from appserver.config.model import Config, Rule, Site

USER_AGENT = "cherokee-app self-check"


def environment_of(config: Config, pool: str, software: str) -> Mapping[str, str] | None:
    """The request, as the first rule that leads to the pool from there would pass it on; None when no rule does, or
    the pool has no check.
    """
    target = config.pools[pool].check
    if target is None:
        return None
    url = urlsplit(target)
    path = unquote_to_bytes(url.path).decode("latin-1")
    for site, rule in _rules_to(config, pool):
        prefix = _prefix_for(rule, path)
        if prefix is None:
            continue
        host = url.netloc or _host_of(site)
        port = config.listen[0].port if config.listen else 80
        return {
            "REQUEST_METHOD": "GET",
            "REQUEST_URI": f"{url.path}?{url.query}" if url.query else url.path,
            "SCRIPT_NAME": prefix,
            "PATH_INFO": path[len(prefix) :],
            "QUERY_STRING": url.query,
            "SERVER_NAME": host.partition(":")[0],
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": software,
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REQUEST_SCHEME": url.scheme or "http",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_PORT": "0",
            "DOCUMENT_ROOT": site.root or "",
            "HTTP_HOST": host,
            "HTTP_USER_AGENT": USER_AGENT,
            "HTTP_ACCEPT": "*/*",
            "appserver.application": pool,
            "appserver.request_id": "self-check",
        }
    return None


def paths_to(config: Config, pool: str) -> list[str]:
    """What the rules that lead to the pool match, for people."""
    return [rule.match.path or "/*" for _, rule in _rules_to(config, pool)]


def _rules_to(config: Config, pool: str) -> Iterator[tuple[Site, Rule]]:
    return ((site, rule) for site in config.sites for rule in site.rules if rule.handler.python == pool)


def _prefix_for(rule: Rule, path: str) -> str | None:
    """SCRIPT_NAME when the rule takes a GET of that path."""
    if (rule.match.method and "GET" not in rule.match.method) or not _has_extension(rule, path):
        return None
    pattern = rule.match.path
    if pattern is None:
        return ""
    wanted = pattern.encode("utf-8", "surrogateescape").decode("latin-1")
    if not wanted.endswith("/*"):
        return "" if path == wanted else None
    prefix = wanted.removesuffix("/*")
    return prefix if path == prefix or path.startswith(f"{prefix}/") else None


def _has_extension(rule: Rule, path: str) -> bool:
    extension = path.rpartition("/")[2].rpartition(".")[2].lower()
    return not rule.match.extension or extension in {each.lower() for each in rule.match.extension}


def _host_of(site: Site) -> str:
    """One that leads to the site."""
    first = next((host for host in site.hosts if host != "*"), "localhost")
    return first.replace("*.", "www.", 1)
