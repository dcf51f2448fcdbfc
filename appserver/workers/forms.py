"""Multipart forms (RFC 7578), since the standard library has no reader for them any more. Whole in memory; the caller bounds the size."""

from email.message import Message
from email.parser import BytesHeaderParser
from typing import List, NamedTuple, Tuple

MAX_PARTS = 1000
MAX_PART_HEAD = 8 * 1024  #: bytes of one part's header section


class Upload:
    """One file of a form."""

    def __init__(self, filename: str, content_type: str, data: bytes) -> None:
        self.filename = filename  #: as the client named it: not to be trusted as a path
        self.content_type = content_type
        self.data = data

    def save(self, path: str) -> None:
        """Writes the file's bytes to ``path``; raises OSError."""
        with open(path, "wb") as file:
            file.write(self.data)


class Form(NamedTuple):
    """Fields and files in their order."""

    fields: List[Tuple[str, str]]
    files: List[Tuple[str, Upload]]


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not 1 <= len(boundary) <= 70:
        raise ValueError("its Content-Type has no boundary")
    return boundary.encode("latin-1", "replace")


def _add(form: Form, part: bytes) -> None:
    head, separator, data = part.partition(b"\r\n\r\n")
    if not separator or len(head) > MAX_PART_HEAD:
        raise ValueError("a part has no header section")
    message = BytesHeaderParser().parsebytes(head + b"\r\n\r\n")
    name = message.get_param("name", header="content-disposition")
    if not isinstance(name, str):
        raise ValueError("a part has no name")
    name = name.encode("latin-1", "surrogateescape").decode("utf-8", "replace")
    filename = message.get_filename()
    if filename is None:
        form.fields.append((name, data.decode("utf-8", "replace")))
    else:
        form.files.append((name, Upload(filename, message.get_content_type(), data)))


def parse_multipart(body: bytes, content_type: str) -> Form:
    """The form in ``body``; raises ValueError with a sentence for what is wrong with it."""
    delimiter = b"\r\n--" + _boundary(content_type)
    parts = (b"\r\n" + body).split(delimiter)
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise ValueError("its last boundary is missing")
    if len(parts) - 2 > MAX_PARTS:
        raise ValueError(f"it has more than {MAX_PARTS} parts")
    form = Form([], [])
    for part in parts[1:-1]:
        if not part.lstrip(b" \t").startswith(b"\r\n"):
            raise ValueError("a boundary is not alone on its line")
        _add(form, part.lstrip(b" \t")[2:])
    return form
