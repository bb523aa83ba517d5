"""Questions that ask for a quantity in another unit: how many metres are 3 km and 250 m. By rules, and exactly."""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from r1plus_assistant.calculation.lookalikes import BREAK
from r1plus_assistant.calculation.quantities import MOST_TEXT, Quantity, find_quantities, mask_names
from r1plus_assistant.calculation.units import (
    BaseUnit,
    Unit,
    describe_dimension,
    find_base_unit,
    list_unit_words,
    make_unit,
)
from r1plus_assistant.calculation.unread_numbers import find_unread_number

_WORD: Final = rf"(?P<unit>(?:{'|'.join(re.escape(word) for word in list_unit_words())})(?!\w))"
_HOW_MANY: Final = re.compile(rf"\bhow (?:many|much)\s+{_WORD}", re.IGNORECASE)
_UNIT_AFTER: Final = re.compile(rf"\s?{_WORD}", re.IGNORECASE)
_INTO: Final = re.compile(
    r"\b(?P<verb>(?:convert|change|express|turn|write|what(?:'s| is| are))\b(?:[^.?!\n]|\.(?=\d)){0,80}?)"
    rf"\s(?:to|into|in|as)\s+{_WORD}\s*(?:[.?!]|$)",
    re.IGNORECASE,
)
_JOIN: Final = re.compile(r"\s*(?:,|and|plus|\+|,\s*and)?\s*", re.IGNORECASE)
_LINK: Final = re.compile(
    r"\s*(?:(?:are|is)\s+(?:there\s+)?in|are|is|makes?|in|equals?|do|does)?\s*"
    r"(?P<difference>an?\s+(?:temperature\s+)?(?:difference|rise|fall|drop|change|increase|decrease)\s+of)?\s*",
    re.IGNORECASE,
)
_REFERS: Final = re.compile(
    r"\s*(?:is|are|was|were|does|do)\s+(?:that|this|it|they)(?:\s+(?:take|make|last|have))?\b",
    re.IGNORECASE,
)
_CLOSE: Final = r"(?:\s+(?:have|has|make|equal|contain|exactly|altogether|in\s+total|please)\b|,\s*please\b)?"
_ENDS: Final = re.compile(rf"{_CLOSE}\s*(?:[.?!]+(?=\s|$)|$)", re.IGNORECASE)
_VERB: Final = re.compile(
    r"(?:convert|change|express|turn|write|what(?:'s| is| are))(?:\s+the\s+(?:length|distance|time|duration|mass|weight"
    r"|volume|amount)\s+of)?\s*:?\s*(?P<difference>an?\s+(?:temperature\s+)?"
    r"(?:difference|rise|fall|drop|change|increase|decrease)\s+of)?\s*",
    re.IGNORECASE,
)
_STATES: Final = re.compile(
    r"\s*(?:an?|the|my|our|your|his|her|their|its|this|that|it|i|we|he|she|you)\s+(?P<subject>(?:\w+\s+){0,3}?)"
    r"(?:is|was|lasts|lasted|takes|took|weighs|weighed|measures|measured|has|had|holds|held|needs|needed|runs|ran"
    r"|walks|walked|drives|drove|covers|covered|contains|contained|(?P<difference>(?:rose|fell|dropped|increased"
    r"|decreased|rises|falls|drops|increases|decreases)\s+by))\s+(?:exactly\s+)?",
    re.IGNORECASE,
)
_SEVERAL: Final = re.compile(
    r"\b(?:both|each|every|all|another|again|times|more|less|fewer|than|not|never|minus|without|except|but|from|to"
    r"|between|after|before|until|or|and|pair|couple|few|several|many|some|other|rest|remaining|average)\b",
    re.IGNORECASE,
)
"""Words of a subject that may change how much is meant."""
_WARMER: Final = re.compile(r"\s+(?:warmer|colder|cooler|hotter)\b", re.IGNORECASE)
_THEN: Final = re.compile(r"\s*[.;,:!]?\s*(?:(?:so|and)\s+)?", re.IGNORECASE)
_UNIT_WORDS: Final = "|".join(re.escape(word) for word in list_unit_words() if len(word) > 1)
_SYMBOLS: Final = "".join(re.escape(word) for word in list_unit_words() if len(word) == 1)
_OUTSIDE: Final = re.compile(
    rf"(?<![\w'\u2019])(?i:{_UNIT_WORDS}|months?|years?|decades?|centur(?:y|ies)|pounds?|pints?|gallons?|stones?|tons?"
    rf"|one|zero|nil|once|couple|pair|score|halve|add|subtract|multiply|divide|squared?|cubed?|plus|minus|times|less|more"
    rf"|without|except|both|each|every|per|average|sum)(?!\w)|(?<![\w'\u2019])[{_SYMBOLS}](?!\w)"
)
"""Units, numbers that are no quantities, and what else is to be done with an amount."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A sum of quantities in the unit that is asked for, in the language of expressions."""

    expression: str
    unit: Unit
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ConversionRefusal:
    """Why a quantity cannot be had in the unit that is asked for, with the code of the refusal."""

    message: str
    code: str = "units_do_not_fit"


@dataclass(frozen=True, slots=True)
class _Request:
    """A request for a unit, and whether nothing around it leaves a doubt."""

    asked: BaseUnit
    is_certain: bool
    is_difference: bool
    """Whether it says, next to the quantity, that it is a difference."""


def has_other_unit(text: str, end: int) -> bool:
    """Return whether what ends at a place has a unit after it, and the text asks for another one: 15% of 3 km in m."""
    unit = _UNIT_AFTER.match(text, end)
    if unit is None:
        return False
    asked = [match for pattern in (_HOW_MANY, _INTO) for match in pattern.finditer(text[:MOST_TEXT])]
    base = find_base_unit(unit["unit"])
    return any(find_base_unit(match["unit"]) != base for match in asked)


def find_conversion(text: str) -> Conversion | ConversionRefusal | None:
    """Return the one conversion that a text asks for; None if it asks for none.

    Its result counts as verified, so the text has to leave no doubt: with anything around the quantities that is not
    understood, another number or another unit, nothing is converted.
    """
    if len(text) > MOST_TEXT:
        return None
    quantities = find_quantities(text)
    request = _find_request(text, quantities)
    if request is None:
        return None
    unit = make_unit(request.asked)
    for one in quantities:
        said = text[one.start : one.end]
        if one.unit.dimension != unit.dimension:
            kind, other = describe_dimension(one.unit), describe_dimension(unit)
            return ConversionRefusal(f"{said} is {kind}, and {unit.symbol} measures {other}; ask for a unit that fits")
    said = text[quantities[0].start : quantities[0].end]
    if request.asked.dimension == "temperature" and not (request.is_difference and len(quantities) == 1):
        return ConversionRefusal(
            "a temperature has no fixed factor to another scale; only differences of temperature are converted, so say"
            f" that it is one: How many {unit.symbol} is a difference of {said}?"
        )
    if not request.is_certain or not _is_one_amount(text, quantities):
        if len(quantities) > 1:
            return None
        return ConversionRefusal(
            f"the text may mean more than {said} in another unit; send only this: How many {unit.symbol} are {said}?",
            "ambiguous_numbers",
        )
    terms = [_write_term(one, unit) for one in quantities]
    return Conversion(" + ".join(terms), unit, quantities[0].start, quantities[-1].end)


def _find_request(text: str, quantities: list[Quantity]) -> _Request | None:
    """Return the unit that all quantities, which follow one another, are asked for in."""
    if not quantities or not all(one.unit.dimension for one in quantities):
        return None
    gaps = [text[one.end : other.start] for one, other in pairwise(quantities)]
    if not all(_JOIN.fullmatch(gap) for gap in gaps):
        return None
    first, last = quantities[0], quantities[-1]
    for match in _HOW_MANY.finditer(text):
        asked = find_base_unit(match["unit"])
        if asked is None:
            continue
        if match.end() <= first.start and (link := _LINK.fullmatch(text, match.end(), first.start)):
            is_certain = bool(_ENDS.match(text, last.end))
            rest = _has_clear_rest(text, quantities, match.start("unit"), match.end("unit"))
            return _Request(asked, is_certain and rest, bool(link["difference"]))
        if match.start() >= last.end and (refers := _REFERS.match(text, match.end())):
            return _read_statement(text, quantities, match, refers.end(), asked)
    into = _INTO.search(text)
    if into is None or not (into.start() <= first.start and last.end <= into.start("unit")):
        return None
    asked = find_base_unit(into["unit"])
    if asked is None:
        return None
    verb = _VERB.fullmatch(text, into.start(), first.start)
    is_certain = verb is not None and last.end == into.end("verb")
    rest = _has_clear_rest(text, quantities, into.start("unit"), into.end("unit"))
    return _Request(asked, is_certain and rest, bool(verb and verb["difference"]))


def _read_statement(text: str, quantities: list[Quantity], match: re.Match[str], end: int, asked: BaseUnit) -> _Request:
    """Read a question about the sentence before it, which alone is before it: A film lasts 2 hours. How many …?"""
    first, last = quantities[0], quantities[-1]
    states = _STATES.fullmatch(text, 0, first.start)
    warmer = _WARMER.match(text, last.end)
    then = warmer.end() if warmer else last.end
    is_certain = (
        states is not None
        and not _SEVERAL.search(states["subject"])
        and bool(_THEN.fullmatch(text, then, match.start()))
        and bool(_ENDS.match(text, end))
        and _has_clear_rest(text, quantities, match.start("unit"), match.end("unit"))
    )
    is_difference = bool(warmer or (states and states["difference"]))
    return _Request(asked, is_certain, is_difference and is_certain)


def _has_clear_rest(text: str, quantities: list[Quantity], start: int, end: int) -> bool:
    """Return whether no number and no unit is outside the quantities and the unit that is asked for."""
    if find_unread_number(text, quantities) is not None:
        return False
    outside = mask_names(text)
    for place, last in ((quantities[0].start, quantities[-1].end), (start, end)):
        outside = outside[:place] + BREAK * (last - place) + outside[last:]
    return not _OUTSIDE.search(outside)


def _is_one_amount(text: str, quantities: list[Quantity]) -> bool:
    """Return whether several quantities are one amount, from the largest unit to the smallest, or are added by a word.

    3 km and 5 km may be two amounts, each of which is to be converted.
    """
    return all(
        one.unit.factor > other.unit.factor or text[one.end : other.start].strip().lower() in ("plus", "+")
        for one, other in pairwise(quantities)
    )


def _write_term(one: Quantity, unit: Unit) -> str:
    ratio = Fraction(one.unit.factor, unit.factor)
    return write_scaled(one.number, ratio)


def write_scaled(number: str, ratio: Fraction) -> str:
    """Return a number times an exact ratio, in the language of expressions."""
    if ratio == 1:
        return number
    product = number if ratio.numerator == 1 else f"{number} * {ratio.numerator}"
    return product if ratio.denominator == 1 else f"{product} / {ratio.denominator}"
