"""Which candidates become items: pure functions of what was right, called by pipeline.py.

A suite is a stratified choice: every stratum gets the same share as long as it lasts, and strata that are too small to
say anything are left out, so that a fall in one kind of question shows.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from r1plus_contract.metrics import Outcome
from r1plus_contract.suite import Item
from r1plus_monitoring.curate.asking import Answer
from r1plus_monitoring.scoring.scorers import score


@dataclass(frozen=True, slots=True)
class Shape:
    """What a suite must look like."""

    size: int = 212
    min_size: int = 200
    min_strata: int = 4
    min_per_stratum: int = 50
    """A smaller stratum says little: in 20 items one flip is 5 %."""

    def larger(self, factor: float) -> "Shape":
        """The shape of a reserve from which this one can still be made when some items are lost."""
        return replace(self, size=round(self.size * factor), min_per_stratum=round(self.min_per_stratum * factor))


class NotEnoughItemsError(Exception):
    """The candidates that stayed right cannot make a suite of the shape asked for."""


def right(items: Sequence[Item], answers: Mapping[str, Answer]) -> tuple[Item, ...]:
    """The items that were answered correctly; an item without an answer was not."""
    return tuple(item for item in items if item.id in answers and _is_right(item, answers[item.id]))


def _is_right(item: Item, answer: Answer) -> bool:
    return score(item, answer.text, answer.finish_reason) == Outcome.CORRECT


def by_stratum(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Items of each stratum by id, strata in name order."""
    groups: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: (item.stratum, item.id)):
        groups.setdefault(item.stratum, []).append(item)
    return groups


def counts(items: Sequence[Item]) -> dict[str, int]:
    """How many items each stratum has."""
    return {stratum: len(group) for stratum, group in by_stratum(items).items()}


def choose(items: Sequence[Item], shape: Shape, seed: int) -> tuple[Item, ...]:
    """At most `shape.size` items, shared evenly among the largest strata; the same for the same seed.

    As many strata as can have `min_per_stratum` each.
    """
    groups = {name: group for name, group in by_stratum(items).items() if len(group) >= shape.min_per_stratum}
    largest = sorted(groups, key=lambda name: (-len(groups[name]), name))[: shape.size // shape.min_per_stratum]
    quota = shares({name: len(groups[name]) for name in largest}, shape.size)
    chosen: list[Item] = []
    for name in largest:
        generator = random.Random(f"{seed}/{name}")  # noqa: S311 - a choice, not a secret
        chosen += generator.sample(groups[name], quota[name])
    return tuple(sorted(chosen, key=lambda item: item.id))


def sample(items: Sequence[Item], strata: Sequence[str], size: int, seed: int) -> tuple[Item, ...]:
    """Candidates of some strata (none named: all), at most `size` (0: all): a suite in less time."""
    wanted = tuple(item for item in items if not strata or item.stratum in strata)
    if not size:
        return wanted
    return choose(wanted, Shape(size=size, min_per_stratum=1), seed)


def shares(available: Mapping[str, int], size: int) -> dict[str, int]:
    """Split `size` evenly; what a small stratum cannot fill goes to the others."""
    quota = dict.fromkeys(available, 0)
    left = min(size, sum(available.values()))
    while left:
        for name in sorted(available):
            if left and quota[name] < available[name]:
                quota[name] += 1
                left -= 1
    return quota


def require(items: Sequence[Item], shape: Shape) -> None:
    """Raise NotEnoughItemsError, with the figures, unless `items` can be a suite of this shape."""
    strata = counts(items)
    if len(items) < shape.min_size or len(strata) < shape.min_strata:
        raise NotEnoughItemsError(
            f"{len(items)} items in {len(strata)} strata stayed right; a suite needs {shape.min_size} in "
            f"{shape.min_strata}: write more candidates in strata where this engine is good ({strata})"
        )
