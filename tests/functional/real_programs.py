"""Programs of Debian packages that the tests run through the server, and repositories for those that show them."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Server, serving

SEARCHED = "/usr/local/bin:/usr/bin:/bin:/usr/lib/git-core:/usr/lib/cgi-bin"


PERSON = {"NAME": "Ada", "EMAIL": "ada@example.org", "DATE": "2024-02-29T12:00:00+0000"}


def find_program(name: str, package: str) -> str:
    """Absolute path of a program, which is searched for when it is only a name; without it the test is skipped."""
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        pytest.skip(f"{name} is not here: `make test` installs it with the package {package} where there is apt")
    return found


def find_perl_module(name: str, package: str) -> None:
    """Without it the test is skipped."""
    perl = find_program("perl", "perl")
    if subprocess.run([perl, f"-M{name}", "-e", "1"], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip(f"Perl has no {name} here: `make test` installs it with the package {package} where there is apt")


@contextmanager
def warm_and_cold(folder: Path, config: str, **values: object) -> Iterator[tuple[Server, Server]]:
    """Two servers on one folder, the second without warm interpreters: `config` has places for `warm` and `values`."""
    paths = [folder / f"{warm}.yaml" for warm in ("auto", "off")]
    for path in paths:
        path.write_text(config.format(warm=path.stem, **values))
    listen = ("--listen", "127.0.0.1:0")
    with (
        serving(folder, "--config", str(paths[0]), *listen) as warm,
        serving(folder, "--config", str(paths[1]), *listen) as cold,
    ):
        yield warm, cold


def files_of_tar(data: bytes) -> dict[str, bytes]:
    """The files of an archive by their paths below its one folder."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    status: int
    output: str
    errors: str


class Git:
    """git as a user without any configuration of their own has it; `variables` are added to its environment."""

    def __init__(self, home: Path, **variables: str) -> None:
        self._program = find_program("git", "git")
        self._environment = {
            "PATH": SEARCHED,
            "HOME": str(home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
            "TZ": "UTC",
            **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in PERSON.items()},
            **variables,
        }

    def run(self, *words: str | Path, given: bytes = b"", folder: Path | None = None) -> Done:
        """`git WORDS`, whatever comes of it."""
        command = [self._program, *words]
        done = subprocess.run(command, input=given, cwd=folder, env=self._environment, capture_output=True, timeout=120)
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def __call__(self, *words: str | Path, given: bytes = b"", folder: Path | None = None) -> str:
        """`git WORDS`, which must succeed; what it writes to stdout, without the end of the last line."""
        done = self.run(*words, given=given, folder=folder)
        assert done.status == 0, f"git {words}: {done.output}{done.errors[-4000:]}"
        return done.output.rstrip("\n")

    def traced(self, *words: str | Path, folder: Path | None = None) -> str:
        """`git WORDS`, which must succeed; what it says on stderr, with the heads that it sends and gets over HTTP."""
        done = self.run(*words, folder=folder)
        assert done.status == 0, f"git {words}: {done.output}{done.errors[-4000:]}"
        return done.errors


def random_bytes(size: int, seed: int = 1) -> bytes:
    """What cannot be compressed, the same each time."""
    return random.Random(seed).randbytes(size)


def make_repository(git: Git, path: Path, files: dict[str, bytes], branches: int = 0) -> None:
    """A bare repository whose branch `main` has a commit for each file, with `branches` others of one commit each."""
    git("init", "-q", "--bare", "--initial-branch=main", path)
    # To compress random bytes would be most of the test's time, for the server's git as well.
    git("config", "pack.compression", "0", folder=path)
    stream = [b"feature done\n"]
    stream += [_commit("main", f"Add {name}", name, content) for name, content in files.items()]
    stream += [
        _commit(f"branch-{number:04}", f"Branch {number}", "number", b"%d" % number) for number in range(branches)
    ]
    stream.append(b"done\n")
    git("fast-import", "--quiet", given=b"".join(stream), folder=path)
    git("pack-refs", "--all", folder=path)


def add_commit(git: Git, path: Path, branch: str, name: str, content: bytes) -> None:
    """One more commit on a branch of a bare repository."""
    tip = git("rev-parse", branch, folder=path)
    git("fast-import", "--quiet", given=_commit(branch, f"Add {name}", name, content, tip), folder=path)


def _commit(branch: str, message: str, name: str, content: bytes, parent: str = "") -> bytes:
    """For fast-import, which puts it on top of what it has made of that branch, or of `parent`."""
    person = f"{PERSON['NAME']} <{PERSON['EMAIL']}> 1709208000 +0000"
    head = f"commit refs/heads/{branch}\ncommitter {person}\ndata {len(message.encode())}\n{message}\n"
    head += f"from {parent}\n" if parent else ""
    return head.encode() + f"M 100644 inline {name}\ndata {len(content)}\n".encode() + content + b"\n"
