"""The model as what runs: plan, pools, listeners."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from appserver import __version__
from appserver.config.load import read_text
from appserver.config.model import Config, Health, Site
from appserver.config.plan import (
    LoadedConfig,
    PoolSpec,
    build,
    cgi_environment,
    listener_url,
    slots_for,
    usual_interpreters,
)


def load(text: str, base: Path = Path("/base"), **more: Any) -> LoadedConfig:
    reading = read_text(text, "c.yaml", base, {})
    reading.raise_problems()
    return build("c.yaml", reading.config, **more)


def pool(loaded: LoadedConfig, name: str) -> PoolSpec:
    return next(spec for spec in loaded.pools if spec.name == name)


def routes(loaded: LoadedConfig, site: int = 0) -> list[tuple[str | None, dict[str, Any]]]:
    """Path and handler of each rule that is not a health rule."""
    handlers = loaded.plan["handlers"]
    found = [(rule["path"], handlers[rule["handler"]]) for rule in loaded.plan["sites"][site]["rules"]]
    return [(path, handler) for path, handler in found if handler["kind"] != "health"]


FILES: dict[str, Any] = {
    "kind": "file",
    "prefix": None,
    "index": ["index.html"],
    "symlinks": "beneath",
    "precompressed": [],
    "fallback": None,
}


def test_the_plan_of_defaults_is_complete() -> None:
    loaded = build("x", Config(threads=2, sites=(Site(name="main", root="/srv/www"),)))
    assert loaded.plan == {
        "version": 1,
        "server_software": f"cherokee-app/{__version__}",
        "limits": {
            "header_size": 16384,
            "target_size": 8192,
            "body_size": 1073741824,
            "header_timeout_ms": 10000,
            "body_timeout_ms": 30000,
            "idle_timeout_ms": 60000,
            "send_timeout_ms": 60000,
            "keep_alive_requests": 0,
            "min_rate": 500,
            "connections": 10000,
            "wait_over_limit": False,
            "connections_per_client": 0,
        },
        "cache": {"bytes": 67108864, "entries": 4096, "file_size": 262144, "revalidate_ms": 1000, "recent": False},
        "tuning": {
            "accept_one": False,
            "write_separate": False,
            "cork": "cork",
            "no_sendfile": False,
            "no_reuse": False,
            "shortest_first": False,
        },
        "spool": "/tmp",
        "access_log": {"format": "combined"},
        "types_of_file": {},
        "types": {},
        "listeners": [{"id": "0.0.0.0:8080", "url": "http://localhost:8080"}],
        "pools": [],
        "handlers": [
            {"kind": "health", "what": "live"},
            {"kind": "health", "what": "ready"},
            {**FILES, "root": "/srv/www"},
        ],
        "sites": [
            {
                "name": "main",
                "hosts": ["*"],
                "fallback": 2,
                "rules": [
                    {"path": "/livez", "extension": [], "method": [], "handler": 0},
                    {"path": "/readyz", "extension": [], "method": [], "handler": 1},
                ],
                "errors": {},
            }
        ],
    }
    assert json.loads(json.dumps(loaded.plan)) == loaded.plan
    assert (loaded.threads, loaded.user, loaded.drain_timeout_s, loaded.pools) == (2, None, 25.0, ())


def test_files_take_from_their_site_what_they_leave_out() -> None:
    loaded = load(
        "sites:\n- root: /www\n  index: a.html\n  symlinks: deny\n  precompressed: [gz, br]\n  fallback: /a.html\n"
        "  rules:\n"
        "  - {match: {path: /x/*}, handler: {file: /x}}\n"
        "  - {match: {path: /y/*}, handler: {file: {root: /y}}}\n"
        "  - {match: {path: /z/*}, handler: {file: {root: z, index: [], symlinks: follow, precompressed: off,"
        " fallback: /z/b.html}}}\n"
        "  - {match: {path: /a/b/*}, handler: {file: {alias: z}}}\n"
        "  - {match: {path: /*}, handler: {file: {alias: /a}}}\n"
    )
    of_site = {
        "kind": "file",
        "prefix": None,
        "index": ["a.html"],
        "symlinks": "deny",
        "precompressed": ["gz", "br"],
        "fallback": "/a.html",
    }
    own = {
        "kind": "file",
        "prefix": None,
        "index": [],
        "symlinks": "follow",
        "precompressed": [],
        "fallback": "/z/b.html",
    }
    assert routes(loaded) == [
        ("/x/*", {**of_site, "root": "/x"}),
        ("/y/*", {**of_site, "root": "/y"}),
        ("/z/*", {**own, "root": "/base/z"}),
        ("/a/b/*", {**of_site, "root": "/base/z", "prefix": "/a/b"}),
        ("/*", {**of_site, "root": "/a", "prefix": ""}),
    ]
    site = loaded.plan["sites"][0]
    assert loaded.plan["handlers"][site["fallback"]] == {**of_site, "root": "/www"}


def test_types_of_a_file(tmp_path: Path) -> None:
    table = tmp_path / "mime.types"
    table.write_text("image/x-a  a1 a2\n")
    loaded = load(f"types_file: {table}\ntypes: {{.a1: text/own}}\n")
    assert loaded.plan["types_of_file"] == {"a1": "image/x-a", "a2": "image/x-a"}
    assert loaded.plan["types"] == {"a1": "text/own"}
    assert (loaded.warnings, table in loaded.watch) == ((), True)
    table.unlink()  # between check and use
    loaded = load(f"types_file: {table}\n")
    assert loaded.plan["types_of_file"] == {}
    assert loaded.warnings == (f"types_file: {table}: No such file or directory; its types are left out",)
    assert load("types_file: off\n").plan["types_of_file"] == {}


def test_sendfile() -> None:
    loaded = load(
        "pools: {shop: {python: 'shop:app', sendfile: {roots: /a, locations: {/p: /b}}}}\n"
        "sites:\n- rules:\n"
        "  - {match: {path: /shop/*}, handler: {python: shop}}\n"
        "  - {match: {path: /cgi-bin/*}, handler: {cgi: /c}}\n"
    )
    shop, cgi = (handler for _, handler in routes(loaded))
    assert shop["sendfile"] == {"roots": ["/a"], "locations": {"/p": "/b"}, "key": "pools.shop.sendfile"}
    assert cgi["sendfile"] is None


def test_every_kind_of_rule() -> None:
    loaded = load(
        "pools: {shop: {python: 'shop:app'}}\n"
        "types: {.foo: a/b}\n"
        "sites:\n- root: /www\n  errors: {404: /404.html}\n  rules:\n"
        "  - {match: {path: /shop/*}, handler: {python: shop}}\n"
        "  - {match: {path: /hook/*}, handler: {python: /h/hook.py}}\n"
        "  - {match: {path: /cgi-bin/*}, handler: {cgi: /c}}\n"
        "  - {match: {path: /old}, handler: {redirect: {to: /new, status: 308}}}\n"
        "  - {match: {extension: php, method: [GET]}, handler: {respond: {status: 403, body: 'no'}}}\n"
        "  - {match: {path: /files/*}, handler: {file: /f}}\n"
    )
    shared: dict[str, Any] = {"kind": "pool", "mounted": True, "document_root": "/www", "sendfile": None}
    shared |= {"authorization": True, "stream_bodies": False}
    assert routes(loaded) == [
        ("/shop/*", {**shared, "pool": "shop", "extra": {"appserver.application": "shop"}}),
        ("/hook/*", {**shared, "pool": "handlers", "extra": {"appserver.script": "/h/hook.py"}}),
        ("/cgi-bin/*", {**shared, "pool": "cgi", "extra": {"appserver.cgi.root": "/c"}, "authorization": False}),
        ("/old", {"kind": "redirect", "status": 308, "location": "/new"}),
        (None, {"kind": "respond", "status": 403, "content_type": "text/plain; charset=utf-8", "body": "no"}),
        ("/files/*", {**FILES, "root": "/f"}),
    ]
    site = loaded.plan["sites"][0]
    assert site["rules"][6]["extension"] == ["php"]
    assert site["rules"][6]["method"] == ["GET"]
    assert site["errors"] == {"404": "/404.html"}
    assert loaded.plan["types"] == {"foo": "a/b"}
    assert [each["name"] for each in loaded.plan["pools"]] == [spec.name for spec in loaded.pools]
    assert [spec.name for spec in loaded.pools] == ["shop", "handlers", "cgi"]


def test_health_comes_first_in_every_site_unless_off() -> None:
    text = "sites: [{hosts: a.b, rules: [{handler: {respond: {}}}]}, {root: /w}]"
    loaded = load(text)
    for site in loaded.plan["sites"]:
        assert [rule["path"] for rule in site["rules"]][:2] == ["/livez", "/readyz"]
    assert all(rule["path"] is None for rule in load(f"health: off\n{text}").plan["sites"][0]["rules"])
    assert build("x", Config(health=Health("/a", "/b"), sites=(Site(),))).plan["sites"][0]["rules"][0]["path"] == "/a"


def test_a_site_without_a_root_has_no_fallback() -> None:
    loaded = load("sites: [{name: a}]")
    assert loaded.plan["sites"][0]["fallback"] is None


def test_a_folder_of_scripts_is_a_rule_for_each(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "index.py", "_no.py"):
        (tmp_path / name).write_text("")
    loaded = load(f"sites: [{{rules: [{{match: {{path: /app/*}}, handler: {{scripts: {tmp_path}}}}}]}}]")
    assert [(path, handler["extra"]["appserver.script"]) for path, handler in routes(loaded)] == [
        ("/app/a/*", f"{tmp_path}/a.py"),
        ("/app/b/*", f"{tmp_path}/b.py"),
        ("/app/*", f"{tmp_path}/index.py"),
    ]
    spec = pool(loaded, "handlers")
    assert spec.scripts == tuple(f"{tmp_path}/{name}.py" for name in ("a", "b", "index"))
    assert (spec.directory, spec.processes, spec.threads, spec.capacity) == (str(tmp_path), 2, 4, 8)
    assert tmp_path in loaded.watch


def test_index_answers_for_what_neither_files_nor_other_rules_do(tmp_path: Path) -> None:
    for name in ("index.py", "a.py"):
        (tmp_path / name).write_text("")
    loaded = load(
        f"sites: [{{root: /w, rules: [{{match: {{path: /*}}, handler: {{scripts: {tmp_path}}}}},"
        "{match: {path: /old}, handler: {respond: {status: 410}}}]}]"
    )
    assert [path for path, _ in routes(loaded)] == ["/a/*", "/old", "/*"]
    index = routes(loaded)[-1][1]
    assert index["kind"] == "otherwise"
    assert loaded.plan["handlers"][index["first"]]["root"] == "/w"
    assert loaded.plan["handlers"][index["second"]]["extra"] == {"appserver.script": f"{tmp_path}/index.py"}
    assert loaded.plan["handlers"][loaded.plan["sites"][0]["fallback"]]["kind"] == "file"  # also for error pages


def test_scripts_below_come_before_those_above(tmp_path: Path) -> None:
    for name in ("shop.py", "shop/cart.py", "blog/index.py", "blog/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    loaded = load(f"sites: [{{root: /w, rules: [{{match: {{path: /x/*}}, handler: {{scripts: {tmp_path}}}}}]}}]")
    assert [path for path, _ in routes(loaded)] == ["/x/blog/a/*", "/x/shop/cart/*", "/x/blog/*", "/x/shop/*"]


def test_one_line_gives_a_script_or_a_folder_its_own_pool(tmp_path: Path) -> None:
    for name in ("a.py", "slow.py", "shop/cart.py", "shop/deep/er.py", "shop/deep/own.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    loaded = load(
        f"pools:\n  slow: {{scripts: {tmp_path}/slow.py}}\n  shop: {{scripts: {tmp_path}/shop}}\n"
        f"  own: {{scripts: {tmp_path}/shop/deep/own.py, directory: /d}}\n"
        f"sites: [{{rules: [{{match: {{path: /*}}, handler: {{scripts: {tmp_path}}}}},"
        "{match: {path: /again/*}, handler: {python: slow}}]}]"
    )
    assert {path: handler["pool"] for path, handler in routes(loaded)} == {
        "/a/*": "handlers",
        "/slow/*": "slow",
        "/shop/cart/*": "shop",
        "/shop/deep/er/*": "shop",
        "/shop/deep/own/*": "own",
        "/again/*": "slow",
    }
    assert pool(loaded, "slow").scripts == (f"{tmp_path}/slow.py",)
    assert pool(loaded, "slow").directory == str(tmp_path)
    assert pool(loaded, "shop").directory == f"{tmp_path}/shop"
    assert pool(loaded, "own").directory == "/d"
    assert all(spec.script_folders == (str(tmp_path),) for spec in loaded.pools)
    assert loaded.warnings == ()


def test_an_empty_folder_of_scripts_still_has_its_pool(tmp_path: Path) -> None:
    loaded = load(f"sites: [{{rules: [{{match: {{path: /*}}, handler: {{scripts: {tmp_path}}}}}]}}]")
    assert routes(loaded) == []
    assert [(spec.name, spec.directory, spec.scripts) for spec in loaded.pools] == [("handlers", str(tmp_path), ())]


def test_a_pool_of_scripts_runs_its_folder_by_name_or_by_path(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    for value in ("own", str(tmp_path)):
        loaded = load(
            f"pools: {{own: {{scripts: {tmp_path}, processes: 1, directory: /d}}}}\n"
            f"sites: [{{rules: [{{match: {{path: /*}}, handler: {{scripts: {value}}}}}]}}]"
        )
        assert [handler["pool"] for _, handler in routes(loaded)] == ["own"]
        (spec,) = loaded.pools
        assert (spec.name, spec.processes, spec.directory) == ("own", 1, "/d")
        assert spec.scripts == (f"{tmp_path}/a.py",)


def test_the_shared_pool_can_be_configured() -> None:
    loaded = load(
        "pools: {handlers: {processes: 5, limits: {queue: 7}}}\n"
        "sites: [{rules: [{match: {path: /a}, handler: {python: /h/a.py}}]}]"
    )
    (spec,) = loaded.pools
    assert (spec.name, spec.processes, spec.queue_limit, spec.directory) == ("handlers", 5, 7, "/h")
    assert loaded.warnings == ()


def test_a_python_pool_as_the_supervisor_gets_it() -> None:
    text = (
        "pools: {shop: {python: 'shop:app', environment: {A: b}, interpreter: /bin/python,\n"
        " limits: {request_time: 1s, queue_time: 2s, queue: 100, stop_time: 4s}}}\n"
        "threads: 3\nsites: [{rules: [{handler: {python: shop}}]}]"
    )
    (spec,) = load(text, dev=True).pools
    assert spec == PoolSpec(
        name="shop",
        kind="python",
        slots=501,
        queue_limit=100,
        queue_time_ms=2000,
        request_time_ms=1000,
        idle_time_ms=0,
        stop_time_ms=4000,
        quarantine_ms=60000,
        processes=2,
        processes_max=2,
        spare_time_ms=60_000,
        threads=4,
        environment={"A": "b"},
        interpreter="/bin/python",
        application="shop:app",
        websocket={
            "ping_interval_ms": 20_000,
            "ping_timeout_ms": 20_000,
            "message_size": 16 * 1024 * 1024,
            "compression": True,
        },
        directory="/base",
        dev=True,
    )
    assert load(text).plan["pools"] == [
        {
            "name": "shop",
            "kind": "python",
            "slots": 501,
            "queue_limit": 100,
            "queue_time_ms": 2000,
            "request_time_ms": 1000,
            "idle_time_ms": 0,
            "output_limit": 0,
            "finishes": False,
            "retry": "idempotent",
            "cancel": False,
            "quarantine_ms": 60000,
        }
    ]


def test_the_interpreter_is_our_own_unless_named() -> None:
    loaded = load("sites: [{rules: [{handler: {python: /a.py}}]}]")
    assert loaded.pools[0].interpreter == sys.executable


def test_the_cgi_pool_as_the_supervisor_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"LANG": "C", "SECRET": "s", "PATH": "/p"})
    loaded = load(
        "cgi: {environment: {A: b}, pass_environment: [LANG, TZ], interpreters: {.sh: /bin/sh},\n"
        " limits: {idle_time: 3s, programs: 5, kill_grace: 2s}}\n"
        "sites: [{rules: [{handler: {cgi: /c}}, {match: {path: /d/*}, handler: {cgi: /d}}]}]"
    )
    (spec,) = loaded.pools
    assert (spec.name, spec.kind, spec.capacity, spec.idle_time_ms) == ("cgi", "cgi", 5, 3000)
    assert (spec.programs, spec.kill_grace_ms, dict(spec.interpreters)) == (5, 2000, {".sh": "/bin/sh"})
    assert dict(spec.environment) == {"PATH": "/p", "LANG": "C", "A": "b"}
    assert loaded.plan["pools"][0]["cancel"] is True


def test_rules_with_settings_of_their_own_have_a_pool_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/bin", "LANG": "C", "TZ": "UTC"})
    loaded = load(
        "cgi: {environment: {A: b, C: d}, pass_environment: [LANG], interpreters: {.sh: /bin/sh},\n"
        "  limits: {programs: 5, queue: 7, request_time: 9s}}\n"
        "sites:\n- rules:\n"
        "  - {match: {path: /a/*}, handler: {cgi: {directory: /a, environment: {A: own, E: f},\n"
        "      pass_environment: [TZ], interpreters: {.pl: /bin/sh}, warm: off,\n"
        "      limits: {programs: 2, idle_time: 1s}}}}\n"
        "  - {match: {path: /b/*}, handler: {cgi: {directory: /b}}}\n"
        "  - {match: {path: /c/*}, handler: {cgi: /c}}\n"
        "  - {match: {path: /d/*}, handler: {cgi: {directory: /d, environment: {A: own, E: f},\n"
        "      pass_environment: [TZ], interpreters: {.pl: /bin/sh}, warm: off,\n"
        "      limits: {programs: 2, idle_time: 1s}}}}\n"
        "  - {match: {path: /e/*}, handler: {cgi: {directory: /e, limits: {queue: 8}}}}\n"
    )
    pools = [(handler["pool"], handler["extra"]) for _, handler in routes(loaded)]
    assert pools == [
        ("cgi-main-a", {"appserver.cgi.root": "/a"}),
        ("cgi", {"appserver.cgi.root": "/b"}),
        ("cgi", {"appserver.cgi.root": "/c"}),
        ("cgi-main-a", {"appserver.cgi.root": "/d"}),
        ("cgi-main-e", {"appserver.cgi.root": "/e"}),
    ]
    own, shared, queue = loaded.pools
    assert own.environment == {"PATH": "/bin", "LANG": "C", "TZ": "UTC", "A": "own", "C": "d", "E": "f"}
    assert own.interpreters == {".sh": "/bin/sh", ".pl": "/bin/sh"}
    assert (own.programs, own.queue_limit, own.request_time_ms, own.idle_time_ms, own.warm) == (2, 7, 9000, 1000, "off")
    assert shared.environment == {"PATH": "/bin", "LANG": "C", "A": "b", "C": "d"}
    assert (shared.programs, shared.queue_limit, shared.idle_time_ms, shared.warm) == (5, 7, 30_000, "auto")
    assert (queue.programs, queue.queue_limit) == (5, 8)


def test_a_limit_that_counts_what_is_not_a_program() -> None:
    site = "sites: [{rules: [{handler: {cgi: /c}}]}]\n"
    assert load(site).warnings == ()
    assert "cgi: limits.processes counts all" in load("cgi: {limits: {processes: 9}}\n" + site).warnings[0]
    assert load("cgi: {limits: {processes: 9}, user: daemon}\n" + site).warnings == ()


def test_pools_of_rules_have_names_that_nobody_else_has() -> None:
    loaded = load(
        "pools: {cgi-main-a: {python: 'a:b'}}\nsites:\n- rules:\n"
        "  - {match: {path: /a/*}, handler: {cgi: {directory: /a, warm: off}}}\n"
        "  - {match: {path: /a}, handler: {cgi: {directory: /a, limits: {queue: 9}}}}\n"
        "  - {match: {path: /p/*}, handler: {python: cgi-main-a}}\n"
    )
    assert [handler["pool"] for _, handler in routes(loaded)] == ["cgi-main-a-2", "cgi-main-a-3", "cgi-main-a"]


def test_programs_by_extension() -> None:
    """Alone at the top of a site their folder is the document root; names of sources are not for the file handler."""
    loaded = load(
        "sites:\n- index: [index.html, index.htm]\n  symlinks: deny\n  rules:\n"
        "  - {match: {path: /b/*}, handler: {cgi: {directory: /b, extensions: [php, .PL], index: [a.php, b.html]}}}\n"
        "  - {match: {path: /c/*}, handler: {cgi: {directory: /c, index: [i.sh]}}}\n"
        "  - {handler: {cgi: {directory: /a, extensions: .php}}}\n"
    )
    handlers = loaded.plan["handlers"]
    blog, only, whole = (handler for _, handler in routes(loaded))
    assert blog == {
        "kind": "programs",
        "root": "/b",
        "symlinks": "deny",
        "extensions": [".php", ".pl"],
        "index": ["a.php", "b.html"],
        "fallback": None,
        "files": handlers.index({**FILES, "root": "/b", "index": ["b.html"], "symlinks": "deny"}),
        "pool": handlers.index(
            {
                "kind": "pool",
                "pool": "cgi",
                "mounted": True,
                "document_root": "",
                "authorization": False,
                "stream_bodies": False,
                "sendfile": None,
                "extra": {
                    "appserver.cgi.root": "/b",
                    "appserver.cgi.symlinks": "deny",
                    "appserver.cgi.extensions": ".php,.pl",
                },
            }
        ),
    }
    assert (only["files"], only["extensions"], only["index"]) == (None, [], ["i.sh"])
    assert handlers[only["pool"]]["extra"] == {"appserver.cgi.root": "/c", "appserver.cgi.symlinks": "deny"}
    assert whole["index"] == ["index.php", "index.html", "index.htm"]
    assert handlers[whole["files"]]["index"] == ["index.html", "index.htm"]
    assert handlers[whole["pool"]]["document_root"] == "/a"


def test_one_program() -> None:
    loaded = load(
        "sites:\n- rules:\n"
        "  - {match: {path: /git/*}, handler: {cgi: {program: /g/http-backend}}}\n"
        "  - {match: {path: /form, method: POST}, handler: {cgi: {program: f.cgi}}}\n"
        "  - {match: {extension: md}, handler: {cgi: {program: /m/md}}}\n"
        "  - {handler: {cgi: {directory: /d, symlinks: follow}}}\n"
    )
    follow = {"appserver.cgi.symlinks": "follow"}
    assert [handler["extra"] for _, handler in routes(loaded)] == [
        {"appserver.cgi.root": "/g", "appserver.cgi.program": "http-backend", **follow},
        {
            "appserver.cgi.root": "/base",
            "appserver.cgi.program": "f.cgi",
            "appserver.cgi.whole_path": "1",
            **follow,
        },
        {"appserver.cgi.root": "/m", "appserver.cgi.program": "md", **follow},
        {"appserver.cgi.root": "/d", **follow},
    ]


def test_what_programs_get_of_a_request() -> None:
    """For all programs, and for those of one rule."""
    loaded = load(
        "cgi: {pass_authorization: true}\n"
        "sites:\n- rules:\n"
        "  - {match: {path: /a/*}, handler: {cgi: /a}}\n"
        "  - {match: {path: /b/*}, handler: {cgi: {directory: /b, pass_authorization: false, stream_bodies: true}}}\n"
    )
    found = [(handler["authorization"], handler["stream_bodies"]) for _, handler in routes(loaded)]
    assert found == [(True, False), (False, True)]
    assert [spec.name for spec in loaded.pools] == ["cgi"], "the spawner is not concerned"


def test_usual_interpreters_have_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "perl").write_text("")
    (tmp_path / "perl").chmod(0o755)
    found = usual_interpreters(str(tmp_path))
    assert (found[".pl"], found[".php"]) == (f"{tmp_path}/perl", "/usr/bin/php-cgi")


def test_programs_always_have_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    assert cgi_environment([], {})["PATH"].startswith("/usr/local/sbin:")
    assert cgi_environment([], {"PATH": "/x"})["PATH"] == "/x"


@pytest.mark.parametrize(
    ("queue", "capacity", "loops", "slots"),
    [(1000, 8, 1, 1016), (1000, 8, 3, 1017), (1, 1, 4, 256), (1000, 8, 64, 4096)],
)
def test_slots_are_enough_and_equal_for_each_loop(queue: int, capacity: int, loops: int, slots: int) -> None:
    assert slots_for(queue, capacity, loops) == slots
    assert slots % loops == 0


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("0.0.0.0", 80, "http://localhost"),
        ("::", 8080, "http://localhost:8080"),
        ("::1", 8080, "http://[::1]:8080"),
        ("127.0.0.1", 1, "http://127.0.0.1:1"),
    ],
)
def test_urls(host: str, port: int, url: str) -> None:
    assert listener_url(host, port) == url


def test_equal_handlers_are_one() -> None:
    loaded = load("sites: [{hosts: a.b, root: /w}, {root: /w}]")
    assert [handler["kind"] for handler in loaded.plan["handlers"]] == ["health", "health", "file"]


def test_pools_without_a_rule_and_hidden_scripts_are_told(tmp_path: Path) -> None:
    (tmp_path / "livez.py").write_text("")
    loaded = load(
        "pools: {a: {python: 'a:b'}}\n"
        f"sites: [{{rules: [{{match: {{path: /*}}, handler: {{scripts: {tmp_path}}}}}]}}]"
    )
    assert loaded.warnings == (
        "handler script livez.py: its path /livez is a health path; rename one",
        "pool a: no rule leads to it",
    )


def test_sources_of_applications_and_scripts_are_watched() -> None:
    loaded = load(
        "pools: {a: {python: 'a:b', directory: /app}}\n"
        "sites: [{rules: [{match: {path: /h}, handler: {python: /h/x.py}}, {handler: {python: a}}]}]",
        watch=(Path("/c.yaml"),),
    )
    assert loaded.watch == (Path("/c.yaml"), Path("/app"), Path("/h/x.py"))


def test_tuning_and_accept_reach_the_core() -> None:
    loaded = load(
        "accept: coordinator\nschedule: shortest-first\n"
        "tuning: {accept_batch: one, write: separate, cork: cork, sendfile: off, reuse: off}\n"
        "sites: [{root: /www}]\n"
    )
    assert loaded.accept == "coordinator"
    assert loaded.plan["tuning"] == {
        "accept_one": True,
        "write_separate": True,
        "cork": "cork",
        "no_sendfile": True,
        "no_reuse": True,
        "shortest_first": True,
    }
