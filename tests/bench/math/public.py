"""Public questions in prose, of BIG-bench: sums in words, and MathQA's problems. Nobody who writes rules wrote or reads them.

Of the problems those whose right choice is a whole number: others are rounded there.
"""

import json
import random
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Final

from bench.math.prose import Question
from support.big_bench.files import ARITHMETIC, MATH_QA, find_file

TRANSLATION: Final = "translation"


def choose_sums(count: int, seed: int) -> list[Question]:
    """Return so many sums, products, differences and quotients of two numbers."""
    examples = [example for name in ARITHMETIC for example in _read(name)]
    chosen = random.Random(f"sums {seed}").sample(examples, count)
    return [Question(TRANSLATION, "sum", one["input"].strip(), Fraction(one["target"])) for one in chosen]


def choose_problems(count: int, seed: int) -> list[Question]:
    """Return so many problems."""
    problems = list(list_problems(_read(MATH_QA)))
    return random.Random(f"problems {seed}").sample(problems, count)


def list_problems(examples: Iterable[Any]) -> Iterator[Question]:
    """Yield the problems with a whole number as their answer."""
    for example in examples:
        (choice,) = (text.strip() for text, score in example["target_scores"].items() if score == 1)
        if choice.isdecimal():
            yield Question(TRANSLATION, "problem", example["input"].strip(), Fraction(choice))


def _read(name: str) -> list[Any]:
    examples: list[Any] = json.loads(find_file(name).read_text(encoding="utf-8"))["examples"]
    return examples
