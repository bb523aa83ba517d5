"""What a training by verifiable reward depends on, and the record of one. Needs no torch."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from r1plus_contract.jsonable import dumps
from r1plus_model.errors import DistillationError
from r1plus_model.training.recipe import find_out_of_range

TRAINER_VERSION: Final = 1
"""Raised when the same recipe gives another model."""
MOST_SAMPLES: Final = 32
"""Answers to one question that are drawn together."""
RECORD_FILE: Final = "reinforced.json"
"""In the trained checkpoint: a `ReinforcementRecord`."""


@dataclass(frozen=True, slots=True)
class ReinforcementRecipe:
    """Everything that decides the trained weights."""

    model: str = ""
    """Digest of the checkpoint, 64 hex digits."""
    data: str = ""
    """sha256 of the file with the questions, 64 hex digits."""
    held_out: str = ""
    """sha256 of the file with the questions to measure with, 64 hex digits."""
    task: str = ""
    """Digest of what the model continues and how it may, 64 hex digits: a release may ask in another way."""
    rounds: int = 3
    samples: int = 8
    """Answers that are drawn for each question in a round."""
    temperature: float = 1.0
    steps: int = 60
    """Of each round."""
    batch: int = 16
    """Answers of one step."""
    learning_rate: float = 5e-5
    precision: str = "float32"
    """Of matrix products in training; weights are kept in float32."""
    seed: int = 0
    trainer: int = TRAINER_VERSION

    @property
    def key(self) -> str:
        """sha256 of the recipe, 64 hex digits."""
        return hashlib.sha256(dumps(self).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What one round did."""

    drawn: int
    """Answers."""
    right: int
    """Of these."""
    solved: int
    """Questions with a right answer in this round."""
    kept: int
    """Different right answers, of this round and those before, that were trained on."""
    trained_tokens: int
    held_out_right: int
    """Of the held-out questions, after this round."""


@dataclass(frozen=True, slots=True)
class Change:
    """How many held-out questions are right before and after, asked greedily under the same grammar."""

    questions: int
    before: int
    after: int
    gained: int
    """Wrong before, right after."""
    lost: int
    lower: float
    """Of the difference of the shares: with `upper`, an interval that holds with a chance of at least 95 %."""
    upper: float
    p: float
    """McNemar's, exact, of both sides."""


@dataclass(frozen=True, slots=True)
class ReinforcementRecord:
    """What was trained: the contents of `reinforced.json`."""

    key: str
    recipe: ReinforcementRecipe
    questions: int
    rounds: tuple[RoundRecord, ...]
    change: Change
    right_before: tuple[bool, ...]
    """Of the held-out questions, in their order."""
    right_after: tuple[bool, ...]


def check_recipe(recipe: ReinforcementRecipe) -> None:
    """Raise DistillationError with every value that is out of range."""
    if problems := list(_find_problems(recipe)):
        raise DistillationError("\n".join(problems))


def _find_problems(recipe: ReinforcementRecipe) -> Iterator[str]:
    yield from find_out_of_range(
        recipe,
        {
            "rounds": (1, 100, "3 are a beginning"),
            "samples": (1, MOST_SAMPLES, "8 are a beginning"),
            "steps": (1, 10**6, "give the training steps of a round"),
            "batch": (1, 1024, "give the answers of one step"),
            "seed": (0, 2**31 - 1, "give another seed"),
        },
        {
            "temperature": (0.01, 10.0, "1 draws what the model finds likely; 0 would draw one answer again and again"),
            "learning_rate": (1e-8, 1.0, "0.00005 suits small models"),
        },
    )
