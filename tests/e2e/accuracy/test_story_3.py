"""Forced through, it falls, and the operator goes back."""

import pytest

from e2e.accuracy import fall
from e2e.accuracy.fall import FORCED
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, gates_of, r1plus_status
from e2e.waiting import wait_for
from r1plus_contract.verdict import Verdict

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]


def test_forced_through_it_falls_and_the_operator_goes_back(
    tenant: Tenant, target: Target, own_full: OwnSuite, told: Story
) -> None:
    """3. gate: Observe, onBreach: Rollback: counted, last good swept anew, switched back, alert with its runbook."""
    name, good = fall.serve(tenant, own_full, "credit", "full")
    told.figure(f"F16 Ready after {told.seconds:.0f} s")

    with Witness(target, name, own_full.suite) as seen:
        fall.bake(seen, told)
        told.step(f"forces {FORCED} through")

        def at(step: str) -> None:
            told.tell(f"- {step}")
            if step == "the control is begun":
                told.tell("r1plus status, while the control is swept:\n" + r1plus_status(tenant.kube, name))

        fallen = fall.play(tenant, name, seen, told, good, FORCED, at)
        fall.assert_alerted(tenant, name, seen, told, fallen.promoted)
        fall.assert_rolled_back(tenant, name, seen, fallen)
        told.tell("r1plus status, afterwards:\n" + r1plus_status(tenant.kube, name))
        fall.assert_rollback_is_told(tenant, name, seen)

    fall.figures(seen, fallen, told)
    (gate,) = gates_of(tenant.kube, name, fallen.bad)
    told.figure(f"counted below its threshold in {gate['probes']} probes (lost {gate['lost']} of {gate['items']})")
    assert gate["verdict"] == Verdict.FAIL
    assert gate["probes"] <= 2 * gate["items"], "two sweeps tell it at the latest: an item is lost that fails twice"
    fresh = [g for g in gates_of(tenant.kube, name, good) if g.get("control")]
    assert [g["verdict"] for g in fresh] == [Verdict.PASS], "the last good one was swept anew"
    wait_for(lambda: len(tenant.kube.pods_of(name.namespace, name.name)) == 1, "one pod is left")
