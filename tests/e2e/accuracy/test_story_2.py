"""The same weights from another engine: refused by the gate, and nobody notices."""

import pytest

from e2e import story
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.suites import shipped
from e2e.target import Target
from e2e.tenants import Tenant, gates_of
from r1plus_contract.verdict import Verdict

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]

STRATUM, ASKED = "arithmetic", 12
"""What the other engine loses most of."""


def test_the_other_engine_is_refused_and_traffic_never_moves(tenant: Tenant, target: Target, told: Story) -> None:
    """2. F16 to the Q4_1 engine: Fail, traffic never moves, no wrong answer, no failed request."""
    suite = shipped("smollm2-full-v1")
    items = [item for item in suite.items if item.stratum == STRATUM][:ASKED]
    name = tenant.apply("credit", "full")
    stable = tenant.until_ready(name)
    told.figure(f"F16 Ready after {told.seconds:.0f} s")

    with Witness(target, name, suite, items) as seen:
        told.step("asks for spec.engine.precision: Q4_1")
        tenant.change(name, engine={"precision": "Q4_1"})
        one = story.follow(tenant.kube, [name], story.refused, "the gate refuses", told.tell, lambda _: False)[name]
        seen.more_answers()

    (gate,) = gates_of(tenant.kube, name, one.candidate)
    told.figure(f"refused: lost {gate['lost']} of {gate['items']} in {gate['probes']} probes, {gate['seconds']:.0f} s")
    would_have = {item.id for item in items} & set(gate["lostItems"])
    told.figure(f"{len(would_have)} of the client's {len(items)} items are lost by it")
    told.figure(seen.client.told)
    told.figure(f"traffic at {', '.join(seen.revisions)}")

    assert gate["verdict"] == Verdict.FAIL
    assert gate["lost"] > gate["allowed"]
    assert would_have, "a client that never asks what the other engine gets wrong proves nothing"
    quality = one.condition("QualityVerified")
    assert quality is not None
    assert f"lost {gate['lost']} of {gate['items']}" in quality.message
    seen.assert_right_all_the_time([stable])
    assert story.serving_revision(tenant.kube, name) == stable
