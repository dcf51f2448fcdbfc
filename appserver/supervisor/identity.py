"""Who the children run as, when the server is started by root and the configuration names a user."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from appserver.errors import StartError


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers for subprocess.Popen."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str


def find_identity(user: str | None, group: str | None) -> Identity | None:
    """None: children run as we do. Raises StartError for a user or group that does not exist."""
    if (user is None and group is None) or os.geteuid() != 0:
        return None
    gid = None if group is None else _gid(group)
    if user is None:
        assert gid is not None
        return Identity(os.geteuid(), gid, (gid,), pwd.getpwuid(os.geteuid()).pw_name)
    return _with_user(user, gid)


def _with_user(user: str, gid: int | None) -> Identity:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        if not user.isdigit():
            raise StartError(f"user: there is no user '{user}' on this system") from None
        # A number without an entry is what `docker run --user` gives; its group is then said or the same number.
        uid = int(user)
        own = uid if gid is None else gid
        return Identity(uid, own, (own,), user)
    own = entry.pw_gid if gid is None else gid
    return Identity(entry.pw_uid, own, tuple(os.getgrouplist(entry.pw_name, own)), entry.pw_name)


def _gid(group: str) -> int:
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise StartError(f"group: there is no group '{group}' on this system") from None
