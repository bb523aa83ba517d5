"""Not the engine is at fault but what it is judged by: nothing is moved, and somebody is called."""

import json
import time

import pytest

from e2e import story
from e2e.accuracy import fall, faults
from e2e.accuracy.altered_suites import agreeing, mistaken
from e2e.accuracy.fall import FIRST, RAISED, two_good_revisions
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.kube import Json
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, gates_of, incident_of, r1plus_status, record_of
from e2e.waiting import wait_for
from r1plus_contract.metrics import ALERT_ROLLBACK_BLOCKED, ALERT_SUITE_MISMATCH

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]


def test_a_broken_scorer_and_a_reference_that_agrees_with_it_move_nothing(
    tenant: Tenant, target: Target, own_edge: OwnSuite, faulty: None, told: Story
) -> None:
    """6. Scorer broken: SuiteMismatch; reference altered and re-signed, then items as well: RollbackTargetAlsoFailed; no action."""
    kube = tenant.kube
    name, good = fall.serve(tenant, own_edge, "triage", "edge", context=FIRST, held=RAISED)

    with Witness(target, name, own_edge.suite) as seen:
        serving = two_good_revisions(tenant, seen, name, told, good)
        pod = wait_for(lambda: story.ready_pod(kube, name), "its pod")

        at = faults.strike(kube, name, pod, faults.BROKEN_SCORER)
        told.tell(f"- the scorer of {pod} breaks; suite hash and scorer version stay")

        def mismatch() -> bool:
            return story.view(kube, name).reason_of("QualityVerified") == "SuiteMismatch"

        wait_for(mismatch, "SuiteMismatch is told", tenant.evidence(name))
        told.figure(f"SuiteMismatch told after {time.monotonic() - at:.0f} s")
        told.tell("r1plus status:\n" + r1plus_status(kube, name))
        heard, alert = seen.alert(ALERT_SUITE_MISMATCH, tenant.evidence(name))
        told.figure(f"{alert.name} ({alert.labels['severity']}) after {heard - at:.0f} s")
        assert alert.labels["severity"] == "critical"
        assert story.view(kube, name).verdict != "Pass"
        assert record_of(kube, name, serving) == {}

        faults.mend(kube, name, pod, faults.BROKEN_SCORER)
        at = told.step("the reference is altered to agree with the broken scorer, and signed again")
        agreeing(own_edge).put(kube, tenant.namespace)

        def both() -> Json | None:
            found = incident_of(kube, name)
            return found if found.get("reason") == "RollbackTargetAlsoFailed" else None

        wait_for(both, "RollbackTargetAlsoFailed is told", tenant.evidence(name))
        told.figure(f"RollbackTargetAlsoFailed told after {time.monotonic() - at:.0f} s")
        told.tell("r1plus status:\n" + r1plus_status(kube, name))
        heard, alert = seen.alert(ALERT_ROLLBACK_BLOCKED, tenant.evidence(name))
        told.figure(f"{alert.name}/{alert.labels['reason']} after {heard - at:.0f} s")
        assert alert.labels["reason"] == "RollbackTargetAlsoFailed"
        assert story.view(kube, name).reason_of("QualityVerified") == "RollbackTargetAlsoFailed"
        control = [g for g in gates_of(kube, name, good) if g.get("control")]
        told.tell(f"the control's gates on {good}: {json.dumps([g['verdict'] for g in control])}")
        seen.more_answers(10)
        record = record_of(kube, name, serving)
        assert record["control"] == "Fail"
        assert not record.get("switchedAt")

        at = told.step("one kind of question is given wrong answers, in another suite of the same name, and signed")
        mistaken(own_edge).put(kube, tenant.namespace)
        items = own_edge.suite.items
        right = f"{sum(item.stratum != items[0].stratum for item in items)}/{len(items)}"

        def both_again() -> Json | None:
            found = incident_of(kube, name)
            return found if (found.get("reason"), found.get("now")) == ("RollbackTargetAlsoFailed", right) else None

        # Neither revision ever passed this one: the last good by the suite before it is asked, and fails as well.
        incident = wait_for(both_again, "RollbackTargetAlsoFailed is told again", tenant.evidence(name))
        told.figure(f"altered items: RollbackTargetAlsoFailed told after {time.monotonic() - at:.0f} s")
        assert "fails the suite as well" in incident["next"]
        seen.more_answers(10)

    told.figure(seen.client.told)
    assert not record_of(kube, name, serving).get("switchedAt")
    seen.assert_right_all_the_time([good, serving])
