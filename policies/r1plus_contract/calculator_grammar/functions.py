"""Names that mean something: constants, functions and commands, with the numbers of their arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_contract.calculator_grammar.tree import Name, Node, walk

CONSTANTS: Final = frozenset({"pi", "e", "i", "inf"})
DIRECTIONS: Final = ("left", "right")
"""Fourth argument of `limit`."""


@dataclass(frozen=True, slots=True)
class Arity:
    """How many arguments there are, and how they are written."""

    least: int
    most: int
    usage: str


FUNCTIONS: Final[Mapping[str, Arity]] = {
    **{
        name: Arity(1, 1, f"{name}(x)")
        for name in (
            *("sqrt", "cbrt", "abs", "sign", "exp", "ln", "log10", "log2", "floor", "ceil", "factorial"),
            *("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot"),
            *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "degrees"),
            *("gamma", "erf", "erfi", "lambertw", "Ei", "Si", "Ci", "re", "im"),
        )
    },
    "atan2": Arity(2, 2, "atan2(y, x)"),
    "root": Arity(2, 2, "root(x, n)"),
    "log": Arity(2, 2, "log(x, base)"),
    "mod": Arity(2, 2, "mod(a, b)"),
    "binomial": Arity(2, 2, "binomial(n, k)"),
    **{name: Arity(2, 12, f"{name}(a, b, ...)") for name in ("gcd", "lcm", "min", "max")},
}
COMMANDS: Final[Mapping[str, Arity]] = {
    "solve": Arity(1, 2, "solve(equation, x) or solve([equation, equation], [x, y])"),
    "diff": Arity(1, 3, "diff(f, x) or diff(f, x, order)"),
    "integrate": Arity(1, 4, "integrate(f, x) or integrate(f, x, from, to)"),
    "limit": Arity(3, 4, "limit(f, x, point), or with left or right as fourth"),
    "series": Arity(2, 4, "series(f, x, point, order)"),
    "sum": Arity(4, 4, "sum(f, k, from, to)"),
    "simplify": Arity(1, 1, "simplify(f)"),
    "factor": Arity(1, 1, "factor(f)"),
    "expand": Arity(1, 1, "expand(f)"),
}
ARITIES: Final[Mapping[str, Arity]] = {**FUNCTIONS, **COMMANDS}


def list_variables(node: Node) -> tuple[str, ...]:
    """Return the names of an expression that are no constants, sorted."""
    names = {part.name for part in walk(node) if isinstance(part, Name)}
    return tuple(sorted(names - CONSTANTS - set(DIRECTIONS)))
