"""What children write to stdout and stderr, cut into lines for the log. Bytes in, lines out; no descriptors, no
clock.
"""

from __future__ import annotations

from collections.abc import Iterator

#: A longer line is cut in pieces, so that no child makes the supervisor keep much.
MAX_LINE = 8192
#: Lines a second that one stream may log in the long run; what floods the log is dropped and counted.
LINES_PER_SECOND = 500
#: Lines at once: a traceback or the stacks of many threads must get through.
BURST = 2000


class Lines:
    """One stream. Not a terminal's idea of lines: only \\n ends one."""

    def __init__(self, now: float) -> None:
        self._rest = b""
        self._allowance = float(BURST)
        self._at = now
        self._dropped = 0

    def feed(self, data: bytes, now: float) -> Iterator[str]:
        """The lines that `data` completes. `now` in seconds."""
        self._refill(now)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._pieces(line)
        if len(self._rest) >= MAX_LINE:
            whole = len(self._rest) - len(self._rest) % MAX_LINE
            line, self._rest = self._rest[:whole], self._rest[whole:]
            yield from self._pieces(line)

    def finish(self) -> Iterator[str]:
        """What is left when the stream is at its end."""
        line, self._rest = self._rest, b""
        yield from self._pieces(line)
        yield from self._told_dropped()

    def _refill(self, now: float) -> None:
        self._allowance = min(BURST, self._allowance + (now - self._at) * LINES_PER_SECOND)
        self._at = now

    def _pieces(self, line: bytes) -> Iterator[str]:
        line = line.rstrip()
        for start in range(0, len(line), MAX_LINE):
            if self._allowance < 1:
                self._dropped += 1
                continue
            yield from self._told_dropped()
            self._allowance -= 1
            yield line[start : start + MAX_LINE].decode("utf-8", "backslashreplace")

    def _told_dropped(self) -> Iterator[str]:
        if self._dropped:
            yield f"... {self._dropped} lines were dropped, because there were more than {LINES_PER_SECOND} a second"
            self._dropped = 0
