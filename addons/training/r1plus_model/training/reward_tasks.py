"""Questions with known answers, and the reward of what a model writes: right or not, exactly. Needs no torch.

Who asks says what a model is to continue and how its text is evaluated: here that is a calculator's expression. No
model judges, and nothing is rounded.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import Suite
from r1plus_model.errors import DistillationError
from r1plus_model.training.examples import ExampleLine, read_records
from r1plus_model.training.suite_overlap import split_words

FORM: Final = 'a line is {"prompt": "a question", "answer": "12", "0.5" or "1/3"}'
_NUMBER: Final = re.compile(r"-?\d{1,200}(\.\d{1,200}|/\d{1,200})?", re.ASCII)
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class RewardTask:
    """A question as the model gets it."""

    prompt: str
    grammar: str
    """Of what the model may write, in EBNF; one line."""
    answer: Fraction
    evaluate: Callable[[str], Fraction | None]
    """Return the exact value of a text; None: it has none."""

    def is_right(self, text: str) -> bool:
        """Return whether a text has the answer's value. An empty one never has."""
        return bool(text.strip()) and self.evaluate(text) == self.answer


TaskBuilder = Callable[[str, Fraction], RewardTask]
"""Question and answer -> the task. Raises ValueError, with what to do, if the question cannot be one."""


def read_tasks(path: Path, field: str, suites: Sequence[Suite], build_task: TaskBuilder) -> list[RewardTask]:
    """Read questions; `field` (data, held_out) names the file in errors.

    Raises:
        DistillationError: the file cannot be read, questions of a suite are among its lines, or a line is no question
            with a number for an answer.
    """
    try:
        records = read_records(path, suites)
    except DistillationError as error:
        raise DistillationError(re.sub(r"^data:", f"{field}:", str(error))) from error
    tasks, problems, lines = [], [], dict[str, int]()
    for record in records:
        first = lines.setdefault(" ".join((record.prompt or record.text).split()), record.line)
        if first != record.line:
            problems.append(
                f"{field}: line {record.line}: prompt: is that of line {first}, and would count as another question;"
                " remove one"
            )
            continue
        try:
            tasks.append(_read_task(record, build_task))
        except ValueError as error:
            problems.append(f"{field}: line {record.line}: {error}")
    if problems:
        more = [f"{field}: {len(problems) - _NAMED} more such lines"] if len(problems) > _NAMED else []
        raise DistillationError("\n".join([*problems[:_NAMED], *more]))
    return tasks


def _read_task(record: ExampleLine, build_task: TaskBuilder) -> RewardTask:
    if record.prompt is None:
        raise ValueError(f"has a text alone; {FORM}")
    if not _NUMBER.fullmatch(record.text) or re.search(r"/0+$", record.text):
        raise ValueError(f"answer: {record.text!r:.40} is no number; {FORM}")
    return build_task(record.prompt, Fraction(record.text))


def digest_tasks(tasks: Sequence[RewardTask], most_new_tokens: int) -> str:
    """Return a digest of what decides the answers that a model writes: prompts, grammars, and the longest answer."""
    asked = [[one.prompt, one.grammar] for one in tasks]
    return hashlib.sha256(dumps([most_new_tokens, asked]).encode()).hexdigest()


def check_disjoint(training: Sequence[RewardTask], held_out: Sequence[RewardTask]) -> None:
    """Raise DistillationError if a question is in both, with other numbers as well.

    A model that has learnt one knows the other.
    """
    forms = {_find_form(one.prompt): number for number, one in enumerate(training, 1)}
    both = [
        (number, forms[form]) for number, one in enumerate(held_out, 1) if (form := _find_form(one.prompt)) in forms
    ]
    if both:
        named = ", ".join(f"question {number} is question {other} of the data" for number, other in both[:_NAMED])
        raise DistillationError(
            f"held_out: {len(both)} of {len(held_out)} questions are in the data, if their numbers are left out"
            f" ({named}): what was trained on measures nothing; remove them from either file"
        )


def _find_form(prompt: str) -> tuple[str, ...]:
    """Return the words of a prompt, with one sign for all numbers."""
    return tuple("#" if word[0].isdigit() else word for word in split_words(prompt))
