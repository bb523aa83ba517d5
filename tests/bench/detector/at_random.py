"""Answers that are wrong at random, from request to request, and a few lost items: the detector at its default budget.

211 items at p0 = 0.98, by `observe_answer`, as the monitor runs it. In the same run, on the same answers, are the five
bets with memory alone, which the detector had before it had bets without: each bet is by itself, so their mean is theirs.
"""

import math
import random
from dataclasses import dataclass, field

from bench.detector.pure import WARM
from r1plus_policies.detector.budget import Budget
from r1plus_policies.detector.detector import Detector, DetectorKey, log_mean, observe_answer

ITEMS = [f"item-{n:03}" for n in range(211)]
PER_MINUTE = 6
ALARM_AT = Budget(PER_MINUTE, 8, 30).pod
WITH_MEMORY = 5
MOST_PROBES = 24 * 60 * PER_MINUTE
"""A day. What has not alarmed by then counts as a day."""
HEALTHY = 0.01
RANDOM = {"random_2": 0.02, "random_4": 0.04, "random_5": 0.05, "random_10": 0.10}
"""Share of answers that are wrong from the change on. 2 % is what p0 allows: an alarm is a false one."""
LOST = {"lost_8": 8, "lost_12": 12, "lost_20": 20}
"""Items that are lost for good; the others flip as before."""


@dataclass
class AlarmTimes:
    """Probes from the change to the alarm, run by run."""

    now: dict[str, list[int]] = field(default_factory=lambda: {case: [] for case in (*RANDOM, *LOST)})
    five: dict[str, list[int]] = field(default_factory=lambda: {case: [] for case in (*RANDOM, *LOST)})
    """Of the five bets with memory alone."""
    early: int = 0


def delays(seed: int, runs: int) -> AlarmTimes:
    """`runs` changes of each kind, each from a detector that has watched a healthy engine for a while."""
    chance, found = random.Random(seed), AlarmTimes()
    for _ in range(runs):
        warm = _watch(chance, _new(ALARM_AT), chance.randint(*WARM), HEALTHY)
        if warm.alarmed:
            found.early += 1
            continue
        for case, wrong in RANDOM.items():
            _measure(chance, warm, case, found, wrong, lost=0)
        for case, lost in LOST.items():
            _measure(chance, warm, case, found, HEALTHY, lost)
    return found


CONTROL_ALARM_AT = 1e4
"""The promise is about every A; a small one gives enough false alarms to count."""


def in_control(seed: int, probes: int) -> int:
    """False alarms in so many probes of items that are each right with exactly p0, a new detector after each."""
    chance, detector, alarms, rest = random.Random(seed), _new(CONTROL_ALARM_AT), 0, list[str]()
    for _ in range(probes):
        rest = rest or chance.sample(ITEMS, len(ITEMS))
        detector = observe_answer(detector, rest.pop(), chance.random() < detector.key.p0)
        if detector.alarmed:
            alarms, detector = alarms + 1, _new(CONTROL_ALARM_AT)
    return alarms


def _new(alarm_at: float) -> Detector:
    return Detector(DetectorKey("pod", "revision", "suite", 0.98), alarm_at)


def _watch(chance: random.Random, detector: Detector, probes: int, wrong: float) -> Detector:
    rest: list[str] = []
    for _ in range(probes):
        rest = rest or chance.sample(ITEMS, len(ITEMS))
        detector = observe_answer(detector, rest.pop(), chance.random() >= wrong)
    return detector


def _measure(chance: random.Random, warm: Detector, case: str, found: AlarmTimes, wrong: float, lost: int) -> None:
    """Ask until both have alarmed, or for a day."""
    bad, limit = set(chance.sample(ITEMS, lost)), math.log(ALARM_AT)
    detector, rest, now, five = warm, list[str](), 0, 0
    for asked in range(1, MOST_PROBES + 1):
        rest = rest or chance.sample(ITEMS, len(ITEMS))
        item = rest.pop()
        detector = observe_answer(detector, item, item not in bad and chance.random() >= wrong)
        now = now or (asked if detector.alarmed else 0)
        five = five or (asked if log_mean(detector.evidence.logs[:WITH_MEMORY]) >= limit else 0)
        if now and five:
            break
    found.now[case].append(now or MOST_PROBES)
    found.five[case].append(five or MOST_PROBES)
