"""Which program a path means (RFC 3875 section 3.3): by folder, by extension anywhere, by index; and what runs it."""

from __future__ import annotations

import shutil

import pytest
from harness import Server, wait_for
from programs import HEAD

SHOW = HEAD + 'echo "$SCRIPT_NAME|$PATH_INFO|$SCRIPT_FILENAME|$(pwd)|$REDIRECT_STATUS|$*"\n'
#: The same of a file without #! line.
BARE = SHOW.removeprefix("#!/bin/sh\n")
PHP = """<?php
header("Content-Type: text/plain");
echo $_SERVER["SCRIPT_NAME"], "|", $_SERVER["PATH_INFO"] ?? "", "|", getcwd(), "|", $_GET["q"] ?? "", "|",
     $_POST["field"] ?? "", "\\n";
"""
PERL = """#!/usr/bin/perl -w
my $is_warm = do { local (@ARGV, $/) = "/proc/$$/cmdline"; <> } !~ m{^/usr/bin/perl} || 0;
print "Content-Type: text/plain\\nX-Warm: $is_warm\\n\\n$^W $0 @ARGV $ENV{PATH_INFO}\\n";
"""
needs_php = pytest.mark.skipif(shutil.which("php-cgi") is None, reason="this machine has no php-cgi")

CONFIG = """
sites:
  - root: www
    rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}
      - {match: {path: /index-bin/*}, handler: {cgi: {directory: cgi-bin, index: [start.sh]}}}
      - {match: {path: /blog/*}, handler: {cgi: {directory: blog, extensions: [.sh, PHP]}}}
      - {match: {path: /order/*}, handler: {cgi: {directory: blog, extensions: [sh], index: [index.html, index.sh]}}}
      - {match: {path: /none/*}, handler: {cgi: {directory: blog, extensions: [sh], index: []}}}
      - {handler: {cgi: {directory: site, extensions: [.sh, .php, .pl, .py, .zz]}}}
  - hosts: [linked.example]
    symlinks: follow
    rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: site}}
      - {handler: {cgi: {directory: site, extensions: [.sh]}}}
  - hosts: [unlinked.example]
    rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: {directory: site, symlinks: deny}}}
      - {handler: {cgi: {directory: site, extensions: [.sh], symlinks: deny}}}
  - hosts: [front.example]
    rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: {directory: cgi-bin, fallback: /run.sh}}}
      - {handler: {cgi: {directory: site, extensions: [.sh], fallback: /run.sh}}}
cgi: {interpreters: {".zz": /bin/sh}}
"""

FILES: dict[str, str | bytes] = {
    "www/index.html": "root",
    "cgi-bin/run.sh": SHOW,
    "cgi-bin/start.sh": SHOW,
    "cgi-bin/dir/deep/run.sh": SHOW,
    "cgi-bin/dir/start.sh": SHOW,
    "cgi-bin/bare.sh": BARE,
    "cgi-bin/nothing": "echo no line\n",
    "cgi-bin/page.php": PHP,
    "blog/index.sh": SHOW,
    "blog/index.html": "index of the blog",
    "blog/style.css": "css",
    "blog/year/index.html": "a year",
    "blog/year/post.SH": SHOW,
    "blog/dir.sh/run.sh": SHOW,
    "blog/dir.sh/readme.txt": "read me",
    "blog/dir.sh/index.sh/x.txt": "index.sh is a folder",
    "blog/.hidden/run.sh": SHOW,
    "blog/.dot.sh": SHOW,
    "blog/tail.sh~": "a copy",
    "site/index.sh": SHOW,
    "site/page.html": "page",
    "site/static/index.html": "static index",
    "site/empty/other.txt": "x",
    "site/run.sh": SHOW,
    "site/bare.sh": BARE,
    "site/mapped.zz": BARE,
    "site/broken.zz.txt": "text",
    "site/wrong.py": "#!/no/such/interpreter -x\n",
    "site/page.php": PHP,
    "site/app/index.php": PHP,
    "site/lines.py": "#!/usr/bin/env python3\nimport sys\nprint('Content-Type: text/plain\\n')\nprint(sys.argv[0])\n",
    "site/warm.pl": PERL,
    "site/bare.pl": 'print "Content-Type: text/plain\\n\\n$0 $ENV{QUERY_STRING}\\n";\n',
    "site/with space é.sh": SHOW,
}


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG)
    started.allowed = [r"/no/such/interpreter"]
    (started.folder / "cgi-bin/plain.sh").write_text(SHOW)
    (started.folder / "site/executable.php").write_text(PHP)
    (started.folder / "site/executable.php").chmod(0o755)
    for name in ("run.sh", "index.sh"):
        (started.folder / "site" / name).chmod(0o755)
    (started.folder / "site/alias.sh").symlink_to("run.sh")
    (started.folder / "site/out.sh").symlink_to("../cgi-bin/run.sh")
    (started.folder / "blog/private.sh").write_text(SHOW)
    return started


def show(server: Server, name: str, info: str, file: str, status: str = "", words: str = "") -> str:
    path = server.folder / file
    return f"{name}|{info}|{path}|{path.parent}|{status}|{words}\n"


# By folder


def test_every_file_of_the_folder_is_a_program(server: Server) -> None:
    assert server.get("/cgi-bin/run.sh").text == show(server, "/cgi-bin/run.sh", "", "cgi-bin/run.sh")
    assert server.get("/cgi-bin/nothing").status == 500


def test_the_path_is_walked(server: Server) -> None:
    expected = show(server, "/cgi-bin/dir/deep/run.sh", "/extra/path", "cgi-bin/dir/deep/run.sh")
    assert server.get("/cgi-bin/dir/deep/run.sh/extra/path").text == expected
    assert server.get("/cgi-bin/dir/deep/none.sh/extra").status == 404


def test_path_info_is_decoded(server: Server) -> None:
    """RFC 3875 section 4.1.5; empty segments are merged before anything is looked up."""
    assert server.get("/cgi-bin/run.sh/a%20b/%C3%A9//c/").text.split("|")[1] == "/a b/é/c/"
    assert server.get("/cgi-bin/run.sh/a%2Fb").text.split("|")[1] == "/a/b"
    assert server.get("/cgi-bin/run.sh/a/..%2F..%2Fb").status == 404, "it is /cgi-bin/b"


def test_a_program_that_is_not_executable(server: Server) -> None:
    assert server.get("/cgi-bin/plain.sh").status == 500
    server.wait_for_log(r"plain\.sh.*not executable: chmod \+x")


def test_without_a_line_the_usual_interpreter_runs_it(server: Server) -> None:
    assert server.get("/cgi-bin/bare.sh").text == show(server, "/cgi-bin/bare.sh", "", "cgi-bin/bare.sh")


@needs_php
def test_php_in_a_folder_of_programs(server: Server) -> None:
    assert server.get("/cgi-bin/page.php/x?q=1").text == f"/cgi-bin/page.php|/x|{server.folder}/cgi-bin|1|\n"


def test_index_of_a_folder_of_programs(server: Server) -> None:
    assert server.get("/index-bin/").text == show(server, "/index-bin/start.sh", "", "cgi-bin/start.sh")
    assert server.get("/index-bin/dir/").text == show(server, "/index-bin/dir/start.sh", "", "cgi-bin/dir/start.sh")
    assert server.get("/index-bin/run.sh").text == show(server, "/index-bin/run.sh", "", "cgi-bin/run.sh")
    assert server.get("/index-bin/dir/deep/").status == 403


# By extension


def test_programs_among_files(server: Server) -> None:
    assert server.get("/run.sh").text == show(server, "/run.sh", "", "site/run.sh")
    page = server.get("/page.html")
    assert (page.text, page.header("content-type")) == ("page", "text/html; charset=utf-8")
    assert server.get("/page.html", {"If-None-Match": page.header("etag") or ""}).status == 304


def test_extension_with_path_info(server: Server) -> None:
    expected = show(server, "/blog/index.sh", "/2024/x", "blog/index.sh")
    assert server.get("/blog/index.sh/2024/x").text == expected
    assert server.get("/run.sh/").text == show(server, "/run.sh", "/", "site/run.sh")


def test_extension_in_any_case(server: Server) -> None:
    """On a file system or by a person that does not care, the source must not be what is sent."""
    assert server.get("/blog/year/post.SH").text == show(server, "/blog/year/post.SH", "", "blog/year/post.SH")


def test_a_folder_with_the_name_of_a_program(server: Server) -> None:
    assert server.get("/blog/dir.sh/run.sh/i").text == show(server, "/blog/dir.sh/run.sh", "/i", "blog/dir.sh/run.sh")
    assert server.get("/blog/dir.sh/readme.txt").text == "read me"
    moved = server.get("/blog/dir.sh?a=b")
    assert (moved.status, moved.header("location")) == (301, "/blog/dir.sh/?a=b")


def test_files_below_a_prefix(server: Server) -> None:
    """What follows the rule's path is looked up below the folder, for programs and files alike."""
    assert server.get("/blog/style.css").text == "css"
    assert server.get("/blog/year/").text == "a year"
    moved = server.get("/blog/year")
    assert (moved.status, moved.header("location")) == (301, "/blog/year/")
    assert server.get("/blog").header("location") == "/blog/"


def test_a_program_that_is_not_there(server: Server) -> None:
    for target in ("/no.sh", "/no.sh/extra", "/page.html/x.sh", "/no/x.php"):
        assert server.get(target).status == 404, target


def test_source_is_never_sent(server: Server) -> None:
    plain = ("/run.sh", "/run.sh/", "/run.sh/x.txt", "/blog/private.sh", "/bare.sh/a.css")
    for target in (*plain, "/%72un%2Esh", "/.//run.sh"):
        for method in ("GET", "POST"):
            response = server.get(target, method=method)
            assert "echo" not in response.text, (method, target)
            assert response.status == 200, (method, target)
    assert server.get("/run.sh", {"Range": "bytes=0-1"}).status == 200
    for target in ("/blog/.hidden/run.sh", "/blog/.dot.sh", "/blog/.dot.sh/x"):
        assert server.get(target).status == 404, target


def test_other_methods_are_for_programs(server: Server) -> None:
    assert server.post("/run.sh", b"x").status == 200
    refused = server.post("/page.html", b"x" * 100_000)
    assert (refused.status, refused.header("allow")) == (405, "GET, HEAD, OPTIONS")


def test_links(server: Server) -> None:
    assert server.get("/alias.sh").text.startswith("/alias.sh|")
    assert server.get("/out.sh").status == 403, "out of the folder"


@pytest.mark.parametrize("path", ["", "/cgi-bin"])
def test_links_as_the_site_has_them(server: Server, path: str) -> None:
    follow, deny = {"Host": "linked.example"}, {"Host": "unlinked.example"}
    assert server.get(f"{path}/out.sh", follow).text.startswith(f"{path}/out.sh|")
    assert server.get(f"{path}/alias.sh", follow).text.startswith(f"{path}/alias.sh|")
    assert server.get(f"{path}/alias.sh", deny).status == 403
    assert server.get(f"{path}/index.sh", deny).text.startswith(f"{path}/index.sh|")


def test_fallback(server: Server) -> None:
    """One program for all pages that are no files."""
    front = {"Host": "front.example"}
    expected = show(server, "/run.sh", "", "site/run.sh")
    for target in ("/a/pretty/page", "/a/folder/", "/none.sh", "/empty/none?a=b"):
        assert server.get(target, front).text == expected, target
        assert server.post(target, b"x", front).text == expected, target
    assert server.get("/page.html", front).text == "page"
    assert server.get("/empty", front).status == 301
    assert server.get("/empty/", front).status == 404
    assert server.get("/", front).text.startswith("/index.sh|")
    assert server.get("/cgi-bin/none/x", front).text == show(server, "/cgi-bin/run.sh", "", "cgi-bin/run.sh")
    assert server.get("/cgi-bin/start.sh/x", front).text.startswith("/cgi-bin/start.sh|/x|")


def test_names(server: Server) -> None:
    found = server.get("/with%20space%20%C3%A9.sh/%C3%A9").text
    assert found == show(server, "/with space é.sh", "/é", "site/with space é.sh")


# By index


def test_index_program(server: Server) -> None:
    assert server.get("/").text == show(server, "/index.sh", "", "site/index.sh")
    assert server.get("/?one+two").text == show(server, "/index.sh", "", "site/index.sh", words="one two")
    assert server.post("/", b"x").text == show(server, "/index.sh", "", "site/index.sh")
    assert server.get("/blog/").text == show(server, "/blog/index.sh", "", "blog/index.sh")


def test_order_of_index_names(server: Server) -> None:
    assert server.get("/order/").text == "index of the blog"
    assert server.get("/static/").text == "static index"
    assert server.get("/blog/dir.sh/").status == 404, "a folder is no index"


def test_without_an_index(server: Server) -> None:
    assert server.get("/empty/").status == 404
    assert server.get("/none/").status == 404


@needs_php
def test_index_in_php(server: Server) -> None:
    assert server.get("/app/?q=1").text == f"/app/index.php||{server.folder}/site/app|1|\n"
    assert server.get("/app").header("location") == "/app/"


# What runs it


def test_interpreter_of_the_configuration(server: Server) -> None:
    assert server.get("/mapped.zz").text == show(server, "/mapped.zz", "", "site/mapped.zz", "200")
    assert server.get("/broken.zz.txt").text == "text", "only the last extension counts"


def test_file_without_mode_runs_by_its_line(server: Server) -> None:
    assert server.get("/lines.py").text == f"{server.folder}/site/lines.py\n"
    assert server.get("/warm.pl/x").text == f"1 {server.folder}/site/warm.pl  /x\n"


def test_file_without_mode_in_a_warm_interpreter(server: Server) -> None:
    """Also when the process that is warm finds that the script has changed."""
    path = server.folder / "site/warm.pl"
    expected = f"1 {path}  /x\n"

    def is_warm() -> bool:
        response = server.get("/warm.pl/x")
        assert response.text == expected
        return response.header("x-warm") == "1"

    wait_for(is_warm, "the script runs in an interpreter that has started before")
    for number in range(3):
        path.write_text(PERL.replace("$^W $0", f"{number} $0"))
        assert server.get("/warm.pl/x").text == f"{number} {path}  /x\n"
    path.write_text(PERL)


def test_file_without_mode_and_line_runs_by_its_extension(server: Server) -> None:
    assert server.get("/bare.sh").text == show(server, "/bare.sh", "", "site/bare.sh", "200")
    assert server.get("/bare.pl?-d").text == f"{server.folder}/site/bare.pl -d\n"


def test_interpreter_that_is_not_there(server: Server) -> None:
    assert server.get("/wrong.py").status == 500
    server.wait_for_log(r"wrong\.py: its interpreter /no/such/interpreter is missing")


@needs_php
def test_php(server: Server) -> None:
    body = b"field=a%20b"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    expected = f"/page.php|/x/y|{server.folder}/site|1|a b\n"
    assert server.post("/page.php/x/y?q=1", body, form).text == expected
    assert server.get("/executable.php?q=-s").text == f"/executable.php||{server.folder}/site|-s|\n"
    assert "&lt;" not in server.get("/page.php?-s").text, "no option of php-cgi's from the client"
