"""A page is a how-to, a reference or a decision, and a how-to is short enough to be followed from top to bottom."""

import re
from enum import StrEnum
from math import ceil
from pathlib import Path

import pytest

from support.tables import for_each

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
HOW_TO_WORDS = 800
STEP = 100
"""The words of `TOO_LONG` are rounded up to it, so that a corrected sentence needs no change of the list."""
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
"""What a reader does not see, such as the programs of cog."""


class Kind(StrEnum):
    """What a reader does with a page."""

    HOW_TO = "follows it from top to bottom"
    REFERENCE = "looks something up"
    DECISION = "learns why it is so"


FOLDERS = {"decisions": Kind.DECISION, "reference": Kind.REFERENCE}
"""A folder of docs/ -> the kind of all its pages. In all other folders, and in docs/ itself, a page is a how-to."""
REFERENCES = frozenset({"README.md", "architecture.md", "bounds.md", "conditions.md", "glossary.md", "promises.md"})
"""Pages of docs/ that are looked things up in."""
TOO_LONG = {
    "calling.md": 2400,
    "choosing-a-tier.md": 1500,
    "clients.md": 1000,
    "code.md": 2000,
    "exports.md": 1300,
    "gateway-access.md": 3000,
    "gpus.md": 1700,
    "installing.md": 900,
    "knowledge.md": 2700,
    "long-context.md": 1600,
    "math.md": 3000,
    "memory.md": 2500,
    "registry.md": 2100,
    "sizing.md": 1200,
    "suites.md": 1600,
    "tenant-data.md": 3000,
    "troubleshooting.md": 1600,
    "upgrades.md": 3400,
}
"""How-to that is still too long -> its words, rounded up to `STEP`. A count may shrink and no page may be added."""


def classify_page(name: str) -> Kind:
    """Return the kind of a page by its path below docs/."""
    if name in REFERENCES:
        return Kind.REFERENCE
    return FOLDERS.get(name.partition("/")[0], Kind.HOW_TO)


def count_words(text: str) -> int:
    """Return the number of words that a reader sees, tables and examples among them."""
    return len(COMMENT.sub("", text).split())


def judge_length(words: int, allowed: int | None) -> str:
    """Return what is wrong with the length of a how-to, or nothing. `allowed` is its count in `TOO_LONG`."""
    if words <= HOW_TO_WORDS:
        return "" if allowed is None else "is short enough now: take it from TOO_LONG"
    if allowed is None:
        return f"has {words} words, {HOW_TO_WORDS} allowed: split it, or move what is looked up to docs/reference"
    if words > allowed:
        return f"has {words} words, {allowed} allowed by TOO_LONG: shorten it"
    rounded = ceil(words / STEP) * STEP
    return f"has {words} words: lower its count in TOO_LONG to {rounded}" if rounded < allowed else ""


@pytest.mark.parametrize("name", PAGES)
def test_a_how_to_is_followed_from_top_to_bottom(name: str) -> None:
    if classify_page(name) is Kind.HOW_TO:
        assert judge_length(count_words((DOCS / name).read_text()), TOO_LONG.get(name)) == ""


def test_the_lists_have_pages_that_are_there() -> None:
    assert (REFERENCES | TOO_LONG.keys()) - set(PAGES) == set()
    assert [name for name in TOO_LONG if classify_page(name) is not Kind.HOW_TO] == []


@for_each("name, kind", {
    "a page of docs": ("gateway.md", Kind.HOW_TO),
    "a page of a folder for one subject": ("distillation/cluster.md", Kind.HOW_TO),
    "a page that is looked things up in": ("glossary.md", Kind.REFERENCE),
    "a page of the folder for references": ("reference/api.md", Kind.REFERENCE),
    "a decision": ("decisions/0001-fence-writes-by-the-lease.md", Kind.DECISION),
})  # fmt: skip
def test_a_page_is_classified_by_its_path(name: str, kind: Kind) -> None:
    assert classify_page(name) is kind


@for_each("words, allowed, problem", {
    "a short page": (800, None, ""),
    "a page that grew too long": (801, None, "split it"),
    "a long page that is listed": (1150, 1200, ""),
    "a listed page that grew": (1201, 1200, "shorten it"),
    "a listed page that shrank": (1100, 1200, "TOO_LONG to 1100"),
    "a listed page that is short enough": (790, 900, "take it from TOO_LONG"),
})  # fmt: skip
def test_a_length_is_judged(words: int, allowed: int | None, problem: str) -> None:
    found = judge_length(words, allowed)
    assert problem in found and bool(problem) == bool(found)


def test_what_a_reader_does_not_see_is_not_counted() -> None:
    assert count_words("one two\n<!-- [[[cog\nfour five\n]]] -->\nthree\n<!-- [[[end]]] -->\n") == 3
