"""The generated reference, and the examples of all pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appserver.config.load import read_text
from appserver.config.reference import document

TOP = Path(__file__).resolve().parents[3]
PAGES = [*([TOP / "README.md"] if (TOP / "README.md").exists() else []), *sorted((TOP / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"^```yaml\n(# config\b.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """Every YAML block of the documentation whose first line is the comment `# config`."""
    return [(page.name, text) for page in PAGES for text in EXAMPLE.findall(page.read_text(encoding="utf-8"))]


def test_the_committed_reference_is_current() -> None:
    committed = (TOP / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert committed == document(), "run: python -m appserver.config.reference > docs/configuration.md"


def test_the_reference_has_an_example() -> None:
    assert "configuration.md" in [name for name, _ in examples()]


@pytest.mark.parametrize(("name", "text"), examples())
def test_the_examples_of_the_documentation_are_valid(name: str, text: str) -> None:
    read_text(text, name, Path("/srv"), {}).raise_problems()


def test_every_link_of_the_contents_leads_to_a_heading() -> None:
    text = document()
    headings = {
        "".join(each for each in heading.lower().replace(" ", "-") if each.isalnum() or each in "-_")
        for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([^)]*)\)", text))
    assert links <= headings
    assert len(headings) == len(re.findall(r"^## ", text, re.MULTILINE))
