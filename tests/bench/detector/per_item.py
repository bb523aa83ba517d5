"""The detector as the monitor runs it: 200 items, sweeps in random order, memory of what failed last."""

import random
import time
from dataclasses import dataclass, field

from bench.detector.pure import WARM
from r1plus_policies.detector.detector import Detector, DetectorKey, observe_answer

ITEMS = [f"item-{n:03}" for n in range(200)]
FLIPS = 0.01
"""How often a healthy engine fails an item that it usually passes, per probe."""
BROKEN = (0.05, 0.10, 0.40)
NEW = Detector(DetectorKey("pod", "revision", "suite", 0.98), 1e5)


@dataclass
class Found:
    """Probes to the alarm by the share of items that broke; alarms before anything did."""

    delays: dict[float, list[int]] = field(default_factory=lambda: {share: [] for share in BROKEN})
    early: int = 0


class Sweeps:
    """Items in a new random order each sweep; copied at the change, so that every fault starts from the same past."""

    def __init__(self, chance: random.Random, rest: list[str] | None = None) -> None:
        self._chance = chance
        self._rest = rest or []

    def next(self) -> str:
        if not self._rest:
            self._rest = self._chance.sample(ITEMS, len(ITEMS))
        return self._rest.pop()

    def copy(self) -> "Sweeps":
        return Sweeps(self._chance, list(self._rest))


def broken(seed: int, runs: int) -> Found:
    """`runs` engines that stay sound for a while, and then lose 5, 10 or 40 % of the items for good."""
    chance, found = random.Random(seed), Found()
    for _ in range(runs):
        warm, sweeps = NEW, Sweeps(chance)
        for _ in range(chance.randint(*WARM)):
            warm = observe_answer(warm, sweeps.next(), chance.random() >= FLIPS)
        if warm.alarmed:
            found.early += 1
            continue
        for share in BROKEN:
            detector, order, asked = warm, sweeps.copy(), 0
            bad = set(chance.sample(ITEMS, round(share * len(ITEMS))))
            while not detector.alarmed:
                item = order.next()
                detector = observe_answer(detector, item, item not in bad and chance.random() >= FLIPS)
                asked += 1
            found.delays[share].append(asked)
    return found


MIX_PROBES = 1_000
MIX_FLIPS = (0.002, 0.018)
"""Flips of an easy and of a hard half of the items: both as steady as p0 = 0.98 asks, 0.99 on average."""


def mix_shift(seed: int, runs: int) -> int:
    """How many of `runs` alarm when nine probes in ten go to the hard half that was asked one in ten before."""
    chance, alarms, half = random.Random(seed), 0, len(ITEMS) // 2
    for _ in range(runs):
        detector = NEW
        for n in range(2 * MIX_PROBES):
            hard = chance.random() < (0.1 if n < MIX_PROBES else 0.9)
            item = ITEMS[chance.randrange(half) + half * hard]
            detector = observe_answer(detector, item, chance.random() >= MIX_FLIPS[hard])
        alarms += detector.alarmed
    return alarms


def microseconds(probes: int, share: float) -> float:
    """CPU time of one detector for one probe, with so many items broken."""
    chance, detector = random.Random(1), NEW
    bad = set(ITEMS[: round(share * len(ITEMS))])
    answers = [(i, i not in bad and chance.random() >= FLIPS) for i in chance.choices(ITEMS, k=probes)]
    began = time.process_time()
    for item, passed in answers:
        detector = observe_answer(detector, item, passed)
    return (time.process_time() - began) / probes * 1e6
