"""docs/cgi.md: what it shows of the configuration is valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appserver.config.load import read_text

GUIDE = (Path(__file__).resolve().parents[3] / "docs/cgi.md").read_text()
RULES = re.findall(r"`(\{match: .+?\})`", GUIDE)
BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
#: What stands beside a directive of Apache's and goes into the block of a rule.
KEYS = re.findall(
    r"^\| `[A-Z][^|]*\| `((?:environment|extensions|fallback|index|limits|pass_\w+|symlinks|user): .*?)`",
    GUIDE,
    re.MULTILINE,
)


def faults(text: str) -> list[str]:
    return [problem.text for problem in read_text(text, "cgi.md", Path("/srv")).problems]


def test_there_is_something_to_look_at() -> None:
    assert (len(RULES), len(BLOCKS), len(KEYS)) >= (5, 2, 10)


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str) -> None:
    assert faults(f"sites: [{{rules: [{rule}]}}]") == []


@pytest.mark.parametrize("text", BLOCKS)
def test_blocks(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize("keys", [keys for keys in KEYS if "body_size" not in keys])
def test_keys_of_a_block(keys: str) -> None:
    extensions = "" if keys.startswith("extensions") else "extensions: [.cgi], "
    rule = f"{{match: {{path: /x/*}}, handler: {{cgi: {{directory: /x, {extensions}{keys}}}}}}}"
    assert faults(f"sites: [{{rules: [{rule}]}}]") == []


def test_keys_at_the_top() -> None:
    (keys,) = (keys for keys in KEYS if "body_size" in keys)
    assert faults(keys) == []
