"""The smallest ASGI application."""

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
}
BODY = {"type": "http.response.body", "body": b"Hello, world\n"}


async def application(scope, receive, send):
    """The same few bytes for everybody."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send(START)
    await send(BODY)
