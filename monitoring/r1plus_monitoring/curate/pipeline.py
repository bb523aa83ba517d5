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

from r1plus_contract.suite import Item
from r1plus_contract.suite_baseline import Measured
from r1plus_monitoring.curate.asking import F32, Answer, Asker, Condition
from r1plus_monitoring.curate.selection import Shape, choose, counts, require, right

SELECTING: Final = (
    Condition(batch=32, order=1),
    Condition(batch=16, order=2),
    Condition(batch=32, order=3, precision=F32),
    Condition(batch=8, order=4),
    Condition(batch=16, order=5),
    Condition(batch=1, order=6, precision=F32),
)
BASELINE: Final = (
    Condition(batch=16, order=101, precision=F32),
    Condition(batch=32, order=102, precision=F32),
    Condition(batch=1, order=103, precision=F32),
)
CROSS: Final = (Condition(batch=16, order=201, precision=F32),)
SERVED: Final = (
    Condition(batch=16, order=301, precision=F32),
    Condition(batch=32, order=302, precision=F32),
    Condition(batch=1, order=303, precision=F32),
)
"""Through Triton, to find items to drop: `precision` is the server's own, and only names it here."""
FRESH: Final = (
    Condition(batch=16, order=401, precision=F32),
    Condition(batch=5, order=402, precision=F32),
    Condition(batch=32, order=403, precision=F32),
    Condition(batch=1, order=404, precision=F32),
)
"""Through Triton, after the last item was dropped."""
FIRST_FRESH: Final = 501
"""Orders from here on take part in no choice; those above were used already."""
RESERVE: Final = 1.3
"""Items that go to the dear conditions, as a multiple of the suite's size."""


@dataclass(frozen=True, slots=True)
class Step:
    """One engine asked in one way."""

    engine: str
    asker: Asker
    condition: Condition


@dataclass(frozen=True, slots=True)
class Selected:
    """The items of a suite, with the last answers to them."""

    items: tuple[Item, ...]
    selection: tuple[Measured, ...]
    answers: Mapping[str, Answer]


@dataclass(frozen=True, slots=True)
class Curated:
    """The items of a suite and how they came to be chosen."""

    items: tuple[Item, ...]
    selection: tuple[Measured, ...]
    baseline: tuple[Measured, ...]


Progress = Callable[[str], None]
_ORDER: Final = re.compile(r"order (\d+)")


def curate(
    engine: str, candidates: Sequence[Item], asker: Asker, shape: Shape, seed: int, progress: Progress
) -> Curated:
    """Choose and measure. Raises NotEnoughItemsError when too few candidates stayed right."""
    steps = [Step(engine, asker, condition) for condition in SELECTING]
    made = select(candidates, steps, shape, seed, progress)
    return Curated(made.items, made.selection, measure(engine, made.items, asker, BASELINE, progress))


def select(candidates: Sequence[Item], steps: Sequence[Step], shape: Shape, seed: int, progress: Progress) -> Selected:
    """Keep what every step has right, and shape it. Raises NotEnoughItemsError when too few candidates stayed right."""
    first, *others = steps
    answers = _answers(first, candidates, progress)
    kept, measured = _judge(first, candidates, answers, progress)
    selection = [dataclasses.replace(measured, lost=())]
    kept = choose(kept, shape.larger(RESERVE), seed)
    for step in others:
        answers = _answers(step, kept, progress)
        kept, measured = _judge(step, kept, answers, progress)
        selection.append(measured)
    items = choose(kept, shape, seed)
    require(items, shape)
    return Selected(items, tuple(selection), {item.id: answers[item.id] for item in items})


def selecting(batch: int) -> tuple[Condition, ...]:
    """How a served engine is asked to choose items: at its production batch, half full, in other company, and alone."""
    return (
        Condition(batch=batch, order=1),
        Condition(batch=max(1, batch // 2), order=2),
        Condition(batch=batch, order=3),
        Condition(batch=1, order=4),
    )


def fresh(batch: int, measured: Sequence[Measured]) -> tuple[Condition, ...]:
    """How a baseline is asked: in orders that nothing that was measured so far has used."""
    used = [int(found[1]) for one in measured if (found := _ORDER.search(one.condition))]
    first = max([FIRST_FRESH - 1, *used]) + 1
    batches = sorted({batch, max(1, batch // 3), 1}, reverse=True)
    return tuple(Condition(batch=size, order=first + number) for number, size in enumerate(batches))


def measure(
    engine: str, items: Sequence[Item], asker: Asker, conditions: Sequence[Condition], progress: Progress
) -> tuple[Measured, ...]:
    """Ask and count; nothing is removed."""
    return tuple(ask(engine, items, asker, condition, progress)[1] for condition in conditions)


def ask(
    engine: str, items: Sequence[Item], asker: Asker, condition: Condition, progress: Progress
) -> tuple[tuple[Item, ...], Measured]:
    """What stayed right under one condition, and the figures."""
    step = Step(engine, asker, condition)
    return _judge(step, items, _answers(step, items, progress), progress)


def _answers(step: Step, items: Sequence[Item], progress: Progress) -> Mapping[str, Answer]:
    progress(f"{step.engine}: {step.condition.name}: asking {len(items)}")
    return step.asker.ask(items, step.condition)


def _judge(
    step: Step, items: Sequence[Item], answers: Mapping[str, Answer], progress: Progress
) -> tuple[tuple[Item, ...], Measured]:
    kept = right(items, answers)
    found, asked = counts(kept), counts(items)
    measured = Measured(
        engine=step.engine,
        condition=step.condition.name,
        items=len(items),
        correct=len(kept),
        strata={name: f"{found.get(name, 0)}/{total}" for name, total in asked.items()},
        lost=tuple(sorted({item.id for item in items} - {item.id for item in kept})),
    )
    progress(f"{step.engine}: {step.condition.name}: {measured.correct} of {measured.items} right")
    return kept, measured
