"""Expressions that nobody writes in good faith, from a seed."""

import random
from collections.abc import Callable, Iterator
from typing import Final

PYTHON_NAMES: Final = (
    "__import__('os').system('id')",
    "().__class__.__bases__[0].__subclasses__()",
    "eval('1')",
    "exec(1)",
    "open('/etc/passwd').read()",
    "lambda: 0",
    "globals()",
    "os.system",
    "x.__class__",
    "sympy.sympify('1')",
    "[x for x in y]",
    "f'{x}'",
    '"text"',
    "S('1')",
    "Symbol('x')",
    "import os",
    "1 if x else 2",
    "x := 1",
    "{}",
    "print(1)",
    "getattr(x, y)",
)
SIGNS: Final = "0123456789xyze.+-*/^!%=(),[] \x00\n\u0661\u00b2\u221e\ud800_\"'\\`$#@&~<>|{};:"
FUNCTIONS: Final = ("sin", "exp", "gamma", "sqrt", "ln", "abs", "tan", "erf", "lambertw", "floor", "asin", "sinh")


def _nest(draw: random.Random) -> str:
    depth = draw.choice((40, 49, 60, 300, 600))
    opening = draw.choice(("(", "-(", "sin(", "2^(", "[", "sqrt(", "--"))
    closing = "" if opening == "--" else "]" if opening == "[" else ")"
    return opening * depth + "x" + closing * (depth if draw.random() < 0.8 else depth // 2)


def _build_tower(draw: random.Random) -> str:
    return "^".join(str(draw.randint(2, 99)) for _ in range(draw.randint(3, 6)))


def _build_factorials(draw: random.Random) -> str:
    number = draw.choice((999, 1000, 5000, 99999, 10**9, 10**40))
    return draw.choice((f"{number}!", f"(({draw.randint(3, 20)}!)!)!", f"gamma({number})", f"binomial({number}, 77)"))


def _build_large(draw: random.Random) -> str:
    sign = draw.choice(("+", "*", "^", " ", "1+", "x*", "9"))
    return "x" + (sign + draw.choice(("x", "7", ""))) * draw.randint(100, 2000)


def _build_integral(draw: random.Random) -> str:
    inner = (
        f"{draw.choice(FUNCTIONS)}(x)^{draw.randint(2, 30)}*{draw.choice(FUNCTIONS)}(x+1)/(x^{draw.randint(3, 9)}+1)"
    )
    for _ in range(draw.randint(0, 3)):
        inner = f"integrate({inner}, x)"
    return f"integrate({inner}, x{draw.choice(('', ', 0, 1', ', -inf, inf'))})"


def _build_expansion(draw: random.Random) -> str:
    names = "+".join("abcdefgh"[: draw.randint(2, 8)])
    return f"{draw.choice(('expand', 'factor', 'simplify'))}(({names})^{draw.randint(10, 900)})"


def _build_equation(draw: random.Random) -> str:
    degree = draw.randint(5, 60)
    return f"solve({draw.choice(FUNCTIONS)}(x) + x^{degree} - {draw.choice(FUNCTIONS)}(x^3) = {draw.randint(1, 9)}, x)"


def _build_noise(draw: random.Random) -> str:
    return "".join(draw.choice(SIGNS) for _ in range(draw.randint(0, 60)))


def _build_number(draw: random.Random) -> str:
    return draw.choice(
        (f"1e{10 ** draw.randint(3, 12)}", "9" * draw.randint(900, 2100), f"0.{'1' * 990}e-999", "1e-999")
    )


def _build_composition(draw: random.Random) -> str:
    text = "x"
    for _ in range(draw.randint(3, 30)):
        text = f"{draw.choice(FUNCTIONS)}({text}{draw.choice(('', '+1', '^2', '/3', '^x'))})"
    command = draw.choice(("diff({}, x, 9)", "limit({}, x, 0)", "series({}, x, 0, 9)", "simplify({})", "{}"))
    return command.format(text)


def _build_values(draw: random.Random) -> str:
    return _build_composition(draw).replace("x,", "@,").replace("x", str(draw.randint(2, 99))).replace("@", "x")


def _build_sum(draw: random.Random) -> str:
    return f"sum({draw.choice(FUNCTIONS)}(k)/k^{draw.randint(1, 9)}, k, 1, {draw.choice(('inf', '999', '10^9', 'n'))})"


_KINDS: Final[tuple[Callable[[random.Random], str], ...]] = (
    lambda draw: draw.choice(PYTHON_NAMES),
    _nest,
    _build_tower,
    _build_factorials,
    _build_large,
    _build_integral,
    _build_expansion,
    _build_equation,
    _build_noise,
    _build_number,
    _build_composition,
    _build_values,
    _build_sum,
)


def generate_hostile(count: int, seed: int) -> Iterator[str]:
    """Yield so many expressions, each kind as often."""
    draw = random.Random(seed)
    for number in range(count):
        yield _KINDS[number % len(_KINDS)](draw)
