"""The gate's decision, by the run that the prober drives, on a simulated engine."""

import random

from r1plus_contract.verdict import Verdict
from r1plus_policies.gate.run import GateRecord, GateRun
from r1plus_policies.gate.verdict import GateItem, Rules, Score

ITEMS = [GateItem(f"s{n % 4}-{n:03}", f"s{n % 4}") for n in range(200)]
RULES = Rules(0.98, batch=16)


def passes(seed: int, runs: int, broken: float, flips: float = 0.01) -> int:
    """How many of `runs` engines pass, each with so many items broken for good and flips on top."""
    chance, passed = random.Random(seed), 0
    for _ in range(runs):
        bad = {item.id for item in chance.sample(ITEMS, round(broken * len(ITEMS)))}
        run = GateRun(ITEMS, RULES, GateRecord(chance.getrandbits(60)))
        while run.decision is None:
            for probe in run.next_probes(RULES.batch):
                right = probe.item not in bad and chance.random() >= flips
                run.record(probe, Score.CORRECT if right else Score.FAILED)
        passed += run.decision.verdict is Verdict.PASS
    return passed
