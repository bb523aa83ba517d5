"""What a detector could do that knew the change beforehand: a CUSUM tuned to it, at the same false-alarm rate.

Not shipped, so vectorised: many runs side by side in numpy.
"""

import math

import numpy as np

from bench.detector.pure import P0, WARM

STREAMS = 20_000
SETTLING, COUNTED = 1_000, 5_000
"""Probes of each stream before false alarms are counted, and while they are."""
CLOSE = 0.03
ROUNDS = 8


def _gains(shift: float) -> tuple[float, float]:
    return math.log(shift / P0), math.log((1 - shift) / (1 - P0))


def arl(shift: float, limit: float, seed: int, streams: int = STREAMS) -> float:
    """Mean probes between false alarms of the CUSUM against `shift` that alarms at `limit`."""
    chance, (right, wrong) = np.random.default_rng(seed), _gains(shift)
    level, alarms = np.zeros(streams), 0
    for step in range(SETTLING + COUNTED):
        level = np.maximum(0.0, level + np.where(chance.random(streams) < P0, right, wrong))
        rang = level >= limit
        level[rang] = 0.0
        alarms += int(rang.sum()) if step >= SETTLING else 0
    return streams * COUNTED / max(alarms, 1)


def tuned(shift: float, target: float, seed: int) -> tuple[float, float]:
    """(limit, its mean time between false alarms), the latter within CLOSE of the target; log ARL grows like limit."""
    limit = math.log(target) - 4.0
    for n in range(ROUNDS):
        reached = arl(shift, limit, seed + n)
        if abs(reached / target - 1) <= CLOSE:
            break
        limit += 0.9 * math.log(target / reached)
    return limit, reached


def delay(shift: float, limit: float, runs: int, seed: int) -> float:
    """Mean probes from a change to the alarm, after a sound time as long as the detector's; early alarms left out."""
    chance, gains = np.random.default_rng(seed), _gains(shift)
    level, change = np.zeros(runs), chance.integers(WARM[0], WARM[1] + 1, runs)
    early, found = np.zeros(runs, bool), np.zeros(runs)
    step = 0
    while not np.all(early | (found > 0)):
        changed = step >= change
        level = np.maximum(0.0, level + np.where(chance.random(runs) < np.where(changed, shift, P0), *gains))
        step += 1
        rang = level >= limit
        early |= rang & ~changed
        found = np.where(rang & changed & (found == 0), step - change, found)
    return float(found[~early].mean())
