"""Numbers that people write and the rules do not read: `2 million`, `1 000`, `2 1/2`, `twenty-one`, `1,5`, `-5`.

What is beside them would be read as a whole number, so a text with one of them is refused.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from r1plus_assistant.calculation.lookalikes import BREAK
from r1plus_assistant.calculation.quantities import FACTOR_WORDS, NUMBER_WORDS, Quantity, mask_names

SCALES: Final = (
    r"hundreds?|thousands?|(?:m|b|tr|quadr)illions?|milliards?|lakhs?|crores?|dozens|mio|mrd|tsd|mn|bn"
    r"|[a-z\u00e4\u00f6\u00fc\u00df]*(?:hundert|tausend)[a-z\u00e4\u00f6\u00fc\u00df]*|(?:b|m|tr)illionen|milliarden?|dutzend"
)
"""Words that multiply the number before them, in English and German."""
PARTS: Final = (
    r"quarters?|halves|thirds|fourths|fifths|sixths|sevenths|eighths|ninths|tenths|hundredths|thousandths"
    r"|(?:an?|one)\s+(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)"
    r"|and\s+(?:an?\s+|one\s+)?half"
)
"""Words for fractions; `half` alone is read."""
SIGNS: Final = r"\u00bc-\u00be\u2150-\u215e\u2189\u2030\u2031"
"""Fractions of one character, and per mille."""
_READ: Final = "|".join((*NUMBER_WORDS, *FACTOR_WORDS))
_DOUBTS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![a-z])(?:{SCALES}|{PARTS}|squared|cubed)(?![a-z])",
        rf"[{SIGNS}^]",
        rf"\b(?:{_READ})-[a-z]+|\b\d+(?:[.,]\d+)?-[a-z]{{2,}}",
        r"\d[\u00b2\u00b3\u2070-\u2079]|\b\d{1,3}(?:\.\d{3}){2,}\b|\bzero\b",
        r"\b\d{1,2}:\d{2}\s*(?:h|hours?|min|minutes?)\b",
        r"\d(?-i:[kK]\b|\s?M\b)",
        r"\b(?:USD|EUR|GBP|CHF|US)\$?\d",
        r"(?:^|[\s(])[-\u2212\u2013](?=[$\u20ac\u00a3]?\d)",
        r"\bnegative\s+(?=[\w$\u20ac\u00a3])|\bbelow\s+(?:zero|freezing)\b",
    )
)
_RANGE: Final = re.compile(r"\s+(?:[\u2013-]|or|to)\s+", re.IGNORECASE)
_FROM: Final = re.compile(r"\bfrom\s+$", re.IGNORECASE)
_ORDINAL: Final = re.compile(r"\b\d+(?:st|nd|rd|th)\b", re.IGNORECASE)
_CLOSE: Final = re.compile(r"[\s'\u2019-]*")
_OF_A: Final = re.compile(r"\s+(?:of\s+)?an?\s+", re.IGNORECASE)
_ONE: Final = re.compile(r"[\s-]+one\b", re.IGNORECASE)
_MINUS: Final = re.compile(r"\bminus\s+$", re.IGNORECASE)
_DIGIT: Final = re.compile(r"\d\S*")


def find_unread_number(text: str, quantities: Sequence[Quantity]) -> str | None:
    """Return a piece of a text that may belong to a number and is in none of its quantities; None if there is none."""
    for pattern in _DOUBTS:
        if match := pattern.search(text):
            return match.group().strip()
    for one in quantities:
        before = _MINUS.search(text, 0, one.start)
        if before and not any(other.end == len(text[: before.start()].rstrip()) for other in quantities):
            return text[before.start() : one.end]
        if not one.unit.powers and (match := _ONE.match(text, one.end)):
            return text[one.start : match.end()]
    for one, other in pairwise(quantities):
        if _belong_together(text, one, other):
            return text[one.start : other.end]
    match = _DIGIT.search(_ORDINAL.sub(BREAK, _mask_quantities(text, quantities)))
    return match.group().rstrip(".,;:?!") if match else None


def _belong_together(text: str, one: Quantity, other: Quantity) -> bool:
    """Return whether two numbers may be one: 1 000, two dozen, half a dozen, 2 to 3 boxes."""
    word, gap = text[one.number_start : one.number_end].lower(), text[one.end : other.start]
    if one.unit.powers or one.is_percentage:
        return False
    if _RANGE.fullmatch(gap) and ("-" not in gap or other.unit.powers):
        return not ("to" in gap.lower() and _FROM.search(text, 0, one.start))
    if word in FACTOR_WORDS and word != "half":
        return False  # twice 30: two numbers that are multiplied
    return bool(_CLOSE.fullmatch(gap) or _OF_A.fullmatch(gap))


def _mask_quantities(text: str, quantities: Sequence[Quantity]) -> str:
    """Return a text of the same length without its quantities, and without dates, versions and the like."""
    masked = mask_names(text)
    for one in quantities:
        masked = masked[: one.start] + BREAK * (one.end - one.start) + masked[one.end :]
    return masked
