"""Upper bounds of exact numbers, so that 9^9^9 is refused before it is computed.

A bound is in bits, of the numerator and of the denominator. It is rough, and never too low for what is computed
exactly; what has variables counts as small, and its powers are bounded by their exponent.
"""

import math
from dataclasses import dataclass
from typing import Final

from r1plus_contract.calculator_grammar.errors import LimitExceededError
from r1plus_contract.calculator_grammar.functions import COMMANDS, list_variables
from r1plus_contract.calculator_grammar.limits import MOST_BITS, MOST_EXPONENT
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

_IRRATIONAL_BITS: Final = 8.0
"""Of the size of a value that stays a symbol, such as ln(2)."""
_COUNTABLE_BITS: Final = 60.0
"""Up to here a bound is a number; beyond, nothing of that size can be an exponent."""
_GROWING: Final = frozenset({"exp", "sinh", "cosh", "erfi", "Ei"})
_KEEPING: Final = frozenset({"abs", "floor", "ceil", "sqrt", "cbrt", "root", "re", "im", "degrees", "mod", "gcd"})
_FACTORIALS: Final = frozenset({"factorial", "gamma"})


@dataclass(frozen=True, slots=True)
class Size:
    """Bits of a numerator, which bound the value, and of a denominator."""

    above: float
    below: float = 0.0


def check_sizes(tree: Node) -> None:
    """Refuse a tree in which a number is too large.

    Raises:
        LimitExceededError: it is.
    """
    _measure(tree)


def _bound(size: Size) -> Size:
    if not max(size.above, size.below) <= MOST_BITS:
        raise LimitExceededError(
            f"a number in the calculation may need more than {MOST_BITS} bits (about {MOST_BITS * 3 // 10} digits);"
            " calculate with smaller powers and factorials, or with their logarithms"
        )
    return size


def _measure(node: Node) -> Size:  # noqa: C901 - a case for each kind of node
    match node:
        case Number(value):
            return _bound(Size(math.log2(max(1, value.numerator)), math.log2(value.denominator)))
        case Name():
            return Size(2)
        case Negative(operand):
            return _measure(operand)
        case Percent(operand):
            size = _measure(operand)
            return _bound(Size(size.above, size.below + 7))
        case Inverse(operand):
            size = _measure(operand)
            return Size(size.below + 1, size.above)
        case Sum(terms):
            return _measure_sum([_measure(term) for term in terms])
        case Product(factors):
            sizes = [_measure(factor) for factor in factors]
            return _bound(Size(sum(one.above for one in sizes), sum(one.below for one in sizes)))
        case Power():
            return _measure_power(node)
        case Factorial(operand):
            return _measure_factorial(_measure(operand))
        case FunctionCall():
            return _measure_call(node)
        case Equation(left, right):
            return _measure_sum([_measure(left), _measure(right)])
        case Items(items):
            for item in items:
                _measure(item)
            return Size(_IRRATIONAL_BITS)


def _measure_sum(sizes: list[Size]) -> Size:
    below = sum(size.below for size in sizes)
    if not below and all(size.above < _COUNTABLE_BITS for size in sizes):
        return Size(math.log2(sum(2.0**size.above for size in sizes)))
    return _bound(Size(max(size.above for size in sizes) + below + math.log2(len(sizes)) + 1, below))


def _measure_power(node: Power) -> Size:
    base, exponent = _measure(node.base), _measure(node.exponent)
    most = _read_bound(exponent)
    if list_variables(node.base):
        if not list_variables(node.exponent) and most > MOST_EXPONENT:
            raise LimitExceededError(f"an exponent of a variable exceeds {MOST_EXPONENT}; write a smaller one")
        return Size(_IRRATIONAL_BITS)
    if list_variables(node.exponent):
        return Size(_IRRATIONAL_BITS)
    bits = max(base.above, base.below) * most
    return _bound(Size(bits, bits))


def _read_bound(size: Size) -> float:
    """Return the largest absolute value of a number of this size; infinite beyond what matters."""
    return 2.0**size.above if size.above < _COUNTABLE_BITS else math.inf


def _measure_factorial(operand: Size) -> Size:
    most = _read_bound(operand)
    if most == math.inf:
        return _bound(Size(math.inf))
    return _bound(Size(most * max(1.0, math.log2(most + 1))))


def _measure_call(node: FunctionCall) -> Size:
    sizes = [_measure(argument) for argument in node.arguments]
    name = node.function
    if name in COMMANDS or list_variables(node):
        return Size(_IRRATIONAL_BITS)
    if name in _FACTORIALS:
        return _measure_factorial(sizes[0])
    if name == "binomial":
        return _bound(Size(min(_read_bound(sizes[0]) + _IRRATIONAL_BITS, (sizes[0].above + 1) * _read_bound(sizes[1]))))
    if name in _GROWING:
        return _bound(Size(1.5 * _read_bound(sizes[0]), _IRRATIONAL_BITS))
    if name in _KEEPING or name in ("min", "max"):
        return Size(max(size.above for size in sizes), max(size.below for size in sizes))
    if name == "lcm":
        return _bound(Size(sum(size.above for size in sizes)))
    return Size(_IRRATIONAL_BITS)
