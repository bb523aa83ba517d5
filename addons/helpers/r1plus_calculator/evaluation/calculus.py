"""Commands on SymPy's objects. What SymPy leaves undone is an error that says so."""

from typing import Any, Final

import sympy

from r1plus_contract.calculator_grammar.errors import NoResultError, UndefinedError
from r1plus_contract.calculator_grammar.limits import MOST_ORDER, MOST_TERMS

__all__ = ("MOST_ORDER", "add_up", "differentiate", "expand_series", "factorize", "integrate", "take_limit")
Expression = Any
"""A `sympy.Expr`."""
_UNDONE: Final = (
    sympy.Integral,
    sympy.Derivative,
    sympy.Limit,
    sympy.Sum,
    sympy.Piecewise,
    sympy.Subs,
    sympy.Order,
)

_SIDES: Final = "the limits from left and right differ; name one of them, left or right, as fourth argument"


def is_done(value: Expression) -> bool:
    """Return whether nothing is left that SymPy could not do."""
    return not value.has(*_UNDONE)


def _require_done(value: Expression, message: str) -> Expression:
    if not is_done(value):
        raise NoResultError(message)
    return value


def differentiate(function: Expression, symbol: Expression, order: int) -> Expression:
    """Return a derivative."""
    return _require_done(sympy.diff(function, symbol, order), "the derivative has no form that the calculator writes")


def integrate(function: Expression, symbol: Expression, *bounds: Expression) -> Expression:
    """Return an integral, an antiderivative without its constant where there are no bounds."""
    where = (symbol, *bounds) if bounds else symbol
    remedy = "give it bounds for a numeric value" if not bounds else "simplify the integrand"
    value = sympy.integrate(function, where)
    if bounds and value.has(sympy.nan, sympy.zoo):
        raise UndefinedError("the integral does not converge: the integrand is not bounded between the bounds")
    return _require_done(value, f"no closed form of the integral was found; {remedy}")


def take_limit(function: Expression, symbol: Expression, point: Expression, side: str) -> Expression:
    """Return a limit, from both sides unless `side` is left or right."""
    direction = {"left": "-", "right": "+"}.get(side, "+-" if point.is_finite else "+")
    try:
        value = sympy.limit(function, symbol, point, direction)
    except ValueError as error:
        raise UndefinedError(_SIDES) from error
    if value is sympy.zoo:
        raise UndefinedError(_SIDES)
    return _require_done(value, "the limit was not found; simplify the expression")


def expand_series(function: Expression, symbol: Expression, point: Expression, order: int) -> Expression:
    """Return the terms of a series below `order`."""
    value = sympy.series(function, symbol, point, order)
    return _require_done(value.removeO(), "the expression has no series at this point")


def add_up(function: Expression, index: Expression, low: Expression, high: Expression) -> Expression:
    """Return a sum over whole numbers."""
    for bound in (low, high):
        if bound.is_number and not (bound.is_Integer or bound.is_infinite):
            raise UndefinedError("a sum goes from a whole number to a whole number, or inf")
    if low.is_Integer and high.is_Integer:
        if high - low >= MOST_TERMS and not function.is_polynomial(index):
            raise NoResultError(f"the sum has more than {MOST_TERMS} terms; write fewer")
        if high < low:
            return sympy.Integer(0)
    value = sympy.summation(function, (index, low, high))
    return _require_done(value, "no closed form of the sum was found, or it does not converge")


def factorize(value: Expression) -> Expression:
    """Return a polynomial or a whole number as a product."""
    if value.is_Integer and abs(value) > 1:
        powers = sympy.factorint(value)
        # Left unevaluated: SymPy would multiply the primes again.
        factors = [sympy.Pow(base, exponent, evaluate=False) for base, exponent in sorted(powers.items())]
        return sympy.Mul(*factors, evaluate=False)
    return sympy.factor(value)
