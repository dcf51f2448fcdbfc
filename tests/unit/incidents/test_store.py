"""A directory of incidents: modes, how many are kept, looking them up, strangers among them."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from appserver.incidents.record import Incident, IncidentError, RequestRecord
from appserver.incidents.store import Store, default_directories, new_id


def incident(number: int, *requests: str) -> Incident:
    return Incident(
        id=f"{number:04x}{number:08x}",
        time=f"2026-01-02T03:04:{number:02d}.000Z",
        kind="death",
        cause="executor 1 was killed by SIGKILL",
        pool="shop",
        requests=[RequestRecord(each) for each in requests],
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "state" / "incidents", keep=5, size=16 * 1024)
    made.prepare()
    return made


def ids(store: Store) -> list[str]:
    return [each.id for each in store.all() if isinstance(each, Incident)]


def test_only_the_owner_may_look(store: Store) -> None:
    old = os.umask(0)
    try:
        store.save(incident(1))
        other = Store(store.directory / "deeper")
        other.prepare()
    finally:
        os.umask(old)
    (path,) = store.paths()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(other.directory.stat().st_mode) == 0o700


def test_the_newest_are_kept(store: Store) -> None:
    (store.directory / "notes.txt").write_text("not ours")
    for number in range(8):
        store.save(incident(number))
    assert ids(store) == [incident(number).id for number in (7, 6, 5, 4, 3)]
    assert sorted(path.name for path in store.directory.iterdir() if not path.name.startswith("2026")) == ["notes.txt"]


def test_written_again_it_is_one(store: Store) -> None:
    first = incident(1)
    store.save(first)
    store.save(replace(first, ending="it went on"))
    (found,) = store.all()
    assert isinstance(found, Incident)
    assert found.ending == "it went on"


def test_by_incident_and_by_request(store: Store) -> None:
    store.save(incident(1, "00000000000000aa"))
    store.save(incident(2, "00000000000000aa", "00000000000000bb"))
    assert store.find(incident(1).id).id == incident(1).id
    assert store.find("0001").id == incident(1).id
    assert store.find(" 00000000000000BB ").id == incident(2).id
    assert store.find("00000000000000aa").id == incident(2).id  # the newest


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ("00000000000000cc", "has request 00000000000000cc"),
        ("abcd", "no incident abcd in"),
        ("0000", "'0000' could be"),
        ("xyz", "'xyz' is no id"),
        ("../etc/passwd", "is no id"),
        ("", "'' is no id"),
        ("12", "'12' is no id"),
    ],
)
def test_what_is_not_there(store: Store, wanted: str, complaint: str) -> None:
    for number in (1, 2):
        store.save(replace(incident(number), id=f"0000{number:08x}"))
    with pytest.raises(IncidentError, match=complaint):
        store.find(wanted)


def test_bad_files_do_not_hide_the_others(store: Store) -> None:
    store.save(incident(1, "00000000000000aa"))
    store.save(incident(3))
    bad = store.path_of(incident(2))
    bad.write_bytes(b"{")
    store.path_of(incident(4)).symlink_to("/etc/passwd")
    os.mkfifo(store.path_of(incident(5)))
    found = list(store.all())
    assert [each.id for each in found if isinstance(each, Incident)] == [incident(3).id, incident(1).id]
    complaints = [str(each) for each in found if isinstance(each, IncidentError)]
    assert len(complaints) == 3
    assert f"{bad}: not an incident" in complaints[2]
    assert "a symbolic link" in complaints[1]
    assert store.find("00000000000000aa").id == incident(1).id
    with pytest.raises(IncidentError, match="not an incident"):
        store.find(incident(2).id)


def test_no_write_follows_a_link(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (store.directory / f".{incident(1).id}.{os.getpid()}.draft").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        store.save(incident(1))
    store.path_of(incident(2)).symlink_to(target)
    store.save(incident(2))
    assert target.read_text() == "precious"
    assert ids(store) == [incident(2).id]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="File exists"):
        Store(tmp_path / "file" / "incidents").prepare()


def test_ids_differ() -> None:
    assert len({new_id() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CHEROKEE_STATE": "/state", "HOME": "/h"}, ["/state/incidents"]),
        (
            {"XDG_STATE_HOME": "/x", "HOME": "/h"},
            ["/var/lib/cherokee-app/incidents", "/x/cherokee-app/incidents"],
        ),
        ({"HOME": "/h"}, ["/var/lib/cherokee-app/incidents", "/h/.local/state/cherokee-app/incidents"]),
        ({"CHEROKEE_STATE": "relative", "XDG_STATE_HOME": "", "HOME": ""}, ["/var/lib/cherokee-app/incidents"]),
    ],
)
def test_default_directories(environment: dict[str, str], expected: list[str]) -> None:
    assert [str(path) for path in default_directories(environment)] == expected
