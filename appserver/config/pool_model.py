"""The blocks of Python pools (`pools`), and of the files that applications may answer with."""

# ruff: noqa: RUF009 (key() and the like only call field())

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appserver.config.keys import DAY, GIB, HOUR, MIB, SECOND, TIB, count_key, key, size_key, time_key


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What requests may ask of a pool."""

    request_time_ms: int = time_key(
        60 * SECOND,
        0,
        DAY,
        "How long a request may run before it is answered 504 and interrupted; 0 for no limit.",
    )
    interrupt_time_ms: int = time_key(
        5 * SECOND,
        0,
        HOUR,
        "How long a request that was interrupted (RequestTimeout was raised in it) may take to end before its worker is"
        " replaced.",
    )
    queue_time_ms: int = time_key(
        30 * SECOND, 1, DAY, "How long a request may wait for a worker before it is answered 503."
    )
    queue: int = count_key(1000, 1, 1_000_000, "Requests that may wait at once; more are answered 503.")
    stop_time_ms: int = time_key(
        10 * SECOND, 0, HOUR, "How long a worker that was told to stop may finish before it is killed."
    )
    requests: int = count_key(
        0,
        0,
        2**31 - 1,
        "About how many requests a worker may serve before another one takes its place; each has a limit of its own, a"
        " tenth more or less, so that they do not go together; 0 for no limit.",
    )
    lifetime_ms: int = time_key(
        0, 0, 366 * DAY, "How old a worker may become before another one takes its place, likewise; 0 for no limit."
    )
    memory: int = size_key(
        0,
        0,
        1 * TIB,
        "Resident memory, looked at once a second, with which a worker finishes what it holds while another one takes"
        " its place; 0 for no limit.",
    )
    memory_max: int = size_key(
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

    min: int = count_key(1, 1, 256, "That many are always there.")
    max: int = key(
        "count", "There are never more, but for those that are being replaced.", 256, low=1, high=256, required=True
    )
    idle_time_ms: int = time_key(
        60 * SECOND, 1, DAY, "How long one process less must have been enough before one goes."
    )


@dataclass(frozen=True, slots=True)
class WebSockets:
    """WebSockets of a pool's ASGI application or scripts."""

    ping_interval_ms: int = time_key(
        20 * SECOND, 0, DAY, "How long after its last ping, or its begin, a connection gets a ping; 0: never."
    )
    ping_timeout_ms: int = time_key(
        20 * SECOND, 1, DAY, "How long a client may send nothing after a ping before the connection is closed (1011)."
    )
    message_size: int = size_key(
        16 * MIB,
        1,
        1 * GIB,
        "Message from a client, also when it has been decompressed; a larger one is refused (1009).",
    )
    compression: str = key(
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

    roots: tuple[str, ...] = key(
        "directories", "`X-Sendfile: /srv/files/a.pdf` sends that file when it is below one of these folders.", ()
    )
    locations: Mapping[str, str] = key(
        "folders",
        "`X-Accel-Redirect: /protected/a.pdf` sends `a.pdf` of the folder for the prefix `/protected`.",
        dict,
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """A group of Python worker processes that run one application, or handler scripts (`python` or `scripts`, not
    both).
    """

    python: str | None = key("application", "WSGI or ASGI application as module:attribute.", None)
    interface: str = key(
        "choice",
        "What the application is; auto: found out when it is loaded.",
        "auto",
        choices=("auto", "wsgi", "asgi"),
    )
    scripts: str | None = key(
        "scripts",
        "Handler scripts that this pool runs instead of the shared one, wherever their URLs come from: a folder with"
        " all below it, or a single script (`NAME.py`). Names that begin with `_` or `.` have no URL.",
        None,
    )
    directory: str | None = key(
        "directory",
        "Working directory, and where modules are found.",
        None,
        default_text="the folder of the configuration file, or that of the `scripts`",
    )
    interpreter: str | None = key(
        "interpreter",
        "Python interpreter (3.9 or later), or the folder of a virtual environment.",
        None,
        default_text="the server's own",
    )
    processes: Processes = key(
        "count_or_block",
        "Worker processes: a fixed number, or a block with `min` and `max`.",
        lambda: Processes(2, 2),
        low=1,
        high=256,
        block=Processes,
        default_text="2",
    )
    threads: int = count_key(
        4,
        1,
        256,
        "Threads in each process: requests that it runs at once. ASGI applications have `concurrency` instead.",
    )
    concurrency: int = count_key(
        100,
        1,
        10_000,
        "Requests and WebSockets that an ASGI application, or asynchronous scripts, hold at once in each process.",
    )
    websocket: WebSockets = key(
        "block", "WebSockets of an ASGI application or of scripts.", WebSockets, block=WebSockets
    )
    preload: bool = key(
        "boolean",
        "Whether the application is loaded once, in a process from which the workers are forked: they start at once and"
        " share the memory of what was loaded. Not for applications that start threads while they are loaded (then the"
        " workers are started as without it, with a line in the log), nor for those that open connections then.",
        False,
        default_text="false",
    )
    check: str | None = key(
        "check_target",
        "Path, or whole URL where the application wants to be asked with a host of its own, that the workers of a new"
        " version answer before they take requests: a GET, with a status below 400. One that does not keeps the old"
        " version where it is (reload), or the pool from starting. For applications, not for scripts.",
        None,
        default_text="none",
    )
    environment: Mapping[str, str] = key("environment", "Environment variables that are added for the workers.", dict)
    retry: str = key(
        "choice",
        "Which requests are given to another worker, once, when theirs dies before its answer began: those with an"
        " idempotent method (GET, HEAD, OPTIONS, PUT, DELETE) or a field `Idempotency-Key`, none, or all. Others are"
        " answered 502.",
        "idempotent",
        choices=("never", "idempotent", "always"),
    )
    quarantine_ms: int = time_key(
        60 * SECOND,
        0,
        DAY,
        "How long a request that has killed two workers is answered 503 without being run (the same method, target and"
        " body; 64 such requests for each pool); 0 turns this off.",
    )
    sendfile: Sendfile = key("block", "Files that the application may answer with.", Sendfile, block=Sendfile)
    limits: PoolLimits = key("block", "Limits of this pool.", PoolLimits, block=PoolLimits)
