"""A fault after the gate that no digest sees: the engine of one pod begins to answer otherwise."""

import time

import pytest

from e2e import story
from e2e.accuracy import fall
from e2e.accuracy.fall import FIRST, RAISED, Fallen, struck, two_good_revisions
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, r1plus_status, record_of, revisions_of
from e2e.waiting import wait_for
from r1plus_contract.names import LABEL_SERVING, QUARANTINED

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]


def test_with_one_replica_it_rolls_back(
    tenant: Tenant, target: Target, own_edge: OwnSuite, faulty: None, told: Story
) -> None:
    """4b, one replica: the engine degrades after its Pass; the revision is rolled back."""
    name, good = fall.serve(tenant, own_edge, "triage", "edge", context=FIRST, held=RAISED)

    with Witness(target, name, own_edge.suite) as seen:
        bad = two_good_revisions(tenant, seen, name, told, good)
        pod = wait_for(lambda: story.ready_pod(tenant.kube, name), "its pod")
        at = struck(tenant, name, told, pod)
        fall.until_fallen(tenant, name, bad)
        counted = time.monotonic()
        told.tell("r1plus status:\n" + r1plus_status(tenant.kube, name))
        record = fall.until_back(tenant, name, seen, good, bad, told.tell)
        fallen = Fallen(good, bad, at, counted, seen.moved_to(good) or 0.0, record)
        seen.more_answers()
        fall.assert_rolled_back(tenant, name, seen, fallen)

    told.figure(f"fall told {counted - at:.0f} s after the fault")
    told.figure(f"back {fallen.back - counted:.0f} s later")
    told.figure(seen.client.told)


def test_with_two_replicas_the_pod_is_quarantined_and_nothing_rolls_back(
    tenant: Tenant, target: Target, own_edge: OwnSuite, faulty: None, told: Story
) -> None:
    """4b, two replicas: that pod is quarantined and replaced, nothing rolls back."""
    kube = tenant.kube
    name, revision = fall.serve(tenant, own_edge, "triage", "edge", replicas=2, held=RAISED)
    wait_for(lambda: len(story.pods_in_traffic(kube, name)) == 2, "two pods are Ready")
    before = set(story.pods_in_traffic(kube, name))

    with Witness(target, name, own_edge.suite) as seen:
        seen.more_answers()
        bad = min(before)
        at = struck(tenant, name, told, bad)

        def out() -> bool:
            labels = (kube.get("pods", name.namespace, bad) or {}).get("metadata", {}).get("labels", {})
            return labels.get(LABEL_SERVING) == QUARANTINED

        wait_for(out, f"{bad} is in quarantine", tenant.evidence(name))
        quarantined = time.monotonic()
        told.figure(f"quarantined {quarantined - at:.0f} s after the fault")
        told.tell("r1plus status:\n" + r1plus_status(kube, name))

        def replaced() -> set[str]:
            return set(story.pods_in_traffic(kube, name)) - before

        wait_for(replaced, "another pod is Ready", tenant.evidence(name))
        told.figure(f"replaced {time.monotonic() - quarantined:.0f} s later")
        seen.more_answers(10)
        sound = time.monotonic()
        seen.more_answers(10)
        tenant.until_ready(name)

    told.figure(seen.client.told)
    assert seen.revisions == [revision]
    assert revisions_of(kube, name) == [revision]
    assert record_of(kube, name, revision) == {}
    assert seen.client.failures == []
    assert seen.client.wrong_before(at) == []
    assert [item for when, item in seen.client.wrong if when > sound] == [], "who asks now is answered by sound pods"
