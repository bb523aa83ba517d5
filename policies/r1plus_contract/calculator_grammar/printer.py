"""Trees to text that the parser reads again."""

from fractions import Fraction
from typing import Final

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

_EQUATION, _SUM, _PRODUCT, _SIGNED, _POWER, _POSTFIX, _ATOM = range(7)
"""How tightly a text holds together."""
_Text = tuple[str, int]
ONE: Final = Number(Fraction(1))


def print_tree(node: Node) -> str:
    """Return the text of a tree. Parsing it gives a tree that prints the same."""
    return _print(node)[0]


def _print(node: Node) -> _Text:  # noqa: C901 - a case for each kind of node
    match node:
        case Number(value):
            return (str(value), _ATOM) if value.denominator == 1 else (str(value), _PRODUCT)
        case Name(name):
            return name, _ATOM
        case FunctionCall(function, arguments):
            return f"{function}({_join(arguments)})", _ATOM
        case Items(items):
            return f"[{_join(items)}]", _ATOM
        case Equation(left, right):
            return f"{_wrap(left, _SUM)} = {_wrap(right, _SUM)}", _EQUATION
        case Factorial(operand):
            return f"{_wrap(operand, _ATOM)}!", _POSTFIX
        case Percent(operand):
            return f"{_wrap(operand, _ATOM)}%", _POSTFIX
        case Power(base, exponent):
            return f"{_wrap(base, _POSTFIX)}^{_wrap(exponent, _POWER)}", _POWER
        case Negative(operand):
            moved = _move_sign(operand)
            if moved is not None:
                return _print_product(moved)
            return f"-{_wrap(operand, _PRODUCT)}", _PRODUCT if _is_product(operand) else _SIGNED
        case Sum(terms):
            return _print_sum(terms), _SUM
        case Product() | Inverse():
            return _print_product(node)


def _join(nodes: tuple[Node, ...]) -> str:
    return ", ".join(_print(node)[0] for node in nodes)


def _wrap(node: Node, least: int) -> str:
    text, strength = _print(node)
    return text if strength >= least else f"({text})"


def _print_sum(terms: tuple[Node, ...]) -> str:
    text = _wrap(terms[0], _PRODUCT)
    for term in terms[1:]:
        is_negative = isinstance(term, Negative)
        operand = term.operand if isinstance(term, Negative) else term
        # A sign directly after a sign is read again, and hard to read.
        piece = _wrap(operand, _PRODUCT)
        text += f" {'-' if is_negative else '+'} {f'({piece})' if piece.startswith('-') else piece}"
    return text


def _move_sign(operand: Node) -> Product | None:
    """Return the product that a sign before `operand` makes, with the sign at its first factor above the line.

    The parser reads a sign with the factor that follows: before a product within a product it is inside the
    parentheses. None: it stays where it is.
    """
    if isinstance(operand, Negative):
        operand = _move_sign(operand.operand) or operand
    if not isinstance(operand, Product):
        return None
    factors = list(operand.operands)
    place = next((number for number, one in enumerate(factors) if not isinstance(one, Inverse)), None)
    if place is None or not _is_product(factors[place]):
        return None
    factors[place] = Negative(factors[place])
    return Product(tuple(factors))


def _is_product(node: Node) -> bool:
    """Return whether it is a product, whatever signs are before it."""
    while isinstance(node, Negative):
        node = node.operand
    return isinstance(node, Product | Inverse)


def _print_product(node: Product | Inverse) -> _Text:
    above: list[Node] = []
    below: list[Node] = []
    for factor in node.operands if isinstance(node, Product) else (node,):
        if isinstance(factor, Inverse):
            below.extend(_list_factors(factor.operand))
        else:
            above.append(factor)
    numerator = _print_factors(above or [ONE])
    if not below:
        return numerator, _PRODUCT
    denominator = f"({_print_factors(below)})" if len(below) > 1 else _wrap(below[0], _POWER)
    return f"{numerator}/{denominator}", _PRODUCT


def _list_factors(node: Node) -> tuple[Node, ...]:
    """Return the factors of a denominator; a fraction within it stays one."""
    if isinstance(node, Product) and not any(isinstance(factor, Inverse) for factor in node.operands):
        return node.operands
    return (node,)


def _print_factors(factors: list[Node]) -> str:
    return "*".join([_wrap(factors[0], _SIGNED), *(_wrap(factor, _POWER) for factor in factors[1:])])
