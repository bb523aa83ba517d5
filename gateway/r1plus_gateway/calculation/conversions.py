"""Questions that ask for a quantity in another unit: how many metres are 3 km and 250 m. By rules, and exactly."""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from r1plus_gateway.calculation.quantities import MOST_TEXT, Quantity, find_quantities
from r1plus_gateway.calculation.units import (
    BaseUnit,
    Unit,
    describe_dimension,
    find_base_unit,
    list_unit_words,
    make_unit,
)

_WORD: Final = rf"(?P<unit>(?:{'|'.join(re.escape(word) for word in list_unit_words())})(?!\w))"
_HOW_MANY: Final = re.compile(rf"\bhow (?:many|much)\s+{_WORD}", re.IGNORECASE)
_INTO: Final = re.compile(
    rf"\b(?P<verb>(?:convert|change|express|turn|write|what(?:'s| is| are))\b[^.?!\n]{{0,80}}?)\s(?:to|into|in|as)\s+"
    rf"{_WORD}\s*(?:[.?!]|$)",
    re.IGNORECASE,
)
_JOIN: Final = re.compile(r"\s*(?:,|and|plus|\+|,\s*and)?\s*", re.IGNORECASE)
_LINK: Final = re.compile(
    r"\s*(?:are there in|is there in|are|is|makes?|in|equals?|do|does)?\s*"
    r"(?:an? (?:difference|rise|fall|drop|change) of)?\s*",
    re.IGNORECASE,
)
_REFERS: Final = re.compile(r"\s*(?:is|are|was|were|does|do)\s+(?:that|this|it|they)\b", re.IGNORECASE)
_DIFFERENCE: Final = re.compile(
    r"\b(?:differen\w+|ris\w+|rose|fall\w*|fell|drop\w*|warmer|colder|cooler|hotter|increas\w+|decreas\w+)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """A sum of quantities in the unit that is asked for, in the language of expressions."""

    expression: str
    unit: Unit
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a quantity cannot be had in the unit that is asked for."""

    message: str


def find_asked_unit(text: str) -> BaseUnit | None:
    """Return the unit that the last question of a text asks for: how many metres."""
    matches = list(_HOW_MANY.finditer(text[:MOST_TEXT]))
    return find_base_unit(matches[-1]["unit"]) if matches else None


def find_conversion(text: str) -> Conversion | Misfit | None:
    """Return the one conversion that a text asks for; None if it asks for none.

    The text has no other quantity: with a further one, more than a conversion may be meant.
    """
    text = text[:MOST_TEXT]
    quantities = find_quantities(text)
    asked = _find_request(text, quantities)
    if asked is None:
        return None
    unit = make_unit(asked)
    for one in quantities:
        if one.unit.dimension != unit.dimension:
            said = text[one.start : one.end]
            kind, other = describe_dimension(one.unit), describe_dimension(unit)
            return Misfit(f"{said} is {kind}, and {asked.symbol} measures {other}; ask for a unit that fits")
    if asked.dimension == "temperature" and not _DIFFERENCE.search(text):
        return Misfit(
            "a temperature has no fixed factor to another scale; only differences of temperature are converted, so say"
            " that it is one"
        )
    terms = [_write_term(one, unit) for one in quantities]
    return Conversion(" + ".join(terms), unit, quantities[0].start, quantities[-1].end)


def _find_request(text: str, quantities: list[Quantity]) -> BaseUnit | None:
    """Return the unit that all quantities, which follow one another, are asked for in."""
    if not quantities or not all(one.unit.dimension for one in quantities):
        return None
    gaps = [text[one.end : other.start] for one, other in pairwise(quantities)]
    if not all(_JOIN.fullmatch(gap) for gap in gaps):
        return None
    first, last = quantities[0], quantities[-1]
    for match in _HOW_MANY.finditer(text):
        is_before = match.end() <= first.start and _LINK.fullmatch(text[match.end() : first.start])
        is_after = match.start() >= last.end and _REFERS.match(text, match.end())
        if is_before or is_after:
            return find_base_unit(match["unit"])
    into = _INTO.search(text)
    if into is not None and into.start() <= first.start and last.end <= into.start("unit"):
        return find_base_unit(into["unit"])
    return None


def _write_term(one: Quantity, unit: Unit) -> str:
    ratio = Fraction(one.unit.factor, unit.factor)
    return write_scaled(one.number, ratio)


def write_scaled(number: str, ratio: Fraction) -> str:
    """Return a number times an exact ratio, in the language of expressions."""
    if ratio == 1:
        return number
    product = number if ratio.numerator == 1 else f"{number} * {ratio.numerator}"
    return product if ratio.denominator == 1 else f"{product} / {ratio.denominator}"
