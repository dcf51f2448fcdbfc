"""The configuration as frozen objects: one class for each block of the YAML file.

Each field is one key of its block, and its `Key` says all there is to know about it: what it takes, range, meaning. The
loader reads YAML by it, the reference is written from it. A field that ends in `_ms` is the key without that ending;
sizes are bytes. Paths are absolute.
"""

# ruff: noqa: RUF009 (_key() only calls field())

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from appserver.errors import ConfigError

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000

MAX_THREADS = 64  #: loops that the core can run
CODINGS = ("br", "zst", "gz")  #: compressed neighbours of files, by their extensions
SCRIPT_POOL = "handlers"  #: the pool that handler scripts share
CGI_POOL = "cgi"  #: the pool of CGI programs, and of what their names begin with
OWNER = "owner"  #: in place of the user that programs run as: each as the owner of its file


@dataclass(frozen=True, slots=True)
class Key:
    """What one key takes. `kind` names a decoder of `load`; `low` and `high` are the range, in bytes or milliseconds
    where the kind has units.
    """

    kind: str
    doc: str
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    block: type[Any] | None = None  #: the class of the block(s) below this key
    default_text: str = ""  #: how the reference shows the default, when the value itself would not tell
    required: bool = False


def _key(kind: str, doc: str, default: Any = dataclasses.MISSING, **about: Any) -> Any:
    """A field for a key; a mutable default is given as the function that makes it."""
    metadata = {"key": Key(kind, doc, **about)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _size(default: int, low: int, high: int, doc: str) -> Any:
    return _key("size", doc, default, low=low, high=high)


def _time(default: int, low: int, high: int, doc: str) -> Any:
    return _key("time", doc, default, low=low, high=high)


def _count(default: int, low: int, high: int, doc: str) -> Any:
    return _key("count", doc, default, low=low, high=high)


def keys_of(block: type[Any]) -> dict[str, tuple[str, Key]]:
    """YAML key -> (field name, Key), in the order of the class."""
    found = {}
    for each in dataclasses.fields(block):
        name = each.name.removesuffix("_ms")
        found[name] = (each.name, each.metadata["key"])
    return found


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen. `host` is without brackets; `text` is how it was written and names the listener."""

    host: str
    port: int
    text: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the server. Larger or slower is refused with the status named."""

    header_size: int = _size(16 * KIB, 1 * KIB, 1 * MIB, "Request line and header fields together; more is 431.")
    target_size: int = _size(8 * KIB, 256, 1 * MIB, "Request target (path and query); more is 414.")
    body_size: int = _size(1 * GIB, 0, 16 * TIB, "Request body; more is 413.")
    header_timeout_ms: int = _time(
        10 * SECOND, 1, DAY, "From the first byte of a request to the end of its header; longer is 408."
    )
    body_timeout_ms: int = _time(30 * SECOND, 1, DAY, "Between two pieces of a request body; longer is 408.")
    idle_timeout_ms: int = _time(
        60 * SECOND, 1, DAY, "How long a kept-alive connection may wait for its next request before it is closed."
    )
    send_timeout_ms: int = _time(
        60 * SECOND, 1, DAY, "How long a client may take nothing of its response before it is cut off."
    )
    keep_alive_requests: int = _count(
        0, 0, 2**31 - 1, "Requests on one connection before it is closed; 0 for no limit."
    )
    min_rate: int = _size(
        500,
        0,
        1 * GIB,
        "Bytes per second that a client must send of a body, else 408, and take of a response, else it is cut off;"
        " looked at after each `body_timeout` and `send_timeout` for that time as a whole. 0: only that something moves"
        " in that time. (The default is that of Apache's reqtimeout.)",
    )
    connections: int = _count(10_000, 1, 1_000_000, "Connections open at once in the whole server.")
    over_limit: str = _key(
        "choice",
        "What becomes of connections over `connections`: 503 at once, or they wait in the backlog until one closes.",
        "refuse",
        choices=("refuse", "wait"),
    )
    connections_per_client: int = _count(
        0,
        0,
        1_000_000,
        "Connections open at once of one remote address (IPv6: of its /64 network), over all loops; more are 503; 0 for"
        " no limit. 65536 clients are counted at once, further ones are let in. Behind a proxy, all are one client.",
    )
    drain_timeout_ms: int = _time(
        25 * SECOND, 0, HOUR, "How long requests may finish after SIGTERM before they are cut off."
    )


@dataclass(frozen=True, slots=True)
class Log:
    """What the server writes about itself (to stderr) and about requests."""

    level: str = _key(
        "choice", "The least important messages that are logged.", "info", choices=("debug", "info", "warning", "error")
    )
    format: str = _key(
        "choice",
        "How the server's own messages look; auto is console on a terminal and json elsewhere.",
        "auto",
        choices=("auto", "console", "json"),
    )
    access: str = _key(
        "choice",
        "Format of the access log. json also says how long a request took (duration_ms), waited for an executor"
        " (queue_ms), ran in it (run_ms), what CPU it took there (cpu_ms; of asynchronous applications that is not"
        " known), and how much of a body was received. Status 499 is a client that left before it had sent the body of"
        " its request, or got an answer.",
        "combined",
        choices=("combined", "json", "off"),
    )
    access_file: str = _key("output", 'File of the access log; "-" is stdout. SIGUSR1 opens it anew.', "-")


@dataclass(frozen=True, slots=True)
class Cache:
    """The file cache; each loop has its own."""

    memory: int = _size(
        64 * MIB, 0, 1 * TIB, "Most memory for the contents of files, for each loop; 0 turns the cache off."
    )
    entries: int = _count(4096, 1, 1_000_000, "Most files, for each loop.")
    file_size: int = _size(256 * KIB, 0, 1 * GIB, "Larger files are not held but sent with sendfile.")
    revalidate_ms: int = _time(1 * SECOND, 0, DAY, "How long an entry is believed before the file is looked at again.")
    policy: str = _key(
        "choice",
        "Which files stay when memory is short: those used most (frequency), or those used last (recent).",
        "frequency",
        choices=("frequency", "recent"),
    )


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the core does its work, not what: each key switches one choice of the design off or to another one, so that
    its worth can be measured. The defaults are what wins. Connections that are open at a reload go on as they began.
    From which size on files go by sendfile is `cache.file_size`.
    """

    accept_batch: str = _key(
        "choice",
        "Connections that a loop accepts in one turn: more while they keep coming, up to 64, or always one.",
        "adaptive",
        choices=("adaptive", "one"),
    )
    write: str = _key(
        "choice",
        "Head and first piece of a response in one system call, or each in its own.",
        "gather",
        choices=("gather", "separate"),
    )
    cork: str = _key(
        "choice",
        "What makes a head share a packet with what another call sends: TCP_CORK around both, MSG_MORE, or nothing.",
        "cork",
        choices=("cork", "more", "off"),
    )
    sendfile: str = _key(
        "choice",
        "Files that the cache does not hold: by sendfile, or (off) read and written through a buffer of 64KiB.",
        "on",
        choices=("on", "off"),
    )
    reuse: str = _key(
        "choice", "Whether the objects of connections and requests are kept for the next.", "on", choices=("on", "off")
    )


@dataclass(frozen=True, slots=True)
class Incidents:
    """What is kept of workers that died and of requests that ran too long, for `cherokee-app incidents`
    ([incidents.md](incidents.md)).
    """

    directory: str = _key(
        "state_directory",
        "Folder for them, made when it is not there (mode 0700; the files have 0600); or auto.",
        "auto",
        default_text="auto: `incidents` in the first of /var/lib/cherokee-app and $XDG_STATE_HOME/cherokee-app or"
        " ~/.local/state/cherokee-app that can be written ($CHEROKEE_STATE instead of both when it is set); else they"
        " are not kept",
    )
    keep: int = _count(100, 1, 100_000, "The newest are kept, this many.")
    size: int = _size(1 * MIB, 16 * KIB, 16 * MIB, "Most bytes of one; what does not fit is left out, bodies first.")
    redact: tuple[str, ...] = _key(
        "field_names",
        "Request header fields whose values are not written, besides Authorization, Proxy-Authorization, Cookie and"
        " Set-Cookie.",
        (),
        default_text="none",
    )
    keep_bodies: str = _key(
        "choice", "Whether request bodies are kept, for `incidents replay`.", "on", choices=("on", "off")
    )
    body_size: int = _size(64 * KIB, 0, 1 * MIB, "Of a longer body only this much is kept, and it cannot be replayed.")


@dataclass(frozen=True, slots=True)
class Health:
    """Paths that the core answers itself, on every site, even when all executors are busy."""

    live: str = _key("path", "Answers 200 as long as the process lives.", "/livez")
    ready: str = _key("path", "Answers 200 when requests can be served, else 503.", "/readyz")
    metrics: str | None = _key(
        "path",
        "Answers with the [metrics](metrics.md) of all sites, as text for Prometheus. Off by default, because whoever"
        " reaches a site can read them: names of sites, rules and pools, and how much they are used.",
        None,
        default_text="off",
    )


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What requests may ask of a pool."""

    request_time_ms: int = _time(
        60 * SECOND,
        0,
        DAY,
        "How long a request may run before it is answered 504 and interrupted; 0 for no limit.",
    )
    interrupt_time_ms: int = _time(
        5 * SECOND,
        0,
        HOUR,
        "How long a request that was interrupted (RequestTimeout was raised in it) may take to end before its worker is"
        " replaced.",
    )
    queue_time_ms: int = _time(
        30 * SECOND, 1, DAY, "How long a request may wait for a worker before it is answered 503."
    )
    queue: int = _count(1000, 1, 1_000_000, "Requests that may wait at once; more are answered 503.")
    stop_time_ms: int = _time(
        10 * SECOND, 0, HOUR, "How long a worker that was told to stop may finish before it is killed."
    )
    requests: int = _count(
        0,
        0,
        2**31 - 1,
        "About how many requests a worker may serve before another one takes its place; each has a limit of its own, a"
        " tenth more or less, so that they do not go together; 0 for no limit.",
    )
    lifetime_ms: int = _time(
        0, 0, 366 * DAY, "How old a worker may become before another one takes its place, likewise; 0 for no limit."
    )
    memory: int = _size(
        0,
        0,
        1 * TIB,
        "Resident memory, looked at once a second, with which a worker finishes what it holds while another one takes"
        " its place; 0 for no limit.",
    )
    memory_max: int = _size(
        0,
        0,
        1 * TIB,
        "Memory that a worker can never exceed: allocations over it fail (RLIMIT_DATA: what it may write and shares"
        " with nobody, 8MiB for the stack of each thread included), and a worker that is resident with more is killed;"
        " 0 for no limit.",
    )


@dataclass(frozen=True, slots=True)
class Processes:
    """How many worker processes a pool has, by what it has to do: one whose requests wait gets more, one that would
    have managed with fewer for `idle_time` loses one at a time.
    """

    min: int = _count(1, 1, 256, "That many are always there.")
    max: int = _key(
        "count", "There are never more, but for those that are being replaced.", 256, low=1, high=256, required=True
    )
    idle_time_ms: int = _time(60 * SECOND, 1, DAY, "How long one process less must have been enough before one goes.")


@dataclass(frozen=True, slots=True)
class WebSockets:
    """WebSockets of a pool's ASGI application or scripts."""

    ping_interval_ms: int = _time(
        20 * SECOND, 0, DAY, "How long after its last ping, or its begin, a connection gets a ping; 0: never."
    )
    ping_timeout_ms: int = _time(
        20 * SECOND, 1, DAY, "How long a client may send nothing after a ping before the connection is closed (1011)."
    )
    message_size: int = _size(
        16 * MIB,
        1,
        1 * GIB,
        "Message from a client, also when it has been decompressed; a larger one is refused (1009).",
    )
    compression: str = _key(
        "choice",
        "permessage-deflate (RFC 7692) with clients that offer it.",
        "on",
        choices=("on", "off"),
    )


@dataclass(frozen=True, slots=True)
class Sendfile:
    """Files that an application answers with by naming them in a field; its status and other fields are kept.

    The field does not reach the client, what the answer had for a body is dropped, and the file is sent as a static
    one: with ranges and conditions, by the kernel. Nothing outside of these folders is sent, also not through links.
    Without this block both fields go to the client.
    """

    roots: tuple[str, ...] = _key(
        "directories", "`X-Sendfile: /srv/files/a.pdf` sends that file when it is below one of these folders.", ()
    )
    locations: Mapping[str, str] = _key(
        "folders",
        "`X-Accel-Redirect: /protected/a.pdf` sends `a.pdf` of the folder for the prefix `/protected`.",
        dict,
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """A group of Python worker processes that run one application, or handler scripts (`python` or `scripts`, not
    both).
    """

    python: str | None = _key("application", "WSGI or ASGI application as module:attribute.", None)
    interface: str = _key(
        "choice",
        "What the application is; auto: found out when it is loaded.",
        "auto",
        choices=("auto", "wsgi", "asgi"),
    )
    scripts: str | None = _key(
        "scripts",
        "Handler scripts that this pool runs instead of the shared one, wherever their URLs come from: a folder with"
        " all below it, or a single script (`NAME.py`). Names that begin with `_` or `.` have no URL.",
        None,
    )
    directory: str | None = _key(
        "directory",
        "Working directory, and where modules are found.",
        None,
        default_text="the folder of the configuration file, or that of the `scripts`",
    )
    interpreter: str | None = _key(
        "interpreter",
        "Python interpreter (3.9 or later), or the folder of a virtual environment.",
        None,
        default_text="the server's own",
    )
    processes: Processes = _key(
        "count_or_block",
        "Worker processes: a fixed number, or a block with `min` and `max`.",
        lambda: Processes(2, 2),
        low=1,
        high=256,
        block=Processes,
        default_text="2",
    )
    threads: int = _count(
        4,
        1,
        256,
        "Threads in each process: requests that it runs at once. ASGI applications have `concurrency` instead.",
    )
    concurrency: int = _count(
        100,
        1,
        10_000,
        "Requests and WebSockets that an ASGI application, or asynchronous scripts, hold at once in each process.",
    )
    websocket: WebSockets = _key(
        "block", "WebSockets of an ASGI application or of scripts.", WebSockets, block=WebSockets
    )
    preload: bool = _key(
        "boolean",
        "Whether the application is loaded once, in a process from which the workers are forked: they start at once and"
        " share the memory of what was loaded. Not for applications that start threads while they are loaded (then the"
        " workers are started as without it, with a line in the log), nor for those that open connections then.",
        False,
        default_text="false",
    )
    check: str | None = _key(
        "check_target",
        "Path, or whole URL where the application wants to be asked with a host of its own, that the workers of a new"
        " version answer before they take requests: a GET, with a status below 400. One that does not keeps the old"
        " version where it is (reload), or the pool from starting. For applications, not for scripts.",
        None,
        default_text="none",
    )
    environment: Mapping[str, str] = _key("environment", "Environment variables that are added for the workers.", dict)
    retry: str = _key(
        "choice",
        "Which requests are given to another worker, once, when theirs dies before its answer began: those with an"
        " idempotent method (GET, HEAD, OPTIONS, PUT, DELETE) or a field `Idempotency-Key`, none, or all. Others are"
        " answered 502.",
        "idempotent",
        choices=("never", "idempotent", "always"),
    )
    quarantine_ms: int = _time(
        60 * SECOND,
        0,
        DAY,
        "How long a request that has killed two workers is answered 503 without being run (the same method, target and"
        " body; 64 such requests for each pool); 0 turns this off.",
    )
    sendfile: Sendfile = _key("block", "Files that the application may answer with.", Sendfile, block=Sendfile)
    limits: PoolLimits = _key("block", "Limits of this pool.", PoolLimits, block=PoolLimits)


@dataclass(frozen=True, slots=True)
class CgiLimits:
    """What CGI programs may use."""

    request_time_ms: int = _time(
        60 * SECOND, 0, DAY, "How long a program may run before its process group is killed; 0 for no limit."
    )
    idle_time_ms: int = _time(
        30 * SECOND, 0, DAY, "How long a program may write nothing before its process group is killed; 0 for no limit."
    )
    queue_time_ms: int = _time(
        30 * SECOND, 1, DAY, "How long a request may wait for its program to start before it is answered 503."
    )
    queue: int = _count(1000, 1, 1_000_000, "Requests that may wait at once; more are answered 503.")
    programs: int = _count(32, 1, 4096, "Programs that run at once.")
    output: int = _size(
        0, 0, TIB, "Body of an answer; a longer one is 502 or, when some of it has been sent, cut off; 0: no limit."
    )
    cpu_time_ms: int = _time(
        0,
        0,
        DAY,
        "CPU time of a program, in whole seconds: it gets SIGXCPU, and SIGKILL a second later; 0 for no limit."
        " This and the next three hold for each of a program's processes by itself.",
    )
    memory: int = _size(
        0, 0, TIB, "Memory of a program: its heap and what else it writes to (RLIMIT_DATA); 0 for no limit."
    )
    file_size: int = _size(
        0, 0, TIB, "Size of a file that a program writes; beyond it the program gets SIGXFSZ; 0 for no limit."
    )
    open_files: int = _count(0, 0, 1_048_576, "Open descriptors of a program; 0: as the server was started with.")
    processes: int = _count(
        0,
        0,
        4_194_304,
        "Processes of the user that programs run as (RLIMIT_NPROC), so it wants a user that runs nothing else; it does"
        " not hold for root; 0 for no limit.",
    )
    kill_grace_ms: int = _time(
        1 * SECOND, 0, MINUTE, "Time between SIGTERM and SIGKILL to the process group of a program."
    )


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

    environment: Mapping[str, str] = _key(
        "environment", "Environment variables that are added for every program.", dict
    )
    pass_environment: tuple[str, ...] = _key(
        "variable_names",
        "Variables of the server's own environment that programs get as well (PATH is always there).",
        (),
    )
    interpreters: Mapping[str, str] = _key(
        "interpreters",
        'Programs with these extensions (".pl") are run by this interpreter instead of their mode and #! line.',
        dict,
    )
    warm: str = _key(
        "choice",
        "Python and Perl scripts in interpreters that have started already (auto), or in a new one for each request"
        " (off), or, to try scripts out, both ways, with the answers compared (verify);"
        " [cgi.md](cgi.md#warm-interpreters) says what that is.",
        "auto",
        choices=("auto", "off", "verify"),
    )
    pass_authorization: bool = _key(
        "boolean",
        "Whether programs get the client's credentials (`HTTP_AUTHORIZATION`), for those that check them themselves.",
        False,
        default_text="false",
    )
    stream_bodies: bool = _key(
        "boolean",
        "Whether a program is started before its request body is there, when that is over 64KiB or comes in chunks:"
        " stdin is then a socket, and for chunks there is no CONTENT_LENGTH.",
        False,
        default_text="false",
    )
    on_disconnect: str = _key("choice", _ON_DISCONNECT_DOC, "kill", choices=("kill", "finish"))
    daemons: str = _key("choice", _DAEMONS_DOC, "end", choices=("end", "leave"))
    user: str | None = _key("program_user", _CGI_USER_DOC, None, default_text=_CGI_USER_DEFAULT)
    group: str | None = _key("group", _CGI_GROUP_DOC, None, default_text="the main group of `user`")
    check_owner: bool = _key("boolean", _CHECK_OWNER_DOC, True)
    min_uid: int = _count(100, 1, 2**32 - 2, "With `user: owner`, the lowest uid that programs run as.")
    min_gid: int = _count(100, 1, 2**32 - 2, "Likewise, the lowest main group of their owners.")
    sendfile: Sendfile = _key("block", "Files that programs may answer with.", Sendfile, block=Sendfile)
    limits: CgiLimits = _key("block", "Limits of CGI programs.", CgiLimits, block=CgiLimits)


_AS_CGI = "as in `cgi`"


@dataclass(frozen=True, slots=True)
class CgiFolder:
    """CGI programs of one folder, or a single one: `directory` or `program` ([cgi.md](cgi.md#where-programs-are)).
    Without `extensions` every file below the folder is a program; with them those are that have one, anywhere below,
    and other files are served as they are. The keys that `cgi` has as well are over those. Rules for which these come
    to the same share a spawner, and with it `limits.programs` and `limits.queue`.
    """

    directory: str | None = _key(
        "directory", "The folder; what follows the path of the rule is looked up below it.", None
    )
    program: str | None = _key(
        "program",
        "The file that is run for every request; what follows the path of the rule is `PATH_INFO`, and for a rule"
        " without a path that is the whole path.",
        None,
    )
    symlinks: str | None = _key(
        "choice",
        "Symbolic links in the folder, as for files. A `program` may be one.",
        None,
        choices=("beneath", "deny", "follow"),
        default_text="the site's",
    )
    extensions: tuple[str, ...] = _key(
        "program_extensions",
        'Files with these extensions (".php") are programs; they need not be executable, and are never sent as files.',
        (),
        default_text="none: every file is a program",
    )
    index: tuple[str, ...] | None = _key(
        "file_names",
        "Programs and files that answer for a folder, the first that exists.",
        None,
        default_text="with `extensions`: `index` with each of them, then the site's; else none",
    )
    fallback: str | None = _key(
        "path",
        "Program, as a path below the folder (`/index.php`), for paths that do not exist; REQUEST_URI has them.",
        None,
        default_text="none",
    )
    environment: Mapping[str, str] = _key(
        "environment", "Environment variables that are added, beside those of `cgi`.", dict, default_text=_AS_CGI
    )
    pass_environment: tuple[str, ...] = _key(
        "variable_names",
        "Variables of the server's own environment that programs get as well, beside those of `cgi`.",
        (),
        default_text=_AS_CGI,
    )
    interpreters: Mapping[str, str] = _key(
        "interpreters",
        "Programs with these extensions are run by this interpreter; beside those of `cgi`.",
        dict,
        default_text=_AS_CGI,
    )
    warm: str | None = _key(
        "choice",
        "Whether scripts run in interpreters that have started already.",
        None,
        choices=("auto", "off", "verify"),
        default_text=_AS_CGI,
    )
    pass_authorization: bool | None = _key(
        "boolean", "Whether programs get the client's credentials.", None, default_text=_AS_CGI
    )
    stream_bodies: bool | None = _key(
        "boolean", "Whether a program is started before its request body is there.", None, default_text=_AS_CGI
    )
    on_disconnect: str | None = _key(
        "choice", _ON_DISCONNECT_DOC, None, choices=("kill", "finish"), default_text=_AS_CGI
    )
    daemons: str | None = _key("choice", _DAEMONS_DOC, None, choices=("end", "leave"), default_text=_AS_CGI)
    user: str | None = _key("program_user", _CGI_USER_DOC, None, default_text=_AS_CGI)
    group: str | None = _key("group", _CGI_GROUP_DOC, None, default_text=_AS_CGI + ", unless `user` is given")
    check_owner: bool | None = _key("boolean", _CHECK_OWNER_DOC, None, default_text=_AS_CGI)
    limits: Mapping[str, int] = _key(
        "some_of", "Limits: any of the keys of `cgi.limits`.", dict, block=CgiLimits, default_text=_AS_CGI
    )


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is for; all that is given must fit, an empty match fits every request."""

    path: str | None = _key(
        "pattern",
        "Decoded path: `/a` exactly, or `/a/*` for everything below and `/a` itself.",
        None,
        default_text="any",
    )
    extension: tuple[str, ...] = _key(
        "extensions", "Extension of the path's last name, without the dot.", (), default_text="any"
    )
    method: tuple[str, ...] = _key("methods", "Request method, in capitals.", (), default_text="any")


@dataclass(frozen=True, slots=True)
class Redirect:
    """Sends the client elsewhere."""

    to: str = _key("location", "Path on this site, or a whole URL.", "/", required=True)
    status: int = _key("redirect_status", "Status code.", 302, choices=("301", "302", "303", "307", "308"))


@dataclass(frozen=True, slots=True)
class Respond:
    """Answers with a fixed text."""

    status: int = _count(200, 200, 599, "Status code.")
    body: str = _key("text", "Plain text.", "", default_text="empty")


_CODINGS_DOC = (
    "Compressed neighbours that are sent in place of a file to clients that accept them, the preferred one first: "
    "`a.js.br` (br), `a.js.zst` (zst), `a.js.gz` (gz) beside `a.js`; or off."
)
_FALLBACK_DOC = (
    "File, as a path of the site, that answers with 200 for pages that do not exist: the start of a single-page "
    "application."
)


@dataclass(frozen=True, slots=True)
class Files:
    """Files below a folder, which is either `root` or `alias`. What else is left out is as for the site."""

    root: str | None = _key("directory", "Root for files; the whole path is looked up below it.", None)
    alias: str | None = _key(
        "directory",
        "Folder that takes the place of the rule's path, which must end in `/*`: with `path: /icons/*` and"
        " `alias: /usr/share/icons`, `/icons/a.png` is `/usr/share/icons/a.png`.",
        None,
    )
    index: tuple[str, ...] | None = _key(
        "file_names",
        "Files that answer for a folder, the first that exists.",
        None,
        default_text="the site's",
    )
    symlinks: str | None = _key(
        "choice",
        "Symbolic links.",
        None,
        choices=("beneath", "deny", "follow"),
        default_text="the site's",
    )
    precompressed: tuple[str, ...] | None = _key(
        "codings", _CODINGS_DOC, None, choices=CODINGS, default_text="the site's"
    )
    fallback: str | None = _key("path", _FALLBACK_DOC, None, default_text="the site's")


@dataclass(frozen=True, slots=True)
class Handler:
    """What answers a request: exactly one of these keys."""

    python: str | None = _key(
        "python_handler",
        f"Name of a pool with an application or a single script, or path of a handler script (.py), which runs in the"
        f" pool that names it or its folder, else in `{SCRIPT_POOL}`.",
        None,
    )
    scripts: str | None = _key(
        "scripts_handler",
        "Folder of handler scripts, or the pool that has one: each answers below its name, `index.py` for what neither"
        " another one nor a file of the site does. The path must end in `/*`.",
        None,
    )
    cgi: CgiFolder | None = _key(
        "folder_or_block", "Folder of CGI programs. A block can say more.", None, block=CgiFolder
    )
    file: Files | None = _key(
        "folder_or_block",
        "Root for files; the whole path is looked up below it. A block can say more.",
        None,
        block=Files,
    )
    redirect: Redirect | None = _key("block", "Sends the client elsewhere.", None, block=Redirect)
    respond: Respond | None = _key("block", "Answers with a fixed text.", None, block=Respond)

    @property
    def kind(self) -> str:
        """The key that is set; "" when there is not exactly one."""
        given = [name for name in keys_of(Handler) if getattr(self, name) is not None]
        return given[0] if len(given) == 1 else ""


@dataclass(frozen=True, slots=True)
class Rule:
    """The first rule of a site that matches answers. When none does, files below the site's root are served."""

    match: Match = _key("block", "Which requests the rule is for.", Match, block=Match, default_text="every request")
    handler: Handler = _key("block", "What answers them.", Handler, block=Handler, required=True)


@dataclass(frozen=True, slots=True)
class Site:
    """A virtual server, chosen by the request's host."""

    name: str = _key("name", "Name in logs.", "", default_text='the first host, or "main"')
    hosts: tuple[str, ...] = _key(
        "hosts",
        "Host names, `*.example.org` for all below one, `*` for any; a site without hosts takes what no other takes,"
        " and without such a site the first one does.",
        (),
        default_text="any",
    )
    root: str | None = _key(
        "directory", "Folder of the files that are served when no rule matches; without one that is 404.", None
    )
    index: tuple[str, ...] = _key(
        "file_names", "Files that answer for a folder, the first that exists.", ("index.html",)
    )
    symlinks: str = _key(
        "choice",
        "Symbolic links: followed while they stay below the root, never, or wherever they lead.",
        "beneath",
        choices=("beneath", "deny", "follow"),
    )
    precompressed: tuple[str, ...] = _key("codings", _CODINGS_DOC, (), choices=CODINGS, default_text="off")
    fallback: str | None = _key("path", _FALLBACK_DOC, None, default_text="none")
    rules: tuple[Rule, ...] = _key("blocks", "Rules, in order.", (), block=Rule)
    errors: Mapping[int, str] = _key(
        "error_pages", "Status (400 to 599) to the path on this site that has the page for it.", dict
    )


def _default_listen() -> tuple[Address, ...]:
    """Where to listen when nobody says it: a container image sets CHEROKEE_LISTEN to its own port."""
    text = os.environ.get("CHEROKEE_LISTEN") or "0.0.0.0:8080"
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError([f"CHEROKEE_LISTEN: found '{text}'; expected HOST:PORT such as 0.0.0.0:80"])
    return (Address(host.strip("[]"), int(port), text),)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    listen: tuple[Address, ...] = _key(
        "addresses",
        'Where to listen: HOST:PORT or a list of them. IPv6 in brackets ("[::]:8080"); port 0 picks a free port.',
        _default_listen,
        default_text='`$CHEROKEE_LISTEN`, else "0.0.0.0:8080"',
    )
    threads: int | None = _key(
        "threads",
        "Event loops; auto is one for each CPU that affinity and cgroup grant.",
        None,
        low=1,
        high=MAX_THREADS,
        default_text="auto",
    )
    user: str | None = _key(
        "user",
        "User that the core and the executors run as, when started as root.",
        None,
        default_text="the user who starts it",
    )
    group: str | None = _key("group", "Group, likewise.", None, default_text="the main group of `user`")
    accept: str = _key(
        "choice",
        "Who accepts connections: the loops, of which the kernel wakes one (self-managed); loop 0, which hands them"
        " to the others in turn (coordinator); every loop, all of which are woken (independent); or every"
        " loop on a socket of its own (reuseport: programs of the same user can then take a share of the port).",
        "self-managed",
        choices=("coordinator", "independent", "self-managed", "reuseport"),
    )
    schedule: str = _key(
        "choice",
        "Order in which a loop goes on with large files: each in turn (fair), or the one with the least left first"
        " (shortest-first), where a long wait counts like being shorter.",
        "fair",
        choices=("fair", "shortest-first"),
    )
    control: str | None = _key(
        "socket",
        "Control socket for `cherokee-app reload`, `status` and others: a path (mode 0600; only the user who starts the"
        " server, and root, may use it), auto, or off.",
        "auto",
        default_text="auto: `PID.sock` in the first of $XDG_RUNTIME_DIR/cherokee-app, /run/cherokee-app (root) or"
        " /run/user/UID/cherokee-app, /tmp/cherokee-app-UID, /dev/shm/cherokee-app-UID that can be used",
    )
    limits: Limits = _key("block", "Limits for clients.", Limits, block=Limits)
    log: Log = _key("block", "Logs.", Log, block=Log)
    cache: Cache = _key("block", "The file cache.", Cache, block=Cache)
    tuning: Tuning = _key("block", "Choices of the design, for measurements.", Tuning, block=Tuning)
    incidents: Incidents | None = _key(
        "block_or_off",
        "What is kept of workers that died and of requests that ran too long, or off.",
        Incidents,
        block=Incidents,
    )
    spool: str = _key(
        "directory",
        "Folder for request bodies that are too large for memory (as files that are already unlinked).",
        "/tmp",
    )
    types: Mapping[str, str] = _key(
        "types", 'Media types by extension (".foo"), before those built in and those of `types_file`.', dict
    )
    types_file: str | None = _key(
        "types_file",
        "Table such as /etc/mime.types, read when the configuration is, for extensions that are not built in; or off.",
        None,
        default_text="off",
    )
    health: Health | None = _key("block_or_off", "Health paths, or off.", Health, block=Health)
    pools: Mapping[str, Pool] = _key(
        "named_blocks",
        f"Python pools by name. The pool `{SCRIPT_POOL}` is made when it is needed; name it to set its limits.",
        dict,
        block=Pool,
    )
    cgi: Cgi = _key("block", "CGI programs.", Cgi, block=Cgi)
    sites: tuple[Site, ...] = _key(
        "blocks",
        "Virtual servers. When left out, the conventions make one site of the served folder.",
        (),
        block=Site,
        default_text="by convention",
    )
