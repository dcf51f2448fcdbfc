"""A plan (the JSON that the supervisor sends) turned into a snapshot of the core by builder calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from appserver.native._core import ffi, lib
from appserver.native.server import CoreError, PoolSettings, c_text, check, problem

Plan = Mapping[str, Any]
AddRoute = Callable[[str, str, str], int]

PLAN_VERSION = 1
SYMLINKS = {"beneath": 0, "deny": 1, "follow": 2}
CODINGS = {"br": 0, "zst": 1, "gz": 2}
CORKS = {"cork": 0, "more": 1, "off": 2}
HEALTH = {"live": 0, "ready": 1}


class Snapshot:
    """An as_snapshot that is not applied yet; it goes with this object unless :meth:`release` was called."""

    def __init__(self, plan: Plan) -> None:
        limits = ffi.new("as_limits *", dict(plan["limits"]))
        handle = lib.as_snapshot_new(limits, c_text(plan["server_software"]), c_text(plan["spool"]))
        if handle == ffi.NULL:
            raise problem()
        self.handle = ffi.gc(handle, lib.as_snapshot_free)

    def release(self) -> Any:
        """The bare pointer, for the one who takes it over."""
        owner, self.handle = self.handle, None
        handle = ffi.cast("as_snapshot *", owner)
        ffi.gc(owner, None)
        return handle


def build_snapshot(plan: Plan, pools: Mapping[str, int], add_route: AddRoute) -> Snapshot:
    """The snapshot of `plan`; `pools` gives the core's number of each pool, `add_route` that of a site's name, a rule's
    text and a kind of handler. Raises CoreError.
    """
    if plan.get("version") != PLAN_VERSION:
        raise CoreError(f"the plan has version {plan.get('version')}; this core reads {PLAN_VERSION}")
    snapshot = Snapshot(plan)
    try:
        cache = plan["cache"]
        check(
            lib.as_snapshot_set_cache(
                snapshot.handle,
                cache["bytes"],
                cache["entries"],
                cache["file_size"],
                cache["revalidate_ms"],
                int(cache["recent"]),
            )
        )
        tuning = {**plan["tuning"], "cork": CORKS[plan["tuning"]["cork"]]}
        check(lib.as_snapshot_set_tuning(snapshot.handle, ffi.new("as_tuning *", tuning)))
        for key, replaces in (("types_of_file", False), ("types", True)):
            for extension, media in plan[key].items():
                check(lib.as_snapshot_add_type(snapshot.handle, c_text(extension), c_text(media), replaces))
        for handler in plan["handlers"]:
            check(_add_handler(snapshot.handle, handler, pools))
        for site in plan["sites"]:
            _add_site(snapshot.handle, site, plan["handlers"], add_route)
    except (KeyError, TypeError, OverflowError) as error:
        raise CoreError(f"the plan is not complete: {type(error).__name__}: {error}") from error
    return snapshot


def pool_settings(pool: Mapping[str, Any]) -> PoolSettings:
    """The settings of one pool of the plan."""
    return PoolSettings(
        name=pool["name"],
        queue_limit=pool["queue_limit"],
        queue_time_ms=pool["queue_time_ms"],
        request_time_ms=pool["request_time_ms"],
        idle_time_ms=pool["idle_time_ms"],
        output_limit=pool["output_limit"],
        retry=pool["retry"],
        cancel=pool["cancel"],
        finishes=pool["finishes"],
        quarantine_ms=pool["quarantine_ms"],
    )


def text_list(texts: Iterable[str]) -> bytes:
    """Strings one behind the other, each ended by NUL, and an empty one at the end."""
    return b"".join(c_text(text) + b"\0" for text in texts) + b"\0"


def environment_block(variables: Mapping[str, str]) -> bytes:
    """The environment block of the executor protocol (section 8), without an end mark."""
    return b"".join(c_text(name) + b"\0" + c_text(value) + b"\0" for name, value in variables.items())


def _add_handler(handle: Any, handler: Mapping[str, Any], pools: Mapping[str, int]) -> int:
    match handler["kind"]:
        case "file":
            index, symlinks = text_list(handler["index"]), SYMLINKS[handler["symlinks"]]
            codings = bytes(CODINGS[each] for each in handler["precompressed"])
            root, prefix, fallback = (c_text(handler[key] or "") for key in ("root", "prefix", "fallback"))
            return int(lib.as_snapshot_add_file(handle, root, prefix, index, symlinks, codings, len(codings), fallback))
        case "pool":
            extra = environment_block(handler["extra"])
            root = c_text(handler["document_root"] or "")
            pool = pools[handler["pool"]]
            number = check(lib.as_snapshot_add_pool(handle, pool, handler["mounted"], extra, len(extra), root))
            check(lib.as_snapshot_set_passing(handle, number, handler["authorization"], handler["stream_bodies"]))
            if handler["sendfile"] is not None:
                _set_sendfile(handle, number, handler["sendfile"])
            return number
        case "redirect":
            return int(lib.as_snapshot_add_redirect(handle, handler["status"], c_text(handler["location"])))
        case "respond":
            body = handler["body"].encode()
            media = c_text(handler["content_type"])
            return int(lib.as_snapshot_add_respond(handle, handler["status"], media, body, len(body)))
        case "otherwise":
            return int(lib.as_snapshot_add_otherwise(handle, handler["first"], handler["second"]))
        case "programs":
            files = -1 if handler["files"] is None else handler["files"]
            extensions = c_text(",".join(handler["extensions"]))
            root, index = c_text(handler["root"]), text_list(handler["index"])
            pool, symlinks, fallback = handler["pool"], SYMLINKS[handler["symlinks"]], c_text(handler["fallback"] or "")
            return int(lib.as_snapshot_add_programs(handle, files, pool, root, symlinks, extensions, index, fallback))
        case "health":
            return int(lib.as_snapshot_add_health(handle, HEALTH[handler["what"]]))
        case "metrics":
            return int(lib.as_snapshot_add_metrics(handle))
        case kind:
            raise CoreError(f"the plan has a handler of an unknown kind: {kind}")


def _set_sendfile(handle: Any, handler: int, sendfile: Mapping[str, Any]) -> None:
    roots = text_list(sendfile["roots"])
    locations = text_list(text for pair in sendfile["locations"].items() for text in pair)
    check(lib.as_snapshot_set_sendfile(handle, handler, roots, locations, c_text(sendfile["key"])))


def _add_site(handle: Any, site: Mapping[str, Any], handlers: Sequence[Mapping[str, Any]], add_route: AddRoute) -> None:
    fallback, name = site["fallback"], site["name"]
    kind = "(none)" if fallback is None else handler_name(handlers[fallback])
    route = add_route(name, "(none)", kind)
    index = check(lib.as_snapshot_add_site(handle, c_text(name), -1 if fallback is None else fallback, route))
    for host in site["hosts"]:
        check(lib.as_snapshot_add_host(handle, index, c_text(host)))
    for rule in site["rules"]:
        path = ffi.NULL if rule["path"] is None else c_text(rule["path"])
        extensions, methods = text_list(rule["extension"]), text_list(rule["method"])
        route = add_route(name, route_name(rule), handler_name(handlers[rule["handler"]]))
        check(lib.as_snapshot_add_rule(handle, index, path, extensions, methods, rule["handler"], route))
    for status, page in site["errors"].items():
        check(lib.as_snapshot_add_error_page(handle, index, int(status), c_text(page)))


def route_name(rule: Mapping[str, Any]) -> str:
    """What a rule matches, as the metrics name it: path, extensions, methods; `*` for every request."""
    parts = [rule["path"]] if rule["path"] is not None else []
    if rule["extension"]:
        parts.append(",".join(f".{extension}" for extension in rule["extension"]))
    if rule["method"]:
        parts.append(",".join(rule["method"]))
    return " ".join(parts) or "*"


def handler_name(handler: Mapping[str, Any]) -> str:
    """The kind of a handler, as the metrics name it; of a pool's its own name."""
    match handler["kind"]:
        case "pool":
            return str(handler["pool"])
        case "programs":
            return "cgi"
        case kind:
            return str(kind)
