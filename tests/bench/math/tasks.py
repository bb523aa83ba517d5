"""Tasks that are built backwards from their answers, without SymPy: a text, and what has to come out of it."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

POINTS: Final = (Fraction(7, 5), Fraction(-3, 7), Fraction(31, 10), Fraction(5, 9))
"""Where functions are compared."""
Function = Callable[[Fraction], float]


@dataclass(frozen=True, slots=True)
class Task:
    """One question."""

    kind: str
    text: str
    number: Fraction | None = None
    """The answer, if it is a number."""
    function: Function | None = None
    """The answer, if it depends on x."""
    slope: Function | None = None
    """The derivative of the answer, if it is an antiderivative."""
    solutions: Mapping[str, tuple[Fraction, ...]] | None = None
    """The answer, if unknowns have values: of each unknown, in the order of the solutions."""
    has_expression: bool = True
    """Without one, nothing may be found."""


@dataclass(frozen=True, slots=True)
class Polynomial:
    """Whole coefficients, the constant first."""

    coefficients: tuple[int, ...]

    def __call__(self, value: Fraction) -> float:
        """Return the value at a point."""
        return float(sum(factor * value**power for power, factor in enumerate(self.coefficients)))

    def differentiate(self) -> "Polynomial":
        """Return the derivative."""
        return Polynomial(tuple(power * factor for power, factor in enumerate(self.coefficients))[1:] or (0,))

    def integrate(self, low: int, high: int) -> Fraction:
        """Return the integral between two bounds."""
        total = Fraction(0)
        for power, factor in enumerate(self.coefficients):
            total += Fraction(factor * (high ** (power + 1) - low ** (power + 1)), power + 1)
        return total

    def write(self, *, star: str = "", spaces: bool = True, name: str = "x") -> str:
        """Return it as people write it, highest power first."""
        text = ""
        for power in range(len(self.coefficients) - 1, -1, -1):
            factor = self.coefficients[power]
            if not factor:
                continue
            body = "" if power == 0 else name if power == 1 else f"{name}^{power}"
            size = str(abs(factor)) if abs(factor) != 1 or not body else ""
            piece = f"{size}{star if size and body else ''}{body}"
            if text:
                gap = " " if spaces else ""
                text += f"{gap}{'-' if factor < 0 else '+'}{gap}{piece}"
            else:
                text = f"{'-' if factor < 0 else ''}{piece}"
        return text or "0"


def draw_polynomial(draw: random.Random, degree: int) -> Polynomial:
    """Return one of this degree."""
    lower = [draw.randint(-9, 9) for _ in range(degree)]
    return Polynomial((*lower, draw.choice((1, 2, 3, 4, 5, 7, -1, -2))))


def multiply(left: Sequence[int], right: Sequence[int]) -> Polynomial:
    """Return a product."""
    product = [0] * (len(left) + len(right) - 1)
    for first, one in enumerate(left):
        for second, other in enumerate(right):
            product[first + second] += one * other
    return Polynomial(tuple(product))


Template = Callable[[random.Random], Task]


def generate(templates: Sequence[Template], count: int, seed: int) -> Iterator[Task]:
    """Yield so many tasks, each template as often."""
    draw = random.Random(seed)
    for number in range(count):
        yield templates[number % len(templates)](draw)
