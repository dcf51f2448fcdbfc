"""The lines of the access log as JSON: what the core spells by hand reads back as what it was."""

from __future__ import annotations

import json
import re

from harness import wait_for

CONFIG = "log: {access: json, access_file: access.log}\nsites:\n  - {name: a, root: www}\n"


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
