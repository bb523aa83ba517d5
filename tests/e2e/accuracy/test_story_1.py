"""The verdict is the exact count of the whole suite, whatever it is."""

from collections import Counter

import pytest

from devcluster.cache import cache_dir
from e2e import objects, story
from e2e.accuracy.narration import Story
from e2e.kube import Json
from e2e.suites import shipped
from e2e.tenants import Tenant, gates_of
from e2e.waiting import wait_for
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Suite
from r1plus_contract.verdict import Verdict
from r1plus_monitoring.curate.asking import F32, AskingCondition, ProcessAsker
from r1plus_monitoring.scoring.scorers import score
from r1plus_policies.gate.verdict import max_lost_in_stratum, max_lost_items

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]

SAME, AS = "smollm2-lite-q8-0", "smollm2-full-q8-0"
"""The very files of the lite engine, claimed to be as good as the reference of full."""
THRESHOLD = 0.98
CONDITIONS = [AskingCondition(16, order, F32) for order in (1, 2, 3)], [AskingCondition(1, 4, F32)]


def lost_of(engine: str, suite: Suite) -> set[str]:
    """What the engine loses, counted apart from everything that is served: its files, asked by the curator's process.

    As the gate counts: twice of three at the production batch, or at batch 1, where an answer does not depend on others.
    """
    asker = ProcessAsker(cache_dir() / "engines" / engine, suite.header.sampling)
    lost: set[str] = set()
    for conditions, most in zip(CONDITIONS, (2, 1), strict=True):
        failed: Counter[str] = Counter()
        for condition in conditions:
            answers = asker.ask(suite.items, condition)
            wrong = (
                i.id
                for i in suite.items
                if score(i, answers[i.id].text, answers[i.id].finish_reason) != OutcomeLabel.CORRECT
            )
            failed.update(wrong)
        lost |= {item for item, times in failed.items() if times >= most}
    return lost


def says(lost: set[str], suite: Suite) -> Verdict:
    """The verdict that follows from what is lost."""
    sizes = suite.strata()
    by_stratum = Counter(item.stratum for item in suite.items if item.id in lost)
    broken = any(by_stratum[name] > max_lost_in_stratum(size, THRESHOLD) for name, size in sizes.items())
    too_many = len(lost) > max_lost_items(len(suite.items), THRESHOLD)
    return Verdict.FAIL if broken or too_many else Verdict.PASS


def test_the_verdict_is_the_exact_count(tenant: Tenant, told: Story) -> None:
    """1. Q8_0 under full's suite: the verdict is the exact count; as lite, by its own baseline: Pass."""
    kube, suite = tenant.kube, shipped("smollm2-full-v1")
    assert kube.get("r1plusengines", None, "smollm2-full-f16") is not None
    spec = objects.spec_of_engine(kube, SAME) | {"tier": "full"}
    spec["reference"] = {"suite": "smollm2-full-v1", "inheritedFrom": "smollm2-full-f16"}
    try:
        kube.apply(objects.engine(AS, spec))
        name = tenant.apply("credit", "full", engine={"precision": "Q8_0"}, accuracy={"threshold": THRESHOLD})

        def decided() -> Json | None:
            one = story.view(kube, name)
            gates = gates_of(kube, name, one.candidate or one.revision) if one.candidate or one.revision else []
            return gates[-1] if gates else None

        gate = wait_for(decided, "the gate decides", tenant.evidence(name), seconds=story.GATE_SECONDS)
        assert story.view(kube, name).engine in (AS, "")
        kube.delete("r1plusdeployments", name.namespace, name.name)
    finally:
        kube.delete("r1plusengines", None, AS)
    told.figure(f"as full: {gate['verdict']}, lost {gate['lost']} of {gate['items']} ({gate['reason']})")

    lost = lost_of(SAME, suite)
    told.figure(
        f"counted apart: {len(lost)} of {len(suite.items)} lost, {max_lost_items(len(suite.items), THRESHOLD)} allowed"
    )
    assert gate["verdict"] == says(lost, suite)
    told.figure(f"{len(set(gate['lostItems']) - lost)} of the items that the gate names are not among them")

    other = tenant.apply("assistant", "lite")
    tenant.until_ready(other)
    seen = story.view(kube, other)
    told.figure(f"as lite: {seen.verdict}, {seen.accuracy} right")
    assert (seen.verdict, seen.engine) == (Verdict.PASS, SAME)
