"""Second opinions: mpmath on the syntax trees, never SymPy. Each check says what it did.

A result that fails its check is withheld (`DisagreementError`). A result that cannot be checked is not verified.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import mpmath
from mpmath import mp

from r1plus_calculator.evaluation.corners import find_corners, is_jumping
from r1plus_calculator.evaluation.numbers import (
    Bindings,
    UncertainError,
    Value,
    agree,
    convert,
    differentiate,
    evaluate,
    is_finite,
    is_real,
)
from r1plus_calculator.evaluation.quadrature import QUADRATURE_DIGITS, integrate_numerically, read_integral
from r1plus_calculator.evaluation.solving import Solutions
from r1plus_contract.calculator_grammar.errors import DisagreementError
from r1plus_contract.calculator_grammar.functions import list_variables
from r1plus_contract.calculator_grammar.tree import Equation, FunctionCall, Items, Name, Node, walk

PRECISION: Final = 50
"""Decimal digits of a check."""
DIGITS: Final = 20
"""To which values have to agree."""
_POINTS: Final = (
    "0.7390851",
    "1.6180339",
    "-0.5772156",
    "2.4048255",
    "-1.2020569",
    "0.2614972",
    "3.3598856",
    "5.1356223",
)
LEAST_POINTS: Final = 3


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a second method gave the same, and what it did."""

    is_verified: bool
    text: str


_Confirm = Callable[[FunctionCall, Node], Check]


def confirm(tree: Node, result: Node) -> Check:
    """Check the result of an expression that is not `solve`.

    Raises:
        DisagreementError: the second method gave something else, or has none for an integral over corners or jumps.
    """
    try:
        check = _confirm(tree, result, PRECISION)
    except DisagreementError:
        # Large terms that cancel leave few digits: (e^100 + 1) - e^100.
        check = _confirm(tree, result, 4 * PRECISION)
    if not check.is_verified:
        _require_checked_corners(tree)
    return check


def _confirm(tree: Node, result: Node, precision: int) -> Check:
    with mpmath.workdps(precision):
        try:
            if isinstance(tree, FunctionCall) and tree.function in _CHECKS:
                return _CHECKS[tree.function](tree, result)
            return _confirm_values(tree, result)
        except UncertainError:
            return Check(False, "no second method could compute it")


def _disagree(what: str) -> DisagreementError:
    return DisagreementError(
        f"the result is withheld, since it failed its check: {what}. Write the expression in another way, or in parts"
    )


def _list_points(variables: Iterable[str]) -> Iterator[dict[str, Value]]:
    """Yield values for variables: none is special, and no two variables have the same."""
    names = tuple(variables)
    for start in range(len(_POINTS)):
        yield {
            name: Fraction(_POINTS[(start + place) % len(_POINTS)]) + Fraction(place, 7)
            for place, name in enumerate(names)
        }


def _compare(
    points: Iterable[dict[str, Value]],
    compute: Callable[[Bindings], tuple[Value, Value]],
    what: str,
    digits: int = DIGITS,
) -> int:
    """Compare two values at each point where the first is real; return at how many.

    Raises:
        DisagreementError: they differ at one.
    """
    count = 0
    for point in points:
        try:
            expected, got = compute(point)
        except UncertainError:
            continue
        if not is_finite(expected) or not is_real(expected):
            continue
        if not is_finite(got) or not agree(expected, got, digits):
            raise _disagree(what)
        count += 1
    return count


def _confirm_values(tree: Node, result: Node) -> Check:
    variables = sorted({*list_variables(tree), *list_variables(result)})
    if not variables:
        expected, got = evaluate(tree, {}), evaluate(result, {})
        if not is_finite(expected) or not is_finite(got):
            return Check(False, "an infinite value has no check")
        if not agree(expected, got, DIGITS):
            raise _disagree("its number differs from that of the expression")
        return Check(True, f"both sides computed to {DIGITS} digits")

    def compute(point: Bindings) -> tuple[Value, Value]:
        return evaluate(tree, point), evaluate(result, point)

    count = _compare(_list_points(variables), compute, "it differs from the expression at a point")
    return _judge(count, f"equal to the expression at {count} points")


def _judge(count: int, text: str) -> Check:
    if count < LEAST_POINTS:
        return Check(False, f"only {count} points could be compared")
    return Check(True, text)


def _get_name(node: Node) -> str:
    if not isinstance(node, Name):
        raise UncertainError("no variable")
    return node.name


def _confirm_integral(tree: FunctionCall, result: Node) -> Check:
    function, variable = tree.arguments[0], _get_name(tree.arguments[1])
    if len(tree.arguments) == 4:
        return _confirm_definite(tree, result)

    def compute(point: Bindings) -> tuple[Value, Value]:
        return evaluate(function, point), differentiate(result, variable, point)

    names = sorted({*list_variables(function), *list_variables(result), variable})
    count = _compare(_list_points(names), compute, "its derivative differs from the integrand at a point", 15)
    return _judge(count, f"its derivative equals the integrand at {count} points")


def _confirm_definite(tree: FunctionCall, result: Node) -> Check:
    expected = evaluate(result, {})
    if not is_finite(expected):
        return Check(False, "an infinite value has no check")
    value, is_sure = integrate_numerically(tree)
    if not is_finite(value):
        return Check(False, "the quadrature has no value")
    if not is_sure:
        return Check(False, "numeric quadrature does not converge")
    with mpmath.workdps(QUADRATURE_DIGITS):
        difference = abs(convert(expected) - value)
        if difference > (1 + abs(value)) * mp.mpf("1e-4"):
            raise _disagree("numeric quadrature gives another value")
        if difference <= (1 + abs(value)) * mp.mpf("1e-9") and difference <= _measure_size(tree, value) * mp.mpf(
            "1e-6"
        ):
            return Check(True, "numeric quadrature gives the same to 9 digits")
    return Check(False, "numeric quadrature does not give as many digits")


def _measure_size(tree: FunctionCall, value: Value) -> Value:
    """Return the size of an integral's parts, which cancel where it is next to nothing.

    Quadrature that has missed a narrow peak sees nothing of any size.
    """
    if abs(value) > mp.mpf("1e-6"):
        return abs(value)
    function, *rest = tree.arguments
    return abs(integrate_numerically(FunctionCall(tree.function, (FunctionCall("abs", (function,)), *rest)))[0])


def _require_checked_corners(tree: Node) -> None:
    """Withhold an integral over corners or jumps: antiderivatives between them have constants of their own.

    Raises:
        DisagreementError: an integrand in the expression has some.
    """
    for part in walk(tree):
        if (
            isinstance(part, FunctionCall)
            and part.function == "integrate"
            and len(part.arguments) == 4
            and _has_corners(part)
        ):
            raise _disagree("no second method confirms an integral over corners or jumps of its integrand")


def _has_corners(tree: FunctionCall) -> bool:
    try:
        return bool(find_corners(*read_integral(tree)))
    except UncertainError:
        return is_jumping(tree.arguments[0], _get_name(tree.arguments[1]))


def _confirm_limit(tree: FunctionCall, result: Node) -> Check:
    if list_variables(Items((tree.arguments[2], result))):
        raise UncertainError("a limit with parameters")
    variable = _get_name(tree.arguments[1])
    if set(list_variables(tree.arguments[0])) - {variable}:
        raise UncertainError("a limit with parameters")
    point, expected = convert(evaluate(tree.arguments[2], {})), convert(evaluate(result, {}))
    side = _get_name(tree.arguments[3]) if tree.arguments[3:] else ""
    ways = []
    if mp.isinf(point):
        ways.append([mp.sign(point) * mp.mpf(10) ** power for power in (4, 8, 12)])
    for sign in (-1, 1):
        if not mp.isinf(point) and side in ("", "left" if sign < 0 else "right"):
            ways.append([point + sign * mp.mpf(10) ** -power for power in (4, 8, 12)])
    if all(_approaches(tree.arguments[0], variable, way, expected) for way in ways):
        return Check(True, "the expression approaches it near the point")
    return Check(False, "the expression does not visibly approach it near the point")


def _approaches(function: Node, variable: str, places: list[Value], expected: Value) -> bool:
    with mpmath.workdps(3 * PRECISION):
        values = [convert(evaluate(function, {variable: place})) for place in places]
    if mp.isinf(expected):
        growing = all(abs(later) > 2 * abs(earlier) for earlier, later in itertools.pairwise(values))
        return growing and all(mp.sign(mp.re(value)) == mp.sign(expected) for value in values)
    gaps = [abs(value - expected) for value in values]
    is_closing = all(later <= earlier / 10 for earlier, later in itertools.pairwise(gaps))
    return is_closing and bool(gaps[-1] <= (abs(expected) + mp.mpf("1e-3")) * mp.mpf("1e-6"))


def _confirm_series(tree: FunctionCall, result: Node) -> Check:
    function, variable = tree.arguments[0], _get_name(tree.arguments[1])
    if set(list_variables(function)) - {variable}:
        raise UncertainError("a series with parameters")
    point = evaluate(tree.arguments[2], {}) if tree.arguments[2:] else Fraction(0)
    order = int(evaluate(tree.arguments[3], {})) if tree.arguments[3:] else 6
    if not is_finite(point):
        raise UncertainError("a series at infinity")
    with mpmath.workdps(4 * PRECISION):
        if not _shrinks(function, result, variable, point, order, 1):
            raise _disagree("the rest of the series does not shrink as its order says")
        try:
            holds_before = _shrinks(function, result, variable, point, order, -1)
        except UncertainError:
            holds_before = True  # the function ends at the point
        if not holds_before:
            raise _disagree("the series holds on one side of the point only")
    return Check(True, "the rest shrinks as the order says")


def _shrinks(function: Node, result: Node, variable: str, point: Value, order: int, side: int) -> bool:
    """Return whether the rest of a series shrinks on one side of its point: two decimal digits closer by 2 n digits."""
    gaps = []
    for power in (6, 8):
        place = {variable: convert(point) + side * mp.mpf(10) ** -power}
        gaps.append(abs(convert(evaluate(function, place)) - convert(evaluate(result, place))))
    return bool(gaps[1] <= gaps[0] * mp.mpf(10) ** (0.5 - 2 * order) or gaps[1] <= mp.mpf(10) ** (-3 * PRECISION))


def _confirm_sum(tree: FunctionCall, result: Node) -> Check:
    high = tree.arguments[3]
    variables = sorted(list_variables(high))
    others = set(list_variables(Items((tree.arguments[0], tree.arguments[2])))) - {_get_name(tree.arguments[1])}
    if not variables and not others and high == Name("inf"):
        return _confirm_endless_sum(tree, result)
    if not variables and not others:
        return _confirm_values(tree, result)
    if others - set(variables) or len(variables) != 1:
        raise UncertainError("a sum with parameters")
    points: list[dict[str, Value]] = [{variables[0]: Fraction(number)} for number in (5, 8, 13)]

    def compute(point: Bindings) -> tuple[Value, Value]:
        return evaluate(tree, point), evaluate(result, point)

    count = _compare(points, compute, "it differs from the sum of its terms")
    return _judge(count, f"equal to the sum of the terms for {count} upper bounds")


def _confirm_endless_sum(tree: FunctionCall, result: Node) -> Check:
    function, variable = tree.arguments[0], _get_name(tree.arguments[1])
    low, expected = convert(evaluate(tree.arguments[2], {})), evaluate(result, {})

    def compute(index: Value) -> Value:
        return convert(evaluate(function, {variable: Fraction(int(index))}))

    with mpmath.workdps(QUADRATURE_DIGITS):
        if is_finite(expected) and agree(mp.nsum(compute, [low, mp.inf]), expected, 9):
            return Check(True, "extrapolated partial sums give the same to 9 digits")
    return Check(False, "extrapolated partial sums do not show it")


_CHECKS: Final[Mapping[str, _Confirm]] = {
    "integrate": _confirm_integral,
    "limit": _confirm_limit,
    "series": _confirm_series,
    "sum": _confirm_sum,
}


def confirm_solutions(solutions: Solutions, rows: Iterable[tuple[Node, ...]]) -> Check:
    """Check solutions by inserting them. `rows`: their values, as they are printed and read again.

    Raises:
        DisagreementError: one does not solve the equations, or one is missing.
    """
    with mpmath.workdps(PRECISION):
        known: list[Value] = []
        try:
            for row in rows:
                known += _insert(solutions, row)
            if solutions.is_counted:
                return Check(True, "each solution inserted; they are as many as there can be")
            if solutions.has_real_domain:
                return _scan(solutions, known)
        except UncertainError:
            return Check(False, "no second method could insert the solutions")
        return Check(False, "each solution inserted; that there are no others is not shown")


def _insert(solutions: Solutions, row: tuple[Node, ...]) -> list[Value]:
    """Insert one solution; return its values, if it has no parameters."""
    parameters = sorted(
        {name for sides in solutions.equations for side in sides for name in list_variables(side)}
        - set(solutions.unknowns)
    )
    count = 0
    values: list[Value] = []
    for point in _list_points(parameters) if parameters else [{}]:
        try:
            values = [evaluate(node, point) for node in row]
            _check_equations(solutions, {**point, **dict(zip(solutions.unknowns, values, strict=True))})
        except UncertainError:
            continue
        count += 1
    if count < (LEAST_POINTS if parameters else 1):
        raise UncertainError("a solution cannot be inserted")
    return [] if parameters else values


def _check_equations(solutions: Solutions, point: Mapping[str, Value]) -> None:
    for left, right in solutions.equations:
        first, second = convert(evaluate(left, point)), convert(evaluate(right, point))
        size = 1 + abs(first) + abs(second) + max(abs(convert(value)) for value in point.values())
        if not is_finite(first - second) or abs(first - second) > size * mp.mpf(10) ** -DIGITS:
            raise _disagree("a solution does not solve its equation")


def confirm_roots(solutions: Solutions) -> Check:
    """Check numeric roots by inserting them."""
    with mpmath.workdps(PRECISION):
        for root in solutions.roots:
            _check_equations(solutions, {solutions.unknowns[0]: root})
    return Check(True, "each solution inserted; they are as many as the degree")


def _scan(solutions: Solutions, known: list[Value]) -> Check:
    """Look for a change of sign that no solution explains."""
    left, right = solutions.equations[0]
    places = [Fraction(step, 7) + Fraction(1, 97) for step in range(-140, 141)]
    before: tuple[Fraction, int] | None = None
    with mpmath.workdps(15):
        for place in places:
            sign = _compute_sign(left, right, solutions.unknowns[0], place)
            is_change = sign and before and sign != before[1] and not _explains(known, before[0], place)
            if is_change and before and _has_root(left, right, solutions.unknowns[0], before[0], place):
                raise _disagree("another solution was found by a search")
            before = (place, sign) if sign else None
    return Check(True, "each solution inserted; no other change of sign between -20 and 20")


def _explains(known: list[Value], low: Fraction, high: Fraction) -> bool:
    return any(is_real(value) and convert(low) <= mp.re(convert(value)) <= convert(high) for value in known)


def _compute_sign(left: Node, right: Node, name: str, place: Value) -> int:
    """Return the sign of left - right; 0 where it has none."""
    try:
        value = convert(evaluate(left, {name: place})) - convert(evaluate(right, {name: place}))
    except UncertainError:
        return 0
    if not is_finite(value) or not is_real(value):
        return 0
    return int(mp.sign(mp.re(value)))


def _has_root(left: Node, right: Node, name: str, low: Value, high: Value) -> bool:
    """Return whether a change of sign is a root, and no pole: halving makes the difference small."""
    start, end = convert(low), convert(high)
    sign = _compute_sign(left, right, name, start)
    first = _measure_gap(left, right, name, start)
    for _ in range(40):
        middle = (start + end) / 2
        if _compute_sign(left, right, name, middle) == sign:
            start = middle
        else:
            end = middle
    last = _measure_gap(left, right, name, start)
    return first is not None and last is not None and last < first / 1000


def _measure_gap(left: Node, right: Node, name: str, place: Value) -> Any:
    try:
        return abs(convert(evaluate(left, {name: place})) - convert(evaluate(right, {name: place})))
    except UncertainError:
        return None


def read_rows(result: Node) -> list[tuple[Node, ...]]:
    """Return the values of a printed list of solutions."""
    items = result.items if isinstance(result, Items) else ()
    rows = [item.items if isinstance(item, Items) else (item,) for item in items]
    return [tuple(one.right for one in row if isinstance(one, Equation)) for row in rows]
