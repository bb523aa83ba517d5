"""The share of first answers that are right: lost items and flips together, against the threshold less a margin.

An engine that loses few enough items and flips seldom enough may still answer users wrong too often, since the two
allowances add up. Called by the gate's judgement. Pure.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from r1plus_policies.bounds import binomial_quantile, upper_bound

FLIP_RATE: Final = 0.01
"""How often a healthy engine fails an item that it usually passes, per probe: measured on the demo engines."""
FLIP_QUANTILE: Final = 0.999
ALPHA: Final = 0.05
"""An engine whose share of right first answers is below threshold less margin passes with this probability at most."""
MOST_FIRST_ANSWERS: Final = 100_000
"""Beyond any suite: a report with more is not judged again."""


@dataclass(frozen=True, slots=True)
class FirstAnswers:
    """The answers of the gate's full sweeps, each of which is the first to its probe."""

    asked: int
    failures: int
    flips: int
    """Failures of items that are not lost."""
    flip_rate: float = FLIP_RATE
    flip_quantile: float = FLIP_QUANTILE

    @property
    def lower(self) -> float:
        """Lower bound of the share that is right.

        Lost items fail every time, so their failures count as they are. Flips are chance, so their upper bound counts.
        """
        return 1.0 - (self.failures - self.flips) / self.asked - self._bound_flips(self.flips)

    @property
    def margin(self) -> float:
        """How far below the threshold the lower bound may be: the upper bound of as many flips as are expected.

        So an engine passes that loses as many items as the threshold allows, and flips no more than expected. The
        margin is 0.021 for 3 sweeps of 211 items, and more for a smaller suite: fewer answers show less.
        """
        return self._bound_flips(math.ceil(self.asked * self.flip_rate))

    @property
    def are_healthy(self) -> bool:
        """Whether flips at the healthy rate explain all failures, so that no threshold refuses them."""
        return self.failures <= binomial_quantile(self.asked, self.flip_rate, self.flip_quantile)

    def suffice(self, threshold: float) -> bool:
        """Whether they are healthy, or the lower bound reaches threshold less margin."""
        if self.are_healthy:
            return True
        # Exact, since an engine may lose exactly what the threshold allows.
        room = 1 - Fraction(repr(threshold)) - Fraction(self.failures - self.flips, self.asked)
        return self._bound_flips(self.flips) - self.margin <= room

    def _bound_flips(self, flips: int) -> float:
        return upper_bound(flips, self.asked, ALPHA)
