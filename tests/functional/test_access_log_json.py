"""The lines of the access log as JSON: what the core spells by hand reads back as what it was."""

from __future__ import annotations

import json
import re

from harness import wait_for

CONFIG = "log: {access: json, access_file: access.log}\nsites:\n  - {name: a, root: www}\n"

POOL_CONFIG = """
log: {access: json, access_file: access.log}
pools: {work: {scripts: handlers}}
sites:
  - rules: [{match: {path: /*}, handler: {scripts: work}}]
"""


def test_numbers_of_a_line(serve):
    server = serve({"www/index.html": "hi"}, config=CONFIG)
    for _ in range(2):
        assert server.get("/").status == 200
    path = server.folder / "access.log"
    lines = wait_for(lambda: path.exists() and len(found := path.read_text().splitlines()) == 2 and found, "two lines")
    first, second = (json.loads(line) for line in lines)
    assert re.fullmatch(r"[0-9a-f]{16}", first["request"]) and first["request"] != second["request"]
    assert (first["status"], first["bytes"]) == (200, 2)
    assert 0 <= first["duration_ms"] < 30_000
    assert re.search(r'"duration_ms":\d+\.\d{3},', lines[0])


def test_times_of_a_request_in_a_pool(serve):
    work = "def handle(request):\n    return str(sum(range(100_000)))\n"
    server = serve({"handlers/work.py": work}, config=POOL_CONFIG)
    assert server.post("/work/", b"twelve bytes").status == 200
    path = server.folder / "access.log"
    (line,) = wait_for(lambda: path.exists() and path.read_text().splitlines(), "a line")
    times = json.loads(line)
    assert times["received"] == 12
    assert times["queue_ms"] >= 0
    assert times["cpu_ms"] > 0 and 0 < times["run_ms"] <= times["duration_ms"]
