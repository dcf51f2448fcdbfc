"""Where the control socket is, when the configuration does not say it.

A server makes `PID.sock` in the first of these folders that it can use; a command looks into all of them, because it
may have another environment than the server. The last one is a memory file system that is there also where nothing else
may be written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

ENDING = ".sock"
FOLDER = "cherokee-app"
#: Folders that all users share: each user has one below, with the user's number in its name.
SHARED = (Path("/tmp"), Path("/dev/shm"))
RUN = Path("/run")


def folders(uid: int) -> list[Path]:
    """The folders that a server of this user would use, the best one first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    found = [Path(runtime, FOLDER)] if runtime.startswith("/") else []
    found.append(RUN / FOLDER if uid == 0 else RUN / "user" / str(uid) / FOLDER)
    found += [shared / f"{FOLDER}-{uid}" for shared in SHARED]
    return list(dict.fromkeys(found))


def all_folders(uid: int) -> list[Path]:
    """The folders to look into: root sees the servers of every user."""
    found = folders(uid)
    if uid == 0:
        found += sorted((RUN / "user").glob(f"*/{FOLDER}"))
        for shared in SHARED:
            found += sorted(shared.glob(f"{FOLDER}-*"))
    return list(dict.fromkeys(found))


def is_private(folder: Path, uid: int) -> bool:
    """Whether nobody but this user can have put anything there: the names in /tmp are anybody's."""
    try:
        info = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == uid and not info.st_mode & 0o077


def sockets(among: Iterable[Path]) -> list[Path]:
    """What may be the socket of a server, living or dead."""
    found: list[Path] = []
    for folder in among:
        try:
            found += sorted(path for path in folder.iterdir() if path.name.endswith(ENDING))
        except OSError:
            continue
    return found
