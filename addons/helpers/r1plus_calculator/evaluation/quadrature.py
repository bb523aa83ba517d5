"""Definite integrals as numbers, by mpmath's quadrature between corners and places where an integrand may be narrow.

Quadrature that looks between them sees nothing of a peak: exp(-10000*(x - 3)^2) from -1000 to 1000 would be 0.
"""

from bisect import bisect
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Final

from mpmath import mp

from r1plus_calculator.evaluation.corners import find_corners, is_near, scan
from r1plus_calculator.evaluation.numbers import UncertainError, Value, convert, evaluate, is_finite, is_real
from r1plus_contract.calculator_grammar.functions import list_variables
from r1plus_contract.calculator_grammar.tree import FunctionCall, Name, Node, walk

QUADRATURE_DIGITS: Final = 20
_THIRDS: Final = 3
_MOST_PARTS: Final = 24
"""Of an integrand that is looked through: each is evaluated at some places."""
_MOST_PLACES: Final = 6
_MOST_ZEROS: Final = 4
"""Of one part: more are of one that swings, and no places of peaks."""
_POLE_POWERS: Final = (6, 10)
"""An integrand is compared at so many decimal places from where it may have no value."""
_POLE_SIZE: Final = mp.mpf(10) ** -9
"""Less than this is no pole: what is lost there cannot be seen in the result."""
_INSIDE: Final = (mp.mpf(10) ** -11, mp.mpf(10) ** -8, mp.mpf(10) ** -5)
"""How far from a corner an integrand has a value again: so many parts of the way to the next one."""
_START: Final = Fraction(1, 7)
"""Where parts are evaluated first: none is special there."""


def integrate_numerically(tree: FunctionCall) -> tuple[Value, bool]:
    """Return a definite integral by quadrature, and whether its error is small.

    Raises:
        UncertainError: it cannot be computed.
    """
    function, name, low, high = read_integral(tree)
    if low > high:
        value, is_sure = integrate_numerically(
            FunctionCall(tree.function, (*tree.arguments[:2], *tree.arguments[:1:-1]))
        )
        return -value, is_sure
    with mp.workdps(QUADRATURE_DIGITS):
        corners = find_corners(function, name, low, high)
        ends = sorted([*corners, *(end for end in _split(low, high) if not _is_among(end, corners))])
        places = [place for place in find_narrow_places(function, name, low, high) if not _is_among(place, ends)]
        every = sorted([*ends, *places])

        def compute(value: Value) -> Value:
            return convert(evaluate(function, {name: value}))

        inner = _compute_inside(compute, every) if corners else compute
        try:
            value, is_sure = _integrate(inner, every)
        except UncertainError:
            if not places:
                raise
            value, is_sure = _integrate(inner, ends)  # it has no value at one of them
        return value, is_sure and not any(_has_pole(inner, place, every) for place in every)


def read_integral(tree: FunctionCall) -> tuple[Node, str, Value, Value]:
    """Return integrand, variable and bounds of a definite integral.

    Raises:
        UncertainError: it has none that are numbers.
    """
    function, name = tree.arguments[0], tree.arguments[1]
    if not isinstance(name, Name):
        raise UncertainError("no variable")
    low, high = (convert(evaluate(argument, {})) for argument in tree.arguments[2:])
    if not is_real(low) or not is_real(high):
        raise UncertainError("a bound is no real number")
    return function, name.name, low, high


def _is_among(place: Value, places: Sequence[Value]) -> bool:
    return any(is_near(place, other) for other in places)


def _compute_inside(compute: Callable[[Value], Value], places: Sequence[Value]) -> Callable[[Value], Value]:
    """Return an integrand that takes its value a little further inside where it has none next to a corner."""

    def compute_inside(value: Value) -> Value:
        try:
            return compute(value)
        except UncertainError:
            after = min(max(bisect(places, value), 1), len(places) - 1)
            start, end = places[after - 1], places[after]
            if mp.isinf(start) or mp.isinf(end):
                raise
            for share in _INSIDE:
                with suppress(UncertainError):
                    margin = (end - start) * share
                    return compute(min(max(value, start + margin), end - margin))
            raise

    return compute_inside


def _split(low: Value, high: Value) -> list[Value]:
    if mp.isinf(low) and mp.isinf(high):
        return [low, mp.mpf(0), high]
    if mp.isinf(low) or mp.isinf(high):
        return [low, high]
    return [low + (high - low) * step / _THIRDS for step in range(_THIRDS + 1)]


def _integrate(compute: Callable[[Value], Value], places: Sequence[Value]) -> tuple[Value, bool]:
    value, error = mp.quad(compute, places, error=True, maxdegree=6)
    return value, bool(error < mp.mpf(10) ** -10 * (1 + abs(value)))


def _has_pole(compute: Callable[[Value], Value], place: Value, places: Sequence[Value]) -> bool:
    """Return whether an integrand grows towards a place as 1/x does, or faster; then it has no integral.

    Quadrature from the place on sees one large value there, and its error is small beside that.
    """
    if mp.isinf(place):
        return False
    size = 1 + abs(place)
    for side in (-1, 1):
        far, near = (place + side * size * mp.mpf(10) ** -power for power in _POLE_POWERS)
        if not min(places) < far < max(places):
            continue
        try:
            before, behind = (abs(compute(one)) * abs(one - place) for one in (far, near))
        except UncertainError:
            return True
        if behind > _POLE_SIZE and behind > before / 2:
            return True
    return False


def find_narrow_places(function: Node, name: str, low: Value, high: Value) -> list[Value]:
    """Return zeros and turning points of an integrand's parts, between its bounds; at most some.

    A peak is where something in it is 0 or turns: (x - 3)^2, x^2 - 6*x + 10.
    """
    parts = [part for part in dict.fromkeys(walk(function)) if name in list_variables(part)]
    if low > high or len(parts) > _MOST_PARTS or any(set(list_variables(part)) != {name} for part in parts):
        return []
    places: list[Value] = []
    for part in reversed(parts):  # the innermost first
        for place in _find_own_places(part, name, low, high):
            if low < place < high and not _is_among(place, places) and len(places) < _MOST_PLACES:
                places.append(place)
    return places


def _find_own_places(part: Node, name: str, low: Value, high: Value) -> list[Value]:
    """Return zeros and the turning point of one part."""
    try:
        values = [convert(evaluate(part, {name: _START + step})) for step in range(4)]
    except UncertainError:
        values = []
    if not values or not all(is_finite(value) and is_real(value) for value in values):
        return []
    one, two, three, four = (mp.re(value) for value in values)
    size = sum(abs(value) for value in values)
    if abs(four - 3 * three + 3 * two - one) <= size * mp.mpf(10) ** -15:
        half = (three - 2 * two + one) / 2
        return [convert(_START) + step for step in _solve_quadratic(half, two - one - half, one, size)]
    zeros = list(scan(part, name, low, high))
    return zeros if len(zeros) <= _MOST_ZEROS else []


def _solve_quadratic(a: Value, b: Value, c: Value, size: Value) -> list[Value]:
    """Return the real zeros of a*x^2 + b*x + c, and where it turns."""
    nothing = size * mp.mpf(10) ** -15
    if abs(a) <= nothing:
        return [] if abs(b) <= nothing else [-c / b]
    turn, rest = -b / (2 * a), b * b - 4 * a * c
    root = mp.sqrt(rest) / (2 * a) if rest > 0 else mp.mpf(0)
    return [turn, turn - root, turn + root]
