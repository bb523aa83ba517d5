"""The small suites of the story: what its gates can pass and refuse with so few items."""

import json

from e2e.suites import SUITES, own_suite
from e2e.tiers import ITEMS, PER_STRATUM, THRESHOLDS
from r1plus_contract.suites.suite_check import check
from r1plus_contract.verdict import Verdict
from r1plus_operator.observe.suite_signature import generate_key
from r1plus_policies.gate.run import GateRecord, GateRun
from r1plus_policies.gate.verdict import SHORT_CHECK_ITEMS, GateItem, GateReason, Judgement, Rules, Score
from support.tables import for_each

KEY = generate_key()
EACH_TIER = for_each("tier", {tier: tier for tier in ITEMS})
REGRESSION = "smollm2-full-q4-1"


def judge(tier: str, *lost: str) -> Judgement:
    """Return the decision of the tier's gate about an engine that fails these items whenever they are asked."""
    items = [GateItem(item.id, item.stratum) for item in own_suite(tier, KEY, PER_STRATUM[tier]).suite.items]
    run = GateRun(items, Rules(THRESHOLDS[tier], batch=4), GateRecord(seed=1))
    while run.decision is None:
        for probe in run.next_probes(4):
            run.record(probe, Score.FAILED if probe.item in lost else Score.CORRECT)
    return run.decision


def ids_by_stratum(tier: str) -> dict[str, list[str]]:
    """Return the items of the tier's small suite."""
    strata: dict[str, list[str]] = {}
    for item in own_suite(tier, KEY, PER_STRATUM[tier]).suite.items:
        strata.setdefault(item.stratum, []).append(item.id)
    return strata


@EACH_TIER
def test_the_operator_takes_it_and_it_has_as_many_items_as_the_story_expects(tier: str) -> None:
    own = own_suite(tier, KEY, PER_STRATUM[tier])
    assert check(own.files).problems == ()
    assert len(own.suite.items) == ITEMS[tier]


@EACH_TIER
def test_two_lost_items_pass_and_three_do_not(tier: str) -> None:
    first, second, third, _ = (ids[0] for ids in ids_by_stratum(tier).values())
    assert judge(tier, first, second).verdict is Verdict.PASS
    assert judge(tier, first, second, third).reason is GateReason.TOO_MANY_LOST


def test_the_regression_loses_so_many_items_that_it_is_refused_after_two_sweeps() -> None:
    """With the answers that were recorded through the real server, of which the shipped suite keeps the figures."""
    served = json.loads((SUITES / "smollm2-full-v1" / "baseline.json").read_text())["served"]
    lost = next(condition["lost"] for condition in served if condition["engine"] == REGRESSION)
    refusal = judge("full", *lost)
    assert (refusal.verdict, refusal.reason) == (Verdict.FAIL, GateReason.TOO_MANY_LOST)
    assert refusal.figures.stage.full_sweeps == 2
    assert len(refusal.figures.lost_items) >= 3 * refusal.figures.lost_limit


def test_a_further_pod_of_lite_is_asked_a_sample() -> None:
    assert ITEMS["lite"] > SHORT_CHECK_ITEMS
