"""ASGI 3, type `websocket`: one connection, from the request that asks for it to its end.

The request's stream socket is a transport of the event loop, which buffers and tells when to stop writing; frames and
their rules are websocket.py's. Until it is accepted, a connection is a request like any other and may be answered so.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Deque, Dict, List, NamedTuple, Optional, Tuple

from . import deflate, heads, websocket, wire
from .asgi import COMPLETE, ClientGoneError, HttpCall, Message, encode_head
from .heads import HeadError
from .scope import Scope, websocket_scope

if TYPE_CHECKING:
    from .aexecutor import LoopRunner

EXTENSIONS: Dict[str, Any] = {"websocket.http.response": {}}

QUEUED_MAX = 16  #: messages that wait for the application; more are left with the client
QUEUED_BYTES_MAX = 256 * 1024
CLOSE_TIME_S = 10.0  #: what the client gets to answer a close frame

CONNECTING, DENYING, OPEN, CLOSING, CLOSED = range(5)


class Settings(NamedTuple):
    """Of the pool."""

    ping_interval_s: float = 20.0  #: 0: no pings
    ping_timeout_s: float = 20.0
    message_size: int = 16 * 1024 * 1024
    compression: bool = True


def settings_of(configuration: Dict[str, Any]) -> Settings:
    """From the message `start`; what is not there has its default."""
    usual = Settings()
    return Settings(
        configuration.get("ping_interval_ms", usual.ping_interval_s * 1000) / 1000,
        configuration.get("ping_timeout_ms", usual.ping_timeout_s * 1000) / 1000,
        int(configuration.get("message_size", usual.message_size)),
        bool(configuration.get("compression", usual.compression)),
    )


def is_asked_for(environ: Any, flags: int) -> bool:
    if not flags & wire.UPGRADE:
        return False
    if type(environ) is bytes:
        environ = wire.environment(environ)
    return bool(environ.get("HTTP_UPGRADE", "").strip().lower() == "websocket")


class WebSocketCall(HttpCall, asyncio.Protocol):
    """One connection. Loop's thread."""

    def __init__(self, settings: Settings, runner: LoopRunner, *item: Any) -> None:
        super().__init__(runner, *item)
        self._settings = settings
        self._state = CONNECTING
        self._accept_key = b""
        self._greeted = False  #: the application has got `websocket.connect`
        self._messages: Deque[Message] = deque()
        self._queued_bytes = 0
        self._reading = True
        self._farewell: Optional[Message] = None  #: the last message of all
        self._transport: Any = None
        self._connection: Any = None
        self._writable: Optional[asyncio.Future[None]] = None  #: while the transport wants no more
        self._pong: Optional[bytes] = None  #: the answer to the last ping that came meanwhile
        self._timer: Optional[asyncio.TimerHandle] = None
        self._heard = 0  #: pieces of data that have come
        self._ended = False  #: the core knows that it is over
        self._left_alone = False  #: the application has come to its end before the connection

    def _take_body(self, fd: int, flags: int) -> None:
        self.has_parts = True
        self._socket = socket.socket(fileno=fd)

    def scope(self, state: Dict[str, Any]) -> Scope:
        return websocket_scope(self.environ, EXTENSIONS, state)

    def check_handshake(self) -> None:
        """Raises websocket.HandshakeError."""
        self._accept_key = websocket.accept_key(self.environ)

    @property
    def is_over_for_application(self) -> bool:
        """There is nothing left to close."""
        return self._state in (CLOSING, CLOSED)

    @property
    def end(self) -> Tuple[int, str]:
        """Code and reason."""
        farewell = self._farewell or {"code": websocket.ABNORMAL, "reason": ""}
        return farewell["code"], farewell["reason"]

    def deny(self) -> None:
        """Before it is accepted: the answer is an ordinary one, and comes in messages of `http.response`."""
        self._state = DENYING

    # What the application calls

    async def receive(self) -> Message:
        if not self._greeted:
            self._greeted = True
            return {"type": "websocket.connect"}
        while not self._messages:
            if self._farewell is not None:
                return self._farewell
            future = self.runner.loop.create_future()
            self._waiters += (future,)
            if self._state in (CONNECTING, DENYING):
                self.runner.watch(self)  # afterwards the socket tells
            await future
        message = self._messages.popleft()
        self._queued_bytes -= _size_of(message)
        if not self._reading and self._transport is not None and self._state == OPEN and not self._is_full():
            self._reading = True
            self._transport.resume_reading()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        state = self._state
        if kind == "websocket.send" and state == OPEN:
            await self._send_message(message)
        elif kind == "websocket.accept" and state == CONNECTING:
            await self._accept(message)
        elif kind == "websocket.close" and state in (CONNECTING, OPEN):
            await self._close(message)
        elif kind == "websocket.http.response.start" and state == CONNECTING:
            encode_head(message)  # raises before the state is another
            self._state = DENYING
            await super().send({**message, "type": "http.response.start"})
        elif state == DENYING and kind in ("websocket.http.response.body", "http.response.start", "http.response.body"):
            await super().send({**message, "type": kind.replace("websocket.", "")})
            if self._step == COMPLETE:
                self._end(websocket.ABNORMAL, "")
        elif state >= CLOSING and self.gone:
            raise ClientGoneError("the client has gone")
        else:
            raise RuntimeError(f"send() was given {kind} {_WHERE[state]}")

    def look(self) -> bool:
        if self._state in (CONNECTING, DENYING) and self.cancelled:
            self._lose_client()
            self._end(websocket.ABNORMAL, "")
        return bool(self._waiters) and self._state in (CONNECTING, DENYING)

    # The handshake

    async def _accept(self, message: Message) -> None:
        fields = self._handshake_fields(message)
        agreed = None
        if self._settings.compression:
            agreed = deflate.negotiate(self.environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", ""))
        if agreed is not None:
            fields += b"Sec-WebSocket-Extensions: %s\r\n" % agreed.header().encode("ascii")
        compressor = None if agreed is None else deflate.Deflate(agreed)
        self._connection = websocket.Connection(self._settings.message_size, compressor)
        await self.runner.loop.create_unix_connection(lambda: self, sock=self._socket)
        self._state = OPEN
        self.sent = True
        frame = wire.answer(wire.UPGRADED, self.slot, self.request_id, 101, fields, b"", self.run_us())
        self.runner.out.append((self.loop, frame))
        self.runner.answers_due()
        self._ping_later()

    def _handshake_fields(self, message: Message) -> bytes:
        fields = b"Upgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n" % self._accept_key
        subprotocol = message.get("subprotocol")
        if subprotocol is not None:
            if subprotocol not in websocket_scope(self.environ, {}, {})["subprotocols"]:
                raise ValueError(f"subprotocol {subprotocol!r} is none of those that the client has offered")
            fields += b"Sec-WebSocket-Protocol: %s\r\n" % subprotocol.encode("latin-1")
        own: List[Tuple[bytes, bytes]] = list(message.get("headers") or ())
        for name, _ in own:
            if bytes(name).lower().startswith(b"sec-websocket-"):
                raise HeadError(f"header {name!r} is the server's to send; a subprotocol has a key of its own")
        return fields + heads.encode_fields(own)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    # From the client

    def data_received(self, data: bytes) -> None:
        self._heard += 1
        if self._state != OPEN and self._state != CLOSING:
            return
        for kind, value in self._connection.receive(data):
            if self._state == CLOSING:
                if kind in (websocket.CLOSE, websocket.FAILED):
                    self._transport.write_eof()
                    self._state = CLOSED
            elif kind == websocket.TEXT:
                self._queue({"type": "websocket.receive", "text": value})
            elif kind == websocket.BINARY:
                self._queue({"type": "websocket.receive", "bytes": value})
            elif kind == websocket.PING:
                self._answer_ping(value)
            elif kind == websocket.CLOSE:
                self._answer_close(*value)
            elif kind == websocket.FAILED:
                self._break_off(*value)

    def eof_received(self) -> bool:
        if self._state == OPEN:
            # The client has gone; or it is there and the core, which is going to stop, wants to see a farewell.
            self._transport.write(websocket.close_frame(websocket.GOING_AWAY))
            self.gone = True
            is_stopping = self.runner.executor.slots.stopping
            self._end(websocket.GOING_AWAY if is_stopping else websocket.ABNORMAL, "")
        return False  # the transport closes, once it has sent what it has

    def connection_lost(self, error: Optional[BaseException]) -> None:
        if self._state == OPEN:
            self.gone = True
        self._state = CLOSED
        self._end(websocket.ABNORMAL, "")
        self._stop_timer()
        self._let_write()
        self._tell_end()

    def _queue(self, message: Message) -> None:
        self._messages.append(message)
        self._queued_bytes += _size_of(message)
        if self._reading and self._is_full():
            self._reading = False
            self._transport.pause_reading()
        self._wake_receivers()

    def _is_full(self) -> bool:
        return len(self._messages) >= QUEUED_MAX or self._queued_bytes >= QUEUED_BYTES_MAX

    def _answer_close(self, code: int, reason: str) -> None:
        self._transport.write(websocket.close_frame(code))
        self.gone = True
        self._leave(code, reason)
        self._transport.write_eof()
        self._state = CLOSED

    def _break_off(self, code: int, reason: str) -> None:
        """The client has broken the protocol, or does not answer."""
        self.report("info", "WebSocket: the client has broken the protocol", code=code, reason=reason)
        self._transport.write(websocket.close_frame(code, reason))
        self.gone = True
        self._leave(code, reason)
        self._transport.write_eof()
        self._state = CLOSED

    # To the client

    async def _send_message(self, message: Message) -> None:
        data, text = message.get("bytes"), message.get("text")
        if data is not None:
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"bytes of websocket.send must be bytes, not {type(data).__name__}")
            frame = self._connection.binary(bytes(data))
        elif isinstance(text, str):
            frame = self._connection.text(text)
        else:
            raise TypeError(f"websocket.send needs bytes, or text as str, not {type(text).__name__}")
        self._transport.write(frame)
        if self._writable is not None:
            await asyncio.wait([self._writable])
            if self._state != OPEN and self.gone:
                raise ClientGoneError("the client has gone")

    def pause_writing(self) -> None:
        self._writable = self.runner.loop.create_future()

    def resume_writing(self) -> None:
        self._let_write()
        pong, self._pong = self._pong, None
        if pong is not None and self._state == OPEN:
            self._answer_ping(pong)

    def _answer_ping(self, payload: bytes) -> None:
        """Of pings that come while the client does not read, only the last is answered (section 5.5.3)."""
        if self._writable is None:
            self._transport.write(websocket.frame(websocket.PONG, payload))
        else:
            self._pong = payload

    def _let_write(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    async def _close(self, message: Message) -> None:
        code, reason = message.get("code") or websocket.NORMAL, message.get("reason") or ""
        if not isinstance(code, int) or not websocket.is_close_code(code):
            raise ValueError(
                f"{code!r} is no close code that may be sent: 1000 to 1014 without 1004 to 1006, 3000 to 4999"
            )
        if self._state == CONNECTING:
            self.respond(403, b"", b"")
            self._state = CLOSED
            self._complete()
            self._end(websocket.ABNORMAL, "")
        else:
            self._say_goodbye(code, reason)

    def _say_goodbye(self, code: int, reason: str) -> None:
        """The close frame of ours; what the client still sends until it has sent its own is dropped."""
        self._transport.write(websocket.close_frame(code, reason))
        self._leave(code, reason)
        self._state = CLOSING

    def _leave(self, code: int, reason: str) -> None:
        """There will be no more messages; the client's end of the socket is waited for."""
        self._end(code, reason)
        self._stop_timer()
        self._timer = self.runner.loop.call_later(CLOSE_TIME_S, self._abort)
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def _abort(self) -> None:
        self._transport.abort()

    # Keepalive

    def _ping_later(self) -> None:
        if self._settings.ping_interval_s:
            self._timer = self.runner.loop.call_later(self._settings.ping_interval_s, self._ping)

    def _ping(self) -> None:
        if self._writable is None:  # else much is on its way already, and an answer would come behind all that
            self._transport.write(websocket.frame(websocket.PING, os.urandom(4)))
        self._timer = self.runner.loop.call_later(self._settings.ping_timeout_s, self._check_pong, self._heard)

    def _check_pong(self, heard: int) -> None:
        # Anything counts. While the application does not take what has come, nothing is read.
        if self._heard == heard and self._reading:
            self.report("info", "WebSocket: the client does not answer pings")
            self._transport.write(websocket.close_frame(websocket.INTERNAL_ERROR, "keepalive ping timeout"))
            self.gone = True
            self._end(websocket.ABNORMAL, "keepalive ping timeout")
            self._transport.close()
            self._state = CLOSED
        else:
            self._ping_later()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # The end

    def _end(self, code: int, reason: str) -> None:
        """What the application gets when it has taken all messages; the first reason counts."""
        if self._farewell is None:
            self._farewell = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._wake_receivers()

    def _tell_end(self) -> None:
        if not self._ended:
            self._ended = True
            frame = wire.answer(wire.END, self.slot, self.request_id, run_us=self.run_us())
            self.runner.out.append((self.loop, frame))
            self.runner.answers_due()
            if self._left_alone:
                self.runner.ended()

    def has_ended(self) -> bool:
        self._left_alone = self._transport is not None and not self._ended
        return not self._left_alone

    def check_end(self) -> None:
        if self._state == CONNECTING and not self.gone:
            raise RuntimeError("the application returned without accepting or closing the WebSocket")
        if self._state == DENYING:
            super().check_end()

    def close_stream(self, complete: bool) -> None:
        if self._state == OPEN:  # the application has failed, or was cancelled
            self._say_goodbye(websocket.INTERNAL_ERROR, "")
        super().close_stream(complete)

    def close(self) -> None:
        if self._state == OPEN:
            self._say_goodbye(websocket.NORMAL, "")
        if self._transport is None:
            self._socket.close()
        super().close()

    def stop(self, restart: bool) -> None:
        if self._state == OPEN:
            self.gone = True
            self._say_goodbye(websocket.RESTART if restart else websocket.GOING_AWAY, "")

    def time_out(self) -> None:
        if self._state in (CONNECTING, DENYING):  # an open connection has no time
            super().time_out()

    def report(self, level: str, event: str, **fields: Any) -> None:
        self.runner.executor.server.report(self, level, event, **fields)


_WHERE = (
    "before the WebSocket was accepted",
    "in the middle of a response",
    "on an open WebSocket",
    "after the WebSocket was closed",
    "after the WebSocket was closed",
)


def _size_of(message: Message) -> int:
    data = message.get("bytes")
    return len(message["text"]) if data is None else len(data)
