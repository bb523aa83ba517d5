"""Fragments of the changelog can be built, and the changelog stays short."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
FRAGMENTS = sorted(
    path
    for path in (ROOT / SETTINGS["directory"]).iterdir()
    if path.name not in ("README.md", Path(SETTINGS["template"]).name)
)
MOST_CHARACTERS = 160


def describe_fault(name: str, text: str) -> str:
    """Return what is wrong with a fragment of the changelog; empty if nothing is."""
    kinds = "|".join(kind["directory"] for kind in SETTINGS["type"])
    if not re.fullmatch(rf"[a-z0-9-]+\.({kinds})\.md", name):
        return f"its name is not SLUG.TYPE.md with TYPE of {kinds}"
    if len(text.strip().splitlines()) != 1 or text.startswith(("-", "*", "#")):
        return "it is not one plain line"
    return f"it is longer than {MOST_CHARACTERS} characters" if len(text.strip()) > MOST_CHARACTERS else ""


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("wait-for-volume.added.md", "A deployment waits for its volume.\n", ""),
        ("wait-for-volume.feature.md", "A deployment waits for its volume.\n", "its name"),
        ("WaitForVolume.added.md", "A deployment waits for its volume.\n", "its name"),
        ("two-lines.fixed.md", "A deployment waits.\nIt starts then.\n", "not one plain line"),
        ("an-item.fixed.md", "- A deployment waits.\n", "not one plain line"),
        ("empty.fixed.md", "\n", "not one plain line"),
        ("long.changed.md", "A deployment waits. " * 9, "longer than 160"),
    ],
)
def test_a_fragment_is_one_plain_line_under_a_name_that_says_its_type(name: str, text: str, fault: str) -> None:
    found = describe_fault(name, text)
    assert fault in found
    assert bool(found) == bool(fault)


def test_every_fragment_of_the_changelog_can_be_built() -> None:
    faults = {path.name: describe_fault(path.name, path.read_text()) for path in FRAGMENTS}
    assert {name: fault for name, fault in faults.items() if fault} == {}


def test_the_changelog_is_short_and_has_the_place_for_new_sections() -> None:
    assert len(CHANGELOG.splitlines()) <= 120
    assert SETTINGS["start_string"] in CHANGELOG
    assert (ROOT / SETTINGS["template"]).exists()
