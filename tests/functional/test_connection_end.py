"""How a connection ends, or goes on, when a request was not read to its end, and what a reload leaves of one."""

from __future__ import annotations

import signal

from harness import wait_for

FILES: dict[str, str | bytes] = {
    "www/a.txt": "alpha",
    "handlers/length.py": "def handle(r):\n    return str(len(r.body))\n",
}
GET = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"


# Reloads


def test_larger_heads_from_a_reload_on(serve) -> None:
    """A request that was pipelined behind one of the old configuration may be as long as the new one says."""
    wait = (
        "import pathlib, time\nHERE = pathlib.Path(__file__).parent\n"
        "def handle(request):\n"
        "    (HERE / 'begun').touch()\n"
        "    while not (HERE / 'go').exists():\n        time.sleep(0.01)\n"
        "    return 'gone'\n"
    )
    server = serve({**FILES, "handlers/wait.py": wait}, config="limits: {header_size: 1KiB}\n")
    with server.connect() as connection:
        connection.send("GET /wait/ HTTP/1.1\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\nX: ")
        wait_for(lambda: (server.folder / "handlers/begun").exists(), "the handler has begun")
        (server.folder / "config.yaml").write_text("limits: {header_size: 1MiB}\n")
        server.kill(signal.SIGHUP)
        server.wait_for_log("configuration reloaded")
        (server.folder / "handlers/go").touch()
        assert connection.response().body == b"gone"
        connection.send(b"x" * 1_000_000 + b"\r\n\r\n")
        assert connection.response().body == b"alpha"
