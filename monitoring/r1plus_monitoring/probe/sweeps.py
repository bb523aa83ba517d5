"""The continuous check: sweeps over the whole suite, one after the other, each in an order of its own.

A sweep is an exact count of a finite population; the Clopper-Pearson interval around it covers flips. It decides
nothing: the detectors do, and the confirming sweep after their alarm. It asks one item at a time, at the pace that the
deployment allows.
"""

import random
from collections.abc import Awaitable, Callable, Sequence

from r1plus_contract.verdict import SweepFigures
from r1plus_monitoring.probe.probes import SCORES, Ask, ProbePace, Result
from r1plus_policies.bounds import clopper_pearson
from r1plus_policies.gate.verdict import MOST_LOST_ITEMS, Score
from r1plus_policies.watch.confirmation import ALPHA


def compute_figures(scores: dict[str, bool], finished_at: str) -> SweepFigures:
    """Return a complete sweep's count, its Clopper-Pearson bounds and first lost ids. `scores`: item id -> right?"""
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


def shuffle_items(items: Sequence[str], seed: int) -> list[str]:
    """Return the order that the seed decides, so that a restarted prober continues where it was."""
    permutation = sorted(items)
    random.Random(seed).shuffle(permutation)  # noqa: S311 - an order, not a secret
    return permutation


async def sweep(
    items: Sequence[str],
    seed: int,
    scores: dict[str, bool],
    *,
    ask: Ask,
    pace: ProbePace,
    until_ready: Callable[[], Awaitable[None]],
    on_score: Callable[[str, Result], Awaitable[None]],
) -> None:
    """Complete `scores`, one item at a time; `on_score` is awaited after each.

    An item that got no score for a transport failure is asked again once the model is ready: a sweep has no gaps.
    One whose scorer failed counts as wrong, since it cannot be shown to be right.
    """
    for item in shuffle_items(items, seed):
        while item not in scores:
            await pace.wait()
            result = await ask(item)
            if result is Result.TRANSPORT:
                await until_ready()
                continue
            scores[item] = SCORES[result] is Score.CORRECT
            await on_score(item, result)
