"""Measured figures on pages come from records: cog writes them, and none is typed beside it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cogapp import Cog

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
BEGIN, END = "<!-- [[[cog", "<!-- [[[end]]] -->"
GENERATED = tuple(page for page in PAGES if BEGIN in page.read_text())
LEFT_OUT = re.compile(rf"^```.*?^```$|{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL | re.MULTILINE)
"""Examples in fences, and what cog writes."""
LINK = re.compile(r"\]\([^)\s]*\)")
MEASURING = re.compile(
    r"\b(?:measured|took|takes|median|average|percentile|p50|p95|p99|(?:tokens|requests) (?:per|a) second|tokens/s"
    r"|quiet(?:er)? machine|busy (?:cores|machine)|at a load|times (?:faster|slower|cheaper|as (?:long|fast|much)))\b|× (?:faster|as)"
)
UNITS = "ns|µs|ms|s|seconds?|minutes?|hours?|%|per cent|[KMG]i?B|kB|bytes|tokens|requests|chunks|times|cores?|CPUs?"
FIGURE = re.compile(rf"(?<![\w.])\d[\d,.]*[ -]?(?:{UNITS})(?!\w)|\b\d+ of \d+\b")
NO_MEASUREMENTS = (
    "Batch 32 on an A100, +35 % with TensorRT and 64K of context are its publisher's claims",
    "None waits longer than 0.3 s for the rest",
    "The gateway cuts off a client that takes no byte of any answer for 30 s",
    "A file that takes longer than 20 s gives the others their turn.",
    "The goals are 20 ms for 10,000 chunks and 100 ms for 100,000",
    "the model left out a number, wrote no expression, or took more than 60 s",
    "`credit` requests 4.7 GiB of memory and takes up to 2 CPUs",
)
"""How sentences begin that have limits, goals, requests or claims of others."""


def list_sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a page, without its fences and without what cog writes.

    A row of a table whose head has a word of measuring is one sentence with that head.
    """
    lines = LINK.sub("]", LEFT_OUT.sub("\n", text)).splitlines()
    paragraph, head = "", ""
    for line in (*lines, ""):
        if line.startswith("|"):
            yield from [f"{head} {line}"] if MEASURING.search(head) else split_sentences(line.replace("|", "\n"))
            head = head or line
            continue
        head = ""
        if not line.strip() or re.match(r"#|\s*(?:[-*>]|\d+\.) ", line):
            yield from split_sentences(paragraph)
            paragraph = ""
        paragraph += f" {line.strip()}"
        if line.startswith("#"):
            yield from split_sentences(paragraph)
            paragraph = ""
    yield from split_sentences(paragraph)


def split_sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a paragraph, a heading, an item of a list, or the cells of a table's row."""
    for one in re.split(r"(?<=[.?!:;])\**\s+|\n", text):
        yield re.sub(r"^(?:[-*>#]+|\d+\.)\s+", "", one.strip())


def find_typed_figures(text: str) -> list[str]:
    """Return the sentences of a page that have a word of measuring and a number with its unit."""
    return [
        one
        for one in list_sentences(text)
        if MEASURING.search(one) and FIGURE.search(one) and not one.startswith(NO_MEASUREMENTS)
    ]


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.stem)
def test_a_page_prints_what_the_records_say(page: Path) -> None:
    text = page.read_text()
    assert Cog().process_string(text, str(page)) == text, "run `make generate`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_measured_figure_is_typed(page: Path) -> None:
    assert find_typed_figures(page.read_text()) == []


@pytest.mark.parametrize("sentence", NO_MEASUREMENTS)
def test_what_is_no_measurement_is_still_on_a_page(sentence: str) -> None:
    assert any(one.startswith(sentence) for page in PAGES for one in list_sentences(page.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "It is fast. On two cores\nit took 9.5 s.",
        "- first\n- The p99 was\n  12 ms",
        "## Cost\n| a search | median |\n|---|---|\n| of words | 7 ms |",
        "| a | b |\n|---|---|\n| it is right | 98 of 100 were right, as measured |",
        "1. [Measured](#x): it is 3 times as fast",
    ],
    ids=["a sentence over two lines", "an item of a list", "a table's row", "a cell", "a ratio"],
)
def test_a_typed_figure_is_found(text: str) -> None:
    assert len(find_typed_figures(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "It took long.\nThe limit is 9 s.",
        "It takes part 3 of the file, [measured](page-of-9-s.md)",
        "```text\nit took 9.5 s\n```",
        f"{BEGIN} cog.outl('x') ]]] -->\nIt took 9.5 s.\n{END}",
        "| a | b |\n|---|---|\n| it takes long | at most 9 s |",
    ],
    ids=["two sentences", "no unit", "an example", "what cog writes", "two cells"],
)
def test_no_figure_is_found_where_there_is_none(text: str) -> None:
    assert find_typed_figures(text) == []
