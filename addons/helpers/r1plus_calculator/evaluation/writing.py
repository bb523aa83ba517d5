"""Numbers to text that the grammar reads."""

from fractions import Fraction
from typing import Final

import mpmath
from mpmath import mp

from r1plus_calculator.evaluation.numbers import UncertainError, Value, convert, evaluate, is_finite
from r1plus_contract.calculator_grammar.tree import Node

GUARD_DIGITS: Final = 15
"""More than asked for, so that the last digit is right."""


def write_value(node: Node, digits: int) -> str | None:
    """Return a closed expression's value with so many significant digits; None where they are not certain.

    It is computed at two precisions, and both have to give the same digits. A zero that is not exact has none: terms
    that cancel leave it, however small their difference is.
    """
    texts = []
    for precision in (digits + GUARD_DIGITS, 2 * (digits + GUARD_DIGITS)):
        with mpmath.workdps(precision):
            try:
                value = evaluate(node, {})
            except UncertainError:
                return None
            if not is_finite(value) or (value == 0 and not isinstance(value, Fraction)):
                return None
            texts.append(write_number(value, digits))
    return texts[0] if texts[0] == texts[1] else None


def write_number(value: Value, digits: int) -> str:
    """Return the text of a number, complex ones as a sum; at a precision of more than `digits`."""
    number = convert(value)
    if not isinstance(number, mpmath.mpc):
        return _write_real(value, digits)
    tiny = abs(number) * mp.mpf(10) ** (3 - mp.dps)
    real = mp.mpf(0) if abs(number.real) <= tiny else number.real
    imaginary = mp.mpf(0) if abs(number.imag) <= tiny else number.imag
    if imaginary == 0:
        return _write_real(real, digits)
    tail = "i" if abs(imaginary) == 1 else f"{_write_real(abs(imaginary), digits)}*i"
    if real == 0:
        return f"-{tail}" if imaginary < 0 else tail
    return f"{_write_real(real, digits)} {'-' if imaginary < 0 else '+'} {tail}"


def _write_real(value: Value, digits: int) -> str:
    if isinstance(value, Fraction) and value.denominator == 1 and abs(value) < 10**digits:
        return str(value.numerator)
    text = mpmath.nstr(convert(value), digits, min_fixed=-5, max_fixed=digits)
    mantissa, mark, exponent = text.partition("e")
    mantissa = mantissa.removesuffix(".0")
    return f"{mantissa}e{int(exponent)}" if mark else mantissa
