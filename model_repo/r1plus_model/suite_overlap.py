"""Training data that holds questions of a golden suite: a gate that was trained on measures nothing. Needs no torch."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_contract.suite import Suite

_WORD: Final = re.compile(r"\w+|[-+*/=<>^%]")
"""Words and signs of arithmetic; other punctuation, case and white space do not matter."""
_INDEXED: Final = 3
"""Words of a question by which it is found."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A question of a suite in the data."""

    line: int
    suite: str
    item: str


class SuiteIndex:
    """The questions of golden suites, to be found in texts."""

    def __init__(self, suites: Iterable[Suite]) -> None:
        self._short: dict[tuple[str, ...], tuple[str, str]] = {}
        self._long: dict[tuple[str, ...], list[tuple[tuple[str, ...], str, str]]] = defaultdict(list)
        for suite in suites:
            for item in suite.items:
                words = split_words(item.prompt)
                if len(words) < _INDEXED:
                    self._short[words] = (suite.header.name, item.id)
                else:
                    self._long[words[:_INDEXED]].append((words, suite.header.name, item.id))

    def find(self, line: int, text: str) -> Overlap | None:
        """Return the first question that the text holds, or that it is, if the question has one or two words."""
        words = split_words(text)
        if whole := self._short.get(words):
            return Overlap(line, *whole)
        for start in range(len(words) - _INDEXED + 1):
            for question, suite, item in self._long.get(words[start : start + _INDEXED], ()):
                if words[start : start + len(question)] == question:
                    return Overlap(line, suite, item)
        return None


def split_words(text: str) -> tuple[str, ...]:
    """Return the words that are compared."""
    return tuple(_WORD.findall(text.casefold()))


def describe_overlaps(overlaps: Sequence[Overlap], most: int = 5) -> str:
    """Return the first of them as text."""
    named = ", ".join(f"line {one.line} has {one.suite}/{one.item}" for one in overlaps[:most])
    return named + (f" and {len(overlaps) - most} more" if len(overlaps) > most else "")
