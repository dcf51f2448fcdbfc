"""A rule with one CGI program, and symbolic links to programs: what elsewhere are ScriptAlias to a file, Action and
FollowSymLinks."""

from __future__ import annotations

import pytest
from harness import Server
from programs import HEAD

SPLIT = HEAD + 'echo "$SCRIPT_NAME|$PATH_INFO|$PATH_TRANSLATED|$QUERY_STRING|$(basename "$SCRIPT_FILENAME")|$(pwd)"\n'
FILES: dict[str, str | bytes] = {
    "www/page.md": "# page",
    "www/index.html": "index",
    "bin/tool": SPLIT,
    "bin/old.pl": "#!/usr/bin/perl\nprint qq{Content-Type: text/plain\\n\\n$ENV{SCRIPT_NAME}|$ENV{PATH_INFO}|$0\\n};\n",
    "bin/away": HEAD.replace("echo Content-Type: text/plain", "echo Location: /form"),
    "bin/where": HEAD + 'echo "$SCRIPT_NAME|$REDIRECT_SCRIPT_NAME|$REDIRECT_PATH_INFO|$REDIRECT_URL"\n',
    "cgi-bin/inside.sh": SPLIT,
    "mixed/run.sh": SPLIT,
}
CONFIG = """
sites:
  - root: www
    rules:
      - {match: {path: /tool/*}, handler: {cgi: {program: bin/tool}}}
      - {match: {path: /form}, handler: {cgi: {program: bin/where}}}
      - {match: {path: /exact.cgi}, handler: {cgi: {program: bin/tool}}}
      - {match: {path: /linked}, handler: {cgi: {program: link}}}
      - {match: {path: /away/*}, handler: {cgi: {program: bin/away}}}
      - {match: {path: /away-exact}, handler: {cgi: {program: bin/away}}}
      - {match: {path: /old/*}, handler: {cgi: {program: bin/old.pl}}}
      - {match: {path: /strict/*}, handler: {cgi: cgi-bin}}
      - {match: {path: /deny/*}, handler: {cgi: {directory: cgi-bin, symlinks: deny}}}
      - {match: {path: /follow/*}, handler: {cgi: {directory: cgi-bin, symlinks: follow}}}
      - {match: {path: /mixed/*}, handler: {cgi: {directory: mixed, extensions: [.sh], symlinks: follow}}}
      - {match: {extension: md}, handler: {cgi: {program: bin/tool}}}
"""


@pytest.fixture(scope="module")
def server(serve_module, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.getbasetemp() / "links"
    folder.mkdir()
    (folder / "outside.sh").write_text(SPLIT)
    (folder / "outside.sh").chmod(0o755)
    (folder / "page.html").write_text("page")
    started: Server = serve_module(FILES | {"link": ""}, config=CONFIG)
    for name in FILES:
        if not name.startswith("www"):
            (started.folder / name).chmod(0o755)
    (started.folder / "link").unlink()
    (started.folder / "link").symlink_to("bin/tool")
    for place in ("cgi-bin", "mixed"):
        (started.folder / place / "out.sh").symlink_to(folder / "outside.sh")
        (started.folder / place / "page.html").symlink_to(folder / "page.html")
    (started.folder / "cgi-bin/here.sh").symlink_to("inside.sh")
    return started


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/tool", "/tool||||tool|{folder}/bin"),
        ("/tool/", "/tool|/|{folder}/www/||tool|{folder}/bin"),
        ("/tool/a/b%20c?q=1", "/tool|/a/b c|{folder}/www/a/b c|q=1|tool|{folder}/bin"),
        ("/tool/tool/bin", "/tool|/tool/bin|{folder}/www/tool/bin||tool|{folder}/bin"),
        ("/exact.cgi?a=b", "/exact.cgi|||a=b|tool|{folder}/bin"),
        ("/linked", "/linked||||link|{folder}"),
        ("/page.md", "|/page.md|{folder}/www/page.md||tool|{folder}/bin"),
        ("/not/there.md", "|/not/there.md|{folder}/www/not/there.md||tool|{folder}/bin"),
    ],
)
def test_the_split_of_the_path(server: Server, target: str, expected: str) -> None:
    assert server.get(target).text.rstrip("\n") == expected.format(folder=server.folder)


def test_what_is_only_near_the_path(server: Server) -> None:
    assert server.get("/exact.cgi/more").status == 404
    assert server.get("/toolbox").status == 404
    assert server.get("/tool/../www/index.html").status == 404
    assert server.get("/tool/..%2f..%2fsecret").status in (400, 404)


def test_warm(server: Server) -> None:
    for _ in range(3):
        assert server.get("/old/x").text == f"/old|/x|{server.folder}/bin/old.pl\n"


@pytest.mark.parametrize(
    ("target", "expected"),
    [("/away/x/y", "/form|/away|/x/y|/away/x/y\n"), ("/away-exact", "/form|/away-exact||/away-exact\n")],
)
def test_local_redirect_from_one_program_to_another(server: Server, target: str, expected: str) -> None:
    assert server.get(target).text == expected


def test_links_out_of_the_folder(server: Server) -> None:
    assert server.get("/strict/here.sh").status == 200
    assert server.get("/strict/out.sh").status == 403
    server.wait_for_log(
        "/out.sh is or leads through a symbolic link that leads out of the folder: `symlinks: follow` allows that"
    )
    folder = server.folder / "cgi-bin"
    assert server.get("/follow/out.sh/x").text == f"/follow/out.sh|/x|{server.folder}/www/x||out.sh|{folder}\n"
    assert server.get("/mixed/out.sh").status == 200
    assert server.get("/mixed/page.html").text == "page"


def test_no_links_at_all(server: Server) -> None:
    assert server.get("/deny/inside.sh").status == 200
    for name in ("here.sh", "out.sh"):
        assert server.get(f"/deny/{name}").status == 403
        server.wait_for_log(
            f"/{name} is or leads through a symbolic link that is not followed, because of `symlinks: deny`"
        )
