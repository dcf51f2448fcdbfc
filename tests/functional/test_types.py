"""Media types: built in, of the system's table, of the configuration."""

from __future__ import annotations

import signal

from harness import wait_for

EXTENSIONS = ("html", "js", "foo", "bar", "baz", "ts", "nothing", "tar.gz", "FOO")
FILES = {f"www/a.{extension}": "x" for extension in EXTENSIONS}
TABLE = """\
# as /etc/mime.types
application/x-foo   foo
text/x-bar          bar
video/x-baz         baz
application/javascript js
text/vnd.trolltech.linguist ts
"""


def types_of(server) -> dict[str, str | None]:
    return {
        name.removeprefix("www/a."): server.get("/" + name.removeprefix("www/")).header("content-type")
        for name in FILES
    }


BUILT_IN = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "foo": "application/octet-stream",
    "bar": "application/octet-stream",
    "baz": "application/octet-stream",
    "ts": "video/mp2t",
    "nothing": "application/octet-stream",
    "tar.gz": "application/gzip",
    "FOO": "application/octet-stream",
}


def test_the_system_has_no_say_by_default(serve):
    server = serve(FILES, config="sites: [{root: www}]\n")
    assert types_of(server) == BUILT_IN
    for name in FILES:
        assert server.get("/" + name.removeprefix("www/")).header("x-content-type-options") == "nosniff"


def test_layers(serve):
    """The table fills gaps, the configuration goes before all."""
    server = serve(
        {**FILES, "mime.types": TABLE},
        config="types_file: mime.types\ntypes: {.baz: audio/x-baz, .html: application/x-mine}\nsites: [{root: www}]\n",
    )
    of_table = {
        "foo": "application/x-foo",
        "FOO": "application/x-foo",
        "bar": "text/x-bar; charset=utf-8",
        "baz": "audio/x-baz",
        "html": "application/x-mine",
    }
    assert types_of(server) == BUILT_IN | of_table
    (server.folder / "mime.types").write_text("application/x-other foo\n")
    assert server.get("/a.foo").header("content-type") == "application/x-foo"
    server.kill(signal.SIGHUP)  # a reload reads it again
    wait_for(lambda: server.get("/a.foo").header("content-type") == "application/x-other", "the new table is in use")
