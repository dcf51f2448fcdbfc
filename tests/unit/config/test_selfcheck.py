"""The request that `check` of a pool means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from appserver.config.load import read_text
from appserver.config.plan import build
from appserver.errors import ConfigError

SITES = """\
sites:
  - hosts: ["*.example.org"]
    root: /srv/www
    rules:
      - {match: {path: /form, method: POST}, handler: {python: shop}}
      - {match: {path: /shöp/*, extension: html}, handler: {python: shop}}
      - {match: {path: /shop/*}, handler: {python: shop}}
      - {match: {path: /old}, handler: {python: shop}}
"""


def environment_of(check: str, sites: str = SITES) -> Mapping[str, str]:
    text = f'listen: "127.0.0.1:8080"\npools:\n  shop: {{python: "shop:app", check: "{check}"}}\n{sites}'
    reading = read_text(text, "c.yaml", Path("/base"), {})
    reading.raise_problems()
    found = build("c.yaml", reading.config).pools[0].check
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("check", "script_name", "path_info", "query"),
    [
        ("/shop/health?a=b&c", "/shop", "/health", "a=b&c"),
        ("/shop", "/shop", "", ""),
        ("/old", "", "/old", ""),
        ("/sh%C3%B6p/a%20b.html", "/sh\u00c3\u00b6p", "/a b.html", ""),
    ],
)
def test_it_is_as_the_rule_passes_it_on(check: str, script_name: str, path_info: str, query: str) -> None:
    found = environment_of(check)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["QUERY_STRING"]) == (script_name, path_info, query)
    assert found["REQUEST_URI"] == check
    assert (found["HTTP_HOST"], found["SERVER_NAME"], found["SERVER_PORT"]) == ("www.example.org",) * 2 + ("8080",)
    assert (found["DOCUMENT_ROOT"], found["REQUEST_SCHEME"]) == ("/srv/www", "http")


def test_a_url_says_the_host() -> None:
    found = environment_of("https://shop.example:444/shop/")
    assert (found["HTTP_HOST"], found["SERVER_NAME"]) == ("shop.example:444", "shop.example")
    assert (found["REQUEST_SCHEME"], found["REQUEST_URI"]) == ("https", "/shop/")


def test_a_site_for_all_hosts_is_asked_as_localhost() -> None:
    assert environment_of("/x", "sites: [{rules: [{handler: {python: shop}}]}]")["HTTP_HOST"] == "localhost"


@pytest.mark.parametrize("check", ["/form", "/shopping", "/sh%C3%B6p/a.txt", "/"])
def test_a_path_that_does_not_lead_there(check: str) -> None:
    with pytest.raises(ConfigError) as caught:
        environment_of(check)
    (line,) = caught.value.lines
    assert line.endswith(
        f"pools.shop.check: found '{check}', from which no rule leads to the pool;"
        " expected a path that fits /form, /shöp/*, /shop/*, /old"
    )


@pytest.mark.parametrize(
    ("check", "wanted"),
    [
        ("health", "did you mean '/health'?"),
        ("http://a", "a URL with a path"),
        ("/a b", "percent-encoded"),
        ("/a#b", "a path that begins with '/'"),
    ],
)
def test_what_is_no_target(check: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=r"pools\.shop\.check") as caught:
        environment_of(check)
    assert wanted in str(caught.value)


def test_scripts_have_none() -> None:
    with pytest.raises(ConfigError, match="found in a pool of scripts"):
        read_text("pools: {handlers: {check: /x}}\n", "c.yaml", Path("/base"), {}).raise_problems()
