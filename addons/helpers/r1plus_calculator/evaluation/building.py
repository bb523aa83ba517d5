"""Trees to SymPy's objects, by constructors only: SymPy's parsers of text end in `eval`, so none is called."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import sympy

from r1plus_calculator.evaluation import calculus
from r1plus_contract.calculator_grammar.errors import NoResultError, UndefinedError
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

Expression = Any
"""A `sympy.Expr`."""
_CONSTANTS: Final[Mapping[str, Expression]] = {
    "pi": sympy.pi,
    "e": sympy.E,
    "i": sympy.I,
    "inf": sympy.oo,
}


def create_symbol(name: str) -> Expression:
    """Return a variable: a real number."""
    return sympy.Symbol(name, real=True)


def build(node: Node, symbols: Mapping[str, Expression] | None = None) -> Expression:
    """Return a tree as SymPy has it, its commands carried out. `symbols`: variables that are not just real.

    Raises:
        CalculatorError: it has no value, or none that SymPy finds.
    """
    return _require_value(_build(node, symbols or {}), node)


def _require_value(value: Expression, node: Node) -> Expression:
    if value is sympy.nan or value is sympy.zoo or value.has(sympy.nan, sympy.zoo):
        where = f" in {node.function}" if isinstance(node, FunctionCall) else ""
        raise UndefinedError(
            f"the expression has no value{where}: a division by zero, or a function outside of where it is defined"
        )
    if value.has(sympy.AccumBounds):
        raise UndefinedError("the expression has no single value: it oscillates")
    return value


def _build(node: Node, symbols: Mapping[str, Expression]) -> Expression:  # noqa: C901 - a case for each kind of node
    match node:
        case Number(value):
            return sympy.Rational(value.numerator, value.denominator)
        case Name(name):
            constant = _CONSTANTS.get(name)
            return constant if constant is not None else symbols.get(name) or create_symbol(name)
        case Negative(operand):
            return -build(operand, symbols)
        case Inverse(operand):
            return sympy.Pow(build(operand, symbols), sympy.Integer(-1))
        case Percent(operand):
            return build(operand, symbols) / sympy.Integer(100)
        case Factorial(operand):
            return _build_factorial(build(operand, symbols))
        case Sum(operands):
            return sympy.Add(*[build(one, symbols) for one in operands])
        case Product(operands):
            return sympy.Mul(*[build(one, symbols) for one in operands])
        case Power(base, exponent):
            return _build_power(build(base, symbols), build(exponent, symbols))
        case FunctionCall(function, arguments):
            return _build_call(function, arguments, symbols)
        case Equation() | Items():
            raise NoResultError("an equation or a list has no value here; write solve(equation, x)")


def _build_power(base: Expression, exponent: Expression) -> Expression:
    if base.is_zero and exponent.is_zero:
        raise UndefinedError("0^0 has no agreed value; write the one that you mean")
    return sympy.Pow(base, exponent)


def _build_factorial(value: Expression) -> Expression:
    if value.is_number and not (value.is_Integer and value >= 0):
        raise UndefinedError("a factorial is of a whole number from 0; write gamma(x + 1) for others")
    return sympy.factorial(value)


def _build_call(function: str, arguments: tuple[Node, ...], symbols: Mapping[str, Expression]) -> Expression:
    if function in _COMMANDS:
        return _COMMANDS[function](arguments, symbols)
    values = [build(argument, symbols) for argument in arguments]
    return _FUNCTIONS[function](*values)


def _build_root(value: Expression, degree: Expression) -> Expression:
    if not (degree.is_Integer and degree > 0):
        raise UndefinedError("root(x, n) takes a whole number n from 1; write x^(1/n) for others")
    power = sympy.Rational(1, degree)
    if degree % 2 == 0 or value.is_nonnegative or not value.is_real:
        return sympy.Pow(value, power)
    return sympy.sign(value) * sympy.Pow(sympy.Abs(value), power)


def _require_integers(name: str, values: tuple[Expression, ...]) -> None:
    if not all(value.is_Integer for value in values):
        raise UndefinedError(f"{name} takes whole numbers")


def _build_gcd(*values: Expression) -> Expression:
    _require_integers("gcd", values)
    return sympy.Integer(sympy.igcd(*values))


def _build_lcm(*values: Expression) -> Expression:
    _require_integers("lcm", values)
    return sympy.Integer(sympy.ilcm(*values))


def _build_mod(value: Expression, divisor: Expression) -> Expression:
    if divisor.is_zero:
        raise UndefinedError("mod(a, 0) has no value: it divides by zero")
    return sympy.Mod(value, divisor)


def _build_log(value: Expression, base: Expression) -> Expression:
    if base.is_number and (base.is_zero or base == 1):
        raise UndefinedError("a logarithm's base is neither 0 nor 1")
    return (
        sympy.log(value) / sympy.log(base) if not (value.is_Rational and base.is_Rational) else sympy.log(value, base)
    )


_FUNCTIONS: Final[Mapping[str, Callable[..., Expression]]] = {
    "sqrt": lambda value: sympy.Pow(value, sympy.Rational(1, 2)),
    "cbrt": lambda value: _build_root(value, sympy.Integer(3)),
    "root": _build_root,
    "abs": sympy.Abs,
    "sign": sympy.sign,
    "exp": sympy.exp,
    "ln": sympy.log,
    "log": _build_log,
    "log10": lambda value: _build_log(value, sympy.Integer(10)),
    "log2": lambda value: _build_log(value, sympy.Integer(2)),
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
    "factorial": _build_factorial,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "cot": sympy.cot,
    "sec": sympy.sec,
    "csc": sympy.csc,
    "asin": sympy.asin,
    "acos": sympy.acos,
    "atan": sympy.atan,
    "acot": sympy.acot,
    "atan2": sympy.atan2,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "asinh": sympy.asinh,
    "acosh": sympy.acosh,
    "atanh": sympy.atanh,
    "degrees": lambda value: value * sympy.pi / sympy.Integer(180),
    "gamma": sympy.gamma,
    "erf": sympy.erf,
    "erfi": sympy.erfi,
    "lambertw": sympy.LambertW,
    "Ei": sympy.Ei,
    "Si": sympy.Si,
    "Ci": sympy.Ci,
    "re": sympy.re,
    "im": sympy.im,
    "mod": _build_mod,
    "binomial": sympy.binomial,
    "gcd": _build_gcd,
    "lcm": _build_lcm,
    "min": sympy.Min,
    "max": sympy.Max,
}


def _read_variable(node: Node) -> str:
    assert isinstance(node, Name)  # the parser has seen to it
    return node.name


def _build_count(node: Node, what: str, least: int, most: int) -> int:
    value = build(node)
    if not (value.is_Integer and least <= value <= most):
        raise UndefinedError(f"{what} is a whole number from {least} to {most}")
    return int(value)


def _differentiate(arguments: tuple[Node, ...], symbols: Mapping[str, Expression]) -> Expression:
    order = _build_count(arguments[2], "the order of a derivative", 1, calculus.MOST_ORDER) if arguments[2:] else 1
    symbol = create_symbol(_read_variable(arguments[1]))
    return calculus.differentiate(build(arguments[0], symbols), symbol, order)


def _integrate(arguments: tuple[Node, ...], symbols: Mapping[str, Expression]) -> Expression:
    if len(arguments) not in (2, 4):
        raise UndefinedError("integrate takes a variable alone, or with both bounds: integrate(f, x, from, to)")
    symbol = create_symbol(_read_variable(arguments[1]))
    bounds = [build(argument, symbols) for argument in arguments[2:]]
    return calculus.integrate(build(arguments[0], symbols), symbol, *bounds)


def _take_limit(arguments: tuple[Node, ...], symbols: Mapping[str, Expression]) -> Expression:
    symbol = create_symbol(_read_variable(arguments[1]))
    side = _read_variable(arguments[3]) if arguments[3:] else ""
    return calculus.take_limit(build(arguments[0], symbols), symbol, build(arguments[2], symbols), side)


def _expand_series(arguments: tuple[Node, ...], symbols: Mapping[str, Expression]) -> Expression:
    symbol = create_symbol(_read_variable(arguments[1]))
    point = build(arguments[2], symbols) if arguments[2:] else sympy.Integer(0)
    order = _build_count(arguments[3], "the order of a series", 1, calculus.MOST_ORDER) if arguments[3:] else 6
    return calculus.expand_series(build(arguments[0], symbols), symbol, point, order)


def _add_up(arguments: tuple[Node, ...], symbols: Mapping[str, Expression]) -> Expression:
    name = _read_variable(arguments[1])
    index = sympy.Symbol(name, integer=True)
    low, high = (build(argument, symbols) for argument in arguments[2:])
    return calculus.add_up(build(arguments[0], {**symbols, name: index}), index, low, high)


def _rewrite(command: Callable[[Expression], Expression]) -> "Command":
    def rewrite(arguments: tuple[Node, ...], symbols: Mapping[str, Expression]) -> Expression:
        return command(build(arguments[0], symbols))

    return rewrite


Command = Callable[[tuple[Node, ...], Mapping[str, Expression]], Expression]
_COMMANDS: Final[Mapping[str, Command]] = {
    "diff": _differentiate,
    "integrate": _integrate,
    "limit": _take_limit,
    "series": _expand_series,
    "sum": _add_up,
    "simplify": _rewrite(sympy.simplify),
    "factor": _rewrite(calculus.factorize),
    "expand": _rewrite(sympy.expand),
}
