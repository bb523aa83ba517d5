"""A new version of the suite is asked of what serves before it counts, and an author's slip can be mended."""

import time

import pytest

from e2e import story
from e2e.accuracy import fall
from e2e.accuracy.altered_suites import mistaken
from e2e.accuracy.fall import RAISED
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.story import Name
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, gates_of
from e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]


def test_a_new_suite_is_asked_beside_the_former_one_before_it_counts(
    tenant: Tenant, target: Target, own_edge: OwnSuite, told: Story
) -> None:
    """10. A new suite is asked beside the former one before it counts: one with wrong items Fails, its mended one Passes."""
    kube, v1 = tenant.kube, own_edge
    name, serving = fall.serve(tenant, v1, "triage", "edge", held={**RAISED, "onBreach": "Alert"})
    v2, v3 = mistaken(v1, "own-edge-v2"), v1.with_items(v1.suite.items[:-4], "own-edge-v3")

    with Witness(target, name, v1.suite) as seen:
        for suite, reason, verdicts in (
            (v2, "GateFailed", ["Pass", "Fail"]),
            (v3, "GatePassed", ["Pass", "Fail", "Pass"]),
        ):
            at = told.step(f"asks for the suite {suite.suite.header.name}")
            suite.put(kube, tenant.namespace)
            tenant.change(name, accuracy={"suite": suite.suite.header.name})
            told.tell(f"  meanwhile: {_said(tenant, name, 'SuiteShadowed')}")
            told.tell(f"  it counts: {_said(tenant, name, reason)}")
            told.figure(f"{suite.suite.header.name}: {verdicts[-1]} after {time.monotonic() - at:.0f} s beside traffic")
            assert [gate["verdict"] for gate in gates_of(kube, name, serving)] == verdicts
        seen.more_answers(10)

    told.figure(seen.client.told)
    seen.assert_right_all_the_time([serving])


def _said(tenant: Tenant, name: Name, reason: str) -> str:
    """What QualityVerified says once it has that reason."""

    def message() -> str | None:
        one = story.view(tenant.kube, name)
        return one.condition_message("QualityVerified") if one.reason_of("QualityVerified") == reason else None

    return wait_for(message, reason, tenant.evidence(name))
