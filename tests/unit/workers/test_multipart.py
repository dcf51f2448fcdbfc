"""Forms, whole and byte by byte."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from appserver.workers import multipart
from appserver.workers.multipart import BadInput, TooLarge

TYPE = 'multipart/form-data; boundary="XyZ"'
BODY = (
    b"preamble\r\n--XyZ\r\n"
    b'Content-Disposition: form-data; name="title"\r\n\r\n'
    b"gr\xc3\xbc\xc3\x9fe\r\n--XyZ  \r\n"
    b'Content-Disposition: form-data; name="photo"; filename="C:\\fakepath\\a%22b.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
    b"\x89PNG\r\n--Xy\r\n\r\n--XyZ\r\n"
    b'Content-Disposition: form-data; name="title"\r\n\r\n'
    b"\r\n--XyZ--\r\nepilogue"
)


class Trickle(io.BytesIO):
    """Gives one byte a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1)


@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_multipart(stream: type[io.BytesIO]) -> None:
    form = multipart.parse(TYPE, stream(BODY))
    assert form["title"] == "grüße"
    assert form.getlist("title") == ["grüße", ""]
    upload = form.files["photo"]
    assert (upload.filename, upload.content_type) == ('a"b.png', "image/png")
    assert upload.read() == b"\x89PNG\r\n--Xy\r\n"
    assert upload.size == len(upload.read())
    upload.file.close()


def test_without_preamble() -> None:
    form = multipart.parse(TYPE, io.BytesIO(BODY[len("preamble\r\n") :]))
    assert form["title"] == "grüße"


def test_large_upload_is_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10000
    head = b'--XyZ\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n'
    upload = multipart.parse(TYPE, io.BytesIO(head + data + b"\r\n--XyZ--")).files["f"]
    assert upload.size == len(data)
    upload.save(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert upload.content_type == "application/octet-stream"
    upload.file.close()


@pytest.mark.parametrize("more", [0, 1])
def test_an_upload_is_a_file_that_libraries_take(more: int) -> None:
    """In memory up to the limit, a real one above it; both can be read and sought by what wants a whole file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a.txt", b"in the archive")
        made.comment = b"c" * 100
    padding = b"p" * (multipart.UPLOAD_MEMORY + more - len(archive.getvalue()))
    head = b'--XyZ\r\nContent-Disposition: form-data; name="f"; filename="x.zip"\r\n\r\n'
    body = head + padding + archive.getvalue() + b"\r\n--XyZ--"
    upload = multipart.parse(TYPE, io.BytesIO(body)).files["f"]
    assert upload.size == multipart.UPLOAD_MEMORY + more
    with zipfile.ZipFile(upload.file) as found:
        assert found.read("a.txt") == b"in the archive"
    if more:
        assert os.fstat(upload.file.fileno()).st_size == upload.size
    else:
        assert isinstance(upload.file, io.BytesIO)
    upload.close()


def test_every_cut_is_bad_input() -> None:
    for end in range(len(BODY) - len("\r\nepilogue") - 2):
        with pytest.raises(BadInput):
            multipart.parse(TYPE, io.BytesIO(BODY[:end]))


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="a\u20acb"']
)
def test_bad_boundary(kind: str) -> None:
    with pytest.raises(BadInput):
        multipart.parse(kind, io.BytesIO(BODY))


@pytest.mark.parametrize(
    "part",
    [
        b"no colon\r\n\r\n",
        b"Content-Type: text/plain\r\n\r\n",
        b"Content-Disposition: form-data\r\n\r\n",
        b'Content-Disposition: attachment; name="a"\r\n\r\n',
    ],
)
def test_bad_part(part: bytes) -> None:
    with pytest.raises(BadInput):
        multipart.parse(TYPE, io.BytesIO(b"--XyZ\r\n" + part + b"x\r\n--XyZ--"))


def test_limits() -> None:
    part = b'--XyZ\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    with pytest.raises(TooLarge):
        multipart.parse(TYPE, io.BytesIO(part * 1001 + b"--XyZ--"))
    with pytest.raises(TooLarge):
        multipart.parse(TYPE, io.BytesIO(b"--XyZ\r\nA: " + b"x" * 20000))
    with pytest.raises(TooLarge):
        multipart.parse(TYPE, io.BytesIO(part.replace(b"x\r\n", b"x" * multipart.TEXT_MAX + b"y\r\n") + b"--XyZ--"))


def test_urlencoded() -> None:
    form = multipart.parse("application/x-www-form-urlencoded; charset=utf-8", io.BytesIO(b"a=1&b=%C3%BC+x&a=2&c="))
    assert (form.getlist("a"), form["b"], form.get("c"), form.get("d", "-")) == (["1", "2"], "ü x", "", "-")
    assert "d" not in form
    form = multipart.parse("application/x-www-form-urlencoded", io.BytesIO("ö=ü+%C3%A4&x=".encode() + b"\xff"))
    assert dict(form.items()) == {"ö": "ü ä", "x": "\ufffd"}
    with pytest.raises(TooLarge):
        multipart.parse("application/x-www-form-urlencoded", io.BytesIO(b"a=1&" * 1001 + b"a=1"))
    with pytest.raises(TooLarge):
        multipart.parse("application/x-www-form-urlencoded", io.BytesIO(b"a=" + b"x" * multipart.TEXT_MAX))


def test_another_type_has_no_fields() -> None:
    assert len(multipart.parse("application/json", io.BytesIO(b"{}"))) == 0
    assert len(multipart.parse("", io.BytesIO(b""))) == 0


@pytest.mark.parametrize(
    ("sent", "kept"), [("../../etc/passwd", "passwd"), ("..", ""), ("a/b\\c", "c"), ("x\0y", "xy")]
)
def test_no_folders_in_file_names(sent: str, kept: str) -> None:
    body = f'--XyZ\r\nContent-Disposition: form-data; name="f"; filename="{sent}"\r\n\r\nx\r\n--XyZ--'.encode()
    upload = multipart.parse(TYPE, io.BytesIO(body)).files["f"]
    assert upload.filename == kept
    upload.file.close()
