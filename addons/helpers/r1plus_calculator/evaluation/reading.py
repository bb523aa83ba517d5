"""SymPy's objects to trees: what the grammar has no words for is an error."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

import sympy

from r1plus_contract.calculator_grammar.errors import NoResultError
from r1plus_contract.calculator_grammar.tree import (
    Factorial,
    FunctionCall,
    Inverse,
    Name,
    Negative,
    Node,
    Number,
    Power,
    Product,
    Sum,
)

Expression = Any
"""A `sympy.Expr`."""
_FUNCTIONS: Final[Mapping[Any, str]] = {
    sympy.Abs: "abs",
    sympy.sign: "sign",
    sympy.exp: "exp",
    sympy.log: "ln",
    sympy.floor: "floor",
    sympy.ceiling: "ceil",
    sympy.sin: "sin",
    sympy.cos: "cos",
    sympy.tan: "tan",
    sympy.cot: "cot",
    sympy.sec: "sec",
    sympy.csc: "csc",
    sympy.asin: "asin",
    sympy.acos: "acos",
    sympy.atan: "atan",
    sympy.acot: "acot",
    sympy.atan2: "atan2",
    sympy.sinh: "sinh",
    sympy.cosh: "cosh",
    sympy.tanh: "tanh",
    sympy.asinh: "asinh",
    sympy.acosh: "acosh",
    sympy.atanh: "atanh",
    sympy.gamma: "gamma",
    sympy.erf: "erf",
    sympy.erfi: "erfi",
    sympy.LambertW: "lambertw",
    sympy.Ei: "Ei",
    sympy.Si: "Si",
    sympy.Ci: "Ci",
    sympy.re: "re",
    sympy.im: "im",
    sympy.Mod: "mod",
    sympy.binomial: "binomial",
    sympy.Min: "min",
    sympy.Max: "max",
}
_CONSTANTS: Final[Mapping[Any, str]] = {sympy.pi: "pi", sympy.E: "e", sympy.I: "i", sympy.oo: "inf"}


def read(value: Expression) -> Node:
    """Return a tree for an expression.

    Raises:
        NoResultError: a part of it has no form in the grammar.
    """
    if value.is_Rational:
        return _read_rational(value)
    if value is sympy.S.NegativeInfinity:
        return Negative(Name("inf"))
    if value in _CONSTANTS:
        return Name(_CONSTANTS[value])
    if value.is_Symbol:
        return Name(str(value.name))
    if value.is_Add:
        return Sum(tuple(read(term) for term in value.as_ordered_terms()))
    if value.is_Mul:
        return _read_product(value)
    if value.is_Pow:
        return _read_power(value.base, value.exp)
    return _read_function(value)


def _read_rational(value: Expression) -> Node:
    number = _read_fraction(abs(value))
    return Negative(number) if value < 0 else number


def _read_fraction(value: Expression) -> Node:
    """Return a number that is not negative."""
    if value.q == 1:
        return Number(Fraction(int(value.p)))
    return Product((Number(Fraction(int(value.p))), Inverse(Number(Fraction(int(value.q))))))


def _read_product(value: Expression) -> Node:
    factors: list[Node] = []
    is_negative = False
    # SymPy orders numbers as texts; what `factor` makes of a number has an order already.
    for factor in value.args if _is_factorization(value) else value.as_ordered_factors():
        if factor.is_Rational:
            is_negative ^= bool(factor < 0)
            factor = abs(factor)
            if factor.p != 1 or factor.q == 1:
                factors.append(Number(Fraction(int(factor.p))))
            if factor.q != 1:
                factors.append(Inverse(Number(Fraction(int(factor.q)))))
        else:
            factors.append(read(factor))
    factors = [factor for factor in factors if factor != Number(Fraction(1))] or [Number(Fraction(1))]
    tree = Product(tuple(factors)) if len(factors) > 1 else factors[0]
    return Negative(tree) if is_negative else tree


def _is_factorization(value: Expression) -> bool:
    return all(part.is_Integer or (part.is_Pow and part.base.is_Integer and part.exp.is_Integer) for part in value.args)


def _read_power(base: Expression, exponent: Expression) -> Node:
    if exponent.is_Rational and exponent < 0:
        return Inverse(_read_power(base, -exponent))
    if exponent == 1:
        return read(base)
    if exponent == sympy.Rational(1, 2):
        return FunctionCall("sqrt", (read(base),))
    return Power(read(base), read(exponent))


def _read_function(value: Expression) -> Node:
    if isinstance(value, sympy.factorial):
        return Factorial(read(value.args[0]))
    if isinstance(value, sympy.erfc):
        return Sum((Number(Fraction(1)), Negative(FunctionCall("erf", (read(value.args[0]),)))))
    name = _FUNCTIONS.get(value.func)
    if name is None:
        raise NoResultError(f"the result has a part ({value.func.__name__[:40]}) that the calculator does not write")
    return FunctionCall(name, tuple(read(argument) for argument in value.args))
