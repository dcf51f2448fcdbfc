"""Starlette, unchanged, and a bare ASGI application through the real server."""

from __future__ import annotations

import hashlib
import json
import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from harness import PATIENCE_S, Server, wait_for

STARLETTE = r"""
import asyncio, contextlib, hashlib, os
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import (FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse,
                                 Response, StreamingResponse)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

FOLDER = os.path.dirname(os.path.abspath(__file__))

@contextlib.asynccontextmanager
async def lifespan(app):
    print("startup of the application", flush=True)
    yield {"started": "yes"}
    print("shutdown of the application", flush=True)

async def plain(request):
    return PlainTextResponse("plain " + request.method)

async def about(request):
    return JSONResponse({"url": str(request.url), "path": request.scope["path"], "root": request.scope["root_path"],
                         "raw": request.scope["raw_path"].decode(), "query": dict(request.query_params),
                         "client": request.client.host, "state": request.state.started,
                         "name": request.path_params.get("name"), "link": str(request.url_for("about", name="x y"))})

async def echo(request):
    return Response(await request.body(), media_type=request.headers.get("content-type"))

async def digest(request):
    found, pieces = hashlib.sha256(), 0
    async for piece in request.stream():
        found.update(piece)
        pieces += 1
    return JSONResponse([found.hexdigest(), pieces])

async def form(request):
    async with request.form() as form:
        upload = form["file"]
        data = await upload.read()
        return JSONResponse({"name": upload.filename, "size": len(data), "text": form["text"]})

async def stream(request):
    async def pieces():
        for number in range(int(request.query_params["count"])):
            yield f"{number} "
            if number % 10 == 0:
                await asyncio.sleep(0)
    return StreamingResponse(pieces(), media_type="text/plain")

def sync_stream(request):
    return StreamingResponse((bytes(1000) for _ in range(200)))

async def file(request):
    return FileResponse(os.path.join(FOLDER, "large.bin"), media_type="application/x-test")

async def away(request):
    return RedirectResponse(request.url_for("plain"), status_code=303)

async def cookies(request):
    response = HTMLResponse("<p>" + request.cookies.get("a", "-"))
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return response

async def background(request):
    async def later():
        await asyncio.sleep(0.05)
        print("background task is done", flush=True)
    return PlainTextResponse("at once", background=BackgroundTask(later))

async def fails(request):
    raise LookupError("starlette fails")

async def slow(request):
    await asyncio.sleep(float(request.query_params["s"]))
    return PlainTextResponse("slow")

class Tag(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["x-tag"] = "tagged"
        return response

routes = [
    Route("/", plain, methods=["GET", "POST"]), Route("/about/{name:path}", about),
    Route("/echo", echo, methods=["POST"]),
    Route("/digest", digest, methods=["POST"]), Route("/form", form, methods=["POST"]), Route("/stream", stream),
    Route("/sync-stream", sync_stream),
    Route("/file", file), Route("/away", away), Route("/cookies", cookies), Route("/background", background),
    Route("/fails", fails), Route("/slow", slow), Mount("/static", StaticFiles(directory=FOLDER + "/static")),
]
app = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Tag)])
"""

BARE = r"""
import asyncio

async def application(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/waits":
        print("waiting", flush=True)
        while (await receive())["type"] != "http.disconnect":
            pass
        print("client has gone", flush=True)
        return
    if scope["path"] == "/hints":
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    trailers = scope["path"] == "/trailers"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b")], "trailers": trailers})
    if scope["path"] == "/breaks":
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise LookupError("in the middle")
    if scope["path"] == "/endless":
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        except OSError:
            print("endless stream has ended", flush=True)
            raise
    if scope["path"] == "/split":
        await send({"type": "http.response.body", "body": 5})
    await send({"type": "http.response.body", "body": b"bare"})
    if trailers:
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"4")]})
"""

SCRIPTS: dict[str, str | bytes] = {
    "handlers/later.py": "import asyncio\nasync def handle(request):\n    await asyncio.sleep(0.001)\n"
    "    return {'query': request.query.get('a'), 'body': request.text}\n",
    "handlers/sooner.py": "def handle(request):\n    return 'sooner'\n",
    "handlers/bare.py": BARE,
}

CONFIG = """
log: {access: "off"}
pools:
  star: {python: "star:app", directory: ., processes: 2}
  bare: {python: "bare:application", directory: ., processes: 1}
  handlers: {scripts: handlers, processes: 1}
sites:
  - {hosts: [whole.example], rules: [{handler: {python: star}}]}
  - {hosts: [bare.example], rules: [{handler: {python: bare}}]}
  - hosts: ["*"]
    rules:
      - {match: {path: /star/*}, handler: {python: star}}
      - {match: {path: /*}, handler: {scripts: handlers}}
"""

LARGE = random.Random(4).randbytes(3_000_000)


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Iterator[Server]:
    files = {"star.py": STARLETTE, "bare.py": BARE, "large.bin": LARGE, "static/a.txt": "static", **SCRIPTS}
    server = serve_module(files, config=CONFIG)
    server.wait_for_log("startup of the application", 2)
    yield server


@pytest.fixture(params=["", "/star"], ids=["whole", "below a prefix"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fields(prefix: str, more: dict[str, str] | None = None) -> dict[str, str]:
    """Header fields that lead to the site where the application has this prefix."""
    return {"Host": "localhost:1234" if prefix else "whole.example", **(more or {})}


def test_plain_and_head(server: Server, prefix: str) -> None:
    response = server.get(f"{prefix}/", fields(prefix))
    assert (response.text, response.header("x-tag")) == ("plain GET", "tagged")
    head = server.get(f"{prefix}/", fields(prefix), method="HEAD")
    assert (head.status, head.body, head.header("content-length")) == (200, b"", "10")
    assert server.get(f"{prefix}/nowhere", fields(prefix)).status == 404
    assert server.get(f"{prefix}/", fields(prefix), method="DELETE").status == 405
    assert server.get(f"{prefix}/static/a.txt", fields(prefix)).text == "static"


def test_urls(server: Server, prefix: str) -> None:
    host = fields(prefix)["Host"]
    found = json.loads(server.get(f"{prefix}/about/J%C3%BCrgen%2Fx?a=%26", fields(prefix)).body)
    assert (
        found
        == {
            "url": f"http://{host}{prefix}/about/Jürgen/x?a=%26",
            "path": f"{prefix}/about/Jürgen/x",
            "root": prefix,
            "raw": f"{prefix}/about/J%C3%BCrgen%2Fx",
            "query": {"a": "&"},
            "client": "127.0.0.1",
            "state": "yes",
            "name": "Jürgen/x",
            "link": f"http://{host}{prefix}/about/x y",
        }
        or found["name"] is None
    )
    away = server.get(f"{prefix}/away", fields(prefix))
    assert (away.status, away.header("location")) == (303, f"http://{host}{prefix}/")


@pytest.mark.parametrize("size", [0, 10, 60_000, 70_000, 3_000_000])
def test_bodies(server: Server, prefix: str, size: int) -> None:
    data = LARGE[:size]
    assert server.post(f"{prefix}/echo", data, fields(prefix)).body == data
    digest, _ = json.loads(server.post(f"{prefix}/digest", data, fields(prefix)).body)
    assert digest == hashlib.sha256(data).hexdigest()


def test_chunked_body(server: Server) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (b"one", b"two" * 30_000)) + b"0\r\n\r\n"
    head = b"POST /digest HTTP/1.1\r\nHost: whole.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    found = json.loads(server.exchange(head + chunks).body)
    assert found[0] == hashlib.sha256(b"one" + b"two" * 30_000).hexdigest()


def test_upload(server: Server, prefix: str) -> None:
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="text"\r\n\r\nword\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + LARGE[:200_000]
    ) + b"\r\n--xyz--\r\n"
    more = fields(prefix, {"Content-Type": "multipart/form-data; boundary=xyz"})
    found = json.loads(server.post(f"{prefix}/form", body, more).body)
    assert found == {"name": "a.bin", "size": 200_000, "text": "word"}


def test_streams(server: Server, prefix: str) -> None:
    whole = "".join(f"{number} " for number in range(500))
    response = server.get(f"{prefix}/stream?count=500", fields(prefix))
    assert (response.text, response.header("content-length")) == (whole, None)
    assert server.get(f"{prefix}/sync-stream", fields(prefix)).body == bytes(200_000)


def test_file(server: Server, prefix: str) -> None:
    whole = server.get(f"{prefix}/file", fields(prefix))
    assert (whole.body, whole.header("content-type")) == (LARGE, "application/x-test")
    part = server.get(f"{prefix}/file", fields(prefix, {"Range": "bytes=100-199"}))
    assert (part.status, part.body) == (206, LARGE[100:200])


def test_cookies_and_background(server: Server, prefix: str) -> None:
    response = server.get(f"{prefix}/cookies", fields(prefix, {"Cookie": "b=2; a=x"}))
    assert response.text == "<p>x"
    assert [field.split(";")[0] for field in response.all("set-cookie")] == ["one=1", "two=2"]
    before = server.log().count("background task is done")
    assert server.get(f"{prefix}/background", fields(prefix)).text == "at once"
    server.wait_for_log("background task is done", before + 1)


def test_a_client_that_goes(server: Server) -> None:
    before = len(server.records("handler failed"))
    with server.connect() as connection:
        connection.send("GET /endless HTTP/1.1\r\nHost: bare.example\r\n\r\n")
        assert connection.socket.recv(1000)
    server.wait_for_log("endless stream has ended")
    with server.connect() as connection:
        connection.send("GET /waits HTTP/1.1\r\nHost: bare.example\r\n\r\n")
        server.wait_for_log("waiting")
    server.wait_for_log("client has gone")
    assert len(server.records("handler failed")) == before


def test_many_wait_at_once(server: Server) -> None:
    connections = [server.connect() for _ in range(60)]
    for connection in connections:
        connection.send("GET /slow?s=0.3 HTTP/1.1\r\nHost: whole.example\r\n\r\n")
    assert server.get("/", {"Host": "whole.example"}).text == "plain GET"
    for connection in connections:
        assert connection.response().text == "slow"
        connection.close()


def test_failure(server: Server, prefix: str) -> None:
    before = len(server.records("handler failed"))
    assert server.get(f"{prefix}/fails", fields(prefix)).status == 500
    wait_for(lambda: len(server.records("handler failed")) > before, "a record of the failure")
    record = server.records("handler failed")[-1]
    assert "LookupError: starlette fails" in record["error"]
    assert 'raise LookupError("starlette fails")' in record["traceback"]
    assert server.get(f"{prefix}/", fields(prefix)).status == 200


def test_hints_and_trailers(server: Server) -> None:
    with server.connect() as connection:
        connection.send("GET /hints HTTP/1.1\r\nHost: bare.example\r\n\r\n")
        hint = connection.interim()
        assert (hint.status, hint.header("link")) == (103, "</a.css>; rel=preload")
        assert connection.response().text == "bare"
    with server.connect() as connection:
        connection.socket.sendall(
            b"GET /trailers HTTP/1.1\r\nHost: bare.example\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n"
        )
        assert connection.file.read().endswith(b"4\r\nbare\r\n0\r\nx-sum: 4\r\n\r\n")


def test_what_breaks_in_the_middle(server: Server) -> None:
    with server.connect() as connection:
        connection.send("GET /breaks HTTP/1.1\r\nHost: bare.example\r\n\r\n")
        data = b""
        while piece := connection.socket.recv(4096):
            data += piece
        assert b"begun" in data
        assert not data.endswith(b"0\r\n\r\n")
    assert server.get("/split", {"Host": "bare.example"}).status == 500
    assert server.get("/", {"Host": "bare.example"}).text == "bare"


def test_pipelined(server: Server) -> None:
    with server.connect() as connection:
        connection.send("GET / HTTP/1.1\r\nHost: bare.example\r\n\r\n" * 20)
        assert [connection.response().text for _ in range(20)] == ["bare"] * 20


def test_scripts(server: Server) -> None:
    found = json.loads(server.post("/later/?a=b", b"data").body)
    assert found == {"query": "b", "body": "data"}
    assert json.loads(server.post("/later/", b"d" * 100_000).body)["body"] == "d" * 100_000
    assert server.get("/sooner/").text == "sooner"
    assert server.get("/bare/").text == "bare"


def test_a_startup_that_fails_is_told(serve: Any) -> None:
    source = (
        "import contextlib\nfrom starlette.applications import Starlette\n"
        "@contextlib.asynccontextmanager\nasync def lifespan(app):\n    raise OSError('no database')\n    yield\n"
        "app = Starlette(lifespan=lifespan)\n"
    )
    server = serve(
        {"broken.py": source},
        config="pools:\n  broken: {python: 'broken:app', directory: ., processes: 1}\n"
        "sites: [{rules: [{handler: {python: broken}}]}]",
    )
    server.wait_for_log("says that its startup failed: OSError: no database")


def test_shutdown(serve: Any) -> None:
    server = serve(
        {"star.py": STARLETTE, "static/a": ""},
        config="pools: {p: {python: 'star:app', directory: ., processes: 1}}\n"
        "sites: [{rules: [{handler: {python: p}}]}]",
    )
    with server.connect() as connection:
        connection.send("GET /slow?s=0.3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: server.get("/").status == 200, "the loop runs")
        server.kill(signal.SIGTERM)
        assert connection.response().text == "slow"
    server.wait_for_log("shutdown of the application")
    assert server.process.wait(PATIENCE_S) == 0
