"""Handler scripts in folders: where they answer, what they import, which pool they run in, and names that collide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Server, wait_for

SAYS = """
def handle(request):
    return f"NAME {request.script_name}|{request.path_info}|{request.method}|{len(request.body)}"
"""


def says(name: str) -> str:
    """A script that says its name and where it was called."""
    return SAYS.replace("NAME", name)


FILES: dict[str, str | bytes] = {
    "www/index.html": "the page",
    "www/about.html": "about",
    "www/shop/logo.txt": "logo",
    "www/sub/index.html": "sub",
    "handlers/index.py": says("index"),
    "handlers/hello.py": says("hello"),
    "handlers/shop/index.py": says("shop index"),
    "handlers/shop/cart.py": """
from . import _prices
from .._words import WORD
from ._prices import PRICE
import _words

def handle(request):
    return {"price": PRICE, "same": _prices.PRICE is PRICE, "word": WORD, "by path": _words.WORD,
            "package": __package__.partition(".")[2]}
""",
    "handlers/shop/_prices.py": "PRICE = 5\n",
    "handlers/blog/__init__.py": "SETTING = 'from the package'\n",
    "handlers/blog/post.py": "from . import SETTING, _prices\n"
    "def handle(request):\n    return f'{SETTING} {_prices.PRICE}'\n",
    "handlers/blog/_prices.py": "PRICE = 7\n",
    "handlers/email/send.py": "import email.message\nfrom ._words import WORD\n"
    "def handle(request):\n    return f'{WORD} {email.message.Message.__name__}'\n",
    "handlers/email/_words.py": "WORD = 'mail'\n",
    "handlers/_words.py": "WORD = 'word'\n",
    "handlers/_lib/hidden.py": says("hidden"),
    "handlers/.secret/hidden.py": says("secret"),
    "handlers/mein laden/größe 1.2.py": "from . import _x\ndef handle(request):\n    return f'{_x.X} {request.path}'\n",
    "handlers/mein laden/_x.py": "X = 'ex'\n",
    "handlers/broken/__init__.py": "raise RuntimeError('of the package')\n",
    "handlers/broken/a.py": says("a"),
    "handlers/twice.py": says("twice"),
    "handlers/twice/index.py": says("never"),
    "handlers/twice/more.py": says("more"),
    "handlers/own.py": "import os\ndef handle(request):\n"
    "    return ' '.join((str(os.getpid()), os.environ['WHO'], os.getcwd()))\n",
    "handlers/group/one.py": "import os\ndef handle(request):\n    return str(os.getpid())\n",
    "handlers/group/deep/two.py": "import os\ndef handle(request):\n    return str(os.getpid())\n",
    "handlers/shared.py": "import os\ndef handle(request):\n    return str(os.getpid())\n",
}

CONFIG = """
log: {access: "off"}
pools:
  handlers: {processes: 1}
  own: {scripts: handlers/own.py, processes: 1, environment: {WHO: me}}
  group: {scripts: handlers/group, processes: 1}
sites:
  - root: www
    errors: {404: /none.html}
    rules:
      - {match: {path: /api/*}, handler: {python: own}}
      - {match: {path: /*}, handler: {scripts: ./handlers}}
      - {match: {path: /gone}, handler: {respond: {status: 410, body: gone}}}
"""


@pytest.fixture(scope="module")
def site(serve_module: Any) -> Iterator[Server]:
    yield serve_module(FILES, config=CONFIG)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/hello", "hello /hello||GET|0"),
        ("/hello/", "hello /hello|/|GET|0"),
        ("/hello/a/b", "hello /hello|/a/b|GET|0"),
        ("/shop", "shop index /shop||GET|0"),
        ("/shop/", "shop index /shop|/|GET|0"),
        ("/shop/other/x", "shop index /shop|/other/x|GET|0"),
        ("/twice", "twice /twice||GET|0"),
        ("/twice/x", "twice /twice|/x|GET|0"),
        ("/twice/more/x", "more /twice/more|/x|GET|0"),
        # What nothing else answers
        ("/", "the page"),
        ("/about.html", "about"),
        ("/sub/", "sub"),
        ("/gone", "gone"),
        ("/nothing/here", "index |/nothing/here|GET|0"),
        ("/_lib/hidden", "index |/_lib/hidden|GET|0"),
        ("/.secret/hidden", "index |/.secret/hidden|GET|0"),
        ("/shopping", "index |/shopping|GET|0"),
    ],
)
def test_where_scripts_answer(site: Server, target: str, body: str) -> None:
    assert site.get(target).text == body


def test_index_takes_what_no_file_can_answer(site: Server) -> None:
    assert site.post("/form", b"x" * 100_000).text == "index |/form|POST|100000"
    assert site.post("/about.html", b"abc").text == "index |/about.html|POST|3"
    assert site.get("/nothing", method="HEAD").status == 200
    assert site.get("/sub").status == 301  # the folder of a file is the files' matter
    response = site.get("/about.html", {"If-None-Match": site.get("/about.html").header("etag") or ""})
    assert response.status == 304


def test_many_requests_on_one_connection(site: Server) -> None:
    with site.connect() as connection:
        for _ in range(3):
            connection.send(
                "GET /about.html HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n"
                "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
            )
            assert connection.response().text == "about"
            assert connection.response().text == "index |/none|GET|0"
            assert connection.response().text == "index |/x|POST|2"


def test_imports_of_neighbours(site: Server) -> None:
    assert json.loads(site.get("/shop/cart").body) == {
        "price": 5,
        "same": True,
        "word": "word",
        "by path": "word",
        "package": "shop",
    }
    assert site.get("/blog/post").text == "from the package 7"
    assert site.get("/email/send").text == "mail Message"


def test_names_that_are_no_identifiers(site: Server) -> None:
    assert site.get("/mein%20laden/gr%C3%B6%C3%9Fe%201.2/x").text == "ex /mein laden/größe 1.2/x"


def test_broken_package_is_its_scripts_matter(site: Server) -> None:
    assert site.get("/broken/a").status == 500
    record = json.loads(site.wait_for_log('"handler failed".*broken'))
    assert "RuntimeError: of the package" in record["error"]
    assert "broken/__init__.py" in record["traceback"]
    assert site.get("/hello").status == 200


def test_names_that_collide_are_told(site: Server) -> None:
    line = site.wait_for_log("is left out")
    assert "handlers/twice/index.py' is left out: twice.py has /twice/; rename one" in line


def test_pools_of_scripts(site: Server) -> None:
    pid, who, folder = site.get("/own").text.split()
    assert (who, folder) == ("me", f"{site.folder}/handlers")
    assert site.get("/api/x").text.split()[0] == pid  # by the name of its pool, at another place
    group = {site.get(path).text for path in ("/group/one", "/group/deep/two")}
    assert len(group) == 1
    assert len({pid, *group, site.get("/shared").text}) == 3
    assert len(site.pids("workers/main.py")) == 3


def test_conventions_with_a_pool_in_a_file(serve: Any) -> None:
    """A file that has no sites: those of the conventions, with one line for the script that is to run alone."""
    pid = "import os\ndef handle(request):\n    return str(os.getpid())\n"
    server = serve(
        {"handlers/a.py": pid, "handlers/b/c.py": pid, "handlers/b/d.py": pid},
        config="pools: {handlers: {processes: 1}, own: {scripts: handlers/b/c.py, processes: 1}}\n",
    )
    assert server.get("/a").text == server.get("/b/d").text != server.get("/b/c").text


def test_sources_are_never_served(serve: Any) -> None:
    """A folder without www is the root itself; index.py must not open the way to the scripts' text."""
    server = serve({"handlers/index.py": says("index"), "handlers/a.py": says("a"), "page.html": "page"})
    assert server.get("/page.html").text == "page"
    assert server.get("/handlers/a.py").status == 404
    assert server.get("/handlers/").status == 404
    assert server.get("/a").text == "a /a||GET|0"
    assert server.get("/other").text == "index |/other|GET|0"


def test_dev_finds_scripts_in_new_folders(serve: Any) -> None:
    server = serve({"handlers/a.py": says("a")}, "--dev")
    assert server.get("/new/b").status == 404
    (server.folder / "handlers/new").mkdir()
    (server.folder / "handlers/new/_words.py").write_text("WORD = 'one'\n")
    text = "from ._words import WORD\ndef handle(request):\n    return WORD\n"
    (server.folder / "handlers/new/b.py").write_text(text)
    wait_for(lambda: server.get("/new/b").text == "one", "the script in the new folder is found")
    (server.folder / "handlers/new/_words.py").write_text("WORD = 'two and more'\n")
    wait_for(lambda: server.get("/new/b").text == "two and more", "its changed neighbour is used")


def test_uploads_large_and_small(serve: Any) -> None:
    script = """
def handle(request):
    return [[name, each.filename, each.size, type(each.file).__name__] for name, each in request.files.pairs()]
"""
    server = serve({"handlers/up.py": script})
    parts = "".join(
        f'--X\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n\r\n{"y" * size}\r\n'
        for name, size in (("small", 10), ("large", 3_000_000))
    )
    response = server.post("/up", f"{parts}--X--\r\n".encode(), {"Content-Type": "multipart/form-data; boundary=X"})
    assert json.loads(response.body) == [
        ["small", "small.bin", 10, "BytesIO"],
        ["large", "large.bin", 3_000_000, "BufferedRandom"],
    ]
