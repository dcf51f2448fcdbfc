"""Status and headers: what passes, what is refused, and that remembering changes neither."""

from __future__ import annotations

import pytest

from appserver.workers import heads


def test_encode() -> None:
    headers = [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Content-Length", "5"), ("Set-Cookie", "b=\xe9")]
    head = heads.encode("200 OK", headers)
    assert head == (200, b"Content-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b=\xe9\r\n", 5, False)
    assert heads.cache[("200 OK", *headers)] is head


@pytest.mark.parametrize(
    ("status", "fields", "length", "block"),
    [
        ("200 OK", [], 0, b"Content-Length: 0\r\n"),
        ("200 OK", [("A", "b")], 5, b"A: b\r\nContent-Length: 5\r\n"),
        ("200 OK", [("A", "b")], None, b"A: b\r\n"),
        ("304 Not Modified", [("A", "b")], 5, b"A: b\r\n"),
        ("404 Not Found", [], 5, b"Content-Length: 5\r\n"),
        ("404 Not Found", [("A", "b")], 0, b"A: b\r\nContent-Length: 0\r\n"),
        ("404 Not Found", [], 0, b""),  # the site's page has a length of its own
    ],
)
def test_fields_for_head(status: str, fields: list[tuple[str, str]], length: int | None, block: bytes) -> None:
    assert heads.fields_for_head(heads.encode(status, fields), length) == block


@pytest.mark.parametrize("status", ["200", "200 ", "404 Not Found", "599 x", "200 Ça va"])
def test_good_status(status: str) -> None:
    assert heads.encode(status, []).status == int(status[:3])


@pytest.mark.parametrize(
    "status", ["", "OK", "20 OK", "200OK", "100 Continue", "600 x", "200 a\r\nb", "\uff1200 x", "200 a\n"]
)
def test_bad_status(status: str) -> None:
    with pytest.raises(heads.HeadError):
        heads.encode(status, [])


@pytest.mark.parametrize("status", [200, b"200 OK", None])
def test_status_of_another_type(status: object) -> None:
    with pytest.raises(TypeError):
        heads.encode(status, [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "header",
    [
        ("", "x"),
        ("A b", "x"),
        ("A:", "x"),
        ("A\n", "x"),
        ("A", "x\r\nB: y"),
        ("A", "x\n"),
        ("A", "\0"),
        ("A", "\x7f"),
        ("Connection", "close"),
        ("transfer-encoding", "chunked"),
        ("Upgrade", "x"),
        ("Status", "200"),
        ("Content-Length", "-1"),
        ("Content-Length", "5 "),
        ("Content-Length", "٣"),
        ("A", "\u20ac"),
        ("\xe4", "x"),
    ],
)
def test_bad_header(header: tuple[str, str]) -> None:
    for _ in range(2):  # also when it was seen before
        with pytest.raises(heads.HeadError):
            heads.encode("200 OK", [header])
    assert ("200 OK", header) not in heads.cache


@pytest.mark.parametrize("headers", [(), {"A": "b"}, [["A", "b"]], [("A",)], [("A", 1)], [(b"A", b"b")], ["ab"], None])
def test_headers_of_another_type(headers: object) -> None:
    with pytest.raises(TypeError):
        heads.encode("200 OK", headers)  # type: ignore[arg-type]


def test_two_lengths() -> None:
    assert heads.encode("200 OK", [("Content-Length", "5"), ("content-length", "5")]).length == 5
    with pytest.raises(heads.HeadError):
        heads.encode("200 OK", [("Content-Length", "5"), ("Content-Length", "6")])


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "304 Not Modified"])
def test_bodyless(status: str) -> None:
    assert heads.encode(status, []).bodyless


def test_limits() -> None:
    with pytest.raises(heads.HeadError):
        heads.encode("200 OK", [("A", "x")] * 257)
    with pytest.raises(heads.HeadError):
        heads.encode("200 OK", [("A", "x" * 70000)])


def test_cache_is_bounded() -> None:
    for number in range(3 * heads.CACHE_MAX):
        heads.encode("200 OK", [("A", str(number))])
    assert len(heads.cache) <= heads.CACHE_MAX
    heads.encode("200 OK", [("A", "x" * heads.CACHED_LEN_MAX)])
    assert all(len(head.fields) <= heads.CACHED_LEN_MAX for head in heads.cache.values())
