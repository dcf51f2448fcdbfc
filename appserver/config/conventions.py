"""What is served without a configuration: a folder with `www`, `handlers` and `cgi-bin`, or just files.

Nothing here is cached: a reload looks again, so a script that was dropped into the folder is found.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from appserver import paths
from appserver.config.cgi_model import CgiFolder
from appserver.config.model import Handler, Match, Respond, Rule, Site
from appserver.errors import ConfigError

IMAGE_CONFIG = Path("/etc/cherokee-app/config.yaml")  #: read when neither a folder nor a file is named
IMAGE_ROOT = Path("/srv")
WWW, HANDLERS, CGI_BIN = "www", "handlers", "cgi-bin"


MAX_DEPTH = 16  #: folders below a folder of handler scripts


@dataclass(frozen=True, slots=True)
class Scripts:
    """The handler scripts of one folder and those below, by their paths without ".py" ("hello", "shop/cart",
    "shop/index"), and what was wrong with others. What has the longer path of a URL comes first.
    """

    scripts: dict[str, Path]
    warnings: tuple[str, ...]


def default_folder() -> Path:
    """The folder that is served when none is named: that of the image when something is mounted there, else the current
    one.
    """
    places = [IMAGE_ROOT / name for name in (WWW, HANDLERS, CGI_BIN)]
    if any(paths.exists(place) or paths.is_hidden(place) for place in places):
        return IMAGE_ROOT
    return Path.cwd()


def site_of(folder: Path) -> Site:
    """The site that the conventions make of `folder`. Raises ConfigError with one line when it cannot be served."""
    folder = Path(os.path.normpath(folder.absolute()))
    complaint = folder_complaint(folder)
    if complaint:
        advice = "create the folder or name another one: cherokee-app serve DIR"
        if "may not" in complaint:
            advice = "change its mode or owner, or name another folder: cherokee-app serve DIR"
        elif paths.is_file(folder):
            advice = f"if it is a configuration: cherokee-app serve --config {folder}"
        raise ConfigError([f"{complaint}; {advice}"])
    www, handlers, cgi_bin = folder / WWW, folder / HANDLERS, folder / CGI_BIN
    root = www if paths.is_dir(www) else folder
    rules = []
    for needed in (root, handlers, cgi_bin):
        complaint = folder_complaint(needed) if paths.is_dir(needed) else ""
        if complaint:
            raise ConfigError([f"{complaint}; change its mode or owner"])
    if paths.is_dir(cgi_bin):
        rules.append(Rule(Match(path=f"/{CGI_BIN}/*"), Handler(cgi=CgiFolder(directory=str(cgi_bin)))))
    if paths.is_dir(handlers):
        rules.append(Rule(Match(path="/*"), Handler(scripts=str(handlers))))
    if root == folder:
        # The sources lie below the root: behind the rules that run them, nothing may hand them out as files.
        rules += [_not_found(name) for name in (HANDLERS, CGI_BIN)]
    return Site(name="main", root=str(root), rules=tuple(rules))


def list_scripts(folder: Path) -> Scripts:
    """The handler scripts in `folder` and in the folders below: NAME.py unless NAME, or the name of a folder on the
    way, begins with "_" or ".", which makes it a module for others to import.

    A folder that cannot be read has none, and a warning.
    """
    found: dict[str, Path] = {}
    warnings: list[str] = []
    _find_scripts(folder, "", found, warnings, set())
    for name in [name for name in found if name.endswith("/index")]:
        rival = found.get(name.removesuffix("/index"))
        if rival is not None:
            path = script_url(name)
            warnings.append(f"handler script {_shown(found[name])} is left out: {rival.name} has {path}; rename one")
            del found[name]
    return Scripts(dict(sorted(found.items(), key=lambda item: _order(item[0]))), tuple(warnings))


def _find_scripts(folder: Path, prefix: str, found: dict[str, Path], warnings: list[str], seen: set[Path]) -> None:
    try:
        if folder.resolve() in seen or prefix.count("/") > MAX_DEPTH:
            return  # a symbolic link leads back
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        warnings.append(f"handler scripts: {folder}: {error.strerror}")
        return
    for name in names:
        path = folder / name
        is_folder = paths.is_dir(path)
        if name[0] in "_." or not (is_folder or (name.endswith(".py") and paths.is_file(path))):
            continue
        complaint = _name_complaint(name)
        if complaint:
            warnings.append(f"handler script {_shown(path)} is left out: {complaint}; rename it")
        elif is_folder:
            _find_scripts(path, f"{prefix}{name}/", found, warnings, seen | {folder.resolve()})
        else:
            found[prefix + name.removesuffix(".py")] = path


def _order(name: str) -> tuple[int, str]:
    """The deepest first: the first rule that matches answers, and that of a folder matches all below it."""
    path = url_path(name)
    return -path.count("/"), name


def _shown(path: Path) -> str:
    return ascii(str(path))


def convention_warnings(folder: Path) -> tuple[str, ...]:
    """What is in `folder` but cannot be reached."""
    if not paths.is_dir(folder / CGI_BIN):
        return ()
    return tuple(
        f"{kind} {shadowed} cannot be reached: /{CGI_BIN}/ are the programs of the folder; rename it"
        for kind, shadowed in (
            ("handler script", folder / HANDLERS / f"{CGI_BIN}.py"),
            ("folder of handler scripts", folder / HANDLERS / CGI_BIN),
        )
        if paths.exists(shadowed)
    )


def convention_watch(folder: Path) -> tuple[Path, ...]:
    """The folders in which something new changes what the conventions make of `folder`."""
    return (folder / HANDLERS, folder / CGI_BIN)


def url_path(name: str) -> str:
    """Where the handler script `name` answers, without a slash at the end: "/hello", "/shop" for "shop/index", ""."""
    return f"/{name}".removesuffix("/index")


def script_url(name: str) -> str:
    """The path at which a browser finds the handler script `name` of the conventions."""
    return f"{quote(url_path(name))}/"


def folder_complaint(folder: Path) -> str:
    """Why `folder` cannot be served, or ""."""
    absence = paths.absence(folder)
    if absence:
        return absence
    if not paths.is_dir(folder):
        return f"'{folder}' is not a folder"
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"'{folder}' may not be read by the user who runs this (uid {os.geteuid()})"
    return ""


def _name_complaint(stem: str) -> str:
    """Why a script of this name cannot have a URL, or "".

    What can be percent-encoded is good: rules see decoded paths.
    """
    try:
        stem.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in stem):
        return "its name has a control character"
    if "*" in stem:
        return "its name has a '*', which means something in rules"
    return ""


def _not_found(name: str) -> Rule:
    return Rule(Match(path=f"/{name}/*"), Handler(respond=Respond(status=404, body="Not Found\n")))
