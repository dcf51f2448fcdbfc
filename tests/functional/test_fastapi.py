"""A FastAPI application, unchanged, through the real server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import PATIENCE_S, Server
from websocket_clients import client

APPLICATION = r"""
import contextlib, hashlib
from typing import Annotated
from fastapi import (Depends, FastAPI, Form, Header, HTTPException, Request, UploadFile, WebSocket,
                     WebSocketDisconnect)
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

found = {}

@contextlib.asynccontextmanager
async def lifespan(app):
    found["database"] = "open"
    yield
    print("database is closed", flush=True)

app = FastAPI(lifespan=lifespan)

class Item(BaseModel):
    name: str = Field(min_length=2)
    price: float
    tags: list[str] = []

async def user(x_user: Annotated[str, Header()] = "nobody"):
    return x_user

@app.get("/items/{number}")
async def item(number: int, short: bool = False, who: str = Depends(user)):
    return {"number": number, "short": short, "who": who, "database": found["database"]}

@app.post("/items", status_code=201)
async def create(item: Item):
    return item

@app.get("/threads")
def in_a_thread(request: Request):
    return {"method": request.method}

@app.get("/refuses")
async def refuses():
    raise HTTPException(418, detail="teapot", headers={"X-Tea": "green"})

@app.get("/fails")
async def fails():
    return 1 / 0

@app.post("/upload")
async def upload(file: UploadFile, note: Annotated[str, Form()]):
    digest, size = hashlib.sha256(), 0
    while data := await file.read(65536):
        digest.update(data)
        size += len(data)
    return {"name": file.filename, "size": size, "digest": digest.hexdigest(), "note": note}

@app.get("/stream")
async def stream():
    async def pieces():
        for number in range(100):
            yield f"line {number}\n"
    return StreamingResponse(pieces(), media_type="text/plain")

@app.websocket("/chat/{name}")
async def chat(websocket: WebSocket, name: str):
    await websocket.accept()
    await websocket.send_json({"hello": name, "who": websocket.headers.get("x-user")})
    try:
        while True:
            await websocket.send_text("you said " + await websocket.receive_text())
    except WebSocketDisconnect as gone:
        print("chat ended with", gone.code, flush=True)
"""

CONFIG = """
log: {access: "off"}
pools: {api: {python: "api:app", directory: ., processes: 2}}
sites:
  - {rules: [{match: {path: /api/*}, handler: {python: api}}]}
"""


@pytest.fixture(scope="module")
def api(serve_module: Any) -> Iterator[Server]:
    server = serve_module({"api.py": APPLICATION}, config=CONFIG)
    # libuv opens /dev/null with the first stream of a loop, and keeps it.
    for _ in range(30):
        with client(server, "/api/chat/first") as connection:
            connection.recv(PATIENCE_S)
    server.remember_fds()
    yield server


def body_of(server: Server, target: str, **how: Any) -> Any:
    return json.loads(server.get(target, **how).body)


def test_parameters(api: Server) -> None:
    found = body_of(api, "/api/items/5?short=yes", headers={"X-User": "me"})
    assert found == {"number": 5, "short": True, "who": "me", "database": "open"}
    refused = api.get("/api/items/five")
    assert refused.status == 422
    assert json.loads(refused.body)["detail"][0]["loc"] == ["path", "number"]


def test_json(api: Server) -> None:
    as_json = {"Content-Type": "application/json"}
    made = api.post("/api/items", b'{"name": "\xc3\xbcber", "price": 2}', as_json)
    assert (made.status, json.loads(made.body)) == (201, {"name": "über", "price": 2.0, "tags": []})
    for body, place in ((b'{"name": "x", "price": 2}', ["body", "name"]), (b'{"name": "xy"}', ["body", "price"])):
        refused = api.post("/api/items", body, as_json)
        assert (refused.status, json.loads(refused.body)["detail"][0]["loc"]) == (422, place)
    assert api.post("/api/items", b"{", as_json).status == 422


def test_errors(api: Server) -> None:
    refused = api.get("/api/refuses")
    assert (refused.status, refused.header("x-tea"), json.loads(refused.body)) == (418, "green", {"detail": "teapot"})
    assert api.get("/api/fails").status == 500
    api.wait_for_log("ZeroDivisionError")
    assert api.get("/api/nowhere").status == 404
    assert api.get("/api/threads", method="PUT").status == 405


def test_documents_and_threads(api: Server) -> None:
    assert body_of(api, "/api/threads") == {"method": "GET"}
    document = body_of(api, "/api/openapi.json")
    assert document["servers"] == [{"url": "/api"}]
    assert "/items/{number}" in document["paths"]


@pytest.mark.parametrize("size", [10, 1_500_000])
def test_upload(api: Server, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="note"\r\n\r\na note\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n\r\n' + data + b"\r\n--xyz--\r\n"
    )
    found = json.loads(api.post("/api/upload", body, {"Content-Type": "multipart/form-data; boundary=xyz"}).body)
    assert found == {"name": "f.bin", "size": size, "digest": hashlib.sha256(data).hexdigest(), "note": "a note"}


def test_stream(api: Server) -> None:
    assert api.get("/api/stream").text == "".join(f"line {number}\n" for number in range(100))


def test_websocket(api: Server) -> None:
    with client(api, "/api/chat/room", additional_headers={"X-User": "me"}) as connection:
        assert json.loads(connection.recv(PATIENCE_S)) == {"hello": "room", "who": "me"}
        for word in ("one", "zwölf", "x" * 200_000):
            connection.send(word)
            assert connection.recv(PATIENCE_S) == f"you said {word}"
    api.wait_for_log("chat ended with 1000")
