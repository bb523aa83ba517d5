"""What a distillation depends on, and the record of one. Needs no torch.

The same recipe gives the same student on the same machine. Its key names the working folder, so that a run that was
killed goes on with its own files, and a changed one begins again.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from r1plus_contract.jsonable import dumps
from r1plus_model.errors import DistillationError

TRAINER_VERSION: Final = 2
"""Raised when the same recipe gives another student."""
PRECISIONS: Final = ("float32", "bfloat16")
Bounds = Mapping[str, tuple[float, float, str]]
"""Field -> its least and greatest value, and what to do."""
RECORD_FILE: Final = "distilled.json"
"""In the student's checkpoint: a `DistillationRecord`."""


@dataclass(frozen=True, slots=True)
class DistillationRecipe:
    """Everything that decides the student's weights."""

    teacher: str
    """Digest of the teacher's checkpoint, 64 hex digits."""
    data: str
    """sha256 of the file with the data, 64 hex digits."""
    layers: int | None
    """Of the teacher, that the student keeps: those that change the hidden states most."""
    student: str | None = None
    """Digest of the checkpoint that is trained; None: it is cut out of the teacher."""
    temperature: float = 3.0
    hard_weight: float = 0.0
    """Share of the cross-entropy with the text's own tokens; 1 ignores the teacher."""
    steps: int = 2000
    batch: int = 8
    """Examples of one step."""
    length: int = 256
    """Most tokens of one example."""
    learning_rate: float = 2e-4
    top: int = 64
    """Tokens of the teacher that are kept for each position."""
    precision: str = "float32"
    """Of matrix products in training; weights are kept in float32."""
    seed: int = 0
    trainer: int = TRAINER_VERSION

    @property
    def key(self) -> str:
        """sha256 of the recipe, 64 hex digits."""
        return hashlib.sha256(dumps(self).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a student predicts text that it was not trained on."""

    perplexity: float
    divergence: float
    """T² * KL from the teacher, over its most likely tokens and all others as one."""


@dataclass(frozen=True, slots=True)
class DistillationRecord:
    """What was distilled: the contents of `distilled.json`."""

    key: str
    recipe: DistillationRecipe
    kept_layers: tuple[int, ...]
    """Of the teacher, counted from 0; none of a student of its own."""
    examples: int
    trained_tokens: int
    """Tokens that the student predicted in training; repeated examples count each time."""
    held_out_tokens: int
    teacher_perplexity: float
    before: Quality
    after: Quality


def check_recipe(recipe: DistillationRecipe, teacher_layers: int, vocabulary: int) -> None:
    """Raise DistillationError with every value that is out of range."""
    if problems := list(_find_problems(recipe, teacher_layers, vocabulary)):
        raise DistillationError("\n".join(problems))


def _find_problems(recipe: DistillationRecipe, teacher_layers: int, vocabulary: int) -> Iterator[str]:
    if (recipe.layers is None) == (recipe.student is None):
        yield "layers: give layers or student: how many of the teacher's layers to keep, or what to train instead"
    whole: Bounds = {
        "layers": (1, teacher_layers - 1, f"a student has fewer layers than its teacher, which has {teacher_layers}"),
        "steps": (1, 10**6, "give a number of training steps"),
        "batch": (1, 1024, "give the examples of one step"),
        "length": (8, 8192, "give the most tokens of one example"),
        "top": (1, vocabulary, f"the vocabulary has {vocabulary} tokens"),
        "seed": (0, 2**31 - 1, "give another seed"),
    }
    real: Bounds = {
        "temperature": (0.1, 100.0, "3 softens a teacher well"),
        "hard_weight": (0.0, 1.0, "it is a share: 0 is the teacher alone, 1 the text alone"),
        "learning_rate": (1e-8, 1.0, "0.0002 suits small models"),
    }
    yield from find_out_of_range(recipe, whole, real)


def find_out_of_range(recipe: Any, whole: Bounds, real: Bounds) -> Iterator[str]:
    """Yield what is wrong with the values of a recipe: whole numbers, real ones, and its precision."""
    for name, (least, most, why) in whole.items():
        value = getattr(recipe, name)
        if value is not None and not least <= value <= most:
            yield f"{name}: {value} is not from {least} to {most}: {why}"
    for name, (least, most, why) in real.items():
        value = getattr(recipe, name)
        if not (math.isfinite(value) and least <= value <= most):
            yield f"{name}: {value} is not from {least:g} to {most:g}: {why}"
    if recipe.precision not in PRECISIONS:
        yield f"precision: {recipe.precision!r:.40} is not one of {', '.join(PRECISIONS)}"
