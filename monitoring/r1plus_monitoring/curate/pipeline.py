"""From candidates to a suite: ask under one condition after the other, keep what stays right, measure a baseline.

Called by `__main__`. The cheapest condition comes first and sees every candidate; the dear ones see a stratified
reserve, somewhat larger than the suite. The baseline is asked afterwards, under conditions that took no part in the
choice, and removes nothing: selection flatters what it selected by.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_contract.suites.suite import Item
from r1plus_contract.suites.suite_baseline import Measurement
from r1plus_monitoring.curate.asking import F32, Asker, AskingCondition, CandidateAnswer
from r1plus_monitoring.curate.selection import Shape, choose, count_strata, require_shape, select_correct

SELECTION_CONDITIONS: Final = (
    AskingCondition(batch=32, order=1),
    AskingCondition(batch=16, order=2),
    AskingCondition(batch=32, order=3, precision=F32),
    AskingCondition(batch=8, order=4),
    AskingCondition(batch=16, order=5),
    AskingCondition(batch=1, order=6, precision=F32),
)
BASELINE_CONDITIONS: Final = (
    AskingCondition(batch=16, order=101, precision=F32),
    AskingCondition(batch=32, order=102, precision=F32),
    AskingCondition(batch=1, order=103, precision=F32),
)
CROSS_CONDITIONS: Final = (AskingCondition(batch=16, order=201, precision=F32),)
SERVED_CONDITIONS: Final = (
    AskingCondition(batch=16, order=301, precision=F32),
    AskingCondition(batch=32, order=302, precision=F32),
    AskingCondition(batch=1, order=303, precision=F32),
)
"""Through Triton, to find items to drop: `precision` is set by the server, and only names it here."""
FRESH_CONDITIONS: Final = (
    AskingCondition(batch=16, order=401, precision=F32),
    AskingCondition(batch=5, order=402, precision=F32),
    AskingCondition(batch=32, order=403, precision=F32),
    AskingCondition(batch=1, order=404, precision=F32),
)
"""Through Triton, after the last item was dropped."""
FIRST_FRESH: Final = 501
"""Orders from here on take part in no choice; those above were used already."""
RESERVE: Final = 1.3
"""Items that go to the dear conditions, as a multiple of the suite's size."""


@dataclass(frozen=True, slots=True)
class CurationStep:
    """One engine under one condition."""

    engine: str
    asker: Asker
    condition: AskingCondition


@dataclass(frozen=True, slots=True)
class Selection:
    """The items of a suite, with the last answers to them."""

    items: tuple[Item, ...]
    selection: tuple[Measurement, ...]
    answers: Mapping[str, CandidateAnswer]


@dataclass(frozen=True, slots=True)
class CuratedSuite:
    """The items of a suite, and the figures of their selection."""

    items: tuple[Item, ...]
    selection: tuple[Measurement, ...]
    baseline: tuple[Measurement, ...]


Progress = Callable[[str], None]
_ORDER: Final = re.compile(r"order (\d+)")


def curate(
    engine: str,
    candidates: Sequence[Item],
    asker: Asker,
    shape: Shape,
    seed: int,
    progress: Progress,
    baseline_conditions: Sequence[AskingCondition] = BASELINE_CONDITIONS,
) -> CuratedSuite:
    """Choose and measure. Raises NotEnoughItemsError when too few candidates stayed right."""
    steps = [CurationStep(engine, asker, condition) for condition in SELECTION_CONDITIONS]
    selection = select(candidates, steps, shape, seed, progress)
    return CuratedSuite(
        selection.items, selection.selection, measure(engine, selection.items, asker, baseline_conditions, progress)
    )


def select(
    candidates: Sequence[Item], steps: Sequence[CurationStep], shape: Shape, seed: int, progress: Progress
) -> Selection:
    """Keep the items that every step has right, in the given shape.

    Raises:
        NotEnoughItemsError: too few are left, after the first step that leaves too few.
    """
    first, *others = steps
    answers = _ask_items(first, candidates, progress)
    remaining, figures = _score_answers(first, candidates, answers, progress)
    selection = [dataclasses.replace(figures, lost=())]
    remaining = choose(remaining, shape.larger(RESERVE), seed)
    items = choose(remaining, shape, seed)
    require_shape(items, shape)
    for step in others:
        answers = _ask_items(step, remaining, progress)
        remaining, figures = _score_answers(step, remaining, answers, progress)
        selection.append(figures)
        items = choose(remaining, shape, seed)
        require_shape(items, shape)
    return Selection(items, tuple(selection), {item.id: answers[item.id] for item in items})


def selection_conditions(batch: int, precision: str) -> tuple[AskingCondition, ...]:
    """Return the conditions to select under: the production batch, half full, in other company, and alone."""
    return (
        AskingCondition(batch=batch, order=1, precision=precision),
        AskingCondition(batch=max(1, batch // 2), order=2, precision=precision),
        AskingCondition(batch=batch, order=3, precision=precision),
        AskingCondition(batch=1, order=4, precision=precision),
    )


def fresh_conditions(batch: int, measurements: Sequence[Measurement], precision: str) -> tuple[AskingCondition, ...]:
    """Return the conditions of a baseline: in orders that no earlier measurement has used."""
    orders = [int(match[1]) for one in measurements if (match := _ORDER.search(one.condition))]
    first = max([FIRST_FRESH - 1, *orders]) + 1
    batches = sorted({batch, max(1, batch // 3), 1}, reverse=True)
    return tuple(
        AskingCondition(batch=size, order=first + number, precision=precision) for number, size in enumerate(batches)
    )


def measure(
    engine: str, items: Sequence[Item], asker: Asker, conditions: Sequence[AskingCondition], progress: Progress
) -> tuple[Measurement, ...]:
    """Ask and count; nothing is removed."""
    return tuple(ask(engine, items, asker, condition, progress)[1] for condition in conditions)


def ask(
    engine: str, items: Sequence[Item], asker: Asker, condition: AskingCondition, progress: Progress
) -> tuple[tuple[Item, ...], Measurement]:
    """Return the items that stayed right under one condition, and the figures."""
    step = CurationStep(engine, asker, condition)
    return _score_answers(step, items, _ask_items(step, items, progress), progress)


def _ask_items(step: CurationStep, items: Sequence[Item], progress: Progress) -> Mapping[str, CandidateAnswer]:
    progress(f"{step.engine}: {step.condition.name}: asking {len(items)}")
    return step.asker.ask(items, step.condition)


def _score_answers(
    step: CurationStep, items: Sequence[Item], answers: Mapping[str, CandidateAnswer], progress: Progress
) -> tuple[tuple[Item, ...], Measurement]:
    correct_items = select_correct(items, answers)
    correct_counts, item_counts = count_strata(correct_items), count_strata(items)
    figures = Measurement(
        engine=step.engine,
        condition=step.condition.name,
        items=len(items),
        correct=len(correct_items),
        strata={name: f"{correct_counts.get(name, 0)}/{total}" for name, total in item_counts.items()},
        lost=tuple(sorted({item.id for item in items} - {item.id for item in correct_items})),
    )
    progress(f"{step.engine}: {step.condition.name}: {figures.correct} of {figures.items} right")
    return correct_items, figures
