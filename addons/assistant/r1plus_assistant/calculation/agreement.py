"""Whether a model's prose has a calculated result: its numbers are compared with the result's."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

MOST_TEXT: Final = 65_536
_NUMBER: Final = re.compile(
    r"(?<![\w.,])(?P<sign>[-\u2212]\s?)?[$\u20ac\u00a3]?(?P<whole>\d{1,3}(?:[, ]\d{3})+|\d{1,40})"
    r"(?:\.(?P<part>\d{1,40}))?(?:\s?/\s?(?P<below>\d{1,40}))?(?![\w]|[.,]\d)"
)
_WHOLE: Final = r"\d{1,4096}"
_DIVISOR: Final = r"(?=\d*[1-9])\d{1,4096}"
_EXACT: Final = re.compile(r"(?<![\w./])(-?\d{1,400})(?:/((?=\d*[1-9])\d{1,400}))?(?![\w.(/])")
_PLAIN: Final = re.compile(r"[-\d/\s,=\[\]a-zA-Z]*")


def compare_prose(prose: str, exact: str | None, numeric: str | None) -> bool | None:
    """Return whether the prose has the result, or each of several; None if there is nothing to compare.

    A rounded number counts: 3.14 is pi to its two digits. Prose without a number says nothing.
    """
    results = list(_read_results(exact, numeric))
    said = list(_read_numbers(prose[:MOST_TEXT]))
    if not results or not said:
        return None
    return all(any(_is_same(number, step, result) for number, step in said) for result in results)


def _read_results(exact: str | None, numeric: str | None) -> Iterator[Fraction]:
    """Yield the numbers of a result; none of one with functions or free variables."""
    if exact is not None and re.fullmatch(rf"-?{_WHOLE}(?:/{_DIVISOR})?", exact):
        yield Fraction(exact)
        return
    if exact is not None and exact.startswith("[") and _PLAIN.fullmatch(exact):
        for match in _EXACT.finditer(exact):
            yield Fraction(int(match[1]), int(match[2] or 1))
        return
    if numeric is not None and re.fullmatch(r"-?\d{1,100}(?:\.\d{1,100})?(?:e-?\d{1,3})?", numeric):
        yield Fraction(numeric)


def _read_numbers(prose: str) -> Iterator[tuple[Fraction, Fraction]]:
    """Yield the numbers of a text, each with the value of its last digit."""
    for match in _NUMBER.finditer(prose):
        part = match["part"] or ""
        digits = re.sub(r"\D", "", match["whole"]) + part
        value, step = Fraction(int(digits), 10 ** len(part)), Fraction(1, 10 ** len(part))
        if match["below"] and int(match["below"]):
            value, step = value / int(match["below"]), Fraction(0)
        yield (-value if match["sign"] else value), step


def _is_same(number: Fraction, step: Fraction, result: Fraction) -> bool:
    """Return whether a number is the result, or what it is rounded to. Whole numbers round nothing."""
    if step in (0, 1):
        return number == result
    return abs(number - result) <= step / 2
