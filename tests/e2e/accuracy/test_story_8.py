"""The last good revision no longer fits beside the one that fell."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from e2e import story
from e2e.accuracy import fall
from e2e.accuracy.fall import FIRST, RAISED, Fallen, struck, two_good_revisions
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.kube import Json, Kube
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, incident_of, r1plus_status
from e2e.waiting import wait_for
from r1plus_contract.metrics import ALERT_ROLLBACK_BLOCKED

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]


@contextmanager
def cordoned(kube: Kube) -> Iterator[None]:
    """No node takes a new pod."""
    nodes = [node["metadata"]["name"] for node in kube.all("nodes")]
    kube.kubectl("cordon", *nodes)
    try:
        yield
    finally:
        kube.kubectl("uncordon", *nodes)


def test_where_the_last_good_finds_no_room_it_is_said_and_waited_for(
    tenant: Tenant, target: Target, own_edge: OwnSuite, faulty: None, told: Story
) -> None:
    """8. Last good no longer fits: RollbackBlocked/NoCapacity, paged; with room it goes back."""
    kube = tenant.kube
    name, good = fall.serve(tenant, own_edge, "triage", "edge", context=FIRST, held=RAISED)

    with Witness(target, name, own_edge.suite) as seen:
        bad = two_good_revisions(tenant, seen, name, told, good)
        pod = wait_for(lambda: story.ready_pod(kube, name), "its pod")
        with cordoned(kube):
            told.tell("- no node takes a new pod any more")
            at = struck(tenant, name, told, pod)

            def blocked() -> Json | None:
                found = incident_of(kube, name)
                return found if found.get("reason") == "NoCapacity" else None

            incident = wait_for(blocked, "NoCapacity is told", tenant.evidence(name))
            told.tell("r1plus status:\n" + r1plus_status(kube, name))
            heard, alert = seen.alert(ALERT_ROLLBACK_BLOCKED, tenant.evidence(name))
            one = story.view(kube, name)
            assert one.reason_of("QualityVerified") == "RollbackBlocked"
            assert "NoCapacity" in one.condition_message("QualityVerified")
            assert "free capacity" in incident["next"]
            assert alert.labels["severity"] == "critical"
            assert alert.labels["reason"] == "NoCapacity"
            assert seen.revisions == [good, bad]
            assert one.status_of("Ready") == "True"
        told.figure(f"{alert.name}/NoCapacity at Alertmanager {heard - at:.0f} s after the fault; traffic stayed")
        told.step("the node takes pods again")
        record = fall.until_back(tenant, name, seen, good, bad, told.tell)
        fallen = Fallen(good, bad, at, heard, seen.moved_to(good) or 0.0, record)
        seen.more_answers()
        fall.assert_rolled_back(tenant, name, seen, fallen)

    told.figure(f"back {fallen.back - at:.0f} s after the fault")
    told.figure(seen.client.told)
