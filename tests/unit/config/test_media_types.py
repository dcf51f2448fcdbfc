"""The system's table of media types."""

from __future__ import annotations

from pathlib import Path

from appserver.config.media_types import MAX_BYTES, Types, read_types

TABLE = b"""\
# a comment
application/x-one\t\tone uno
application/none
text/x-two   two   # with a comment
TEXT/x-three three
image/x-four tar.four

video/x-five five\r
application/x-later one
text/bad;charset=x bad
no-type nothing
application/x-upper UP up Mixed
application/x-odd "quoted" ../x \xff ok
"""


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "mime.types"
    path.write_bytes(TABLE)
    assert read_types(path) == Types(
        {
            "one": "application/x-later",
            "uno": "application/x-one",
            "two": "text/x-two; charset=utf-8",
            "three": "TEXT/x-three; charset=utf-8",
            "tar.four": "image/x-four",
            "five": "video/x-five",
            "up": "application/x-upper",
            "ok": "application/x-odd",
        }
    )


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert read_types(tmp_path).warnings == (f"types_file: {tmp_path}: Is a directory; its types are left out",)
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    assert read_types(large) == Types(
        warnings=(f"types_file: {large}: larger than {MAX_BYTES} bytes; its types are left out",)
    )
    large.write_bytes(b"#" * MAX_BYTES)
    assert read_types(large) == Types()
