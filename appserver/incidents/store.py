"""Incidents on disk: a directory with one file each, the newest kept. For the supervisor, which writes, and for the
commands, which read. Servers may share a directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from appserver.incidents.record import Incident, IncidentError, decode, encode

#: `TIME-ID.json`: names sort by time.
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-([0-9a-f]{12})\.json", re.ASCII)
_REQUEST = re.compile(r"[0-9a-f]{16}", re.ASCII)
#: A file beyond this is not one of ours.
READ_MAX = 64 * 1024 * 1024
STATE = Path("/var/lib/cherokee-app")
FOLDER = "incidents"


def new_id() -> str:
    return secrets.token_hex(6)


def default_directories(environment: Mapping[str, str]) -> list[Path]:
    """Where incidents may be, the best place first. Those below folders that no environment names are left out."""
    found = []
    if environment.get("CHEROKEE_STATE", "").startswith("/"):
        return [Path(environment["CHEROKEE_STATE"], FOLDER)]
    found.append(STATE / FOLDER)
    if environment.get("XDG_STATE_HOME", "").startswith("/"):
        found.append(Path(environment["XDG_STATE_HOME"], "cherokee-app", FOLDER))
    elif environment.get("HOME", "").startswith("/"):
        found.append(Path(environment["HOME"], ".local", "state", "cherokee-app", FOLDER))
    return found


class Store:
    """One directory. `keep` files of at most `size` bytes."""

    def __init__(self, directory: Path, keep: int = 100, size: int = 1024 * 1024) -> None:
        self.directory = directory
        self.keep = keep
        self.size = size

    # Writing

    def prepare(self) -> None:
        """Makes the directory, for its owner only. Raises OSError when incidents cannot be written there."""
        self.directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        probe = self.directory / f".{new_id()}.probe"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        probe.unlink()

    def save(self, incident: Incident) -> None:
        """Writes it, or writes it anew; then the oldest beyond `keep` go. Whoever reads finds one version or the other,
        never half a file. Raises OSError.
        """
        data = encode(incident, self.size)
        path = self.path_of(incident)
        draft = self.directory / f".{incident.id}.{os.getpid()}.draft"
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            draft.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        self._forget_old()

    def path_of(self, incident: Incident) -> Path:
        stamp = incident.time.replace("-", "").replace(":", "")
        return self.directory / f"{stamp}-{incident.id}.json"

    def _forget_old(self) -> None:
        for path in self.paths()[self.keep :]:
            # Another server may have been faster.
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    # Reading

    def paths(self) -> list[Path]:
        """The files, the newest first. Raises OSError."""
        return sorted((path for path in self.directory.iterdir() if _NAME.fullmatch(path.name)), reverse=True)

    def read(self, path: Path) -> Incident:
        """Raises IncidentError."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                data = file.read(READ_MAX + 1)
        except OSError as error:
            what = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise IncidentError(f"{path}: cannot be read: {what}") from None
        if len(data) > READ_MAX:
            raise IncidentError(f"{path}: larger than {READ_MAX // 1024 // 1024} MiB; expected an incident")
        return decode(data, str(path))

    def all(self) -> Iterator[Incident | IncidentError]:
        """Every incident, the newest first, or what is wrong with its file. Raises OSError."""
        for path in self.paths():
            try:
                yield self.read(path)
            except IncidentError as error:
                if path.exists():  # else it has just been forgotten
                    yield error

    def find(self, wanted: str) -> Incident:
        """By the incident's id, the beginning of it (4 digits or more), or the id of a request in it: then the newest.

        Raises IncidentError, OSError.
        """
        wanted = wanted.strip().lower()
        if _REQUEST.fullmatch(wanted):
            for found in self.all():
                if isinstance(found, Incident) and found.holds(wanted):
                    return found
            raise IncidentError(f"no incident in {self.directory} has request {wanted}")
        if not re.fullmatch(r"[0-9a-f]{4,12}", wanted):
            raise IncidentError(
                f"'{wanted}' is no id; expected that of an incident (12 hex digits, or the first of them) or of a"
                " request (16, as in X-Incident)"
            )
        matches = [path for path in self.paths() if path.name.partition("-")[2].startswith(wanted)]
        if not matches:
            raise IncidentError(f"no incident {wanted} in {self.directory}")
        if len(matches) > 1:
            ids = ", ".join(path.name.partition("-")[2].removesuffix(".json") for path in matches[:5])
            raise IncidentError(f"'{wanted}' could be {ids}; give more digits")
        return self.read(matches[0])
