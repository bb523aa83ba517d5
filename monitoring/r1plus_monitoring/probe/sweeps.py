"""The continuous check: sweeps over the whole suite, one after the other, each in an order of its own.

A sweep is an exact count of a finite population; the Clopper-Pearson interval around it covers flips. It judges
nothing: that is the business of the detectors, and of the count that follows their alarm. Pure but for the loop, which
asks one item at a time, at the pace that the deployment allows.
"""

import random
from collections.abc import Awaitable, Callable, Sequence

from r1plus_contract.verdict import SweepFigures
from r1plus_monitoring.probe.probes import SCORES, Ask, Pace, Result
from r1plus_policies.bounds import clopper_pearson
from r1plus_policies.gate.verdict import MOST_LOST_ITEMS, Score
from r1plus_policies.watch.confirmation import ALPHA


def figures_of(scores: dict[str, bool], finished_at: str) -> SweepFigures:
    """A complete sweep in figures. `scores`: item id -> right?"""
    correct = sum(scores.values())
    bounds = clopper_pearson(correct, len(scores), ALPHA)
    lost = tuple(sorted(item for item, right in scores.items() if not right))
    return SweepFigures(
        correct=correct,
        total=len(scores),
        lower=bounds.lower,
        upper=bounds.upper,
        finished_at=finished_at,
        lost_items=lost[:MOST_LOST_ITEMS],
    )


def order(items: Sequence[str], seed: int) -> list[str]:
    """A permutation that the seed decides, so that a restarted prober goes on where it stood."""
    shuffled = sorted(items)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret
    return shuffled


async def sweep(
    items: Sequence[str],
    seed: int,
    scores: dict[str, bool],
    *,
    ask: Ask,
    pace: Pace,
    until_ready: Callable[[], Awaitable[None]],
    scored: Callable[[str, Result], Awaitable[None]],
) -> None:
    """Fill `scores` up, one item at a time; `scored` is awaited after each.

    An item that got no score because nobody was there is asked again once the model is ready: a sweep never ends with
    a hole. One whose scorer failed counts as wrong, since it can no longer be shown to be right.
    """
    for item in order(items, seed):
        while item not in scores:
            await pace.wait()
            result = await ask(item)
            if result is Result.TRANSPORT:
                await until_ready()
                continue
            scores[item] = SCORES[result] is Score.CORRECT
            await scored(item, result)
