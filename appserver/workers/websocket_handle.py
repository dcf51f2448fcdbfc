"""`async def websocket(socket)` of a handler script: a WebSocket to talk through, on top of the messages that an ASGI
application would see.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any, Awaitable, Callable, List, Optional, Tuple, Union

from . import websocket
from .ahandle import answer, request_with
from .multipart import BadInput
from .request import Disconnected, Headers, HeadersLike, Request, header_list, json_bytes

if TYPE_CHECKING:
    from .awebsocket import WebSocketCall

Received = Union[str, bytes]
Talk = Callable[["WebSocket"], Awaitable[Any]]


class WebSocket:
    """One connection. It is accepted with the first message that is sent or wanted, unless :meth:`accept` came before;
    leaving the function closes it.
    """

    def __init__(self, call: WebSocketCall, request: Request) -> None:
        self.request = request  #: the one that asked for it: path, query, cookies and so on
        self.is_accepted = False
        self._call = call

    def __repr__(self) -> str:
        return f"<WebSocket {self.request.path}>"

    @property
    def headers(self) -> Headers:
        """Of the request."""
        return self.request.headers

    @property
    def subprotocols(self) -> List[str]:
        """Those that the client offers, in its order."""
        names = self.request.headers.get("Sec-WebSocket-Protocol") or ""
        return [name.strip() for name in names.split(",") if name.strip()]

    async def accept(self, subprotocol: Optional[str] = None, headers: HeadersLike = None) -> None:
        """With one of the subprotocols, or with header fields of the response. Raises ValueError for a subprotocol that
        the client has not offered.
        """
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in header_list(headers)]
        await self._call.send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": pairs})
        self.is_accepted = True

    async def receive(self) -> Received:
        """The next message, str or bytes. Raises Disconnected when there will be none."""
        if not self.is_accepted:
            await self.accept()
        while True:
            message = await self._call.receive()
            if message["type"] == "websocket.receive":
                data = message.get("bytes")
                return message["text"] if data is None else data  # type: ignore[no-any-return]
            if message["type"] == "websocket.disconnect":
                raise Disconnected(message["code"], message.get("reason") or "")

    async def receive_json(self) -> Any:
        """The next message as JSON. Raises BadInput for another, Disconnected."""
        try:
            return json.loads(await self.receive())
        except (ValueError, RecursionError) as error:
            raise BadInput(f"the message is not JSON: {error}") from None

    def __aiter__(self) -> WebSocket:
        return self

    async def __anext__(self) -> Received:
        try:
            return await self.receive()
        except Disconnected:
            raise StopAsyncIteration from None

    async def send(self, message: Any) -> None:
        """str as a text, bytes as they are, dict and list as JSON. Waits for a client that reads slowly; raises
        Disconnected when it has gone.
        """
        if not self.is_accepted:
            await self.accept()
        kind, value = _sendable(message)
        try:
            await self._call.send({"type": "websocket.send", kind: value})
        except OSError:
            raise Disconnected(*self._call.end) from None

    async def close(self, code: int = websocket.NORMAL, reason: str = "") -> None:
        """Says goodbye. Before it is accepted: refuses it with 403. Nothing happens when it is over already."""
        if not self._call.is_over_for_application:
            await self._call.send({"type": "websocket.close", "code": code, "reason": reason})


def _sendable(message: Any) -> Tuple[str, Received]:
    if isinstance(message, str):
        return "text", message
    if isinstance(message, (bytes, bytearray, memoryview)):
        return "bytes", bytes(message)
    if isinstance(message, (dict, list)):
        return "text", json_bytes(message).decode("utf-8")
    raise TypeError(f"a message is str, bytes, dict or list, not {type(message).__name__}")


def websocket_application_of(talk: Talk) -> Callable[[WebSocketCall], Awaitable[None]]:
    """A coroutine function that runs a call by `websocket(socket)`."""

    async def run(call: WebSocketCall) -> None:
        socket = WebSocket(call, request_with(call, BytesIO()))
        await call.receive()  # `websocket.connect`, which tells nothing
        try:
            returned = await talk(socket)
        except Disconnected:
            return
        except BadInput as error:
            if not socket.is_accepted:
                await _refuse(call, (f"{error}\n", error.status))
            else:
                await socket.close(websocket.INVALID_DATA, str(error))
            return
        if socket.is_accepted:
            if returned is not None:
                raise TypeError(
                    f"websocket() returns nothing once the WebSocket is accepted, not {type(returned).__name__}"
                )
        elif returned is None:
            await socket.close()
        else:
            await _refuse(call, returned)

    return run


async def _refuse(call: WebSocketCall, returned: Any) -> None:
    """An answer like that of `handle`, in place of a WebSocket."""
    call.deny()
    await answer(call, returned)
