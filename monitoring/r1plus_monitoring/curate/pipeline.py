"""From candidates to a suite: ask under one condition after the other, keep what stays right, measure a baseline.

Called by `__main__`. The cheapest condition comes first and sees every candidate; the dear ones see a stratified
reserve, somewhat larger than the suite. The baseline is asked afterwards, under conditions that took no part in the
choice, and removes nothing: selection flatters what it selected by.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_contract.suite import Item
from r1plus_monitoring.curate.asking import F32, Asker, Condition
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
RESERVE: Final = 1.3
"""Items that go to the dear conditions, as a multiple of the suite's size."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one engine got right under one condition."""

    engine: str
    condition: str
    items: int
    correct: int
    strata: dict[str, str]
    """`correct/items` of each stratum."""
    lost: tuple[str, ...]
    """Ids of the items that were not right; empty where nearly all candidates are meant."""


@dataclass(frozen=True, slots=True)
class Curated:
    """The items of a suite and how they came to be chosen."""

    items: tuple[Item, ...]
    selection: tuple[Measured, ...]
    baseline: tuple[Measured, ...]


Progress = Callable[[str], None]


def curate(
    engine: str, candidates: Sequence[Item], asker: Asker, shape: Shape, seed: int, progress: Progress
) -> Curated:
    """Choose and measure. Raises NotEnoughItemsError when too few candidates stayed right."""
    first, *others = SELECTING
    kept, measured = ask(engine, candidates, asker, first, progress)
    steps = [dataclasses.replace(measured, lost=())]
    kept = choose(kept, shape.larger(RESERVE), seed)
    for condition in others:
        kept, measured = ask(engine, kept, asker, condition, progress)
        steps.append(measured)
    items = choose(kept, shape, seed)
    require(items, shape)
    return Curated(items, tuple(steps), measure(engine, items, asker, BASELINE, progress))


def measure(
    engine: str, items: Sequence[Item], asker: Asker, conditions: Sequence[Condition], progress: Progress
) -> tuple[Measured, ...]:
    """Ask and count; nothing is removed."""
    return tuple(ask(engine, items, asker, condition, progress)[1] for condition in conditions)


def ask(
    engine: str, items: Sequence[Item], asker: Asker, condition: Condition, progress: Progress
) -> tuple[tuple[Item, ...], Measured]:
    """What stayed right under one condition, and the figures."""
    kept = right(items, asker.ask(items, condition))
    found, asked = counts(kept), counts(items)
    measured = Measured(
        engine=engine,
        condition=condition.name,
        items=len(items),
        correct=len(kept),
        strata={name: f"{found.get(name, 0)}/{total}" for name, total in asked.items()},
        lost=tuple(sorted({item.id for item in items} - {item.id for item in kept})),
    )
    progress(f"{engine}: {condition.name}: {measured.correct} of {measured.items} right")
    return kept, measured
