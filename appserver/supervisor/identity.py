"""Who the children run as, when the server is started by root and the configuration names a user."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appserver.config.cgi_model import OWNER
from appserver.config.plan import PoolSpec
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


# CGI programs

CGI_USER = "CHEROKEE_CGI_USER"  #: who programs run as when the server is root's and nobody has said it
_CAP_SETGID, _CAP_SETUID = 6, 7


@dataclass(frozen=True, slots=True)
class ProgramIdentity:
    """As whom the programs of a pool run, when it is not as the server does. `who` None: each as its owner."""

    who: Identity | None
    check_owner: bool
    min_uid: int
    min_gid: int
    directories: tuple[str, ...]

    def as_message(self) -> dict[str, Any]:
        """For the spawner."""
        who = self.who
        return {
            "who": None if who is None else {"uid": who.uid, "gid": who.gid, "groups": list(who.groups)},
            "check_owner": self.check_owner,
            "min_uid": self.min_uid,
            "min_gid": self.min_gid,
            "directories": list(self.directories),
        }


def find_program_identity(spec: PoolSpec, identity: Identity | None) -> ProgramIdentity | None:
    """None: programs run as the server's processes, which are `identity`'s. Raises StartError when programs would run
    as root without anybody's having said so, or cannot run as they should.
    """
    own = os.geteuid() if identity is None else identity.uid
    user, check_owner = spec.user, spec.check_owner
    if user is None and spec.group is None:
        if own != 0:
            return None
        user, check_owner = os.environ.get(CGI_USER) or None, False
        if user is None:
            raise StartError(_ROOT_REFUSED)
    if user == OWNER:
        _want_right(f"CGI programs ({spec.name}) are to run as their owners")
        return ProgramIdentity(None, True, spec.min_uid, spec.min_gid, spec.directories)
    gid = None if spec.group is None else _gid(spec.group)
    who = _with_user(str(own) if user is None else user, gid)
    own_gid = os.getegid() if identity is None else identity.gid
    if (who.uid == own and spec.group is None) or (who.uid, who.gid) == (own, own_gid):
        return None
    _want_right(f"CGI programs ({spec.name}) are to run as user {who.name}, group {who.gid}")
    return ProgramIdentity(who, check_owner and who.uid != own, 0, 0, spec.directories)


def check_program_identities(specs: Iterable[PoolSpec], identity: Identity | None) -> None:
    """Raises StartError for the first pool whose programs cannot run as they should."""
    for spec in specs:
        if spec.kind == "cgi":
            find_program_identity(spec, identity)


def _want_right(what: str) -> None:
    """Raises StartError unless this process may change users."""
    if os.geteuid() == 0 or _has_capabilities():
        return
    raise StartError(
        f"{what}, but the server runs as uid {os.geteuid()} and may not change users; start it as root (and with"
        " `user: NAME` at the top its other processes run as NAME), or leave out `cgi.user` and `cgi.group`"
    )


def _has_capabilities() -> bool:
    wanted = 1 << _CAP_SETGID | 1 << _CAP_SETUID
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    found = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return found & wanted == wanted


_ROOT_REFUSED = (
    "CGI programs would run as root: root has started the server, and nobody has said who they run as. Expected"
    f" `cgi: {{user: NAME}}` in the configuration, or {CGI_USER}=NAME in the environment; with `user: NAME` at the top"
    " all of the server runs as NAME; `cgi: {user: owner}` runs each program as the owner of its file. If they are to"
    " run as root: `cgi: {user: root}`"
)
