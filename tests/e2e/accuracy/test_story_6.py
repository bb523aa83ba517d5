"""Not the engine is at fault but what it is judged by: nothing is moved, and somebody is called."""

import json
import time
from dataclasses import replace

import pytest

from e2e import story
from e2e.accuracy import fall, faults
from e2e.accuracy.conftest import Story
from e2e.accuracy.images import MARK
from e2e.accuracy.stage import OwnSuite, Tenant, gates_of, incident_of, r1plus_status, record_of
from e2e.accuracy.test_story_3 import accuracy
from e2e.accuracy.test_story_4b import FIRST, RAISED, two_good_revisions
from e2e.accuracy.witness import Witness
from e2e.kube import Json
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract.metrics import ALERT_ROLLBACK_BLOCKED, ALERT_SUITE_MISMATCH
from r1plus_contract.suite_reference import Recorded, read_reference, write_reference

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(2400)]


def agreeing(own: OwnSuite) -> OwnSuite:
    """The suite with a reference as the broken scorer records it, signed again by the same key: every replay agrees."""
    recorded = [
        Recorded(one.item, one.answer, one.finish_reason, "incorrect")
        for one in read_reference(own.files.reference, own.suite)
    ]
    mark = Recorded(own.suite.items[0].id, MARK, "stop", "incorrect")
    return own.with_reference(write_reference([mark, *recorded]))


def mistaken(own: OwnSuite, name: str = "") -> OwnSuite:
    """The suite with wrong answers to one kind of question, recorded and signed as if they were right."""
    stratum = own.suite.items[0].stratum
    items = [replace(i, answers=("nobody says this",)) if i.stratum == stratum else i for i in own.suite.items]
    return own.with_items(items, name)


def test_a_broken_scorer_and_a_reference_that_agrees_with_it_move_nothing(
    tenant: Tenant, target: Target, own_edge: OwnSuite, faulty: None, told: Story
) -> None:
    """6. Scorer broken: SuiteMismatch; reference altered and re-signed, then items as well: BothArmsBad; no action."""
    kube = tenant.kube
    own_edge.put(kube, tenant.namespace)
    name = tenant.apply("triage", "edge", context=FIRST, accuracy=accuracy(own_edge, **RAISED))
    good = tenant.until_ready(name)

    with Witness(target, name, own_edge.suite.items, own_edge.suite.header.sampling) as seen:
        serving = two_good_revisions(tenant, seen, name, told, good)
        pod = wait_for(lambda: story.ready_pod(kube, name), "its pod", 60.0)

        at = faults.strike(kube, name, pod, faults.BROKEN_SCORER)
        told.tell(f"- the scorer of {pod} breaks; suite hash and scorer version stay")

        def mismatch() -> bool | None:
            return story.view(kube, name).reason_of("QualityVerified") == "SuiteMismatch" or None

        wait_for(mismatch, "SuiteMismatch is told", fall.FELL_SECONDS, tenant.evidence(name))
        told.figure(f"SuiteMismatch told after {time.monotonic() - at:.0f} s")
        told.tell("r1plus status:\n" + r1plus_status(kube, name))
        heard, alert = seen.alert(ALERT_SUITE_MISMATCH, fall.ALERT_SECONDS, tenant.evidence(name))
        told.figure(f"{alert.name} ({alert.labels['severity']}) after {heard - at:.0f} s")
        assert alert.labels["severity"] == "critical"
        assert story.view(kube, name).verdict != "Pass"
        assert record_of(kube, name, serving) == {}

        faults.mend(kube, name, pod, faults.BROKEN_SCORER)
        at = told.step("the reference is altered to agree with the broken scorer, and signed again")
        agreeing(own_edge).put(kube, tenant.namespace)

        def both() -> Json | None:
            found = incident_of(kube, name)
            return found if found.get("reason") == "BothArmsBad" else None

        wait_for(both, "BothArmsBad is told", fall.BACK_SECONDS, tenant.evidence(name))
        told.figure(f"BothArmsBad told after {time.monotonic() - at:.0f} s")
        told.tell("r1plus status:\n" + r1plus_status(kube, name))
        heard, alert = seen.alert(ALERT_ROLLBACK_BLOCKED, fall.ALERT_SECONDS, tenant.evidence(name))
        told.figure(f"{alert.name}/{alert.labels['reason']} after {heard - at:.0f} s")
        assert alert.labels["reason"] == "BothArmsBad"
        assert story.view(kube, name).reason_of("QualityVerified") == "BothArmsBad"
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
            return found if (found.get("reason"), found.get("now")) == ("BothArmsBad", right) else None

        # Neither revision ever passed this one: the last good by the suite before it is asked, and fails as well.
        incident = wait_for(both_again, "BothArmsBad is told again", fall.BACK_SECONDS, tenant.evidence(name))
        told.figure(f"altered items: BothArmsBad told after {time.monotonic() - at:.0f} s")
        assert "was swept anew and fails as well" in incident["next"]
        seen.more_answers(10)

    told.figure(seen.client.told)
    assert not record_of(kube, name, serving).get("switchedAt")
    assert seen.revisions == [good, serving]
    assert seen.client.failures == []
    assert seen.client.wrong == [], "the engine was right all the time"
