"""An incident and its JSON: redaction, bounds, bad files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from appserver.incidents.record import (
    MAX_REQUESTS,
    REDACTED,
    Incident,
    IncidentError,
    RequestRecord,
    body_of,
    decode,
    encode,
    environment_of,
    redacted,
    request_of_frame,
)
from appserver.supervisor.frames import request_frame

ENVIRONMENT = {
    "REQUEST_METHOD": "POST",
    "REQUEST_URI": "/app/x?y=\xe9",
    "REMOTE_ADDR": "192.0.2.1",
    "CONTENT_LENGTH": "3",
    "HTTP_HOST": "example.org",
    "HTTP_COOKIE": "session=secret",
    "HTTP_X_API_KEY": "secret",
    "appserver.script": "/srv/x.py",
}


def incident(**more: Any) -> Incident:
    values: dict[str, Any] = {
        "id": "0123456789ab",
        "time": "2026-01-02T03:04:05.678Z",
        "kind": "death",
        "cause": "executor 3 was killed by SIGSEGV",
        "pool": "shop",
    }
    return Incident(**{**values, **more})


def test_what_is_written_is_read() -> None:
    record = request_of_frame(request_frame(0, 1, ENVIRONMENT, b"a=1", False), "00000000000000aa", (), 100)
    written = incident(
        executor=3,
        age_s=1.5,
        signal="SIGSEGV",
        memory={"rss": 5},
        stacks="Thread 0x1\n  \udc80",
        requests=[record],
        log=["a line", "\x1b[31m"],
        growth={"/app": [3, -4]},
    )
    data = encode(written, 1 << 20)
    assert data.endswith(b"}\n")
    found = decode(data, "x")
    assert replace(found, stacks=None) == replace(written, stacks=None)
    assert found.requests[0].environment["REQUEST_URI"] == "/app/x?y=\xe9"


# Requests


def test_request_of_a_frame() -> None:
    frame = request_frame(0, 1, ENVIRONMENT, b"a=1", False)
    record = request_of_frame(frame, "00000000000000aa", ["X-Api-Key"], 100)
    assert (record.method, record.target, record.host, record.client) == (
        "POST",
        "/app/x?y=\xe9",
        "example.org",
        "192.0.2.1",
    )
    assert (body_of(record), record.body_size, record.body_kept) == (b"a=1", 3, 3)
    assert "secret" not in json.dumps(asdict(record))
    assert record.environment["HTTP_COOKIE"] == record.environment["HTTP_X_API_KEY"] == REDACTED
    assert record.environment["appserver.script"] == "/srv/x.py"


@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie"])
def test_always_redacted(name: str) -> None:
    variable = "HTTP_" + name.upper().replace("-", "_")
    assert redacted({variable: "secret", "HTTP_X": "y"}, ()) == {variable: REDACTED, "HTTP_X": "y"}


def test_names_to_redact_are_those_of_fields_in_any_case() -> None:
    assert redacted({"HTTP_X_API_KEY": "s", "X_API_KEY": "t"}, ["x-aPI-key"]) == {
        "HTTP_X_API_KEY": REDACTED,
        "X_API_KEY": "t",
    }


@pytest.mark.parametrize(
    ("limit", "truncated", "kept", "size", "complaint"),
    [
        (100, False, 10, 10, ""),
        (10, False, 10, 10, ""),
        (4, False, 4, 10, "only 4 of 10 bytes were kept"),
        (0, False, 0, 10, "was not kept"),
        (100, True, 10, 11, "only 10 of 11 bytes were kept"),
    ],
)
def test_bodies_are_kept_up_to_a_limit(limit: int, truncated: bool, kept: int, size: int, complaint: str) -> None:
    frame = request_frame(0, 1, ENVIRONMENT, b"0123456789", False)
    record = request_of_frame(frame, "00000000000000aa", (), limit, truncated)
    assert (record.body_kept, record.body_size) == (kept, size)
    if not complaint:
        assert body_of(record) == b"0123456789"
        return
    with pytest.raises(IncidentError, match=complaint):
        body_of(record)


def test_a_body_that_the_core_cut_is_not_whole() -> None:
    frame = bytearray(request_frame(0, 1, {**ENVIRONMENT, "CONTENT_LENGTH": "5000000"}, b"01234", False))
    record = request_of_frame(bytes(frame), "00000000000000aa", (), 100, truncated=True)
    assert (record.body_kept, record.body_size) == (5, 5_000_000)
    with pytest.raises(IncidentError, match="only 5 of 5000000"):
        body_of(record)


def test_no_body_is_a_whole_one() -> None:
    record = request_of_frame(request_frame(0, 1, {"REQUEST_METHOD": "GET"}, b"", False), "00000000000000aa", (), 0)
    assert body_of(record) == b""


@pytest.mark.parametrize("length", [0, 47, 60])
def test_frames_that_are_none(length: int) -> None:
    frame = request_frame(0, 1, ENVIRONMENT, b"", False)[:length]
    with pytest.raises(IncidentError, match="request frame of"):
        request_of_frame(frame, "00000000000000aa", (), 100)


def test_environment() -> None:
    assert environment_of(b"A\0b\0C\0\0") == {"A": "b", "C": ""}


def test_what_is_known_later_is_added() -> None:
    found = incident(requests=[RequestRecord("00000000000000aa", cause="died", thread=2)])
    found.add_request(RequestRecord("00000000000000aa", method="GET", outcome="retried", environment={"A": "b"}))
    found.add_request(RequestRecord("00000000000000aa", environment={}))
    assert found.requests == [
        RequestRecord(
            "00000000000000aa", method="GET", cause="died", outcome="retried", thread=2, environment={"A": "b"}
        )
    ]
    assert found.holds("00000000000000aa")
    assert not found.holds("00000000000000ab")


def test_requests_are_bounded() -> None:
    found = incident()
    for number in range(MAX_REQUESTS + 5):
        found.add_request(RequestRecord(f"{number:016x}"))
    assert len(found.requests) == MAX_REQUESTS
    assert found.left_out == ["requests"]


# Bounds


@pytest.mark.parametrize("limit", [16 * 1024, 64 * 1024, 300 * 1024, 1 << 20])
def test_no_file_is_larger_than_its_limit(limit: int) -> None:
    big = incident(
        cause="c" * 5000,
        reason="r" * 100_000,
        traceback="t" * 100_000,
        stacks="\x1b\u20ac\n" * 100_000,
        log=["\udcff" * 2000] * 50,
        requests=[
            RequestRecord(
                f"{number:016x}",
                target="/" + "\x01" * 8000,
                environment={f"HTTP_{name}": "\xff" * 500 for name in range(30)},
                body="A" * 90_000,
                body_size=67_500,
                body_kept=67_500,
            )
            for number in range(MAX_REQUESTS)
        ],
    )
    data = encode(big, limit)
    assert len(data) <= limit
    found = decode(data, "x")
    assert "bodies" in found.left_out
    assert found.stacks is not None
    assert found.requests[0].request == f"{0:016x}"
    assert big.requests[0].body_kept == 67_500  # what is in memory stays whole


def test_bodies_go_first() -> None:
    request = RequestRecord(
        "00000000000000aa", environment={"A": "b"}, body="A" * 40_000, body_size=30_000, body_kept=30_000
    )
    found = decode(encode(incident(stacks="s" * 5000, requests=[request]), 16 * 1024), "x")
    assert found.left_out == ["bodies"]
    assert found.stacks == "s" * 5000
    assert found.requests[0].environment == {"A": "b"}
    with pytest.raises(IncidentError, match="was not kept"):
        body_of(found.requests[0])


# Bad files


def broken(**changes: Any) -> bytes:
    content = json.loads(encode(incident(requests=[RequestRecord("00000000000000aa")]), 1 << 20))
    for name, value in changes.items():
        if value is None:
            del content[name]
        else:
            content[name] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "x: not an incident"),
        (b"\xff\xfe\x00", "x: not an incident"),
        (b"[1]", "found a list; expected a JSON object"),
        (b"[" * 100_000, "x: not an incident"),
        (broken(format=99), "format is 99; expected 1"),
        (broken(format=None), "format is None; expected 1"),
        (broken(id="../../etc"), "id: found '../../etc'; expected 12 hex digits"),
        (broken(id=None), "id is missing"),
        (broken(pool=3), "pool: found int; expected str"),
        (broken(executor="x"), "executor: found str; expected int"),
        (broken(executor=True), "executor: found bool; expected int"),
        (broken(log=[1]), "log: expected texts only"),
        (broken(log="x"), "log: found str; expected list"),
        (broken(requests=3), "requests: found a int; expected a list"),
        (broken(requests=[3]), r"requests\[0\]: found a int; expected an object"),
        (broken(requests=[{}]), r"requests\[0\].request is missing"),
        (
            broken(requests=[{"request": "a", "environment": {"A": 1}}]),
            r"requests\[0\].environment: expected texts only",
        ),
        (broken(growth={"/a": 3}), "growth./a: expected two whole numbers"),
    ],
)
def test_bad_files_are_told(data: bytes, complaint: str) -> None:
    with pytest.raises(IncidentError, match=complaint):
        decode(data, "x")


def test_what_a_later_version_adds_is_ignored() -> None:
    assert decode(broken(colour="red"), "x").pool == "shop"


def test_a_body_that_is_not_base64() -> None:
    with pytest.raises(IncidentError, match="not base64"):
        body_of(RequestRecord("00000000000000aa", body="!", body_size=1, body_kept=1))
