from __future__ import annotations

import grp
import os
import pwd

import pytest

from appserver.errors import StartError
from appserver.supervisor.identity import find_identity

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
class TestRoot:
    def test_nothing_is_wanted(self) -> None:
        assert find_identity(None, None) is None

    def test_name(self) -> None:
        found = find_identity("nobody", None)
        assert found is not None
        assert (found.uid, found.gid, found.name) == (NOBODY.pw_uid, NOBODY.pw_gid, "nobody")
        assert found.gid in found.groups
        assert 0 not in found.groups

    def test_number(self) -> None:
        assert find_identity(str(NOBODY.pw_uid), None) == find_identity("nobody", None)

    def test_number_without_an_entry(self) -> None:
        found = find_identity("54321", None)
        assert found is not None
        assert (found.uid, found.gid, found.groups) == (54321, 54321, (54321,))
        found = find_identity("54321", "4321")
        assert found is not None
        assert (found.gid, found.groups) == (4321, (4321,))

    def test_group(self) -> None:
        some = grp.getgrall()[-1]
        found = find_identity("nobody", some.gr_name)
        assert found is not None
        assert (found.uid, found.gid) == (NOBODY.pw_uid, some.gr_gid)

    def test_group_alone(self) -> None:
        found = find_identity(None, "4321")
        assert found is not None
        assert (found.uid, found.gid, found.groups) == (0, 4321, (4321,))

    def test_unknown(self) -> None:
        with pytest.raises(StartError, match="user: there is no user 'nobody-of-that-name'"):
            find_identity("nobody-of-that-name", None)
        with pytest.raises(StartError, match="group: there is no group 'no-such-group'"):
            find_identity("nobody", "no-such-group")


def test_others_stay_who_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert find_identity("nobody", "no-such-group") is None
