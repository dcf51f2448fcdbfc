"""The handler scripts of docs/python.md, as they are written there, through the real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from harness import PATIENCE_S, TOP, Server
from websocket_clients import client

TEXT = (TOP / "docs" / "python.md").read_text()
SCRIPTS = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
CONFIGURATIONS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def guide(serve_module: Any) -> Iterator[Server]:
    yield serve_module(SCRIPTS)


def test_every_example_is_known() -> None:
    assert len(SCRIPTS) == TEXT.count("```python") == 9
    assert all(name.startswith("handlers/") for name in SCRIPTS)


def test_hello(guide: Server) -> None:
    assert guide.get("/hello/").text == "Hello, world!"
    assert guide.get("/hello?name=Ada").text == "Hello, Ada!"


def test_guestbook(guide: Server) -> None:
    assert guide.get("/guestbook").header("content-type") == "text/html; charset=utf-8"

    def send(who: str) -> Any:
        body = (
            f'--X\r\nContent-Disposition: form-data; name="who"\r\n\r\n{who}\r\n'
            '--X\r\nContent-Disposition: form-data; name="picture"; filename="../p.png"\r\n\r\nPNG\r\n--X--\r\n'
        )
        return guide.post("/guestbook", body.encode(), {"Content-Type": "multipart/form-data; boundary=X"})

    refused = send("../../etc")
    assert (refused.status, refused.text) == (400, "the field who must be a name of letters\n")
    taken = send("Ada")
    assert (taken.status, taken.header("location")) == (303, "/guestbook")
    assert (guide.folder / "pictures" / "Ada.png").read_bytes() == b"PNG"


def test_numbers(guide: Server) -> None:
    assert guide.get("/numbers?to=4").text == "1\n2\n3\n4\n"


def test_talk(guide: Server) -> None:
    with client(guide, "/talk?name=Ada") as connection:
        assert connection.recv(PATIENCE_S) == "Hello, Ada!"
        connection.send("hi")
        assert json.loads(connection.recv(PATIENCE_S)) == {"Ada": "hi"}
    assert guide.get("/talk").header("content-type") == "text/html; charset=utf-8"


def test_cart(guide: Server) -> None:
    assert json.loads(guide.get("/shop/cart/apple").body) == {"apple": 3}
    assert guide.get("/shop/cart/plum").status == 404
    assert guide.get("/shop/_prices").status == 404


def test_flask(guide: Server) -> None:
    pytest.importorskip("flask", reason="Flask is not installed")
    assert guide.get("/flasked/hi/you").text == "hi you"


def test_asynchronous(guide: Server) -> None:
    assert json.loads(guide.get("/waiting?for=you").body) == {"waited": "you"}


def test_deadline(guide: Server) -> None:
    assert guide.get("/patient").text == "3 steps\n"


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_configurations_have_the_keys_that_there_are(number: int) -> None:
    """The files that they name are not here, so only that can be looked at."""
    from appserver.config.load import read_text

    reading = read_text(CONFIGURATIONS[number], "python.md", TOP)
    assert [problem.text for problem in reading.problems] == []
    assert yaml.safe_load(CONFIGURATIONS[number])["pools"]
