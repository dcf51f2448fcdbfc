"""The smallest WSGI applications; what is measured is what their server costs."""

import json
import tempfile
import time

MIB = 2**20
PIECE = b"x" * MIB
SLOW_S = 0.05

_file = tempfile.NamedTemporaryFile()  # noqa: SIM115 (as long as the process)
_file.truncate(100 * MIB)


def hello(environ, start_response):
    """The same few bytes for everybody."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world\n"]


def as_json(environ, start_response):
    """A small document, encoded each time."""
    body = json.dumps({"message": "Hello, world", "path": environ["PATH_INFO"], "list": [1, 2, 3]}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def echo(environ, start_response):
    """The request's body."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))])
    return [body]


def mebibyte(environ, start_response):
    """A large response from memory."""
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(MIB))])
    return [PIECE]


def file(environ, start_response):
    """A file of 100 MiB through `wsgi.file_wrapper`, or in pieces where the server has none."""
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(100 * MIB))])
    wrapper = environ.get("wsgi.file_wrapper")
    opened = open(_file.name, "rb")  # noqa: SIM115, PTH123 (the server closes it)
    return wrapper(opened, 65536) if wrapper else iter(lambda: opened.read(65536), b"")


def slow(environ, start_response):
    """Waits, as for a database."""
    time.sleep(SLOW_S)
    return hello(environ, start_response)


ROUTES = {"/": hello, "/json": as_json, "/echo": echo, "/1m": mebibyte, "/100m": file, "/slow": slow}


def application(environ, start_response):
    """By path."""
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
