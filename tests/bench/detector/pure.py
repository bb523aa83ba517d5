"""The detector by itself, on answers that are independent: time to a false alarm, and delay after a change.

Every answer belongs to another item here, so no bet remembers anything; in `per_item` and `at_random` they do.
"""

import random
from dataclasses import dataclass, field

from r1plus_policies.detector.detector import DetectorEvidence, advance, build_bets

P0 = 0.95
ALARM_AT = 1e5
SHIFTS = (0.90, 0.80)
WARM = (1000, 2000)
"""Probes before the change, drawn for each run."""


def in_control(seed: int, probes: int) -> int:
    """False alarms in so many probes at exactly p0, the detector starting anew after each."""
    chance, table, evidence, alarms = random.Random(seed), build_bets(P0), DetectorEvidence(), 0
    right, wrong = table.gains_of(True, False), table.gains_of(False, False)
    for _ in range(probes):
        evidence = advance(evidence, right if chance.random() < P0 else wrong, ALARM_AT)
        if evidence.alarmed:
            alarms, evidence = alarms + 1, DetectorEvidence()
    return alarms


@dataclass
class Delays:
    """Probes from the change to the alarm, run by run; by the share that is right after it."""

    warm: dict[float, list[int]] = field(default_factory=lambda: {p: [] for p in SHIFTS})
    fresh: dict[float, list[int]] = field(default_factory=lambda: {p: [] for p in SHIFTS})
    early: int = 0
    """Runs that alarmed before the change; they have no delay."""


def delays(seed: int, runs: int) -> Delays:
    """`runs` changes of each size, from a detector that has watched a sound engine and from a new one."""
    chance, found = random.Random(seed), Delays()
    for _ in range(runs):
        warm = _run(chance, P0, DetectorEvidence(), chance.randint(*WARM))[0]
        found.early += warm.alarmed
        for p in SHIFTS:
            if not warm.alarmed:
                found.warm[p].append(_run(chance, p, warm)[1])
            found.fresh[p].append(_run(chance, p, DetectorEvidence())[1])
    return found


def _run(
    chance: random.Random, p: float, evidence: DetectorEvidence, probes: int = 10**9
) -> tuple[DetectorEvidence, int]:
    """Up to the alarm, or so many probes; and how many there were."""
    table, asked = build_bets(P0), 0
    right, wrong = table.gains_of(True, False), table.gains_of(False, False)
    while asked < probes and not evidence.alarmed:
        evidence = advance(evidence, right if chance.random() < p else wrong, ALARM_AT)
        asked += 1
    return evidence, asked
