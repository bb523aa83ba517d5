"""Pieces of a text that could be expressions: runs of numbers, signs, single letters and functions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from r1plus_contract.calculator_grammar.functions import ARITIES

MOST_PIECES: Final = 800
"""Of a run; no expression has more."""
_SIGNS: Final = {
    "\u00d7": "*",
    "\u00b7": "*",
    "\u22c5": "*",
    "\u00f7": "/",
    "\u2212": "-",
    "\u2013": "-",
    "**": "^",
    "\u00b2": "^2",
    "\u00b3": "^3",
    "\u03c0": "pi",
    "\u221e": "inf",
}
_NAMES: Final = "|".join(sorted((*ARITIES, "log"), key=len, reverse=True))
_TOKEN: Final = re.compile(
    r"(?P<grouped>(?<![\w.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w,]|\.\d))"
    r"|(?P<number>(?<![A-Za-z_.\d])(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+(?![\w.]))?(?!\.\d|,\d|[A-Za-z_]*_))"
    rf"|(?P<call>(?<![A-Za-z_])(?:{_NAMES})(?=\())"
    r"|(?P<name>(?<![A-Za-z_'\u2019])(?:pi|inf|[A-Za-z])(?![A-Za-z_0-9'\u2019]))"
    r"|(?P<of>(?<=%)\s+of\s+(?=[\d(.]))"
    r"|(?P<sign>\*\*|[-+*/^!%=()\[\],\u00d7\u00b7\u22c5\u00f7\u2212\u2013\u00b2\u00b3\u03c0\u221e])"
    r"|(?P<space>[ \t]+)"
)


_DIGITS: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Piece:
    """One sign of a span."""

    kind: str
    text: str
    """In the grammar of expressions."""
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Span:
    """A run of pieces; `start` and `end` are of the text."""

    pieces: tuple[Piece, ...]

    @property
    def start(self) -> int:
        """Where it begins."""
        return self.pieces[0].start

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.pieces[-1].end

    @property
    def text(self) -> str:
        """It in the grammar of expressions."""
        return "".join(piece.text for piece in self.pieces).strip()

    @property
    def is_compound(self) -> bool:
        """Return whether it is more than a number or a letter."""
        return any(piece.kind in ("sign", "call", "of") or piece.text in ("x", "X") for piece in self.pieces)

    def has(self, *signs: str) -> bool:
        """Return whether one of these signs is in it."""
        return any(piece.text in signs for piece in self.pieces)


def find_spans(text: str) -> Iterator[Span]:
    """Yield the runs of a text, from left to right, without what hangs loose at their ends."""
    pieces: list[Piece] = []
    position = depth = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        is_comma = match is not None and match.group() == ","
        if match is None or (is_comma and not depth):
            yield from _close(pieces)
            pieces, depth = [], 0
            position += 1
            continue
        kind = str(match.lastgroup)
        if kind == "grouped" and depth:
            # Within brackets a comma stands between arguments.
            match = _DIGITS.match(text, position)
            assert match is not None
            kind = "number"
        pieces.append(Piece(kind, _translate(kind, match.group()), match.start(), match.end()))
        depth = max(0, depth + (match.group() in "([") - (match.group() in ")]"))
        position = match.end()
    yield from _close(pieces)


def _translate(kind: str, text: str) -> str:
    if kind == "grouped":
        return text.replace(",", "")
    if kind == "of":
        return " * "
    return _SIGNS.get(text, text)


def _close(pieces: list[Piece]) -> Iterator[Span]:
    trimmed = _trim(pieces) if len(pieces) <= MOST_PIECES else []
    if trimmed:
        yield Span(tuple(trimmed))


def _trim(pieces: list[Piece]) -> list[Piece]:
    """Take away what no expression begins or ends with, and brackets without their other half."""
    last = None
    while pieces and last != pieces:
        last = list(pieces)
        while pieces and (pieces[-1].kind == "space" or pieces[-1].text in "+-*/^,(["):
            pieces = pieces[:-1]
        while pieces and (pieces[0].kind == "space" or pieces[0].text in "*/^,)]!%="):
            pieces = pieces[1:]
        surplus = sum(piece.text in "([" for piece in pieces) - sum(piece.text in ")]" for piece in pieces)
        if pieces and surplus < 0 and pieces[-1].text in ")]":
            pieces = pieces[:-1]
        if pieces and surplus > 0 and pieces[0].text in "([":
            pieces = pieces[1:]
        pieces = _trim_letters(pieces)
    return pieces


def _trim_letters(pieces: list[Piece]) -> list[Piece]:
    """Take away a letter that is a word, such as the article a, from both ends."""
    if len(pieces) > 2 and pieces[0].kind == "name" and pieces[1].kind == "space":
        follower = pieces[2]
        if follower.kind in ("number", "grouped", "name", "call") or follower.text in "([":
            return pieces[2:]
    if len(pieces) > 2 and pieces[-1].kind == "name" and pieces[-2].kind == "space":
        leader = pieces[-3]
        if leader.kind in ("number", "grouped", "name") or leader.text in ")]!":
            return pieces[:-2]
    return pieces
