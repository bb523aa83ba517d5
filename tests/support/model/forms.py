"""A teacher of four layers that knows what the forms of a bank are for, and questions that its students are asked."""

import itertools
import time
from pathlib import Path

from r1plus_contract.suites.suite import Item
from r1plus_model.training.distillation import DistillationRequest, distil
from r1plus_model.training.loop import TrainingProcess
from r1plus_model.training.recipe import DistillationRecipe
from support.model.tiny_models import write_data, write_tiny

MEANINGS = (
    "loan", "card", "cash", "bond", "fund", "note", "rate", "bill", "coin", "bank", "debt", "fees", "cost", "sale", "rent", "gift",
)  # fmt: skip
FORMS = dict(zip("ABCDEFGHIJKLMNOP", MEANINGS, strict=True))
"""What each form is for: the facts of the teacher, which is 64 wide."""
WORDINGS = (
    "form {} is which?",
    "which form is {}?",
    "name the form {}",
    "what does {} mean?",
    "please say what {} is",
    "now tell of {} here",
)


def split_questions() -> tuple[list[dict[str, str]], tuple[Item, ...]]:
    """Return lines of data, and items of a suite: of each form a third of the wordings, which no line has."""
    lines, items = [], []
    for (row, (form, meaning)), (column, wording) in itertools.product(enumerate(FORMS.items()), enumerate(WORDINGS)):
        question = wording.format(form)
        if (row + column) % 3:
            lines.append({"prompt": question, "answer": meaning})
        else:
            items.append(Item(f"form-{form.lower()}-{column}", f"wording-{column}", question, "exact", (meaning,)))
    return lines, tuple(items)


def write_forms(artifact: Path, scratch: Path) -> None:
    """Write the artifact of the teacher, trained from random weights, and of the data."""
    artifact.mkdir()
    data = write_data(artifact / "data.jsonl", split_questions()[0])
    untrained = write_tiny(scratch / "untrained", scratch)
    recipe = DistillationRecipe(
        "", "", None, hard_weight=1.0, steps=80, batch=16, length=48, learning_rate=3e-3, top=16
    )
    request = DistillationRequest(untrained, data, artifact / "teacher", scratch / "work", recipe, untrained)
    distil(request, TrainingProcess(print, time.monotonic))
