"""The decisions of gate and short check, by the run that the prober drives, on a simulated engine."""

import random

from r1plus_contract.verdict import Verdict
from r1plus_policies.gate.run import GateRecord, GateRun
from r1plus_policies.gate.verdict import SHORT_CHECK_ITEMS, GateItem, Rules, Score, short_check_limit

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


def admits(seed: int, runs: int, wrong: float) -> int:
    """How many of `runs` pods a short check admits whose every answer is wrong with this probability."""
    chance, admitted = random.Random(seed), 0
    limit = short_check_limit(len(ITEMS), RULES.threshold, SHORT_CHECK_ITEMS)
    for _ in range(runs):
        run = GateRun(chance.sample(ITEMS, SHORT_CHECK_ITEMS), Rules.for_sample(RULES.batch), GateRecord(0))
        while run.decision is None:
            for probe in run.next_probes(RULES.batch):
                run.record(probe, Score.FAILED if chance.random() < wrong else Score.CORRECT)
        admitted += run.decision.verdict is Verdict.PASS and len(run.decision.figures.lost_items) <= limit
    return admitted
