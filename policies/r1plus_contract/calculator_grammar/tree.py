"""The syntax tree: frozen values, made by the parser and by what reads results."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Number:
    """A number that is not negative, exactly: 0.1 is 1/10."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, or a constant of `functions.CONSTANTS`."""

    name: str


@dataclass(frozen=True, slots=True)
class Negative:
    """-operand."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Inverse:
    """1/operand; within a product, a division."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Factorial:
    """operand!"""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Percent:
    """operand%: its hundredth."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms, at least two."""

    operands: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Product:
    """Factors, at least two."""

    operands: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Power:
    """base^exponent."""

    base: "Node"
    exponent: "Node"


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function or a command with its arguments."""

    function: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """left = right."""

    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Items:
    """A list in square brackets."""

    items: tuple["Node", ...]


Node = (
    Number | Name | Negative | Inverse | Factorial | Percent | Sum | Product | Power | FunctionCall | Equation | Items
)


def list_children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below."""
    match node:
        case Number() | Name():
            return ()
        case Negative(operand) | Inverse(operand) | Factorial(operand) | Percent(operand):
            return (operand,)
        case Sum(operands) | Product(operands) | FunctionCall(_, operands) | Items(operands):
            return operands
        case Power(first, second) | Equation(first, second):
            return first, second


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it."""
    stack = [node]
    while stack:
        last = stack.pop()
        yield last
        stack.extend(list_children(last))
