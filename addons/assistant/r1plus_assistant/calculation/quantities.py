"""Quantities in a text: numbers in digits or words, with the units after them."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from r1plus_assistant.calculation.lookalikes import BREAK, LOOKALIKES
from r1plus_assistant.calculation.units import NUMBER, Unit, find_base_unit, list_unit_words, make_unit

MOST_TEXT: Final = 2048
"""Characters of a question whose quantities are looked for."""
_SMALL: Final = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_TENS: Final = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS: Final = {
    **{word: number for number, word in enumerate(_SMALL, 2)},
    **{word: 10 * number for number, word in enumerate(_TENS, 3)},
    "dozen": 12,
}
"""Without `one`, which stands for a thing more often."""
FACTOR_WORDS: Final = {"half": Fraction(1, 2), "twice": Fraction(2), "double": Fraction(2), "triple": Fraction(3)}
_DIGITS: Final = (
    r"(?P<digits>(?<![\w.,/])(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,15}(?:\.\d{1,15})?)"
    r"(?![\d_]|[.,/]\d|(?:st|nd|rd|th)\b))"
)
_SPELLED: Final = rf"(?P<word>\b(?:{'|'.join([*NUMBER_WORDS, *FACTOR_WORDS])})\b)"
_MONEY: Final = r"(?:(?P<currency>[$\u20ac\u00a3])\s?)?"
_UNIT_WORDS: Final = "|".join(re.escape(word) for word in list_unit_words())
_UNIT: Final = rf"(?:{_UNIT_WORDS})(?![\w\u00b0])"
_QUANTITY: Final = re.compile(
    rf"(?P<part>\bhalf)\s+an?\s+(?P<whole>{_UNIT})"
    rf"|{_MONEY}(?:{_DIGITS}|{_SPELLED})"
    rf"(?:(?P<percent>\s?(?:%|\bper ?cent\b))|[ -]?(?P<unit>{_UNIT}))?"
    rf"(?:\s?(?:/|\bper\s|\ban?\s|\beach\s|\bevery\s)\s?(?P<per>{_UNIT}))?",
    re.IGNORECASE,
)
_HIDDEN: Final = ("an amount of money", "a range with a unit")
"""Look-alikes of an expression that are quantities, or hide some."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit, and where the text has it."""

    number: str
    """In the language of expressions: `12`, `1/2`, `15%`."""
    unit: Unit
    start: int
    end: int
    number_start: int
    number_end: int
    """Where its number is, without unit, currency and per cent sign."""

    @property
    def is_percentage(self) -> bool:
        """Whether it is a share."""
        return self.number.endswith("%")


def has_range(text: str) -> bool:
    """Return whether a text has a range of numbers, which is no quantity: 3-5 km."""
    return LOOKALIKES["a range with a unit"].search(text[:MOST_TEXT]) is not None


def find_quantities(text: str) -> list[Quantity]:
    """Return the quantities of a text in its order, without dates, times, versions and the like."""
    return [_read(match) for match in _QUANTITY.finditer(mask_names(text[:MOST_TEXT]))]


def mask_names(text: str) -> str:
    """Return a text of the same length without dates, times, versions and the like."""
    masked = text.replace(BREAK, " ")
    for name, pattern in LOOKALIKES.items():
        if name not in _HIDDEN:
            masked = pattern.sub(lambda match: BREAK * len(match.group()), masked)
    return masked


def _read(match: re.Match[str]) -> Quantity:
    if match["part"]:
        return Quantity("1/2", _find_unit(match["whole"]), match.start(), match.end(), *match.span("part"))
    unit = _read_unit(match)
    number = _read_number(match)
    place = match.span("digits" if match["digits"] else "word")
    if match["percent"]:
        number += "%"
    return Quantity(number, unit, match.start(), match.end(), *place)


def _read_number(match: re.Match[str]) -> str:
    if match["digits"]:
        return match["digits"].replace(",", "")
    word = match["word"].lower()
    return str(NUMBER_WORDS.get(word, FACTOR_WORDS.get(word)))


def _read_unit(match: re.Match[str]) -> Unit:
    word = match["currency"] or match["unit"]
    unit = _find_unit(word) if word else NUMBER
    return unit.per(_find_unit(match["per"])) if match["per"] else unit


def _find_unit(word: str) -> Unit:
    base = find_base_unit(word)
    return NUMBER if base is None else make_unit(base)
