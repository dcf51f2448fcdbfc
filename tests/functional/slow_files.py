"""A file system whose reads wait until the test lets them go: a FUSE server in a thread, without a library.

It has one folder with files of fixed content. Reads of those named "slow..." are held until `release()`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import threading
from pathlib import Path
from types import TracebackType

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _INIT, _INTERRUPT, _BATCH_FORGET = 1, 2, 3, 14, 15, 26, 36, 42
_UNANSWERED = {_FORGET, _INTERRUPT, _BATCH_FORGET}
_DONE = {18, 25, 34, 38}  # release, flush, access, destroy: nothing to do
_HEADER = struct.Struct("<IIQQIIII")  # linux/fuse.h: fuse_in_header
_ANSWER = struct.Struct("<IiQ")  # fuse_out_header
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_ATTR = struct.Struct("<6Q10I")
_LONG_S = 3600  # how long the kernel may believe names and attributes
_ROOT_ID = 1
_OLD_S = 1_500_000_000
_libc = ctypes.CDLL(None, use_errno=True)
_DETACH = 2


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


class SlowFiles:
    """Mounted on entry, unmounted on exit. Raises OSError when this machine does not permit it."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.folder = folder
        self.names = list(files)
        self.contents = list(files.values())
        self.reading = threading.Event()  #: a read is being held
        self._lock = threading.Lock()
        self._released = False
        self._held: list[tuple[int, bytes]] = []

    def __enter__(self) -> SlowFiles:
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            options = f"fd={self._fd},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0,allow_other"
            _call("mount", b"slow-files", bytes(self.folder), b"fuse", 0, options.encode())
        except OSError:
            os.close(self._fd)
            raise
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()
        _call("umount2", bytes(self.folder), _DETACH)
        # A file that is still open keeps the file system alive behind the lazy unmount; closing the device ends it.
        os.close(self._stopped)
        self._thread.join()
        os.close(self._stop)
        os.close(self._fd)

    def release(self) -> None:
        """Answers the reads that are held, and from now on all at once."""
        with self._lock:
            self._released = True
            held, self._held = self._held, []
        for unique, data in held:
            self._answer(unique, data)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._stop], [], [])
            if self._stop in ready:
                return
            try:
                message = os.read(self._fd, 256 * 1024)
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted; the end of this thread is asked for in its own way
                    return
                if error.errno in (errno.EINTR, errno.ENOENT):  # interrupted, or the request has been taken back
                    continue
                raise
            _, opcode, unique, node, *_ = _HEADER.unpack_from(message)
            if opcode not in _UNANSWERED:
                self._handle(opcode, unique, node, message[_HEADER.size :])

    def _handle(self, opcode: int, unique: int, node: int, body: bytes) -> None:
        if opcode == _INIT:
            _, minor, readahead = struct.unpack_from("<III", body)
            self._answer(unique, _INIT_OUT.pack(7, min(minor, 31), readahead, 0, 12, 9, 65536, 1, 0, 0, 0))
        elif opcode == _LOOKUP:
            name = body.rstrip(b"\0").decode()
            if name not in self.names:
                self._answer(unique, error=errno.ENOENT)
                return
            found = self.names.index(name) + _ROOT_ID + 1
            self._answer(unique, struct.pack("<QQQQII", found, 0, _LONG_S, _LONG_S, 0, 0) + self._attributes(found))
        elif opcode == _GETATTR:
            self._answer(unique, struct.pack("<QII", _LONG_S, 0, 0) + self._attributes(node))
        elif opcode == _OPEN:
            self._answer(unique, struct.pack("<QII", node, 0, 0))
        elif opcode == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            self._read(unique, self.names[node - _ROOT_ID - 1], offset, size)
        elif opcode in _DONE:
            self._answer(unique)
        else:
            self._answer(unique, error=errno.ENOSYS)

    def _read(self, unique: int, name: str, offset: int, size: int) -> None:
        data = self.contents[self.names.index(name)][offset : offset + size]
        with self._lock:
            is_held = name.startswith("slow") and not self._released
            if is_held:
                self._held.append((unique, data))
        if is_held:
            self.reading.set()
        else:
            self._answer(unique, data)

    def _attributes(self, node: int) -> bytes:
        is_root = node == _ROOT_ID
        size = 0 if is_root else len(self.contents[node - _ROOT_ID - 1])
        mode = stat.S_IFDIR | 0o755 if is_root else stat.S_IFREG | 0o644
        times = (_OLD_S, _OLD_S, _OLD_S, 0, 0, 0)
        return _ATTR.pack(node, size, (size + 511) // 512, *times, mode, 1, 0, 0, 0, 4096, 0)

    def _answer(self, unique: int, data: bytes = b"", error: int = 0) -> None:
        try:
            os.write(self._fd, _ANSWER.pack(_ANSWER.size + len(data), -error, unique) + data)
        except OSError as failure:
            if failure.errno != errno.ENOENT:  # nobody waits for it any more
                raise
