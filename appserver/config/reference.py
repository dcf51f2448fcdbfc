"""Writes docs/configuration.md from the model: `python -m appserver.config.reference > docs/configuration.md`."""

from __future__ import annotations

import dataclasses
from typing import Any

from appserver.config.keys import Key, blocks_of, keys_of, place_below
from appserver.config.model import Config
from appserver.config.units import format_size, format_time

_HEAD = """\
# Configuration

One YAML file. `cherokee-app check FILE` says whether it is valid; `cherokee-app serve --config FILE` serves by it. No
file is needed at all: [without a configuration](#without-a-configuration) a folder says what is served.

This page is written from the server's own model of the configuration (`python -m appserver.config.reference`); do not
edit it.
"""

_EXAMPLE = """\
## A complete example

```yaml
# config
listen: ["0.0.0.0:8080", "[::]:8080"]
threads: auto
user: www-data
group: www-data
control: auto                                   # or a path, or off
limits: {header_size: 16KiB, body_size: 1GiB, header_timeout: 10s, idle_timeout: 60s, drain_timeout: 25s}
log: {level: info, format: auto, access: combined, access_file: "-"}
cache: {memory: 64MiB, entries: 4096, file_size: 256KiB, revalidate: 1s}
tuning: {accept_batch: adaptive, write: gather, cork: more, sendfile: on, reuse: on}
incidents: {directory: auto, keep: 100, redact: [X-Api-Key], keep_bodies: on}   # or: incidents: off
spool: /tmp
types: {".foo": application/x-foo}
types_file: off                                 # or /etc/mime.types
health: {live: /livez, ready: /readyz}          # or: health: off

pools:
  shop:                                         # a WSGI application in its own virtual environment
    python: shop.wsgi:application
    directory: /srv/shop
    interpreter: /srv/shop/venv
    processes: {min: 2, max: 8, idle_time: 60s}   # or a number
    threads: 4
    preload: true                                 # load once, fork the workers
    environment: {SHOP_DATABASE: "${SHOP_DATABASE:-sqlite:///srv/shop/shop.db}"}
    limits: {request_time: 60s, queue_time: 30s, queue: 1000, stop_time: 10s, requests: 10000, memory: 512MiB}
  tools:                                        # a folder of handler scripts with a pool of their own
    scripts: /srv/tools

cgi:
  environment: {SITE_NAME: Example}
  pass_environment: [LANG, TZ]
  interpreters: {".pl": /usr/bin/perl}
  user: www-data                                # or owner: each program as the owner of its file
  limits: {request_time: 60s, idle_time: 30s, programs: 32, cpu_time: 20s, memory: 512MiB}

sites:
  - name: main
    hosts: [example.org, "*.example.org"]
    root: /srv/www
    index: [index.html]
    symlinks: beneath
    precompressed: [br, gz]                                           # a.js.br or a.js.gz beside a.js
    fallback: /index.html                                             # pages of a single-page application
    rules:
      - {match: {path: /shop/*}, handler: {python: shop}}             # the application of a pool
      - {match: {path: /hook/*}, handler: {python: /srv/h/hook.py}}   # one handler script
      - {match: {path: /tools/*}, handler: {scripts: tools}}          # /tools/NAME/ is NAME.py of the pool's folder
      - {match: {path: /cgi-bin/*}, handler: {cgi: /srv/cgi-bin}}
      - {match: {path: /blog/*}, handler: {cgi: {directory: /srv/blog, extensions: [.php], index: [index.php]}}}
      - {match: {path: /lists/*}, handler: {cgi: {directory: /srv/l, limits: {programs: 4}}}}
      - {match: {path: /files/*}, handler: {file: /srv/pub}}          # /files/a is /srv/pub/files/a
      - {match: {path: /docs/*}, handler: {file: {root: /srv/docs, index: [start.html], precompressed: off}}}
      - {match: {path: /old}, handler: {redirect: {to: /new, status: 301}}}
      - {match: {extension: [php], method: [GET]}, handler: {respond: {status: 403, body: "no"}}}
    errors: {404: /404.html}
```
"""

_WRITING = """\
## How values are written

| what | how |
|---|---|
| size | a number with B, KB, MB, GB, TB (1000) or KiB, MiB, GiB, TiB (1024); without a unit it is bytes |
| time | a number with ms, s, m or h; the unit is needed |
| path of a file | absolute, or from the folder of the configuration file |
| path of a URL | decoded, without percent escapes |
| list | a YAML list; one value alone is a list of one |
| `${NAME}` | in any value: the environment variable NAME, which must be set; between brackets the value wants quotes |
| `${NAME:-default}` | in any value: the variable, or the default when it is not set or empty |
| `$${` | a plain `${` |

All errors are listed at once, each with file, line, column and key, what was found, what was expected, and what was
probably meant. Nothing is applied unless all of it is valid: at the start nothing is started, and at a reload (SIGHUP)
the old configuration stays.

```
site.yaml:3:24: cache.memory: found '64mb'; expected a size such as 64KiB, 10MB or 4096 (bytes); did you mean '64MB'?
site.yaml:7:9: sites[0].rules[0]: found no key 'handler'; expected it: what answers them
```
"""

_CONVENTIONS = """\
## Without a configuration

`cherokee-app serve DIR` serves a folder by what is in it:

| in DIR | is |
|---|---|
| `www/` | the files of the site; without it the files of DIR itself |
| `handlers/NAME.py` | a Python handler for `/NAME` and all below; `index.py` is `/`; `_NAME.py` is left out |
| `cgi-bin/` | CGI programs below `/cgi-bin/` |

When DIR itself is the root, the sources in `handlers` and `cgi-bin` are never sent as files. A file without `sites` is
completed in the same way, so a configuration can be one line. Without DIR and `--config`,
`/etc/cherokee-app/config.yaml` is read when it exists; else `/srv` is served when it has one of the three folders; else
the current folder.

`--listen` and `--threads` on the command line replace what the file says.
"""

#: How the type of each kind is told.
_TYPES = {
    "addresses": "address or list",
    "application": "module:attribute",
    "block": "block",
    "boolean": "true or false",
    "block_or_off": "block or off",
    "blocks": "list of blocks",
    "check_target": "URL path or URL",
    "choice": "word",
    "codings": "list of codings, or off",
    "count": "whole number",
    "count_or_block": "whole number or block",
    "directories": "list of folders",
    "directory": "folder",
    "program": "file",
    "environment": "mapping: name to text",
    "error_pages": "mapping: status to URL path",
    "executable": "program",
    "extensions": "list of extensions",
    "field_names": "list of field names",
    "file_names": "list of file names",
    "folders": "mapping: URL path to folder",
    "folder_or_block": "folder or block",
    "group": "name or number",
    "hosts": "list of host patterns",
    "interpreter": "program or folder",
    "interpreters": "mapping: extension to program",
    "location": "URL path or URL",
    "methods": "list of methods",
    "name": "name",
    "named_blocks": "mapping: name to block",
    "output": 'file or "-"',
    "path": "URL path",
    "pattern": "URL path or prefix",
    "program_directory": "folder",
    "program_extensions": "list of extensions",
    "program_user": "name, number or owner",
    "python_handler": "pool or script",
    "redirect_status": "status",
    "scripts": "folder or script",
    "scripts_handler": "folder or pool",
    "size": "size",
    "some_of": "block",
    "socket": "path, auto or off",
    "state_directory": "folder or auto",
    "text": "text",
    "threads": "auto or whole number",
    "time": "time",
    "types": "mapping: extension to media type",
    "types_file": "file or off",
    "user": "name or number",
    "variable_names": "list of names",
}


def document() -> str:
    """The whole page."""
    blocks = list(blocks_of(Config))
    links = [_link(_title(path)) for path, _ in blocks]
    contents = " · ".join(
        [
            _link("A complete example"),
            _link("How values are written"),
            _link("Without a configuration"),
            *links,
        ]
    )
    parts = [_HEAD, f"Contents: {contents}\n", _EXAMPLE, _WRITING, _CONVENTIONS]
    parts += [_section(path, block) for path, block in blocks]
    return "\n".join(parts)


def _title(path: str) -> str:
    return path or "Top level"


def _link(title: str) -> str:
    anchor = "".join(each for each in title.lower().replace(" ", "-") if each.isalnum() or each in "-_")
    return f"[{title}](#{anchor})"


def _section(path: str, block: type[Any]) -> str:
    doc = " ".join((block.__doc__ or "").split())
    lines = [f"## {_title(path)}", "", doc, "", "| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    fields = {each.name: each for each in dataclasses.fields(block)}
    for name, (field_name, key) in keys_of(block).items():
        cells = (
            f"`{name}`",
            _TYPES[key.kind],
            _default(key, fields[field_name]),
            _range(key),
            _meaning(path, name, key),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _meaning(path: str, name: str, key: Key) -> str:
    if key.block is None or key.kind == "some_of":
        return key.doc
    return f"{key.doc} See {_link(place_below(path, name, key))}."


def _default(key: Key, field: dataclasses.Field[Any]) -> str:
    if key.required:
        return "(must be given)"
    if key.default_text:
        return key.default_text
    value = field.default if field.default is not dataclasses.MISSING else None
    if value is None or value == ():
        return ""
    if key.kind == "size":
        return format_size(value)
    if key.kind == "time":
        return format_time(value)
    if key.kind == "output":
        return f'"{value}"'
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _range(key: Key) -> str:
    if key.choices:
        return ", ".join(key.choices)
    if key.low is None or key.high is None:
        return ""
    show = {"size": format_size, "time": format_time}.get(key.kind, str)
    return f"{show(key.low)} to {show(key.high)}"


if __name__ == "__main__":
    print(document(), end="")
