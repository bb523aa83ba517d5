"""Training data that holds questions of a golden suite: a gate that was trained on measures nothing. Needs no torch."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_contract.suites.suite import Suite

_SIGNS: Final = frozenset("-+*/=<>^%")
_UNSPACED: Final = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Letters of scripts without spaces: Thai, Lao, Burmese, Khmer, Japanese and Chinese."""
_TOKEN: Final = re.compile(
    rf"(?<![^\W_{_UNSPACED}])-\d[^\W_{_UNSPACED}]*|(?!\W)[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[-+*/=<>^%]"
)
"""Negative numbers, words, letters of scripts without spaces, and signs; other punctuation and case do not matter."""
_UNSPACED_LETTER: Final = re.compile(f"[{_UNSPACED}]")
_TYPOGRAPHIC_SIGNS: Final = str.maketrans(
    dict.fromkeys("−–—‐‑‒", "-") | dict.fromkeys("×·⋅∙", "*") | dict.fromkeys("÷∕⁄", "/")
)
_POWERS: Final = str.maketrans({"²": "^2", "³": "^3"})
_TIMES: Final = re.compile(r"(?<=\d)\s*x\s*(?=\d)")
_INDEXED: Final = 3
"""Words of a question by which it is found."""
_INDEXED_LETTERS: Final = 2 * _INDEXED
"""Letters of a question in a script without spaces, of which a word has some two."""


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
                if not words:
                    continue  # Nothing of it can be found.
                if len(words) < (_INDEXED_LETTERS if all(map(_UNSPACED_LETTER.match, words)) else _INDEXED):
                    self._short[words] = (suite.header.name, item.id)
                else:
                    self._long[words[:_INDEXED]].append((words, suite.header.name, item.id))

    def find(self, line: int, text: str) -> Overlap | None:
        """Return the first question that the text holds. One of two words, or five letters, must be the whole text."""
        words = split_words(text)
        if whole := self._short.get(words):
            return Overlap(line, *whole)
        for start in range(len(words) - _INDEXED + 1):
            for question, suite, item in self._long.get(words[start : start + _INDEXED], ()):
                if words[start : start + len(question)] == question:
                    return Overlap(line, suite, item)
        return None


def split_words(text: str) -> tuple[str, ...]:
    """Return the words that are compared. Signs are among them between numbers and single letters alone.

    Elsewhere they are hyphens, dashes and Markdown's emphasis, which would hide a question.
    """
    words: list[str] = []
    signs: list[str] = []
    for token in _TOKEN.findall(_fold(text)):
        if token in _SIGNS:
            signs.append(token)
            continue
        if words and _is_operand(words[-1]) and _is_operand(token):
            words += signs
            if token[0] == "-":
                words.append("-")
                token = token[1:]
        signs.clear()
        words.append(token)
    return tuple(words)


def _is_operand(word: str) -> bool:
    return not word.isalpha() or (len(word) == 1 and not _UNSPACED_LETTER.match(word))


def _fold(text: str) -> str:
    """Return the text without case, with one form of each letter and sign, and without invisible characters."""
    if text.isascii():
        folded = text.lower()
    else:
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_POWERS)).casefold())
        seen = "".join(one for one in text if unicodedata.category(one) not in ("Cf", "Mn"))
        folded = seen.translate(_TYPOGRAPHIC_SIGNS)
    return _TIMES.sub(" * ", folded)


def describe_overlaps(overlaps: Sequence[Overlap], most: int = 5) -> str:
    """Return the first of them as text."""
    named = ", ".join(f"line {one.line} has {one.suite}/{one.item}" for one in overlaps[:most])
    return named + (f" and {len(overlaps) - most} more" if len(overlaps) > most else "")
