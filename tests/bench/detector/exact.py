"""What gate, short check and count see, by exact sums instead of simulation: engines of lost items and flips.

An item that is lost for good fails every probe. Every other one fails each probe with the same probability, whatever
the others do. Strata and the sweep at batch 1 are left out: they only refuse more.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

from r1plus_policies.bounds import binomial_at_least, binomial_quantile, hypergeometric_at_least, upper_bound
from r1plus_policies.gate.first_answers import FirstAnswers
from r1plus_policies.gate.verdict import (
    SHORT_CHECK_ITEMS,
    Rules,
    max_lost_items,
    short_check_limit,
)
from r1plus_policies.watch.confirmation import ALPHA

ITEMS = 211
THRESHOLD = 0.98
SWEEPS = 3


def pass_gate(lost: int, wrong: float, threshold: float = THRESHOLD, items: int = ITEMS) -> float:
    """Return how often an engine with so many lost items, whose other answers are so often wrong, passes at most."""
    rules, allowed = Rules(threshold, batch=1), max_lost_items(items, threshold)
    total = 0.0
    for more, flips, failures, chance in _outcomes(items - lost, SWEEPS, wrong, allowed - lost):
        kept = items - lost - more
        is_stable = flips <= binomial_quantile(kept * SWEEPS, rules.flip_rate, rules.flip_quantile)
        if is_stable and FirstAnswers(items * SWEEPS, SWEEPS * lost + failures, flips).suffice(threshold):
            total += chance
    return total


def find_margin(items: int = ITEMS) -> float:
    """Return how far below the threshold the share of right answers may be that a gate lets pass."""
    return FirstAnswers(items * SWEEPS, 0, 0).margin


def pass_short_check(wrong: float, threshold: float = THRESHOLD, items: int = ITEMS) -> float:
    """Return how often a pod passes a short check whose every answer is wrong with this probability."""
    rules, drawn = Rules.for_sample(batch=1), min(SHORT_CHECK_ITEMS, items)
    limit, total = short_check_limit(items, threshold, drawn), 0.0
    for lost, flips, _, chance in _outcomes(drawn, rules.full_sweeps, wrong, limit):
        kept = (drawn - lost) * rules.full_sweeps
        if flips <= binomial_quantile(kept, rules.flip_rate, rules.flip_quantile):
            total += chance
    return total


def pass_short_check_with_lost(lost: int, threshold: float = THRESHOLD, items: int = ITEMS) -> Fraction:
    """Return how often a pod passes that has so many of all items lost for good, and answers the others right."""
    drawn = min(SHORT_CHECK_ITEMS, items)
    return 1 - hypergeometric_at_least(short_check_limit(items, threshold, drawn) + 1, items, lost, drawn)


def count_below(wrong: float, threshold: float = THRESHOLD, items: int = ITEMS) -> float:
    """Return how often one count after an alarm finds an engine below, whose every answer is so often wrong.

    It does by its first answers, or by items lost: of those that failed first, each that fails one of two more times.
    """
    again, most_lost = 1 - (1 - wrong) ** 2, max_lost_items(items, threshold)
    seen_from = next(first for first in range(items + 1) if upper_bound(items - first, items, ALPHA) < threshold)
    by_items = (
        math.comb(items, first)
        * wrong**first
        * (1 - wrong) ** (items - first)
        * binomial_at_least(most_lost + 1, first, again)
        for first in range(seen_from)
    )
    return math.fsum(by_items) + binomial_at_least(seen_from, items, wrong)


def _outcomes(items: int, sweeps: int, wrong: float, most_lost: int) -> Iterator[tuple[int, int, int, float]]:
    """Yield (items lost by chance, flips of the others, failures in all, probability), with so many lost at most.

    An item is lost if it fails at least twice. With three sweeps it fails twice or three times; failures of a lost
    item are counted as the fewest there can be, so that what passes is no less than in truth.
    """
    flip, sound = sweeps * wrong * (1 - wrong) ** (sweeps - 1), (1 - wrong) ** sweeps
    for lost in range(most_lost + 1):
        for flips in range(items - lost + 1):
            ways = math.comb(items, lost) * math.comb(items - lost, flips)
            chance = ways * (1 - flip - sound) ** lost * flip**flips * sound ** (items - lost - flips)
            if chance < 1e-15 and flips > items * flip:
                break
            yield lost, flips, flips + 2 * lost, chance
