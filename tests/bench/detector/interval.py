"""The confidence sequence: how often it ever leaves the truth out, and its width against the formula."""

import math
import random

import numpy as np

from r1plus_policies.detector.confidence import confidence_sequence, is_excluded

ALPHA = 0.05
TRUTH = 0.98
PROBES = 2_000
GRID = 2_000_001


def missed(seed: int, runs: int) -> int:
    """Runs of PROBES probes in which the truth is left out at any time."""
    chance, found = random.Random(seed), 0
    for _ in range(runs):
        right = 0
        for n in range(1, PROBES + 1):
            right += chance.random() < TRUTH
            if is_excluded(TRUTH, right, n, ALPHA):
                found += 1
                break
    return found


def width_ratio() -> float:
    """The widest against the mixture's own formula, which is evaluated on a grid."""
    p = np.linspace(0, 1, GRID)[1:-1]
    logs, rest = np.log(p), np.log1p(-p)
    ratios = []
    for n, wrong in ((1, 0), (20, 1), (200, 0), (200, 4), (200, 50), (2000, 40), (2000, 1000)):
        beta = math.lgamma(0.5 + n - wrong) + math.lgamma(0.5 + wrong) - math.lgamma(n + 1) - math.log(math.pi)
        inside = p[beta < (n - wrong) * logs + wrong * rest - math.log(ALPHA)]
        found = confidence_sequence(n - wrong, n, ALPHA)
        ratios.append((found.upper - found.lower) / (inside[-1] - inside[0]))
    return float(max(ratios))
