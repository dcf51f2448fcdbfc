"""gitweb, eight thousand lines of Perl: what it answers, and that a warm interpreter answers the same."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import Response, Server, wait_for
from real_programs import Git, files_of_tar, find_perl_module, find_program, make_repository, warm_and_cold

SCRIPT = "/usr/share/gitweb/gitweb.cgi"
PERL_CONFIG = r"""
our $projectroot = "%s";
our $site_name = "Some projects";
$feature{'snapshot'}{'default'} = ['tgz', 'zip'];
$feature{'pathinfo'}{'default'} = [1];
$feature{'blame'}{'default'} = [1];
# An interpreter that was started for the script has its own name in its command line.
open my $command, '<', '/proc/self/cmdline';
print STDERR <$command> =~ m{bin/perl\0} ? "in a new interpreter\n" : "in a warm interpreter\n";
close $command;
1;
"""
CONFIG = """
cgi: {{warm: {warm}, environment: {{GITWEB_CONFIG: {settings}}}}}
sites:
  - rules:
      - {{match: {{path: /gitweb/static/*}}, handler: {{file: /usr/share}}}}
      - {{match: {{path: /gitweb/*}}, handler: {{cgi: /usr/share/gitweb}}}}
"""
FILES = {
    "README": b"The first line\nand <another> & a third one\n",
    "src/main.c": b"int main(void)\n{\n\treturn 0;\n}\n",
    "src/café.txt": "Un café\n".encode(),
    "image.bin": bytes(range(256)) * 64,
}
TOP = "/gitweb/gitweb.cgi"
#: By what they are; `{tip}` is the last commit.
PAGES = {
    "projects": "",
    "projects as text": "?a=project_index",
    "projects searched": "?s=gar",
    "opml": "?a=opml",
    "summary": "/garden.git",
    "tree": "/garden.git/tree/HEAD:/src",
    "tree of a commit": "/garden.git/tree/{tip}",
    "blob": "/garden.git/blob/HEAD:/src/main.c",
    "blob as it is": "/garden.git/blob_plain/HEAD:/image.bin",
    "blame": "/garden.git/blame/HEAD:/README",
    "history": "/garden.git/history/HEAD:/README",
    "log": "/garden.git/log",
    "commit": "/garden.git/commit/{tip}",
    "difference": "/garden.git/commitdiff/{tip}",
    "difference as text": "/garden.git/commitdiff_plain/{tip}",
    "feed": "/garden.git/atom",
    "search": "?p=garden.git;a=search;s=main;st=commit",
    "snapshot": "/garden.git/snapshot/{tip}.tar.gz",
    "no such page": "/garden.git/blob/HEAD:/none",
    "no such project": "?p=none.git",
    "bad query": "?a=none;p=garden.git",
}


class Sites(NamedTuple):
    warm: Server
    cold: Server
    tip: str

    def targets(self) -> dict[str, str]:
        return {name: TOP + page.format(tip=self.tip) for name, page in PAGES.items()}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    find_program(SCRIPT, "gitweb")
    find_perl_module("CGI", "libcgi-pm-perl")
    folder = tmp_path_factory.mktemp("gitweb")
    git = Git(folder)
    repository = folder / "projects/garden.git"
    make_repository(git, repository, FILES)
    (repository / "description").write_text("What grows <where>\n")
    git("config", "gitweb.owner", "Ada", folder=repository)
    settings = folder / "gitweb.conf"
    settings.write_text(PERL_CONFIG % repository.parent)
    with warm_and_cold(folder, CONFIG, settings=settings) as (warm, cold):
        wait_for(lambda: warm.get(TOP) and "in a warm interpreter" in warm.log(), "gitweb in a warm interpreter")
        yield Sites(warm, cold, git("rev-parse", "main", folder=repository))


def masked(response: Response, server: Server) -> tuple[int, list[tuple[str, str]], bytes]:
    """Without what differs between two answers of one interpreter: dates of now, the port."""
    # Whether the length is known in time depends on when the program has ended.
    left_out = ("date", "expires", "content-length", "transfer-encoding")
    fields = [(name, value) for name, value in response.headers if name.lower() not in left_out]
    body = response.body.replace(b":%d/" % server.port, b":PORT/")
    return response.status, fields, re.sub(rb"\d+ (years|months) ago", b"some time ago", body)


@pytest.mark.parametrize("name", list(PAGES))
def test_a_warm_interpreter_answers_the_same(sites: Sites, name: str) -> None:
    target = sites.targets()[name]
    expected = masked(sites.cold.get(target), sites.cold)
    for _ in range(2):
        assert masked(sites.warm.get(target), sites.warm) == expected
    assert "in a warm interpreter" not in sites.cold.log()


def test_which_interpreter(sites: Sites) -> None:
    """The comparison is one: nearly all of the one server's answers are by forked processes."""

    def counts() -> list[int]:
        return [sites.warm.log().count(f"in a {kind} interpreter") for kind in ("warm", "new")]

    def are_all_warm() -> bool:
        # What a run says comes to the log after its answer.
        wait_for(lambda: sum(counts()) == sites.warm.log().count('"GET ' + TOP), "every run so far has said it")
        before = counts()
        for _ in range(10):
            sites.warm.get(TOP)
        wait_for(lambda: sum(counts()) >= sum(before) + 10, "these have, too")
        return counts() == [before[0] + 10, before[1]]

    # On a machine that has much to do a request may find no process that waits.
    wait_for(are_all_warm, "ten in a row by forked processes")


def page(sites: Sites, name: str) -> Response:
    response = sites.warm.get(sites.targets()[name])
    assert response.status == 200, response.text
    return response


def test_project_list(sites: Sites) -> None:
    text = page(sites, "projects").text
    assert "<title>Some projects</title>" in text
    assert "garden.git" in text and "What grows &lt;where&gt;" in text
    assert page(sites, "projects as text").text == "garden.git Ada\n"


def test_tree_and_blob(sites: Sites) -> None:
    tree = page(sites, "tree").text
    (link,) = set(re.findall(r'href="([^"]+/blob/HEAD:/src/main\.c)"', tree))
    assert "café.txt" in tree
    assert "return&nbsp;0;" in sites.warm.get(link).text
    plain = page(sites, "blob as it is")
    assert plain.body == FILES["image.bin"]
    assert str(plain.header("content-type")).startswith("application/octet-stream")


def test_snapshot(sites: Sites) -> None:
    """Made by `git archive` and gzip, both of which gitweb starts."""
    response = page(sites, "snapshot")
    assert str(response.header("content-type")).startswith("application/x-gzip")
    assert response.header("content-disposition") == f'inline; filename="garden-{sites.tip[:7]}.tar.gz"'
    assert files_of_tar(gzip.decompress(response.body)) == FILES


def test_static_files_beside_it(sites: Sites) -> None:
    """They are named relative to the page."""
    text = page(sites, "projects").text
    names = set(re.findall(r'(?:href|src)="(static/[^"]+)"', text))
    assert {Path(name).suffix for name in names} == {".css", ".js", ".png"}
    for name in names:
        response = sites.warm.get(f"/gitweb/{name}")
        assert (response.status, response.body) == (200, Path("/usr/share/gitweb", name).read_bytes())


def test_what_is_not_there(sites: Sites) -> None:
    for name in ("no such page", "no such project"):
        response = sites.warm.get(sites.targets()[name])
        assert (response.status, response.header("content-type")) == (404, "text/html; charset=utf-8")
    assert sites.warm.get(sites.targets()["bad query"]).status == 400
