"""Forms: `application/x-www-form-urlencoded` and `multipart/form-data` (RFC 7578), read from a file object.

Everything a client can drive is bounded. Uploads are kept in memory while they are small and in a temporary file when
not, so that an upload of any size the server lets through costs a worker no memory.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import IO, BinaryIO, Dict, Iterator, List, Tuple, Union, cast
from urllib.parse import parse_qsl

from .values import MultiValues

FIELDS_MAX = 1000  #: parts of a form
PART_HEAD_MAX = 16 * 1024
TEXT_MAX = 1024 * 1024  #: bytes of all text fields together
UPLOAD_MEMORY = 1024 * 1024  #: bytes of an upload that are kept in memory
BOUNDARY_MAX = 70  #: RFC 2046 section 5.1.1
READ_SIZE = 64 * 1024

_PARAMETER = re.compile(r';\s*([\w!#$&+.^`|~%-]+\*?)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)', re.ASCII)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]\Z", re.ASCII)


class BadInput(ValueError):  # noqa: N818 (what a handler's author reads: "raise BadInput(...)")
    """The client sent something unusable. A handler that lets it through answers 400 with the message."""

    status = 400


class TooLarge(BadInput):
    """The client sent more than the limit. A handler that lets it through answers 413."""

    status = 413


class Upload:
    """A file of a form."""

    def __init__(self, filename: str, content_type: str, file: IO[bytes], size: int) -> None:
        self.filename = filename  #: without any folder, maybe empty; choose your own name to store it under
        self.content_type = content_type  #: as the client says
        self.file = file  #: at its beginning: `io.BytesIO`, or a real file when it is large; goes when it is closed
        self.size = size  #: bytes

    def read(self) -> bytes:
        """All of it."""
        self.file.seek(0)
        return self.file.read()

    def save(self, path: Union[str, Path]) -> None:
        """Copies it to `path`."""
        self.file.seek(0)
        with Path(path).open("wb") as target:
            shutil.copyfileobj(self.file, target, READ_SIZE)

    def close(self) -> None:
        """Gives up memory or disk; happens by itself when nobody has the object any more."""
        self.file.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Upload({self.filename!r}, {self.content_type!r}, {self.size} bytes)"


class Form(MultiValues[str]):
    """The text fields of a form; its uploads are in `files`."""

    def __init__(self, pairs: List[Tuple[str, str]], files: List[Tuple[str, Upload]]) -> None:
        super().__init__(pairs)
        self.files: MultiValues[Upload] = MultiValues(files)


def parse(content_type: str, stream: BinaryIO) -> Form:
    """The form of a body. Another content type has no fields. Raises BadInput, TooLarge."""
    kind, parameters = header_value(content_type)
    if kind == "application/x-www-form-urlencoded":
        return Form(_urlencoded(stream), [])
    if kind == "multipart/form-data":
        return _Multipart(stream, parameters.get("boundary", "")).parse()
    return Form([], [])


def header_value(text: str) -> Tuple[str, Dict[str, str]]:
    """`value; name=value; name="value"`: the value in lower case, and its parameters with names in lower case."""
    value, _, _ = text.partition(";")
    parameters: Dict[str, str] = {}
    for name, raw in _PARAMETER.findall(text[len(value) :]):
        if raw.startswith('"'):
            # Browsers write a quote as %22 and leave backslashes alone; only what must be an escape is taken for one.
            raw = raw[1:-1].replace('\\"', '"')
        parameters.setdefault(name.lower(), raw)
    return value.strip().lower(), parameters


def _urlencoded(stream: BinaryIO) -> List[Tuple[str, str]]:
    data = stream.read(TEXT_MAX + 1)
    if len(data) > TEXT_MAX:
        raise TooLarge(f"the form has more than {TEXT_MAX} bytes")
    text = data.decode("utf-8", "replace")  # browsers escape all that is not ASCII, other clients do not
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="replace")
    except ValueError:
        raise TooLarge(f"the form has more than {FIELDS_MAX} fields") from None


class _Multipart:
    """One pass over a multipart body. `_buf` holds what has been read and not used yet."""

    def __init__(self, stream: BinaryIO, boundary: str) -> None:
        if not _BOUNDARY.match(boundary):
            raise BadInput("the form's boundary is missing or malformed")
        self._stream = stream
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._buf = b"\r\n"  # so that the first delimiter looks like the others
        self._text_left = TEXT_MAX
        self._pairs: List[Tuple[str, str]] = []
        self._files: List[Tuple[str, Upload]] = []

    def parse(self) -> Form:
        for _ in self._content():
            pass  # the preamble
        while self._begins_part():
            if len(self._pairs) + len(self._files) >= FIELDS_MAX:
                raise TooLarge(f"the form has more than {FIELDS_MAX} fields")
            self._part()
        return Form(self._pairs, self._files)

    def _fill(self) -> None:
        data = self._stream.read(READ_SIZE)
        if not data:
            raise BadInput("the form ends before its last boundary")
        self._buf += data

    def _content(self) -> Iterator[bytes]:
        """The bytes up to the next delimiter, which is consumed."""
        delimiter = self._delimiter
        while True:
            at = self._buf.find(delimiter)
            if at >= 0:
                yield self._buf[:at]
                self._buf = self._buf[at + len(delimiter) :]
                return
            sure = len(self._buf) - len(delimiter) + 1  # the rest may be the beginning of a delimiter
            if sure > 0:
                yield self._buf[:sure]
                self._buf = self._buf[sure:]
            self._fill()

    def _until(self, end: bytes) -> bytes:
        """The bytes before `end`, which is consumed. Raises TooLarge past PART_HEAD_MAX."""
        while True:
            at = self._buf.find(end)
            if at > PART_HEAD_MAX or (at < 0 and len(self._buf) > PART_HEAD_MAX):
                raise TooLarge(f"the head of a part has more than {PART_HEAD_MAX} bytes")
            if at >= 0:
                found, self._buf = self._buf[:at], self._buf[at + len(end) :]
                return found
            self._fill()

    def _begins_part(self) -> bool:
        """What stands behind a delimiter: two hyphens end the form."""
        while len(self._buf) < 2:
            self._fill()
        if self._buf.startswith(b"--"):
            return False
        if self._until(b"\r\n").strip(b" \t"):
            raise BadInput("a boundary of the form is malformed")
        return True

    def _part(self) -> None:
        head = _part_head(self._until(b"\r\n\r\n"))
        kind, parameters = header_value(head.get("content-disposition", ""))
        name = parameters.get("name")
        if kind != "form-data" or name is None:
            raise BadInput("a part of the form has no name")
        name = _percent_decoded(name)
        filename = parameters.get("filename")
        if filename is None:
            self._pairs.append((name, self._text()))
        else:
            content_type = head.get("content-type", "application/octet-stream")
            self._files.append((name, self._upload(_base_name(filename), content_type)))

    def _text(self) -> str:
        pieces = []
        for piece in self._content():
            self._text_left -= len(piece)
            if self._text_left < 0:
                raise TooLarge(f"the text fields of the form have more than {TEXT_MAX} bytes")
            pieces.append(piece)
        return b"".join(pieces).decode("utf-8", "replace")

    def _upload(self, filename: str, content_type: str) -> Upload:
        """A small one is in memory, a large one a real file, which has no name any more."""
        file: IO[bytes] = io.BytesIO()
        size = 0
        try:
            for piece in self._content():
                size += len(piece)
                if size > UPLOAD_MEMORY and isinstance(file, io.BytesIO):
                    begun, file = file, cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115 (the handler's now)
                    file.write(begun.getbuffer())
                file.write(piece)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return Upload(filename, content_type, file, size)


def _part_head(data: bytes) -> Dict[str, str]:
    """Field names in lower case; browsers send names of files as UTF-8."""
    head: Dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon:
            raise BadInput("a part of the form has a malformed header")
        head.setdefault(name.strip().lower(), value.strip())
    return head


def _percent_decoded(text: str) -> str:
    """Browsers write only quotes and line ends so; another percent sign is one."""
    return text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _base_name(filename: str) -> str:
    """Without folders, which some clients send and none should choose on our disk."""
    name = _percent_decoded(filename).replace("\\", "/").rpartition("/")[2].replace("\0", "")
    return "" if name in (".", "..") else name
