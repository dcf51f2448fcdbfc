"""The configuration as frozen objects: one class for each block of the YAML file (see keys.py)."""

# ruff: noqa: RUF009 (key() and the like only call field())

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from appserver.config.cgi_model import Cgi, CgiFolder
from appserver.config.keys import DAY, GIB, HOUR, KIB, MIB, SECOND, TIB, count_key, key, keys_of, size_key, time_key
from appserver.config.pool_model import Pool
from appserver.errors import ConfigError

MAX_THREADS = 64  #: loops that the core can run
CODINGS = ("br", "zst", "gz")  #: compressed neighbours of files, by their extensions
SCRIPT_POOL = "handlers"  #: the pool that handler scripts share


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen. `host` is without brackets; `text` is how it was written and names the listener."""

    host: str
    port: int
    text: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the server. Larger or slower is refused with the status named."""

    header_size: int = size_key(16 * KIB, 1 * KIB, 1 * MIB, "Request line and header fields together; more is 431.")
    target_size: int = size_key(8 * KIB, 256, 1 * MIB, "Request target (path and query); more is 414.")
    body_size: int = size_key(1 * GIB, 0, 16 * TIB, "Request body; more is 413.")
    header_timeout_ms: int = time_key(
        10 * SECOND, 1, DAY, "From the first byte of a request to the end of its header; longer is 408."
    )
    body_timeout_ms: int = time_key(30 * SECOND, 1, DAY, "Between two pieces of a request body; longer is 408.")
    idle_timeout_ms: int = time_key(
        60 * SECOND, 1, DAY, "How long a kept-alive connection may wait for its next request before it is closed."
    )
    send_timeout_ms: int = time_key(
        60 * SECOND, 1, DAY, "How long a client may take nothing of its response before it is cut off."
    )
    keep_alive_requests: int = count_key(
        0, 0, 2**31 - 1, "Requests on one connection before it is closed; 0 for no limit."
    )
    min_rate: int = size_key(
        500,
        0,
        1 * GIB,
        "Bytes per second that a client must send of a body, else 408, and take of a response, else it is cut off;"
        " looked at after each `body_timeout` and `send_timeout` for that time as a whole. 0: only that something moves"
        " in that time. (The default is that of Apache's reqtimeout.)",
    )
    connections: int = count_key(10_000, 1, 1_000_000, "Connections open at once in the whole server.")
    over_limit: str = key(
        "choice",
        "What becomes of connections over `connections`: 503 at once, or they wait in the backlog until one closes.",
        "refuse",
        choices=("refuse", "wait"),
    )
    connections_per_client: int = count_key(
        0,
        0,
        1_000_000,
        "Connections open at once of one remote address (IPv6: of its /64 network), over all loops; more are 503; 0 for"
        " no limit. 65536 clients are counted at once, further ones are let in. Behind a proxy, all are one client.",
    )
    drain_timeout_ms: int = time_key(
        25 * SECOND, 0, HOUR, "How long requests may finish after SIGTERM before they are cut off."
    )


@dataclass(frozen=True, slots=True)
class Log:
    """What the server writes about itself (to stderr) and about requests."""

    level: str = key(
        "choice", "The least important messages that are logged.", "info", choices=("debug", "info", "warning", "error")
    )
    format: str = key(
        "choice",
        "How the server's own messages look; auto is console on a terminal and json elsewhere.",
        "auto",
        choices=("auto", "console", "json"),
    )
    access: str = key(
        "choice",
        "Format of the access log. json also says how long a request took (duration_ms), waited for an executor"
        " (queue_ms), ran in it (run_ms), what CPU it took there (cpu_ms; of asynchronous applications that is not"
        " known), and how much of a body was received. Status 499 is a client that left before it had sent the body of"
        " its request, or got an answer.",
        "combined",
        choices=("combined", "json", "off"),
    )
    access_file: str = key("output", 'File of the access log; "-" is stdout. SIGUSR1 opens it anew.', "-")


@dataclass(frozen=True, slots=True)
class Cache:
    """The file cache; each loop has its own."""

    memory: int = size_key(
        64 * MIB, 0, 1 * TIB, "Most memory for the contents of files, for each loop; 0 turns the cache off."
    )
    entries: int = count_key(4096, 1, 1_000_000, "Most files, for each loop.")
    file_size: int = size_key(256 * KIB, 0, 1 * GIB, "Larger files are not held but sent with sendfile.")
    revalidate_ms: int = time_key(
        1 * SECOND, 0, DAY, "How long an entry is believed before the file is looked at again."
    )
    policy: str = key(
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

    accept_batch: str = key(
        "choice",
        "Connections that a loop accepts in one turn: more while they keep coming, up to 64, or always one.",
        "adaptive",
        choices=("adaptive", "one"),
    )
    write: str = key(
        "choice",
        "Head and first piece of a response in one system call, or each in its own.",
        "gather",
        choices=("gather", "separate"),
    )
    cork: str = key(
        "choice",
        "What makes a head share a packet with what another call sends: TCP_CORK around both, MSG_MORE, or nothing.",
        "cork",
        choices=("cork", "more", "off"),
    )
    sendfile: str = key(
        "choice",
        "Files that the cache does not hold: by sendfile, or (off) read and written through a buffer of 64KiB.",
        "on",
        choices=("on", "off"),
    )
    reuse: str = key(
        "choice", "Whether the objects of connections and requests are kept for the next.", "on", choices=("on", "off")
    )


@dataclass(frozen=True, slots=True)
class Incidents:
    """What is kept of workers that died and of requests that ran too long, for `cherokee-app incidents`
    ([incidents.md](incidents.md)).
    """

    directory: str = key(
        "state_directory",
        "Folder for them, made when it is not there (mode 0700; the files have 0600); or auto.",
        "auto",
        default_text="auto: `incidents` in the first of /var/lib/cherokee-app and $XDG_STATE_HOME/cherokee-app or"
        " ~/.local/state/cherokee-app that can be written ($CHEROKEE_STATE instead of both when it is set); else they"
        " are not kept",
    )
    keep: int = count_key(100, 1, 100_000, "The newest are kept, this many.")
    size: int = size_key(1 * MIB, 16 * KIB, 16 * MIB, "Most bytes of one; what does not fit is left out, bodies first.")
    redact: tuple[str, ...] = key(
        "field_names",
        "Request header fields whose values are not written, besides Authorization, Proxy-Authorization, Cookie and"
        " Set-Cookie.",
        (),
        default_text="none",
    )
    keep_bodies: str = key(
        "choice", "Whether request bodies are kept, for `incidents replay`.", "on", choices=("on", "off")
    )
    body_size: int = size_key(
        64 * KIB, 0, 1 * MIB, "Of a longer body only this much is kept, and it cannot be replayed."
    )


@dataclass(frozen=True, slots=True)
class Health:
    """Paths that the core answers itself, on every site, even when all executors are busy."""

    live: str = key("path", "Answers 200 as long as the process lives.", "/livez")
    ready: str = key("path", "Answers 200 when requests can be served, else 503.", "/readyz")
    metrics: str | None = key(
        "path",
        "Answers with the [metrics](metrics.md) of all sites, as text for Prometheus. Off by default, because whoever"
        " reaches a site can read them: names of sites, rules and pools, and how much they are used.",
        None,
        default_text="off",
    )


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is for; all that is given must fit, an empty match fits every request."""

    path: str | None = key(
        "pattern",
        "Decoded path: `/a` exactly, or `/a/*` for everything below and `/a` itself.",
        None,
        default_text="any",
    )
    extension: tuple[str, ...] = key(
        "extensions", "Extension of the path's last name, without the dot.", (), default_text="any"
    )
    method: tuple[str, ...] = key("methods", "Request method, in capitals.", (), default_text="any")


@dataclass(frozen=True, slots=True)
class Redirect:
    """Sends the client elsewhere."""

    to: str = key("location", "Path on this site, or a whole URL.", "/", required=True)
    status: int = key("redirect_status", "Status code.", 302, choices=("301", "302", "303", "307", "308"))


@dataclass(frozen=True, slots=True)
class Respond:
    """Answers with a fixed text."""

    status: int = count_key(200, 200, 599, "Status code.")
    body: str = key("text", "Plain text.", "", default_text="empty")


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

    root: str | None = key("directory", "Root for files; the whole path is looked up below it.", None)
    alias: str | None = key(
        "directory",
        "Folder that takes the place of the rule's path, which must end in `/*`: with `path: /icons/*` and"
        " `alias: /usr/share/icons`, `/icons/a.png` is `/usr/share/icons/a.png`.",
        None,
    )
    index: tuple[str, ...] | None = key(
        "file_names",
        "Files that answer for a folder, the first that exists.",
        None,
        default_text="the site's",
    )
    symlinks: str | None = key(
        "choice",
        "Symbolic links.",
        None,
        choices=("beneath", "deny", "follow"),
        default_text="the site's",
    )
    precompressed: tuple[str, ...] | None = key(
        "codings", _CODINGS_DOC, None, choices=CODINGS, default_text="the site's"
    )
    fallback: str | None = key("path", _FALLBACK_DOC, None, default_text="the site's")


@dataclass(frozen=True, slots=True)
class Handler:
    """What answers a request: exactly one of these keys."""

    python: str | None = key(
        "python_handler",
        f"Name of a pool with an application or a single script, or path of a handler script (.py), which runs in the"
        f" pool that names it or its folder, else in `{SCRIPT_POOL}`.",
        None,
    )
    scripts: str | None = key(
        "scripts_handler",
        "Folder of handler scripts, or the pool that has one: each answers below its name, `index.py` for what neither"
        " another one nor a file of the site does. The path must end in `/*`.",
        None,
    )
    cgi: CgiFolder | None = key(
        "folder_or_block", "Folder of CGI programs. A block can say more.", None, block=CgiFolder
    )
    file: Files | None = key(
        "folder_or_block",
        "Root for files; the whole path is looked up below it. A block can say more.",
        None,
        block=Files,
    )
    redirect: Redirect | None = key("block", "Sends the client elsewhere.", None, block=Redirect)
    respond: Respond | None = key("block", "Answers with a fixed text.", None, block=Respond)

    @property
    def kind(self) -> str:
        """The key that is set; "" when there is not exactly one."""
        given = [name for name in keys_of(Handler) if getattr(self, name) is not None]
        return given[0] if len(given) == 1 else ""


@dataclass(frozen=True, slots=True)
class Rule:
    """The first rule of a site that matches answers. When none does, files below the site's root are served."""

    match: Match = key("block", "Which requests the rule is for.", Match, block=Match, default_text="every request")
    handler: Handler = key("block", "What answers them.", Handler, block=Handler, required=True)


@dataclass(frozen=True, slots=True)
class Site:
    """A virtual server, chosen by the request's host."""

    name: str = key("name", "Name in logs.", "", default_text='the first host, or "main"')
    hosts: tuple[str, ...] = key(
        "hosts",
        "Host names, `*.example.org` for all below one, `*` for any; a site without hosts takes what no other takes,"
        " and without such a site the first one does.",
        (),
        default_text="any",
    )
    root: str | None = key(
        "directory", "Folder of the files that are served when no rule matches; without one that is 404.", None
    )
    index: tuple[str, ...] = key(
        "file_names", "Files that answer for a folder, the first that exists.", ("index.html",)
    )
    symlinks: str = key(
        "choice",
        "Symbolic links: followed while they stay below the root, never, or wherever they lead.",
        "beneath",
        choices=("beneath", "deny", "follow"),
    )
    precompressed: tuple[str, ...] = key("codings", _CODINGS_DOC, (), choices=CODINGS, default_text="off")
    fallback: str | None = key("path", _FALLBACK_DOC, None, default_text="none")
    rules: tuple[Rule, ...] = key("blocks", "Rules, in order.", (), block=Rule)
    errors: Mapping[int, str] = key(
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

    listen: tuple[Address, ...] = key(
        "addresses",
        'Where to listen: HOST:PORT or a list of them. IPv6 in brackets ("[::]:8080"); port 0 picks a free port.',
        _default_listen,
        default_text='`$CHEROKEE_LISTEN`, else "0.0.0.0:8080"',
    )
    threads: int | None = key(
        "threads",
        "Event loops; auto is one for each CPU that affinity and cgroup grant.",
        None,
        low=1,
        high=MAX_THREADS,
        default_text="auto",
    )
    user: str | None = key(
        "user",
        "User that the core and the executors run as, when started as root.",
        None,
        default_text="the user who starts it",
    )
    group: str | None = key("group", "Group, likewise.", None, default_text="the main group of `user`")
    accept: str = key(
        "choice",
        "Who accepts connections: the loops, of which the kernel wakes one (self-managed); loop 0, which hands them"
        " to the others in turn (coordinator); every loop, all of which are woken (independent); or every"
        " loop on a socket of its own (reuseport: programs of the same user can then take a share of the port).",
        "self-managed",
        choices=("coordinator", "independent", "self-managed", "reuseport"),
    )
    schedule: str = key(
        "choice",
        "Order in which a loop goes on with large files: each in turn (fair), or the one with the least left first"
        " (shortest-first), where a long wait counts like being shorter.",
        "fair",
        choices=("fair", "shortest-first"),
    )
    control: str | None = key(
        "socket",
        "Control socket for `cherokee-app reload`, `status` and others: a path (mode 0600; only the user who starts the"
        " server, and root, may use it), auto, or off.",
        "auto",
        default_text="auto: `PID.sock` in the first of $XDG_RUNTIME_DIR/cherokee-app, /run/cherokee-app (root) or"
        " /run/user/UID/cherokee-app, /tmp/cherokee-app-UID, /dev/shm/cherokee-app-UID that can be used",
    )
    limits: Limits = key("block", "Limits for clients.", Limits, block=Limits)
    log: Log = key("block", "Logs.", Log, block=Log)
    cache: Cache = key("block", "The file cache.", Cache, block=Cache)
    tuning: Tuning = key("block", "Choices of the design, for measurements.", Tuning, block=Tuning)
    incidents: Incidents | None = key(
        "block_or_off",
        "What is kept of workers that died and of requests that ran too long, or off.",
        Incidents,
        block=Incidents,
    )
    spool: str = key(
        "directory",
        "Folder for request bodies that are too large for memory (as files that are already unlinked).",
        "/tmp",
    )
    types: Mapping[str, str] = key(
        "types", 'Media types by extension (".foo"), before those built in and those of `types_file`.', dict
    )
    types_file: str | None = key(
        "types_file",
        "Table such as /etc/mime.types, read when the configuration is, for extensions that are not built in; or off.",
        None,
        default_text="off",
    )
    health: Health | None = key("block_or_off", "Health paths, or off.", Health, block=Health)
    pools: Mapping[str, Pool] = key(
        "named_blocks",
        f"Python pools by name. The pool `{SCRIPT_POOL}` is made when it is needed; name it to set its limits.",
        dict,
        block=Pool,
    )
    cgi: Cgi = key("block", "CGI programs.", Cgi, block=Cgi)
    sites: tuple[Site, ...] = key(
        "blocks",
        "Virtual servers. When left out, the conventions make one site of the served folder.",
        (),
        block=Site,
        default_text="by convention",
    )
