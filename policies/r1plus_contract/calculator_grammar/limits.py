"""Bounds of an expression, checked before anything is computed."""

from dataclasses import dataclass
from typing import Final

MOST_BYTES: Final = 2048
"""Of an expression in UTF-8."""
MOST_DEPTH: Final = 50
"""Of brackets, signs and powers within each other."""
MOST_NODES: Final = 500
"""Numbers, names, operations and calls."""
MOST_DIGITS: Final = 1000
"""Of one number, with the zeros of its exponent."""
MOST_BITS: Final = 10_000
"""Of one exact number within a calculation: about 3,010 digits."""
MOST_RESULT_CHARACTERS: Final = 4096
"""Of a result."""
MOST_NAME_CHARACTERS: Final = 32
MOST_VARIABLES: Final = 12
MOST_UNKNOWNS: Final = 6
"""Of a system of equations."""
MOST_EXPONENT: Final = 1000
"""Of a power whose base has variables."""
MOST_ORDER: Final = 12
"""Of a derivative or a series."""
MOST_TERMS: Final = 1000
"""Of a sum that is added up term by term."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a text that is parsed."""

    most_bytes: int
    most_digits: int
    most_nodes: int
    most_depth: int


EXPRESSION: Final = Bounds(MOST_BYTES, MOST_DIGITS, MOST_NODES, MOST_DEPTH)
RESULT: Final = Bounds(MOST_RESULT_CHARACTERS, MOST_RESULT_CHARACTERS, MOST_RESULT_CHARACTERS, 2 * MOST_DEPTH)
"""What the calculator writes, it reads again."""
