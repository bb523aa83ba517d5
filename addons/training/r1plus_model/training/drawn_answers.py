"""The answers of a round, as the working folder has them: one line of JSON for each question. Needs no torch."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1plus_contract.jsonable import ContractError, loads


@dataclass(frozen=True, slots=True)
class DrawnAnswer:
    """Equal texts that were drawn for a question."""

    text: str
    tokens: tuple[int, ...]
    count: int
    is_right: bool


@dataclass(frozen=True, slots=True)
class Draw:
    """The answers to one question in a round: a line of `drawn-ROUND.jsonl`."""

    question: int
    answers: tuple[DrawnAnswer, ...]


def read_draws(path: Path) -> list[Draw]:
    """Return the draws in a file, up to a line that is not whole, as a kill leaves it."""
    return list(_read_whole_lines(path)) if path.is_file() else []


def _read_whole_lines(path: Path) -> Iterator[Draw]:
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True)):
        try:
            draw = loads(Draw, line)
        except ContractError:
            return
        if draw.question != number or not line.endswith(b"\n"):
            return
        yield draw


def count_answers(draws: Sequence[Draw]) -> int:
    """Return how many answers were drawn."""
    return sum(one.count for draw in draws for one in draw.answers)


def count_right(draw: Draw) -> int:
    """Return how many of the answers to a question are right."""
    return sum(one.count for one in draw.answers if one.is_right)


def merge_right(draws: Sequence[Draw]) -> dict[int, list[tuple[int, ...]]]:
    """Return the tokens of different right answers to each question, those drawn most often first."""
    counts: dict[int, Counter[str]] = {}
    tokens: dict[tuple[int, str], tuple[int, ...]] = {}
    for draw in draws:
        for one in draw.answers:
            if one.is_right:
                counts.setdefault(draw.question, Counter())[one.text] += one.count
                tokens.setdefault((draw.question, one.text), one.tokens)
    return {
        question: [tokens[question, text] for text, _ in sorted(own.items(), key=lambda pair: (-pair[1], pair[0]))]
        for question, own in counts.items()
    }
