"""Clients of WebSockets for tests."""

from __future__ import annotations

from typing import Any

import pytest
from harness import PATIENCE_S
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect


def client(server: Any, path: str, **options: Any) -> ClientConnection:
    """A client's connection to whatever has a port, a server of its own process or of this one."""
    return connect(f"ws://127.0.0.1:{server.port}{path}", **{"open_timeout": PATIENCE_S, **options})


def close_of(connection: ClientConnection) -> tuple[int, str]:
    """Code and reason of the server's close, which is what comes next."""
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv(PATIENCE_S)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason
