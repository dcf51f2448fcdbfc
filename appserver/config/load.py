"""YAML -> model. Every fault of a file is found in one go and told with its place.

PyYAML's compose() gives nodes with line and column; values are read from the text as it was written, so YAML's own idea
of a scalar (`off` is a boolean, 1:30 is ninety) does not matter. A faulty value is replaced by the key's default and
reading goes on; at the end any fault raises ConfigError. References between blocks are checked in `references`, files
and folders in `files`, with the places that were noted here.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from appserver.config import files, references
from appserver.config.keys import Key, blocks_of, keys_of
from appserver.config.model import Config
from appserver.config.units import UnfitError, nearest
from appserver.config.values import LISTS, MAPPINGS, OFF, SCALARS, Parser, parse_pool_name
from appserver.errors import ConfigError

Block = TypeVar("Block")

MAX_FILE_BYTES = 4 * 1024 * 1024  #: a configuration beyond this is a mistake (a device, a log)
#: How near a key of this block must be to be meant: more when another block has the very one.
_LIKELY, _SAME_WORD = 0.6, 0.8
_MAX_HOMES = 3  #: a key of more blocks than these says nothing about where it belongs
_SHOWN = 60  #: characters of a wrong value that a message repeats

_STANDARD_TAG = "tag:yaml.org,2002:"
_NULL = _STANDARD_TAG + "null"
_INTERPOLATION = re.compile(r"\$\$\{|\$\{([^}]*)(\})?")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


#: Words of PyYAML, and what is usually the matter.
_HINTS = (
    ("'\\t'", "indent with spaces, not tabs"),
    ("scanning an alias", "a value that begins with '*' wants quotes"),
    ("scanning a quoted scalar", "the quotation mark is not closed"),
    ("cannot start any token", "a value that begins with this character wants quotes"),
    ("another document", "take away the line with '---'"),
    ("found '<stream end>'", "is each bracket closed?"),
    ("expected the node content", "a value that begins with a bracket wants quotes, unless it is a list or a block"),
    ("expected <block end>, but found '<scalar>'", "is a quotation mark missing, here or in a line before?"),
    (
        "mapping values are not allowed",
        "is the line indented as those before it, and is there ': ' behind the key of each? A value with ': ' in it"
        " wants quotes",
    ),
)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault. Line and column count from 1."""

    line: int
    column: int
    text: str


@dataclass(slots=True)
class Reading:
    """What was read from one file: the model with defaults in place of faulty values, the faults, and what the later
    passes need to know.
    """

    file: str
    config: Config = field(default_factory=Config)
    problems: list[Problem] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)  #: key path -> line, column
    given: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  #: path of a block -> the keys that it has in the file
    paths: list[tuple[str, str, str]] = field(
        default_factory=list
    )  #: key path, kind, value: what must exist (files.py)

    def report(self, path: str, text: str) -> None:
        """Notes a fault at the place of `path`, or of the nearest block above it that is in the file."""
        line, column = self._place(path)
        self.problems.append(Problem(line, column, f"{path}: {text}" if path else text))

    def raise_problems(self) -> None:
        """Raises ConfigError with all that was noted, in the order of the file."""
        if self.problems:
            raise ConfigError(
                f"{self.file}:{each.line}:{each.column}: {each.text}" for each in sorted(set(self.problems))
            )

    def _place(self, path: str) -> tuple[int, int]:
        while path and path not in self.places:
            path = re.sub(r"(\.[^.\[\]]*|\[[^\]]*\]|^[^.\[\]]*)$", "", path)
        return self.places.get(path, (1, 1))


def load_file(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Reads and checks the file at `path`, with the files and folders that it names. `${NAME}` comes from `environment`
    (os.environ when None).

    Raises ConfigError with one line for each fault.
    """
    reading = read_text(_read_file(path), str(path), path.absolute().parent, environment)
    files.check(reading)
    reading.raise_problems()
    return reading.config


def peek(path: Path) -> Config:
    """What can be read of the file at `path`, with defaults in place of what is faulty. For those who only ask a server
    that runs: it keeps its good configuration when the file has become a bad one.
    """
    try:
        return read_text(_read_file(path), str(path), path.absolute().parent).config
    except ConfigError:
        return Config()


def read_text(text: str, file: str, base: Path, environment: Mapping[str, str] | None = None) -> Reading:
    """Everything but the look at the file system: relative paths start from `base`. Raises ConfigError only for text
    that is not YAML.
    """
    root = _compose(text, file)
    reading = Reading(file)
    reader = _Reader(reading, base, os.environ if environment is None else environment)
    if root is not None:
        reading.config = reader.block(root, Config, "")
    reading.config = references.complete(reading.config, base)
    references.check(reading)
    return reading


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            [f"{path}: no such file; name an existing YAML file, or leave it out to serve a folder by convention"]
        ) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}; expected a YAML file"]) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([f"{path}: larger than {MAX_FILE_BYTES // 1024 // 1024} MiB; expected a YAML file"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        line = before.count(b"\n") + 1
        raise ConfigError([f"{path}:{line}:{column}: found byte 0x{data[error.start]:02x}; expected UTF-8"]) from None


def _compose(text: str, file: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        return node
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_not_yaml(text, file, error)]) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        raise ConfigError(
            [f"{file}:{line}:{column}: not valid YAML: character U+{ord(text[error.position]):04X} is not allowed"]
        ) from None
    except RecursionError:
        raise ConfigError([f"{file}:1:1: not valid YAML: nested too deeply"]) from None


def _not_yaml(text: str, file: str, error: yaml.MarkedYAMLError) -> str:
    """What PyYAML says, and what people who got to see it have usually written."""
    problem, context = error.problem or "", error.context or ""
    mark, begin = error.problem_mark or error.context_mark, error.context_mark
    reason = f"{problem} ({context})" if context else problem
    if problem.startswith("but "):
        reason = f"{context}, {problem}"
    hint = next((hint for words, hint in _HINTS if words in reason), "")
    if begin is not None and "scanning a quoted scalar" in context:
        mark = begin  # not where the file ends
    elif begin is not None and context in ("while parsing a flow mapping", "while parsing a flow sequence"):
        hint = f"is the '{text[begin.index]}' of line {begin.line + 1} closed, and a comma behind each of its items?"
        if mark is not None and text[: mark.index].endswith("$"):
            hint = "${NAME} between brackets wants quotes"
    elif begin is not None and "expected <block end>, but found '<block " in problem:
        hint = f"do all lines of the block that begins in line {begin.line + 1} begin in the same column?"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return f"{file}:{line}:{column}: not valid YAML: {reason}{hint and '; ' + hint}"


class _Reader:
    """Walks over the nodes along the classes of the model."""

    def __init__(self, reading: Reading, base: Path, environment: Mapping[str, str]) -> None:
        self._reading = reading
        self._base = base
        self._environment = environment

    # Blocks

    def block(self, node: yaml.Node, block: type[Block], path: str) -> Block:
        """One mapping as an object of the class `block`; an empty value is an empty mapping."""
        return block(**self._fields(node, block, path))

    def _fields(self, node: yaml.Node, block: type[Any], path: str) -> dict[str, Any]:
        """The fields of `block` that a mapping gives."""
        keys = keys_of(block)
        values: dict[str, Any] = {}
        given = []
        for key_node, name, value_node in self._pairs(
            node, path, f"a block with keys such as {', '.join(list(keys)[:3])}"
        ):
            given.append(name)
            place = f"{path}.{name}" if path else name
            if name not in keys:
                elsewhere = _elsewhere(name)
                close = nearest(name, list(keys), _SAME_WORD if elsewhere else _LIKELY)
                self._fault(place, key_node, "unknown key", f"one of {', '.join(keys)}", close, elsewhere)
                continue
            field_name, key = keys[name]
            with contextlib.suppress(_FaultyError):
                values[field_name] = self._value(value_node, key, place)
        self._reading.given[path] = tuple(given)
        for name, (_, key) in keys.items():
            if key.required and name not in given and _is_mapping(node):
                self._reading.report(
                    path, f"found no key '{name}'; expected it: {key.doc[0].lower()}{key.doc[1:].rstrip('.')}"
                )
        return values

    def _value(self, node: yaml.Node, key: Key, path: str) -> Any:
        """The value of one key. Raises _FaultyError, noted, when it has none."""
        self._note(path, node)
        if key.kind in OFF and _is_off(node):
            return OFF[key.kind]
        if key.kind in SCALARS:
            return self._scalar(node, SCALARS[key.kind], key, path)
        if key.kind in LISTS:
            return self._list(node, LISTS[key.kind], key, path)
        if key.kind in MAPPINGS:
            return self._mapping(node, *MAPPINGS[key.kind], key, path)
        assert key.block is not None, key.kind
        if key.kind == "blocks":
            return self._blocks(node, key.block, path)
        if key.kind == "named_blocks":
            return self._named_blocks(node, key, key.block, path)
        if key.kind == "block_or_off" and _is_off(node):
            return None
        if key.kind == "folder_or_block" and isinstance(node, yaml.ScalarNode) and not _is_null(node):
            name, folder = next(iter(keys_of(key.block).values()))
            return key.block(**{name: self._scalar(node, SCALARS[folder.kind], folder, path)})
        if key.kind == "some_of":
            return self._fields(node, key.block, path)
        if key.kind == "count_or_block" and isinstance(node, yaml.ScalarNode) and not _is_null(node):
            number = self._scalar(node, SCALARS["count"], key, path)
            return key.block(min=number, max=number)
        return self.block(node, key.block, path)

    def _blocks(self, node: yaml.Node, block: type[Any], path: str) -> tuple[Any, ...]:
        if _is_null(node):
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self._fault(path, node, f"found {_words(node)}", 'a list (each item begins with "- ")')
            raise _FaultyError
        found = []
        for index, item in enumerate(node.value):
            self._note(f"{path}[{index}]", item)
            found.append(self.block(item, block, f"{path}[{index}]"))
        return tuple(found)

    def _named_blocks(self, node: yaml.Node, key: Key, block: type[Any], path: str) -> dict[str, Any]:
        found = {}
        for key_node, name, value_node in self._pairs(node, path, "names, each with its block"):
            place = f"{path}.{name}"
            self._note(place, value_node)
            with contextlib.suppress(_FaultyError):
                found[self._parse(name, parse_pool_name, key, place, key_node)] = self.block(value_node, block, place)
        return found

    # Leaves

    def _list(self, node: yaml.Node, parser: Parser, key: Key, path: str) -> tuple[Any, ...]:
        """A list, or one value alone."""
        if isinstance(node, yaml.ScalarNode) and not _is_null(node):
            return (self._scalar(node, parser, key, path),)
        if not isinstance(node, yaml.SequenceNode):
            self._fault(path, node, f"found {_words(node)}", "a list, or one value")
            raise _FaultyError
        found = []
        for index, item in enumerate(node.value):
            place = f"{path}[{index}]"
            self._note(place, item)
            with contextlib.suppress(_FaultyError):
                found.append(self._scalar(item, parser, key, place))
        if not node.value and key.kind == "addresses":
            self._fault(path, node, "found an empty list", "at least one address")
        return tuple(found)

    def _mapping(self, node: yaml.Node, parse_key: Parser, parse_value: Parser, key: Key, path: str) -> dict[Any, Any]:
        found = {}
        for key_node, name, value_node in self._pairs(node, path, "a mapping (name: value)"):
            place = f"{path}.{name}"
            self._note(place, value_node)
            with contextlib.suppress(_FaultyError):
                value = self._scalar(value_node, parse_value, key, place)
                found[self._parse(name, parse_key, key, place, key_node)] = value
        return found

    def _scalar(self, node: yaml.Node, parser: Parser, key: Key, path: str) -> Any:
        """One scalar, interpolated and parsed; what names a file or an account is noted for the second pass."""
        if not isinstance(node, yaml.ScalarNode) or _is_null(node):
            expected = _expected(parser, key, self._base)
            self._fault(path, node, f"found {_words(node)}", expected)
            raise _FaultyError
        self._check_tag(node, path)
        value = self._parse(self._interpolate(node, path), parser, key, path, node)
        if key.kind in files.KINDS:
            self._reading.paths.append((path, key.kind, value))
        return value

    def _parse(self, text: str, parser: Parser, key: Key, path: str, node: yaml.Node) -> Any:
        try:
            return parser(text, key, self._base)
        except UnfitError as unfit:
            self._fault(path, node, f"found {_shown(text)}", unfit.expected, unfit.nearest)
            raise _FaultyError from None

    def _interpolate(self, node: yaml.ScalarNode, path: str) -> str:
        """`${NAME}` and `${NAME:-default}` (also for an empty variable, as in a shell); `$${` is a literal `${`."""

        def replacement(found: re.Match[str]) -> str:
            if found[0] == "$${":
                return "${"
            variable = _VARIABLE.fullmatch(found[1]) if found[2] else None
            if variable is None:
                self._fault(path, node, f"found {_shown(found[0])}", "${NAME} or ${NAME:-default} ($${ for a plain ${)")
                raise _FaultyError
            name, default = variable[1], variable[2]
            if default is not None:
                return self._environment.get(name) or default
            if name not in self._environment:
                close = nearest(name, list(self._environment))
                self._fault(
                    path,
                    node,
                    f"environment variable '{name}' is not set",
                    f"it to be set, or ${{{name}:-default}}",
                    close,
                )
                raise _FaultyError
            return self._environment[name]

        return _INTERPOLATION.sub(replacement, str(node.value))

    # Nodes

    def _pairs(self, node: yaml.Node, path: str, expected: str) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
        """The items of a mapping: node of the key, its text, node of the value. Keys that come twice are noted and left
        out.
        """
        if _is_null(node):
            return
        self._check_tag(node, path)
        if not isinstance(node, yaml.MappingNode):
            self._fault(path, node, f"found {_words(node)}", expected)
            return
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(path, key_node, f"found {_words(key_node)} as a key", "a name")
                continue
            name = str(key_node.value)
            if name in lines:
                place = f"{path}.{name}" if path else name
                self._fault(place, key_node, f"found the key again (first in line {lines[name]})", "each key once")
                continue
            lines[name] = key_node.start_mark.line + 1
            yield key_node, name, value_node

    def _check_tag(self, node: yaml.Node, path: str) -> None:
        if not node.tag.startswith(_STANDARD_TAG) and node.tag != "!":
            self._fault(path, node, f"found the tag {_shown(node.tag)}", "a value without a tag")

    def _note(self, path: str, node: yaml.Node) -> None:
        self._reading.places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)

    def _fault(
        self, path: str, node: yaml.Node, found: str, expected: str, suggestion: str = "", note: str = ""
    ) -> None:
        question = f"; did you mean '{suggestion}'?" if suggestion else ""
        text = f"{found}; expected {expected}{question}{note}"
        mark = node.start_mark
        self._reading.problems.append(Problem(mark.line + 1, mark.column + 1, f"{path}: {text}" if path else text))


class _FaultyError(Exception):
    """A value that cannot be used; its fault is noted already."""


def _elsewhere(name: str) -> str:
    """Where a key belongs that is in the wrong block, as by a wrong indentation."""
    homes = [path or "the top level" for path, block in blocks_of(Config) if name in keys_of(block)]
    return f"; '{name}' is a key of {', '.join(homes)}" if 0 < len(homes) <= _MAX_HOMES else ""


def _is_mapping(node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode) or _is_null(node)


def _is_off(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value.lower() in ("off", "false", "no")


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL


def _words(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if _is_null(node) else _shown(str(node.value))


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _expected(parser: Parser, key: Key, base: Path) -> str:
    """What a parser wants, for a node that has no text to give to it: its answer to a text that fits nothing."""
    if key.kind == "text" or key.kind == "environment":
        return "a text"
    try:
        parser("\0", key, base)
    except UnfitError as unfit:
        return unfit.expected
    return "one value"
