"""Decisions are pages of one form, and the index has them all."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
SECTIONS = ["Context", "Decision", "Consequences"]


def read_index() -> dict[str, tuple[str, str]]:
    """Return heading and date of each decision's file, as the index has them."""
    text = (ROOT / "docs" / "decisions" / "README.md").read_text()
    rows = re.findall(r"^\| \[(\d+)\]\((.*?)\) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return {file: (f"# {number}. {title}", date) for number, file, title, date in rows}


def test_the_index_has_every_decision_with_its_title_and_date() -> None:
    index = read_index()
    assert len(DECISIONS) >= 10
    assert sorted(index) == [path.name for path in DECISIONS]
    for path in DECISIONS:
        heading, _, dated = path.read_text().splitlines()[:3]
        assert (heading, dated.partition(".")[0]) == index[path.name]
        assert heading.startswith(f"# {int(path.name[:4])}. ")


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_one_page_with_all_sections(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[:3] == SECTIONS
    assert len(text.splitlines()) <= 60
