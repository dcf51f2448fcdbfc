"""The blocks of CGI programs: `cgi`, and those of a rule."""

# ruff: noqa: RUF009 (key() and the like only call field())

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appserver.config.keys import DAY, MINUTE, SECOND, TIB, count_key, key, size_key, time_key
from appserver.config.pool_model import Sendfile

CGI_POOL = "cgi"  #: the pool of CGI programs, and of what their names begin with
OWNER = "owner"  #: in place of the user that programs run as: each as the owner of its file


@dataclass(frozen=True, slots=True)
class CgiLimits:
    """What CGI programs may use."""

    request_time_ms: int = time_key(
        60 * SECOND, 0, DAY, "How long a program may run before its process group is killed; 0 for no limit."
    )
    idle_time_ms: int = time_key(
        30 * SECOND, 0, DAY, "How long a program may write nothing before its process group is killed; 0 for no limit."
    )
    queue_time_ms: int = time_key(
        30 * SECOND, 1, DAY, "How long a request may wait for its program to start before it is answered 503."
    )
    queue: int = count_key(1000, 1, 1_000_000, "Requests that may wait at once; more are answered 503.")
    programs: int = count_key(32, 1, 4096, "Programs that run at once.")
    output: int = size_key(
        0, 0, TIB, "Body of an answer; a longer one is 502 or, when some of it has been sent, cut off; 0: no limit."
    )
    cpu_time_ms: int = time_key(
        0,
        0,
        DAY,
        "CPU time of a program, in whole seconds: it gets SIGXCPU, and SIGKILL a second later; 0 for no limit."
        " This and the next three hold for each of a program's processes by itself.",
    )
    memory: int = size_key(
        0, 0, TIB, "Memory of a program: its heap and what else it writes to (RLIMIT_DATA); 0 for no limit."
    )
    file_size: int = size_key(
        0, 0, TIB, "Size of a file that a program writes; beyond it the program gets SIGXFSZ; 0 for no limit."
    )
    open_files: int = count_key(0, 0, 1_048_576, "Open descriptors of a program; 0: as the server was started with.")
    processes: int = count_key(
        0,
        0,
        4_194_304,
        "Processes of the user that programs run as (RLIMIT_NPROC), so it wants a user that runs nothing else; it does"
        " not hold for root; 0 for no limit.",
    )
    kill_grace_ms: int = time_key(
        1 * SECOND, 0, MINUTE, "Time between SIGTERM and SIGKILL to the process group of a program."
    )


_WARM = ("auto", "off", "verify")
_ON_DISCONNECT = ("kill", "finish")
_DAEMONS = ("end", "leave")
_ON_DISCONNECT_DOC = (
    "What becomes of a program whose client has gone: it is killed, or it may finish, within its other limits, and what"
    " it still writes is dropped."
)
_DAEMONS_DOC = (
    "What becomes of processes that a program has started and that have left its process group, when the program has"
    " ended: they are killed as well, or left alone."
)
_CGI_USER_DOC = (
    "User that programs run as; `owner`: each as the owner of its file. [cgi.md](cgi.md#users) says what that needs."
)
_CGI_USER_DEFAULT = "the server's, which must not be root; for root `$CHEROKEE_CGI_USER`"
_CGI_GROUP_DOC = "Group, likewise; not with `owner`."
_CHECK_OWNER_DOC = (
    "Whether a program that runs as another user than the server's must be that user's or root's, with its folders, and"
    " nobody else may write to them; `owner` always wants it."
)


@dataclass(frozen=True, slots=True)
class Cgi:
    """CGI programs (RFC 3875) of all sites."""

    environment: Mapping[str, str] = key("environment", "Environment variables that are added for every program.", dict)
    pass_environment: tuple[str, ...] = key(
        "variable_names",
        "Variables of the server's own environment that programs get as well (PATH is always there).",
        (),
    )
    interpreters: Mapping[str, str] = key(
        "interpreters",
        'Programs with these extensions (".pl") are run by this interpreter instead of their mode and #! line.',
        dict,
    )
    warm: str = key(
        "choice",
        "Python and Perl scripts in interpreters that have started already (auto), or in a new one for each request"
        " (off), or, to try scripts out, both ways, with the answers compared (verify);"
        " [cgi.md](cgi.md#warm-interpreters) says what that is.",
        "auto",
        choices=_WARM,
    )
    pass_authorization: bool = key(
        "boolean",
        "Whether programs get the client's credentials (`HTTP_AUTHORIZATION`), for those that check them themselves.",
        False,
        default_text="false",
    )
    stream_bodies: bool = key(
        "boolean",
        "Whether a program is started before its request body is there, when that is over 64KiB or comes in chunks:"
        " stdin is then a socket, and for chunks there is no CONTENT_LENGTH.",
        False,
        default_text="false",
    )
    on_disconnect: str = key("choice", _ON_DISCONNECT_DOC, "kill", choices=_ON_DISCONNECT)
    daemons: str = key("choice", _DAEMONS_DOC, "end", choices=_DAEMONS)
    user: str | None = key("program_user", _CGI_USER_DOC, None, default_text=_CGI_USER_DEFAULT)
    group: str | None = key("group", _CGI_GROUP_DOC, None, default_text="the main group of `user`")
    check_owner: bool = key("boolean", _CHECK_OWNER_DOC, True)
    min_uid: int = count_key(100, 1, 2**32 - 2, "With `user: owner`, the lowest uid that programs run as.")
    min_gid: int = count_key(100, 1, 2**32 - 2, "Likewise, the lowest main group of their owners.")
    sendfile: Sendfile = key("block", "Files that programs may answer with.", Sendfile, block=Sendfile)
    limits: CgiLimits = key("block", "Limits of CGI programs.", CgiLimits, block=CgiLimits)


_AS_CGI = "as in `cgi`"


@dataclass(frozen=True, slots=True)
class CgiFolder:
    """CGI programs of one folder, or a single one: `directory` or `program` ([cgi.md](cgi.md#where-programs-are)).
    Without `extensions` every file below the folder is a program; with them those are that have one, anywhere below,
    and other files are served as they are. The keys that `cgi` has as well are over those. Rules for which these come
    to the same share a spawner, and with it `limits.programs` and `limits.queue`.
    """

    directory: str | None = key(
        "program_directory", "The folder; what follows the path of the rule is looked up below it.", None
    )
    program: str | None = key(
        "program",
        "The file that is run for every request; what follows the path of the rule is `PATH_INFO`, and for a rule"
        " without a path that is the whole path.",
        None,
    )
    symlinks: str | None = key(
        "choice",
        "Symbolic links in the folder, as for files. A `program` may be one.",
        None,
        choices=("beneath", "deny", "follow"),
        default_text="the site's",
    )
    extensions: tuple[str, ...] = key(
        "program_extensions",
        'Files with these extensions (".php") are programs; they need not be executable, and are never sent as files.',
        (),
        default_text="none: every file is a program",
    )
    index: tuple[str, ...] | None = key(
        "file_names",
        "Programs and files that answer for a folder, the first that exists.",
        None,
        default_text="with `extensions`: `index` with each of them, then the site's; else none",
    )
    fallback: str | None = key(
        "path",
        "Program, as a path below the folder (`/index.php`), for paths that do not exist; REQUEST_URI has them.",
        None,
        default_text="none",
    )
    environment: Mapping[str, str] = key(
        "environment", "Environment variables that are added, beside those of `cgi`.", dict, default_text=_AS_CGI
    )
    pass_environment: tuple[str, ...] = key(
        "variable_names",
        "Variables of the server's own environment that programs get as well, beside those of `cgi`.",
        (),
        default_text=_AS_CGI,
    )
    interpreters: Mapping[str, str] = key(
        "interpreters",
        "Programs with these extensions are run by this interpreter; beside those of `cgi`.",
        dict,
        default_text=_AS_CGI,
    )
    warm: str | None = key(
        "choice",
        "Whether scripts run in interpreters that have started already.",
        None,
        choices=_WARM,
        default_text=_AS_CGI,
    )
    pass_authorization: bool | None = key(
        "boolean", "Whether programs get the client's credentials.", None, default_text=_AS_CGI
    )
    stream_bodies: bool | None = key(
        "boolean", "Whether a program is started before its request body is there.", None, default_text=_AS_CGI
    )
    on_disconnect: str | None = key("choice", _ON_DISCONNECT_DOC, None, choices=_ON_DISCONNECT, default_text=_AS_CGI)
    daemons: str | None = key("choice", _DAEMONS_DOC, None, choices=_DAEMONS, default_text=_AS_CGI)
    user: str | None = key("program_user", _CGI_USER_DOC, None, default_text=_AS_CGI)
    group: str | None = key("group", _CGI_GROUP_DOC, None, default_text=_AS_CGI + ", unless `user` is given")
    check_owner: bool | None = key("boolean", _CHECK_OWNER_DOC, None, default_text=_AS_CGI)
    limits: Mapping[str, int] = key(
        "some_of", "Limits: any of the keys of `cgi.limits`.", dict, block=CgiLimits, default_text=_AS_CGI
    )
