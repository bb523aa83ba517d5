"""Trees to numbers: rationals exactly, the rest by mpmath. It shares no code with SymPy, so it checks it."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

import mpmath
from mpmath import mp

from r1plus_contract.calculator_grammar.limits import MOST_BITS, MOST_ORDER, MOST_TERMS
from r1plus_contract.calculator_grammar.tree import (
    Equation,
    Factorial,
    FunctionCall,
    Inverse,
    Items,
    Name,
    Negative,
    Node,
    Number,
    Percent,
    Power,
    Product,
    Sum,
)

Value = Any
"""A Fraction, an mpf or an mpc."""
Bindings = Mapping[str, Value]
_NEAR: Final = 1e-12
"""Closer than this to a step of floor, a value that is not exact has none."""


class UncertainError(Exception):
    """A value that cannot be had, or not surely."""


def evaluate(node: Node, bindings: Bindings) -> Value:
    """Return the value of a tree, at the present precision of `mpmath.mp`.

    Raises:
        UncertainError: it has none here.
    """
    try:
        return _evaluate(node, bindings)
    except (ZeroDivisionError, OverflowError, ValueError, NotImplementedError, mpmath.libmp.NoConvergence) as error:
        raise UncertainError(str(error)[:100]) from error


def convert(value: Value) -> Value:
    """Return a value as mpmath has it."""
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _evaluate(node: Node, bindings: Bindings) -> Value:  # noqa: C901 - a case for each kind of node
    match node:
        case Number(value):
            return value
        case Name(name):
            return _look_up(name, bindings)
        case Negative(operand):
            return -_evaluate(operand, bindings)
        case Percent(operand):
            return _multiply(_evaluate(operand, bindings), Fraction(1, 100))
        case Inverse(operand):
            return _raise(_evaluate(operand, bindings), Fraction(-1))
        case Sum(operands):
            return _fold(_add, operands, bindings)
        case Product(operands):
            return _fold(_multiply, operands, bindings)
        case Power(base, exponent):
            return _raise(_evaluate(base, bindings), _evaluate(exponent, bindings))
        case Factorial(operand):
            return _compute_factorial(_evaluate(operand, bindings))
        case FunctionCall(function, arguments):
            return _call(function, arguments, bindings)
        case Equation() | Items():
            raise UncertainError("an equation has no value")


def _look_up(name: str, bindings: Bindings) -> Value:
    if name in bindings:
        return bindings[name]
    constants = {"pi": mp.pi, "e": mp.e, "i": mp.j, "inf": mp.inf}
    if name not in constants:
        raise UncertainError(f"{name} has no value")
    return +constants[name] if name != "i" else mp.mpc(0, 1)


def _fold(combine: Callable[[Value, Value], Value], nodes: tuple[Node, ...], bindings: Bindings) -> Value:
    value = _evaluate(nodes[0], bindings)
    for node in nodes[1:]:
        value = combine(value, _evaluate(node, bindings))
    return value


def _add(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left + right
    return convert(left) + convert(right)


def _multiply(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left * right
    return convert(left) * convert(right)


def _raise(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        if base == 0 and exponent <= 0:
            raise UncertainError("0 has no such power")
        bits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent)
        if bits <= 2 * MOST_BITS:
            return base ** int(exponent)
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        return convert(base) ** int(exponent)
    return mp.power(convert(base), convert(exponent))


def _compute_factorial(value: Value) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= MOST_BITS:
        return Fraction(math.factorial(int(value)))
    raise UncertainError("no factorial")


def _call(function: str, arguments: tuple[Node, ...], bindings: Bindings) -> Value:
    if function in ("simplify", "factor", "expand"):
        return _evaluate(arguments[0], bindings)
    if function == "diff":
        return _differentiate(arguments, bindings)
    if function == "sum":
        return _add_up(arguments, bindings)
    values = [_evaluate(argument, bindings) for argument in arguments]
    if function in _EXACT and all(isinstance(value, Fraction) for value in values):
        return _EXACT[function](*values)
    implementation = _FUNCTIONS.get(function)
    if implementation is None:
        raise UncertainError(f"{function} has no second method")
    return implementation(*[convert(value) for value in values])


def _differentiate(arguments: tuple[Node, ...], bindings: Bindings) -> Value:
    order = evaluate(arguments[2], {}) if arguments[2:] else Fraction(1)
    variable = arguments[1]
    if not isinstance(variable, Name) or variable.name not in bindings or not 1 <= order <= MOST_ORDER // 2:
        raise UncertainError("no such derivative")
    return differentiate(arguments[0], variable.name, bindings, int(order))


def differentiate(node: Node, variable: str, bindings: Bindings, order: int = 1) -> Value:
    """Return a derivative by differences."""

    def compute(value: Value) -> Value:
        return convert(evaluate(node, {**bindings, variable: value}))

    return mp.diff(compute, convert(bindings[variable]), order)


def _add_up(arguments: tuple[Node, ...], bindings: Bindings) -> Value:
    variable = arguments[1]
    low, high = (evaluate(argument, bindings) for argument in arguments[2:])
    if not isinstance(variable, Name) or not isinstance(low, Fraction) or not isinstance(high, Fraction):
        raise UncertainError("no such sum")
    if high - low >= MOST_TERMS:
        raise UncertainError("too many terms")
    total: Value = Fraction(0)
    for index in range(int(low), int(high) + 1):
        total = _add(total, evaluate(arguments[0], {**bindings, variable.name: Fraction(index)}))
    return total


def _round(value: Value, rounding: Callable[[Value], Value]) -> Value:
    if isinstance(value, Fraction):
        return Fraction(int(rounding(value)))
    if isinstance(value, mpmath.mpc) or abs(value - mp.nint(value)) < _NEAR:
        raise UncertainError("too close to a step")
    return Fraction(int(rounding(value)))


def _compute_root(value: Value, degree: Value) -> Value:
    count = round(float(degree.real if isinstance(degree, mpmath.mpc) else degree))
    if count % 2 and not isinstance(value, mpmath.mpc) and value < 0:
        return -mp.root(-value, count)
    return mp.power(value, mp.mpf(1) / count)


def _compute_sign(value: Value) -> Value:
    if isinstance(value, mpmath.mpc) or abs(value) < _NEAR:
        raise UncertainError("no sign")
    return Fraction(1 if value > 0 else -1)


def _compute_modulus(value: Value, divisor: Value) -> Value:
    return value - divisor * convert(_round(value / divisor, mp.floor))


def _choose(choice: Callable[..., Value]) -> Callable[..., Value]:
    def choose(*values: Value) -> Value:
        if any(isinstance(value, mpmath.mpc) for value in values):
            raise UncertainError("complex numbers have no order")
        return choice(values)

    return choose


def _require_whole(*values: Fraction) -> list[int]:
    if any(value.denominator != 1 for value in values):
        raise UncertainError("not whole numbers")
    return [int(value) for value in values]


def _compute_binomial(total: Fraction, part: Fraction) -> Fraction:
    whole = _require_whole(total, part)
    if not 0 <= whole[1] <= whole[0] <= MOST_BITS:
        raise UncertainError("no such binomial")
    return Fraction(math.comb(*whole))


_EXACT: Final[Mapping[str, Callable[..., Value]]] = {
    "abs": abs,
    "sign": lambda value: Fraction((value > 0) - (value < 0)),
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "mod": lambda value, divisor: value % divisor,
    "gcd": lambda *values: Fraction(math.gcd(*_require_whole(*values))),
    "lcm": lambda *values: Fraction(math.lcm(*_require_whole(*values))),
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "binomial": _compute_binomial,
    "factorial": _compute_factorial,
    "re": lambda value: value,
    "im": lambda _: Fraction(0),
}
_FUNCTIONS: Final[Mapping[str, Callable[..., Value]]] = {
    **{name: getattr(mp, name) for name in ("sqrt", "exp", "sin", "cos", "tan", "cot", "sec", "csc", "gamma", "erf")},
    **{name: getattr(mp, name) for name in ("asin", "acos", "atan", "acot", "atan2", "sinh", "cosh", "tanh", "erfi")},
    **{name: getattr(mp, name) for name in ("asinh", "acosh", "atanh", "re", "im", "lambertw")},
    "ln": mp.log,
    "log": lambda value, base: mp.log(value) / mp.log(base),
    "log10": lambda value: mp.log(value) / mp.log(10),
    "log2": lambda value: mp.log(value) / mp.log(2),
    "cbrt": lambda value: _compute_root(value, mp.mpf(3)),
    "root": _compute_root,
    "abs": abs,
    "sign": _compute_sign,
    "floor": lambda value: _round(value, mp.floor),
    "ceil": lambda value: _round(value, mp.ceil),
    "mod": _compute_modulus,
    "degrees": lambda value: value * mp.pi / 180,
    "Ei": mp.ei,
    "Si": mp.si,
    "Ci": mp.ci,
    "min": _choose(min),
    "max": _choose(max),
}


def is_finite(value: Value) -> bool:
    """Return whether a value is a number."""
    return isinstance(value, Fraction) or bool(mp.isfinite(value))


def is_real(value: Value) -> bool:
    """Return whether a value has no imaginary part."""
    return not isinstance(value, mpmath.mpc) or bool(abs(value.imag) <= mp.mpf(10) ** (10 - mp.dps) * (1 + abs(value)))


def agree(left: Value, right: Value, digits: int) -> bool:
    """Return whether two values agree to so many significant digits."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    first, second = convert(left), convert(right)
    size = max(abs(first), abs(second))
    if min(abs(first), abs(second)) == 0 or size < mp.mpf(10) ** (-2 * digits):
        return bool(size < mp.mpf(10) ** -digits)
    return bool(abs(first - second) <= size * mp.mpf(10) ** -digits)
