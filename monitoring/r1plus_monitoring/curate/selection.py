"""Which candidates become items: pure functions of what was right, called by pipeline.py.

A suite is a stratified choice: every stratum gets the same share as long as it lasts. Strata that are too small for a
conclusion are left out, so that an accuracy drop in one kind of question shows.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item
from r1plus_monitoring.curate.asking import CandidateAnswer
from r1plus_monitoring.scoring.scorers import score


@dataclass(frozen=True, slots=True)
class Shape:
    """Size and strata of a suite."""

    size: int = 212
    min_size: int = 200
    min_strata: int = 4
    min_per_stratum: int = 50
    """In a smaller stratum one flip weighs too much: 5 % in 20 items."""

    def larger(self, factor: float) -> "Shape":
        """Return the shape of a reserve, from which this one can still be made when some items are lost."""
        return replace(self, size=round(self.size * factor), min_per_stratum=round(self.min_per_stratum * factor))


class NotEnoughItemsError(Exception):
    """The candidates that stayed right cannot make a suite of the required shape."""


def select_correct(items: Sequence[Item], answers: Mapping[str, CandidateAnswer]) -> tuple[Item, ...]:
    """Return the items that were answered correctly; an item without an answer was not."""
    return tuple(item for item in items if item.id in answers and _is_right(item, answers[item.id]))


def _is_right(item: Item, answer: CandidateAnswer) -> bool:
    return score(item, answer.text, answer.finish_reason) == OutcomeLabel.CORRECT


def group_by_stratum(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Group items by stratum, items by id, strata in name order."""
    groups: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: (item.stratum, item.id)):
        groups.setdefault(item.stratum, []).append(item)
    return groups


def count_strata(items: Sequence[Item]) -> dict[str, int]:
    """Return how many items each stratum has."""
    return {stratum: len(group) for stratum, group in group_by_stratum(items).items()}


def choose(items: Sequence[Item], shape: Shape, seed: int) -> tuple[Item, ...]:
    """Choose at most `shape.size` items, shared evenly among the largest strata; the same for the same seed.

    As many strata as can have `min_per_stratum` each.
    """
    groups = {name: group for name, group in group_by_stratum(items).items() if len(group) >= shape.min_per_stratum}
    largest = sorted(groups, key=lambda name: (-len(groups[name]), name))[: shape.size // shape.min_per_stratum]
    quota = split_evenly({name: len(groups[name]) for name in largest}, shape.size)
    selection: list[Item] = []
    for name in largest:
        generator = random.Random(f"{seed}/{name}")  # noqa: S311 - a choice, not a secret
        selection += generator.sample(groups[name], quota[name])
    return tuple(sorted(selection, key=lambda item: item.id))


def sample(items: Sequence[Item], strata: Sequence[str], size: int, seed: int) -> tuple[Item, ...]:
    """Return at most `size` (0: all) candidates of some strata (none: all), to make a suite in less time."""
    pool = tuple(item for item in items if not strata or item.stratum in strata)
    if not size:
        return pool
    return choose(pool, Shape(size=size, min_per_stratum=1), seed)


def split_evenly(available: Mapping[str, int], size: int) -> dict[str, int]:
    """Split `size` evenly; what a small stratum cannot fill goes to the others."""
    quota = dict.fromkeys(available, 0)
    remaining = min(size, sum(available.values()))
    while remaining:
        for name in sorted(available):
            if remaining and quota[name] < available[name]:
                quota[name] += 1
                remaining -= 1
    return quota


def require_shape(items: Sequence[Item], shape: Shape) -> None:
    """Raise NotEnoughItemsError, with the figures, unless `items` can be a suite of this shape."""
    strata = count_strata(items)
    if len(items) < shape.min_size or len(strata) < shape.min_strata:
        raise NotEnoughItemsError(
            f"{len(items)} items in {len(strata)} strata stayed right; a suite needs {shape.min_size} in "
            f"{shape.min_strata}: write more candidates in strata where this engine is good ({strata})"
        )
