"""awstats, a cgi-bin of the nineties: one large Perl script with its settings beside it and its pictures elsewhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import Server, wait_for
from real_programs import find_program, warm_and_cold

#: What counts the same is listed in the order of a hash, which has another seed in each interpreter.
CONFIG = """
cgi: {{warm: {warm}, environment: {{PERL_HASH_SEED: "0"}}}}
sites:
  - root: www
    rules:
      - {{match: {{path: /awstats-icon/*}}, handler: {{file: {{alias: /usr/share/awstats/icon}}}}}}
      - {{match: {{path: /cgi-bin/*}}, handler: {{cgi: cgi-bin}}}}
"""
SETTINGS = """
LogFile="{folder}/access.log"
LogFormat=1
SiteDomain="example.org"
HostAliases="localhost"
DNSLookup=0
DirData="{folder}/data"
DirCgi="/cgi-bin"
DirIcons="/awstats-icon"
AllowToUpdateStatsFromBrowser=1
UseFramesWhenCGI=0
"""
AGENTS = ("Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Gecko/20100101 Firefox/115.0", "Googlebot/2.1")
PAGES = {
    "main": "",
    "hosts": "&output=allhosts",
    "pages": "&output=urldetail",
    "browsers": "&output=browserdetail",
    "not found": "&output=errors404",
    "in Spanish": "&lang=es",
    "no such month": "&month=13",
}


class Sites(NamedTuple):
    warm: Server
    cold: Server


def log_lines() -> Iterator[str]:
    for number in range(200):
        when = f"{number % 28 + 1:02}/Mar/2024:10:{number % 60:02}:00 +0000"
        status = 404 if number % 10 == 0 else 200
        what = f'"GET /page-{number % 7}.html HTTP/1.1" {status} {1000 + number} "-" "{AGENTS[number % 5 == 0]}"'
        yield f"192.0.2.{number % 9} - - [{when}] {what}\n"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    program = find_program("awstats.pl", "awstats")
    folder = tmp_path_factory.mktemp("awstats")
    for name in ("cgi-bin", "data", "www"):
        (folder / name).mkdir()
    shutil.copy(program, folder / "cgi-bin")
    (folder / "cgi-bin/awstats.site.conf").write_text(SETTINGS.format(folder=folder))
    (folder / "access.log").write_text("".join(sorted(log_lines(), key=lambda line: line.split("[")[1])))
    with warm_and_cold(folder, CONFIG) as (warm, cold):
        update = warm.get(page("&update=1"))
        assert update.status == 200, update.text
        yield Sites(warm, cold)


def page(more: str) -> str:
    return f"/cgi-bin/awstats.pl?config=site&year=2024&month=03{more}"


def test_statistics_are_made(sites: Sites) -> None:
    response = sites.cold.get(page("&output=urldetail"))
    assert "example.org" in response.text and "page-3.html" in response.text
    (data,) = (sites.cold.folder / "data").iterdir()
    assert data.name == "awstats032024.site.txt"
    assert "/page-3.html" in data.read_text()


def test_a_warm_interpreter_writes_the_same_pages(sites: Sites) -> None:
    expected = {name: sites.cold.get(page(more)) for name, more in PAGES.items()}

    def zygotes() -> list[int]:
        return sites.warm.pids(r"workers/zygote\.pl .*awstats\.pl")

    wait_for(lambda: sites.warm.get(page("")) and len(zygotes()) > 1, "processes wait for requests to awstats")
    for name, more in PAGES.items():
        response = sites.warm.get(page(more))
        assert (response.status, response.body) == (expected[name].status, expected[name].body), name
    assert "runs cold" not in sites.warm.log()


def test_pictures_of_a_page(sites: Sites) -> None:
    text = sites.cold.get(page("")).text
    names = set(re.findall(r'src="(/awstats-icon/[^"]+)"', text))
    assert len(names) > 5
    for name in names:
        response = sites.warm.get(name)
        assert (response.status, response.body) == (
            200,
            Path("/usr/share/awstats/icon", name.removeprefix("/awstats-icon/")).read_bytes(),
        )


def test_settings_beside_the_script_are_not_shown(sites: Sites) -> None:
    response = sites.warm.get("/cgi-bin/awstats.site.conf")
    assert response.status == 500 and "LogFile" not in response.text
    sites.warm.wait_for_log("awstats.site.conf: not executable: chmod \\+x")
