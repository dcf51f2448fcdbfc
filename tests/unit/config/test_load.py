"""YAML -> model: what is accepted, and every kind of fault with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from appserver.config.cgi_model import CgiFolder
from appserver.config.load import load_file, peek, read_text
from appserver.config.model import Config, Redirect, Respond
from appserver.config.pool_model import Pool
from appserver.errors import ConfigError

EVERYTHING = """\
listen: ["127.0.0.1:8080", "[::1]:0"]
threads: 3
user: "0"
group: "0"
limits: {header_size: 32KiB, target_size: 4KiB, body_size: 10MB, header_timeout: 5s, body_timeout: 6s, idle_timeout: 7s,
         send_timeout: 8s, keep_alive_requests: 9, connections: 10, drain_timeout: 250ms}
log: {level: debug, format: json, access: off, access_file: "-"}
cache: {memory: 1MiB, entries: 2, file_size: 3KiB, revalidate: 4s}
spool: spool
types: {".foo": application/x-foo}
health: {live: /l, ready: /r}
pools:
  shop: {python: "shop.wsgi:application", processes: 3, threads: 5, environment: {A: 1, B: yes},
         limits: {request_time: 1m, queue_time: 2s, queue: 3, stop_time: 4s}}
  folder: {scripts: h}
cgi: {environment: {C: d}, pass_environment: [LANG], interpreters: {".sh": /bin/sh},
      limits: {request_time: 1s, idle_time: 2s, queue_time: 3s, queue: 4, programs: 5, kill_grace: 6s}}
sites:
  - hosts: ["Example.org", "*.example.org"]
    root: /srv/www
    index: [index.html, index.htm]
    symlinks: deny
    rules:
      - {match: {path: /shop/*}, handler: {python: shop}}
      - {match: {path: /hook}, handler: {python: h/hook.py}}
      - {match: {path: /app/*}, handler: {scripts: folder}}
      - {match: {path: /more/*}, handler: {scripts: ./h}}
      - {match: {path: /cgi-bin/*}, handler: {cgi: cgi}}
      - {match: {path: /old}, handler: {redirect: {to: /new, status: 301}}}
      - {match: {path: /b/*}, handler: {cgi: {directory: b, extensions: [php, .Pl], index: [index.php]}}}
      - {match: {extension: [.php, inc], method: GET}, handler: {respond: {status: 403, body: ""}}}
      - {handler: {file: /srv/files}}
    errors: {404: /404.html}
  - name: rest
"""


CREATE = "create it or correct the path"


def read(text: str, environment: dict[str, str] | None = None) -> Config:
    reading = read_text(text, "c.yaml", Path("/base"), environment or {})
    reading.raise_problems()
    return reading.config


def faults(text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, environment)
    return list(caught.value.lines)


def test_an_empty_file_is_all_defaults() -> None:
    assert read("") == Config()
    assert read("# nothing\n") == Config()
    assert read("limits:\nsites: []\n") == Config()


def test_everything_is_read() -> None:
    config = read(EVERYTHING)
    assert [(each.host, each.port, each.text) for each in config.listen] == [
        ("127.0.0.1", 8080, "127.0.0.1:8080"),
        ("::1", 0, "[::1]:0"),
    ]
    assert (config.threads, config.user, config.group) == (3, "0", "0")
    limits = config.limits
    assert (limits.header_size, limits.body_size, limits.drain_timeout_ms) == (32768, 10_000_000, 250)
    assert (config.log.level, config.log.access) == ("debug", "off")
    assert (config.cache.memory, config.cache.revalidate_ms) == (1024**2, 4000)
    assert config.spool == "/base/spool"
    assert config.health is not None
    assert (config.health.live, config.health.ready) == ("/l", "/r")
    shop = config.pools["shop"]
    assert (shop.python, shop.directory, shop.processes.min) == ("shop.wsgi:application", "/base", 3)
    assert dict(shop.environment) == {"A": "1", "B": "yes"}
    assert config.pools["folder"] == Pool(scripts="/base/h")
    assert dict(config.cgi.interpreters) == {".sh": "/bin/sh"}
    assert config.cgi.limits.kill_grace_ms == 6000


def test_sites_and_rules_are_read() -> None:
    first, second = read(EVERYTHING).sites
    assert (first.name, first.hosts, first.symlinks) == ("example.org", ("example.org", "*.example.org"), "deny")
    assert (second.name, second.hosts, second.root) == ("rest", (), None)
    assert [rule.handler.kind for rule in first.rules] == [
        "python",
        "python",
        "scripts",
        "scripts",
        "cgi",
        "redirect",
        "cgi",
        "respond",
        "file",
    ]
    assert first.rules[4].handler.cgi == CgiFolder("/base/cgi")
    assert first.rules[6].handler.cgi == CgiFolder("/base/b", extensions=(".php", ".pl"), index=("index.php",))
    assert first.rules[1].handler.python == "/base/h/hook.py"
    assert [first.rules[index].handler.scripts for index in (2, 3)] == ["folder", "/base/h"]
    assert first.rules[4].handler.cgi == CgiFolder("/base/cgi")
    assert first.rules[5].handler.redirect == Redirect("/new", 301)
    assert (first.rules[7].match.extension, first.rules[7].match.method) == (("php", "inc"), ("GET",))
    assert first.rules[7].handler.respond == Respond(403, "")
    assert dict(first.errors) == {404: "/404.html"}


@pytest.mark.parametrize("word", ["off", "no", "false", '"off"'])
def test_health_can_be_off(word: str) -> None:
    assert read(f"health: {word}").health is None


def test_one_value_is_a_list_of_one() -> None:
    config = read("listen: localhost:80\nsites: [{hosts: example.org}]")
    assert [each.text for each in config.listen] == ["localhost:80"]
    assert config.sites[0].hosts == ("example.org",)


#: (text, the one message without the file's name)
FAULTS = [
    # wrong type
    ("- a\n", "1:1: found a list; expected a block with keys such as listen, threads, user"),
    ("hello\n", "1:1: found 'hello'; expected a block with keys such as listen, threads, user"),
    ("limits: 3\n", "1:9: limits: found '3'; expected a block with keys such as header_size, target_size, body_size"),
    ("sites: {name: a}\n", '1:8: sites: found a mapping; expected a list (each item begins with "- ")'),
    ("spool: [a]\n", "1:8: spool: found a list; expected a path"),
    ("spool:\n", "1:7: spool: found nothing; expected a path"),
    ("listen: {a: b}\n", "1:9: listen: found a mapping; expected a list, or one value"),
    ("listen: []\n", "1:9: listen: found an empty list; expected at least one address"),
    ("types: [a]\n", "1:8: types: found a list; expected a mapping (name: value)"),
    ("pools: [a]\n", "1:8: pools: found a list; expected names, each with its block"),
    ("? [a]\n: b\n", "1:3: found a list as a key; expected a name"),
    ("spool: !secret /tmp\n", "1:8: spool: found the tag '!secret'; expected a value without a tag"),
    ("sites: [{handler: a}]\n", "1:10: sites[0].handler: unknown key"),
    # keys in the wrong block
    ("limits:\nbody_size: 1MiB\n", "2:1: body_size: unknown key; expected one of listen, "),
    ("limits:\nbody_size: 1MiB\n", "types, types_file, health, pools, cgi, sites; 'body_size' is a key of "),
    ("limits:\n  threads: 2\n", "limits.threads: unknown key; "),
    ("limits:\n  threads: 2\n", "; 'threads' is a key of the top level, pools.NAME"),
    ("root: /a\n", "cgi, sites; 'root' is a key of sites[], sites[].rules[].handler.file"),
    ("hosts: a\n", "cgi, sites; 'hosts' is a key of sites[]"),
    ("cgi: {limits: {program: 3}}\n", "; did you mean 'programs'?; 'program' is a key of sites[].rules[].handler.cgi"),
    ("sites: [{handler: {python: a.py}}]\n", "; 'handler' is a key of sites[].rules[]"),
    # wrong unit
    ("cache: {memory: 64Mib}\n", "1:17: cache.memory: found '64Mib'; expected a size such as 64KiB, 10MB or 4096"),
    ("limits: {idle_timeout: 60}\n", "1:24: limits.idle_timeout: found '60'; expected a time with its unit"),
    # out of range
    ("limits: {header_size: 1}\n", "1:23: limits.header_size: found '1'; expected a size from 1KiB to 1MiB"),
    ("limits: {drain_timeout: 2h}\n", "1:25: limits.drain_timeout: found '2h'; expected a time from 0s to 1h"),
    ("limits: {connections: 0}\n", "1:23: limits.connections: found '0'; expected a whole number from 1 to 1000000"),
    ("limits: {connections: -1}\n", "found '-1'; expected a whole number"),
    ("limits: {connections: 1e3}\n", "found '1e3'; expected a whole number"),
    ("threads: 65\n", "1:10: threads: found '65'; expected auto or a whole number from 1 to 64"),
    ("threads: autos\n", "did you mean 'auto'?"),
    ("listen: a:70000\n", "1:9: listen: found 'a:70000'; expected a port from 0 to 65535 (0: any free one)"),
    # unknown keys and words
    ("listne: a\n", "1:1: listne: unknown key; expected one of listen, threads,"),
    ("listne: a\n", "did you mean 'listen'?"),
    (
        "log: {level: warn}\n",
        "1:14: log.level: found 'warn'; expected one of debug, info, warning, error; did you mean",
    ),
    ("sites: [{symlinks: denied}]\n", "expected one of beneath, deny, follow; did you mean 'deny'?"),
    # addresses
    ("listen: 8080\n", "did you mean '0.0.0.0:8080'?"),
    ("listen: '*:80'\n", "did you mean '0.0.0.0:80'?"),
    ("listen: ::1:80\n", "did you mean '[::1]:80'?"),
    ("listen: localhost\n", "did you mean 'localhost:8080'?"),
    ("listen: 1.2.3:80\n", "found '1.2.3:80'; expected HOST:PORT"),
    ("listen: '[fe80]:80'\n", "found '[fe80]:80'; expected HOST:PORT"),
    ("listen: [a:1, a:1]\n", "1:9: listen: found 'a:1' twice; expected each address once"),
    # names, hosts and paths
    ("user: a b\n", "1:7: user: found 'a b'; expected the name or number of an account"),
    ("types: {foo: a/b}\n", "1:9: types.foo: found 'foo'; expected an extension"),
    ("types: {.foo: ab}\n", "1:15: types..foo: found 'ab'; expected a media type such as text/plain"),
    ("health: {live: l}\n", "1:16: health.live: found 'l'; expected a path that begins with '/'; did you mean '/l'?"),
    (
        "health: {metrics: /livez}\n",
        "1:19: health.metrics: found '/livez', a health path; expected another path",
    ),
    ("health: {live: /a, ready: /a}\n", "1:9: health: found '/a' for live and ready; expected two paths"),
    ("cgi: {environment: {A-B: c}}\n", "found 'A-B'; expected the name of an environment variable"),
    ("sites: [{hosts: ['http://a.b:80/']}]\n", "without port; did you mean 'a.b'?"),
    ("sites: [{hosts: ['bücher.example']}]\n", "did you mean 'xn--bcher-kva.example'?"),
    ("sites: [{hosts: ['a.*']}]\n", "1:18: sites[0].hosts[0]: found 'a.*'; expected a host name"),
    ("sites: [{index: a/b}]\n", "1:17: sites[0].index: found 'a/b'; expected the name of a file, without '/'"),
    ("sites: [{errors: {200: /a}}]\n", "found '200'; expected a status from 400 to 599"),
    ("sites: [{errors: {404: a}}]\n", "1:24: sites[0].errors.404: found 'a'; expected a path that begins with '/'"),
    ("sites: [{name: a b}]\n", "did you mean 'a-b'?"),
]
RULE_FAULTS = [
    (
        "{match: {path: a/*}, handler: {file: /a}}",
        "match.path: found 'a/*'; expected a path that begins with '/'; did you",
    ),
    (
        "{match: {path: /a*}, handler: {file: /a}}",
        "match.path: found '/a*'; expected an exact path or one that ends in",
    ),
    ("{match: {path: /a/../b}, handler: {file: /a}}", "match.path: found '/a/../b'; expected a plain path"),
    ("{match: {path: /a%20b}, handler: {file: /a}}", "match.path: found '/a%20b'; expected a decoded path"),
    (
        "{match: {method: get}, handler: {file: /a}}",
        "match.method: found 'get'; expected a request method such as GET; did",
    ),
    (
        "{match: {extension: a.b}, handler: {file: /a}}",
        "match.extension: found 'a.b'; expected an extension such as php",
    ),
    ("{handler: {file: {}}}", "handler.file: found none; expected exactly one of root, alias"),
    (
        "{match: {path: /a/*}, handler: {file: {root: /a, alias: /b}}}",
        "handler.file: found root and alias; expected exactly one of root, alias",
    ),
    (
        "{match: {path: /a}, handler: {file: {alias: /b}}}",
        "match.path: found '/a'; expected a path that ends in \"/*\" that the folder takes the place of; did you mean",
    ),
    (
        "{handler: {file: {alias: /b}}}",
        'match.path: found nothing; expected a path that ends in "/*" that the folder takes the place of',
    ),
    ("{handler: {file: []}}", "handler.file: found a list; expected a block with keys such as root, alias"),
    ("{handler: {file: {root: /a, fallback: a.html}}}", "file.fallback: found 'a.html'; expected a path that begins"),
    (
        "{handler: {file: {root: /a, precompressed: gzip}}}",
        "precompressed: found 'gzip'; expected off, or one or several of br, zst, gz; did you mean 'gz'?",
    ),
    (
        "{handler: {file: {root: /a, precompressed: [br, .zst]}}}",
        "precompressed[1]: found '.zst'; expected off, or one or several of br, zst, gz; did you mean 'zst'?",
    ),
    (
        "{handler: {file: {root: /a, precompressed: [br, gz, br]}}}",
        "file.precompressed: found 'br' twice; expected each coding once",
    ),
    ("{match: {path: /a}}", "found no key 'handler'; expected it: what answers them"),
    ("{handler: {cgi: {warm: off}}}", "handler.cgi: found none; expected exactly one of directory, program"),
    (
        "{handler: {cgi: {directory: /a, program: /b}}}",
        "handler.cgi: found directory and program; expected exactly one of directory, program",
    ),
    (
        "{handler: {cgi: {program: /b, index: a.cgi}}}",
        "handler.cgi.index: found it beside program; expected it with a directory only",
    ),
    (
        "{handler: {cgi: {directory: /a, limits: {program: 3}}}}",
        "handler.cgi.limits.program: unknown key; expected one of",
    ),
    ("{handler: {cgi: {directory: /a, limits: {programs: 0}}}}", "found '0'; expected a whole number from 1 to 4096"),
    (
        "{handler: {cgi: {directory: /a, limits: 3}}}",
        "handler.cgi.limits: found '3'; expected a block with keys such as",
    ),
    ("{handler: {}}", "handler: found none; expected exactly one of python, scripts, cgi, file, redirect, respond"),
    ("{handler: {cgi: /a, file: /b}}", "handler: found cgi and file; expected exactly one of"),
    (
        "{handler: {pyton: a}}",
        "handler.pyton: unknown key; expected one of python, scripts, cgi, file, redirect, respond; did",
    ),
    (
        "{handler: {cgi: {directory: /a, extensions: ['*.php']}}}",
        "cgi.extensions[0]: found '*.php'; expected an extension in small letters with its dot, such as .foo; did",
    ),
    ("{handler: {python: a b}}", "handler.python: found 'a b'; expected a name of letters"),
    (
        "{handler: {python: a/b}}",
        "handler.python: found 'a/b'; expected the name of a pool or the path of a handler script",
    ),
    ("{handler: {redirect: {status: 301}}}", "handler.redirect: found no key 'to'; expected it: path on this site"),
    ("{handler: {redirect: {to: /a, status: 200}}}", "redirect.status: found '200'; expected one of 301, 302"),
    ("{handler: {redirect: {to: 'a b'}}}", "redirect.to: found 'a b'; expected a path that begins with '/' or a URL"),
    ("{handler: {respond: {status: 99}}}", "respond.status: found '99'; expected a whole number from 200 to 599"),
    ("{handler: {respond: {body: [a]}}}", "respond.body: found a list; expected a text"),
    (
        "{handler: {python: shp}}",
        "handler.python: found 'shp', which is no pool; expected one of shop or the path of a .py",
    ),
    ("{handler: {python: shp}}", "did you mean 'shop'?"),
    (
        "{handler: {python: folder}}",
        "found pool 'folder', which has no python; expected one that has; did you mean 'scripts: f",
    ),
    (
        "{match: {path: /a/*}, handler: {scripts: shop}}",
        "found pool 'shop', which has no scripts; expected one that has",
    ),
    (
        "{match: {path: /a/*}, handler: {scripts: fol}}",
        "which is no pool; expected one of folder or a folder; did you mean",
    ),
    ("{match: {path: /a}, handler: {scripts: folder}}", "match.path: found '/a'; expected a path that ends in \"/*\""),
    ("{handler: {scripts: folder}}", 'match.path: found nothing; expected a path that ends in "/*"'),
]
POOL_FAULTS = [
    ("a: {}", "1:12: pools.a: found none; expected exactly one of python, scripts"),
    (
        "a: {python: 'a:b', scripts: /a}",
        "1:12: pools.a: found python and scripts; expected exactly one of python, scripts",
    ),
    ("a: {python: shop.wsgi}", "did you mean 'shop.wsgi:application'?"),
    ("a: {python: /srv/app.py}", "expected module:attribute such as shop.wsgi:application"),
    ("cgi: {scripts: /a}", "pools.cgi: found 'cgi', the server's own pool (see the key cgi); expected another name"),
    (
        "handlers: {python: 'a:b'}",
        "pools.handlers.python: found an application in 'handlers', the pool of handler scripts",
    ),
    ("a b: {scripts: /a}", "1:9: pools.a b: found 'a b'; expected a name of letters"),
    ("a: {scripts: /a, processes: many}", "pools.a.processes: found 'many'; expected a whole number from 1 to 256"),
    ("a: {scripts: /a, processes: {min: 2}}", "pools.a.processes: found no key 'max'; expected it"),
    (
        "a: {scripts: /a, processes: {min: 3, max: 2}}",
        "pools.a.processes.max: found 2; expected at least `min`, 3",
    ),
    ("a: {scripts: /a, processes: [1, 2]}", "pools.a.processes: found a list; expected a block with keys such as min"),
    ("a: {scripts: /a, preload: yes}", "pools.a.preload: found 'yes'; expected true or false; did you mean 'true'?"),
    (
        "a: {scripts: /a, limits: {memory: 2MiB, memory_max: 1MiB}}",
        "pools.a.limits.memory_max: found no more than `memory`; expected more",
    ),
]


@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_a_fault_is_told_with_its_place(text: str, message: str) -> None:
    lines = faults(text)
    assert any(message in line for line in lines), lines
    assert all(line.startswith("c.yaml:") for line in lines)


@pytest.mark.parametrize(("rule", "message"), RULE_FAULTS)
def test_a_faulty_rule_is_told_with_its_place(rule: str, message: str) -> None:
    pools = "pools: {shop: {python: 'shop:app'}, folder: {scripts: /srv/h}}"
    (line,) = faults(f"{pools}\nsites:\n  - rules:\n    - {rule}\n")
    assert message in line
    assert line.startswith("c.yaml:4:")
    assert " sites[0].rules[0]" in line


@pytest.mark.parametrize(("pool", "message"), POOL_FAULTS)
def test_a_faulty_pool_is_told_with_its_place(pool: str, message: str) -> None:
    (line,) = faults(f"pools: {{{pool}}}\n")
    assert message in line


def test_processes_are_a_number_or_a_range() -> None:
    blocks = (
        "a: {scripts: /a, processes: 3}",
        "b: {scripts: /b, processes: {max: 4, idle_time: 5s}}",
        "c: {scripts: /c}",
    )
    text = f"pools: {{{', '.join(blocks)}}}"
    pools = read_text(text, "c.yaml", Path("/base")).config.pools
    found = {
        name: (pool.processes.min, pool.processes.max, pool.processes.idle_time_ms) for name, pool in pools.items()
    }
    assert found == {"a": (3, 3, 60_000), "b": (1, 4, 5_000), "c": (2, 2, 60_000)}


@pytest.mark.parametrize(
    ("text", "control"), [("{}", "auto"), ("control: off", None), ("control: run/c.sock", "/base/run/c.sock")]
)
def test_the_control_socket_is_a_path_auto_or_off(text: str, control: str | None) -> None:
    assert read_text(text, "c.yaml", Path("/base")).config.control == control


def test_the_path_of_the_control_socket_must_fit_into_an_address() -> None:
    (line,) = faults(f"control: /{'x' * 107}\n")
    assert "expected auto, off, or a path of at most 107 bytes" in line


def test_sites_must_differ() -> None:
    text = "sites:\n- {name: a, hosts: [a.b]}\n- {name: a, hosts: [A.b, '*']}\n- {name: c}\n"
    assert faults(text) == [
        "c.yaml:3:10: sites[1].name: found 'a', the name of sites[0]; expected another name",
        "c.yaml:3:20: sites[1].hosts: found 'a.b' as in sites[0]; expected each host in one site only",
        "c.yaml:4:3: sites[2].hosts: found no hosts (or '*') as in sites[1]; expected each host in one site only",
    ]


def test_a_fallback_needs_files() -> None:
    text = "sites:\n- {fallback: /index.html, rules: [{handler: {respond: {status: 200}}}]}\n"
    assert faults(text) == [
        "c.yaml:2:14: sites[0].fallback: found '/index.html' on a site without files; "
        "expected it with a root or a rule with file"
    ]
    assert read("sites: [{fallback: /a, root: /b}]").sites[0].fallback == "/a"
    assert read("sites: [{fallback: /a, rules: [{handler: {file: /b}}]}]").sites[0].fallback == "/a"


def test_all_faults_are_told_at_once_in_the_order_of_the_file() -> None:
    text = (
        "threads: many\nlimits:\n  header_sise: 1KiB\n  idle_timeout: 60\n"
        "sites:\n- rules:\n  - handler: {python: none}\n"
    )
    lines = faults(text)
    assert [line.split(": ")[0] for line in lines] == ["c.yaml:1:10", "c.yaml:3:3", "c.yaml:4:17", "c.yaml:7:23"]


def test_a_fault_in_a_pool_is_not_told_again_where_it_is_used() -> None:
    text = "pools: {shop: {python: nonsense!}}\nsites: [{rules: [{handler: {python: shop}}]}]\n"
    assert len(faults(text)) == 1


def test_duplicate_keys_are_faults() -> None:
    assert faults("threads: 1\nspool: /a\nthreads: 2\n") == [
        "c.yaml:3:1: threads: found the key again (first in line 1); expected each key once"
    ]
    assert len(faults("pools:\n  a: {scripts: /a}\n  a: {scripts: /b}\ncgi:\n  environment: {A: b, A: c}\n")) == 2


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (
            "a: b: c\n",
            "1:5",
            "mapping values are not allowed here; is the line indented as those before it, and is there",
        ),
        ("threads:2\nlisten: a\n", "2:7", "is there ': ' behind the key of each?"),
        ("sites:\n\t- a\n", "2:1", "indent with spaces, not tabs"),
        ("a: [b\n", "2:1", "expected ',' or ']'"),
        ("a: [\n", "2:1", "; is each bracket closed?"),
        ("a:\n- {b: {c: d}\n- {b: 1}\n", "3:1", "; is the '{' of line 2 closed, and a comma behind each of its items?"),
        ("a: {b: ${C}}\n", "1:9", "; ${NAME} between brackets wants quotes"),
        ("a: [::]:80\n", "1:5", "; a value that begins with a bracket wants quotes, unless it is a list or a block"),
        ("a: *b\n", "1:4", "undefined alias"),
        ("a: *.b\n", "1:5", "; a value that begins with '*' wants quotes"),
        ("a: @b\n", "1:4", "; a value that begins with this character wants quotes"),
        ("a: 1\n---\nb: 1\n", "2:1", "expected a single document in the stream, but found another document; take away"),
        (
            "a: 'b\nc: d\n",
            "1:4",
            "unexpected end of stream (while scanning a quoted scalar); the quotation mark is not",
        ),
        ('a: "b\nc: "d"\n', "2:5", "; is a quotation mark missing, here or in a line before?"),
        (
            "a:\n  - b: c\n   d: e\n",
            "3:4",
            "; do all lines of the block that begins in line 2 begin in the same column?",
        ),
        ("a: \x07\n", "1:4", "character U+0007 is not allowed"),
        ("[" * 5000, "1:1", "nested too deeply"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_place(text: str, place: str, message: str) -> None:
    (line,) = faults(text)
    assert line.startswith(f"c.yaml:{place}: not valid YAML: ")
    assert message in line


def test_aliases_may_be_used_but_recursion_ends() -> None:
    config = read("sites:\n- &a {name: a, hosts: a.b, root: /a}\n- name: b\n  root: /a\n")
    assert config.sites[0].root == "/a"
    assert faults("sites: &a [{rules: *a}]\n")


# Interpolation


def test_variables_are_put_in() -> None:
    text = "spool: ${DIR}/${SUB:-x}\n"
    text += 'listen: "${HOST:-127.0.0.1}:${PORT}"\ncgi: {environment: {A: "$${DIR} $DIR ${EMPTY:-e}"}}'
    config = read(text, {"DIR": "/d", "PORT": "81", "EMPTY": ""})
    assert config.spool == "/d/x"
    assert config.listen[0].text == "127.0.0.1:81"
    assert config.cgi.environment["A"] == "${DIR} $DIR e"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "${PROT}",
            "variable 'PROT' is not set; expected it to be set, or ${PROT:-default}; did you mean 'PORT'?",
        ),
        ("${PORT", "found '${PORT'; expected ${NAME} or ${NAME:-default} ($${ for a plain ${)"),
        ("${1}", "found '${1}'; expected ${NAME}"),
        ("${PORT:0}", "found '${PORT:0}'; expected ${NAME}"),
        ("${PORT}", "found '81'; expected HOST:PORT"),
    ],
)
def test_faulty_interpolation_is_told(value: str, message: str) -> None:
    (line,) = faults(f"listen: '{value}'", {"PORT": "81"})
    assert line.startswith("c.yaml:1:9: listen: ")
    assert message in line


# Files


def test_a_file_is_read_with_paths_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "hook.py").write_text("")
    file = tmp_path / "c.yaml"
    file.write_text("\ufeffsites: [{root: www, rules: [{handler: {python: h/hook.py}}]}]\n", encoding="utf-8")
    assert load_file(file).sites[0].root == str(tmp_path / "www")


def test_what_a_file_names_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    file = tmp_path / "c.yaml"
    file.write_text("types_file: none\nsites: [{rules: [{handler: {file: {root: plain}}}]}]\n")
    with pytest.raises(ConfigError) as caught:
        load_file(file)
    assert [line.removeprefix(f"{file}:") for line in caught.value.lines] == [
        f"1:13: types_file: '{tmp_path}/none' does not exist; expected a table of media types; {CREATE}",
        f"2:42: sites[0].rules[0].handler.file.root: '{tmp_path}/plain' is not a folder; expected a folder; {CREATE}",
    ]
    file.write_text(
        "user: no-such-user\ngroup: no-such-group\nlog: {access_file: none/access.log}\n"
        "pools:\n  a: {python: 'a:b', directory: none, interpreter: plain}\n  b: {scripts: plain}\n"
        "cgi: {interpreters: {.pl: no-such-program, .rb: none/ruby}}\n"
        "sites:\n- root: none\n  rules:\n  - {handler: {cgi: none}}\n  - {handler: {python: none.py}}\n"
        "  - {match: {path: /a/*}, handler: {scripts: ./none}}\n  - {handler: {python: h.py}}\n"
        "  - {handler: {cgi: {program: none.cgi}}}\n  - {handler: {cgi: plain}}\n"
    )
    (tmp_path / "h.py").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_file(file)
    none = tmp_path / "none"
    assert [line.removeprefix(f"{file}:") for line in caught.value.lines] == [
        "1:7: user: 'no-such-user' does not exist; expected a user of this system; create it or correct the name",
        "2:8: group: 'no-such-group' does not exist; expected a group of this system; create it or correct the name",
        f"3:20: log.access_file: '{none}' does not exist; expected a folder for the file; {CREATE}",
        f"5:33: pools.a.directory: '{none}' does not exist; expected a folder; {CREATE}",
        "5:52: pools.a.interpreter: 'plain' is not in PATH; expected a Python interpreter or a virtual environment; "
        "install it or give its path",
        f"6:16: pools.b.scripts: '{tmp_path}/plain' is not a folder; expected a folder; {CREATE}",
        "7:27: cgi.interpreters..pl: 'no-such-program' is not in PATH; expected a program; install it or give its path",
        f"7:49: cgi.interpreters..rb: '{none}/ruby' does not exist; expected a program; install it or correct the path",
        f"9:9: sites[0].root: '{none}' does not exist; expected a folder; {CREATE}",
        f"11:21: sites[0].rules[0].handler.cgi: '{none}' does not exist; expected a folder; {CREATE}",
        f"12:24: sites[0].rules[1].handler.python: '{none}.py' does not exist; expected a handler script; {CREATE}",
        f"13:46: sites[0].rules[2].handler.scripts: '{none}' does not exist; expected a folder; {CREATE}",
        f"14:24: sites[0].rules[3].handler.python: '{tmp_path}/h.py' is not a file; expected a handler script; "
        "correct the path",
        f"15:31: sites[0].rules[4].handler.cgi.program: '{none}.cgi' does not exist; expected a CGI program; {CREATE}",
        f"16:21: sites[0].rules[5].handler.cgi: '{tmp_path}/plain' is a file; expected a folder of CGI programs;"
        f" did you mean 'cgi: {{program: {tmp_path}/plain}}'?",
    ]


def test_faults_of_both_passes_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("thread: 1\nsites: [{root: /no/such/folder}]\n")
    with pytest.raises(ConfigError) as caught:
        load_file(file)
    assert len(caught.value.lines) == 2


def test_a_program_must_be_executable(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    file = tmp_path / "c.yaml"
    file.write_text("cgi: {interpreters: {.pl: ./plain}}\n")
    with pytest.raises(ConfigError) as caught:
        load_file(file)
    assert "is not executable; expected a program; correct the path or its mode (chmod +x)" in str(caught.value)


@pytest.mark.parametrize("named", ["venv", "venv/bin/python"])
def test_a_virtual_environment_that_was_made_elsewhere(tmp_path: Path, named: str) -> None:
    """As one of the host that is mounted into a container: its `bin/python` leads to no interpreter of this machine."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = /opt/none/bin\n")
    (tmp_path / "venv" / "bin" / "python").symlink_to("/opt/none/bin/python3.9")
    file = tmp_path / "c.yaml"
    file.write_text(f"pools: {{a: {{python: 'a:b', interpreter: {named}}}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_file(file)
    assert caught.value.lines == (
        f"{file}:1:41: pools.a.interpreter: '{tmp_path}/venv/bin/python' is a symbolic link to "
        "'/opt/none/bin/python3.9', which does not exist; expected the Python that this virtual environment was made"
        f" with; install that, or make the environment anew (`python3 -m venv --clear {tmp_path}/venv`, and its"
        " packages)",
    )


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "none.yaml", "none.yaml: no such file; name an existing YAML file"),
        (tmp_path, "cannot be read: Is a directory; expected a YAML file"),
        (Path("/dev/zero"), "/dev/zero: larger than 4 MiB; expected a YAML file"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_file(path)
        assert message in str(caught.value)


def test_a_file_that_is_not_utf_8_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"threads: 1\nspool: \xe9\n")
    with pytest.raises(ConfigError) as caught:
        load_file(file)
    assert str(caught.value) == f"{file}:2:8: found byte 0xe9; expected UTF-8"


def test_a_peek_takes_what_is_good(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("listen: a:1\nthread: 3\n")
    assert peek(file).listen[0].port == 1
    file.write_text("listen: [\n")
    assert peek(file) == Config()
