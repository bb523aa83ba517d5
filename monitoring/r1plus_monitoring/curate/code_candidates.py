"""Candidates about code: what short Python expressions give, and the words of programming.

Called by `candidates` for families that are trained on code. Each expression is computed here by the operation that
its text names, so an answer cannot differ from what Python prints.
"""

from collections.abc import Iterator
from typing import Final

_WORDS: Final = ("cat", "dog", "tree", "house", "bread", "river", "apple", "stone", "green", "window", "paper", "music")
_LISTS: Final = (
    (3, 1, 2),
    (5, 9, 4),
    (10, 20, 30),
    (7, 2, 8),
    (6, 1, 5),
    (12, 4, 9),
    (2, 4, 6, 8),
    (9, 3, 7, 1),
    (15, 25, 5),
    (8, 8, 1),
    (11, 13, 17),
    (40, 10, 30, 20),
)


def list_expressions() -> Iterator[tuple[str, str]]:
    """Yield Python expressions with what they give, as Python prints it."""
    for numbers in _LISTS:
        shown = list(numbers)
        yield f"max({shown})", str(max(shown))
        yield f"min({shown})", str(min(shown))
        yield f"sum({shown})", str(sum(shown))
        yield f"len({shown})", str(len(shown))
        yield f"{shown}[0]", str(shown[0])
        yield f"{shown}[1]", str(shown[1])
        yield f"{shown}[-1]", str(shown[-1])
        yield f"sorted({shown})[0]", str(sorted(shown)[0])
    for word in _WORDS:
        yield f'len("{word}")', str(len(word))
        yield f'"{word}"[0]', word[0]
        yield f'"{word}" + "s"', f"{word}s"
        yield f'"{word}" * 2', word * 2
        yield f'"{word}"[::-1]', word[::-1]
        yield f'"{word}".replace("{word[0]}", "z")', word.replace(word[0], "z")
    yield from _arithmetic_expressions()


def _arithmetic_expressions() -> Iterator[tuple[str, str]]:
    for a, b in ((7, 2), (9, 4), (10, 3), (17, 5), (20, 6), (15, 4), (8, 3), (25, 7)):
        yield f"{a} // {b}", str(a // b)
        yield f"{a} % {b}", str(a % b)
    for a in range(2, 10):
        yield f"{a} ** 2", str(a**2)
        yield f'int("{a}{a - 1}") + 1', str(int(f"{a}{a - 1}") + 1)
        yield f"abs(-{a}{a})", str(abs(-int(f"{a}{a}")))
    for a in range(3, 11):
        yield f"2 ** {a}", str(2**a)
    for number in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16):
        yield f'int("{number:b}", 2)', str(number)
