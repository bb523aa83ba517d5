"""Places where an integrand has corners or jumps: where the argument of abs or sign is 0, that of floor a whole number.

Quadrature converges between them, and not over them.
"""

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any, Final

from mpmath import mp

from r1plus_calculator.evaluation.numbers import UncertainError, Value, convert, evaluate, is_finite, is_real
from r1plus_contract.calculator_grammar.functions import list_variables
from r1plus_contract.calculator_grammar.tree import (
    FunctionCall,
    Inverse,
    Negative,
    Node,
    Number,
    Power,
    Product,
    Sum,
    walk,
)

SCAN_STEPS: Final = 40
_FINE_STEPS: Final = 240
_HALVINGS: Final = 100
_MOST_CORNERS: Final = 64
_MOST_EVALUATIONS: Final = 20_000
"""Of arguments, in the search for corners: about a third of a calculation's time."""
_TURN_STEPS: Final = 40
"""Of the search for a turning point, each 0.62 times as wide as the one before."""
_NEXT_TO_NOTHING: Final = mp.mpf(10) ** -6
"""Of a function's size: one that turns so close to 0 touches it, or changes its sign twice."""
_STEPPED: Final = frozenset({"floor", "ceil", "mod"})
_JUMPING: Final = frozenset({"abs", "sign", "min", "max"}) | _STEPPED
_ROOTED: Final = frozenset({"sqrt", "cbrt", "root", "ln", "log", "log10", "log2", "atan", "acot"})
"""Functions with a corner or a jump where their first argument is 0, or has a pole: sqrt(sin(x)^2), atan(tan(x))."""


class _Argument:
    """A function of one variable whose zeros, or whole values, are corners of an integrand."""

    def __init__(self, node: Node, name: str, is_stepped: bool, count: Iterator[int]) -> None:
        self._node = node
        self._name = name
        self.is_stepped = is_stepped
        self._count = count

    def compute(self, place: Value) -> Value | None:
        """Return its value; None: it has none here. Raises UncertainError: the search takes too long."""
        if next(self._count) > _MOST_EVALUATIONS:
            raise UncertainError("the search for corners takes too long")
        return compute_real(self._node, self._name, place)


def is_jumping(function: Node, name: str) -> bool:
    """Return whether an expression has a function with corners or jumps, of this variable."""
    calls = (part for part in walk(function) if isinstance(part, FunctionCall) and part.function in _JUMPING)
    return any(name in list_variables(part) for part in calls)


def find_corners(function: Node, name: str, low: Value, high: Value) -> list[Value]:
    """Return the places between two bounds where an integrand may have corners or jumps, in order.

    Raises:
        UncertainError: there are more than can be listed.
    """
    corners: list[Value] = []
    count = itertools.count()
    for node, is_stepped in dict.fromkeys(_list_arguments(function, name)):
        argument = _Argument(node, name, is_stepped, count)
        for place in _find_places(argument, list_places(low, high, _FINE_STEPS)):
            is_known = any(is_near(place, other) for other in (low, high, *corners))
            if low < place < high and not is_known:
                corners.append(place)
            if len(corners) > _MOST_CORNERS:
                raise UncertainError("the integrand has too many corners")
    return sorted(corners)


def is_near(place: Value, other: Value) -> bool:
    """Return whether two places are the same but for rounding."""
    return not mp.isinf(other) and bool(abs(place - other) < mp.mpf(10) ** -12 * (1 + abs(place)))


def _list_arguments(function: Node, name: str) -> Iterator[tuple[Node, bool]]:
    """Yield the arguments in question, and whether their whole values count, not only their zeros."""
    for part in walk(function):
        if name in list_variables(part):
            yield from _list_own_arguments(part)


def _list_own_arguments(part: Node) -> Iterator[tuple[Node, bool]]:
    match part:
        case FunctionCall("mod", (value, divisor)):
            yield Product((value, Inverse(divisor))), True
        case FunctionCall("min" | "max", arguments):
            for one, other in itertools.combinations(arguments, 2):
                yield Sum((one, Negative(other))), False
        case FunctionCall("asin" | "acos", (value,)):
            for sign in (value, Negative(value)):
                yield Sum((Number(Fraction(1)), sign)), False
        case FunctionCall("atan2", arguments):
            yield from ((argument, False) for argument in arguments)
        case FunctionCall(function, arguments) if function in _JUMPING or function in _ROOTED:
            yield arguments[0], function in _STEPPED
        case Power(base, exponent) if not (isinstance(exponent, Number) and exponent.value.denominator == 1):
            yield base, False


def _find_places(argument: _Argument, places: list[Value]) -> Iterator[Value]:
    """Yield where an argument is 0, or whole if it is stepped; and where it turns next to that."""
    points = [(place, argument.compute(place)) for place in places]
    turns = list(_list_turns(argument, points))
    size = max((abs(value) for _, value in points if value is not None), default=0)
    for place, value in turns:
        gap = abs(value - mp.nint(value)) if argument.is_stepped else abs(value) / size
        if gap <= _NEXT_TO_NOTHING:
            yield place
    for (start, first), (end, last) in itertools.pairwise(sorted([*points, *turns], key=lambda point: point[0])):
        if first is None or last is None:
            if first is not last:
                yield _halve(lambda place: argument.compute(place) is None, start, end)
            continue
        for level in _list_levels(first, last) if argument.is_stepped else [mp.mpf(0)]:
            if (first >= level) != (last >= level):
                yield _halve(partial(_is_from, argument, level), start, end)


def _is_from(argument: _Argument, level: Value, place: Value) -> bool:
    value = argument.compute(place)
    return value is not None and bool(value >= level)


def _list_levels(first: Value, last: Value) -> list[Value]:
    """Return the whole numbers between two values. Raises UncertainError: they are too many."""
    if abs(first - last) > _MOST_CORNERS:
        raise UncertainError("the integrand has too many jumps")
    return [mp.mpf(level) for level in range(int(mp.ceil(min(first, last))), int(mp.floor(max(first, last))) + 1)]


def _list_turns(argument: _Argument, points: list[tuple[Value, Value | None]]) -> Iterator[tuple[Value, Value]]:
    """Yield an argument's turning points between places, with its values there."""
    for (start, first), (_, middle), (end, last) in zip(points, points[1:], points[2:], strict=False):
        if first is None or middle is None or last is None or (middle - first) * (last - middle) >= 0:
            continue
        turn = _find_turn(argument, start, end, 1 if middle < first else -1)
        if (value := argument.compute(turn)) is not None:
            yield turn, value


def _find_turn(argument: _Argument, start: Value, end: Value, sign: int) -> Value:
    """Return about where an argument is least (sign 1) or largest (-1), by golden sections."""
    ratio = (mp.sqrt(5) - 1) / 2

    def compute(place: Value) -> Any:
        value = argument.compute(place)
        return mp.inf if value is None else sign * value

    left, right = end - ratio * (end - start), start + ratio * (end - start)
    at_left, at_right = compute(left), compute(right)
    for _ in range(_TURN_STEPS):
        if at_left < at_right:
            end, right, at_right = right, left, at_left
            left = end - ratio * (end - start)
            at_left = compute(left)
        else:
            start, left, at_left = left, right, at_right
            right = start + ratio * (end - start)
            at_right = compute(right)
    return (start + end) / 2


def _halve(classify: Callable[[Value], Any], start: Value, end: Value) -> Value:
    """Return about where what is said of places changes."""
    before = classify(start)
    for _ in range(_HALVINGS):
        middle = (start + end) / 2
        if middle in (start, end):
            break
        if classify(middle) == before:
            start = middle
        else:
            end = middle
    return (start + end) / 2


def scan(part: Node, name: str, low: Value, high: Value) -> Iterator[Value]:
    """Yield about where an expression changes its sign, coarsely."""

    def compute_sign(place: Value) -> int:
        value = compute_real(part, name, place)
        return 0 if value is None else int(mp.sign(value))

    for start, end in itertools.pairwise(list_places(low, high, SCAN_STEPS)):
        if compute_sign(start) * compute_sign(end) < 0:
            yield _halve(compute_sign, start, end)


def list_places(low: Value, high: Value, steps: int) -> list[Value]:
    """Return places from bound to bound in order; towards infinity each is twice as far away as the one before.

    The bounds are the first and the last, unless they are infinite.
    """
    if not mp.isinf(low) and not mp.isinf(high):
        return [low, *(low + (high - low) * (step + mp.mpf("0.49")) / steps for step in range(steps)), high]
    ways = [mp.mpf("0.0049") * 2**step for step in range(SCAN_STEPS)]
    behind = [(mp.mpf(0) if mp.isinf(low) else low) + way for way in ways] if mp.isinf(high) else []
    before = [(mp.mpf(0) if mp.isinf(high) else high) - way for way in reversed(ways)] if mp.isinf(low) else []
    return before + behind


def compute_real(node: Node, name: str, place: Value) -> Value | None:
    """Return the real value of an expression at a place; None: it has none."""
    try:
        value = convert(evaluate(node, {name: place}))
    except UncertainError:
        return None
    return mp.re(value) if is_finite(value) and is_real(value) else None
