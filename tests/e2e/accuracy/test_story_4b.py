"""A fault after the gate that no digest sees: the engine of one pod begins to answer otherwise."""

import time

import pytest

from e2e import story
from e2e.accuracy import fall, faults
from e2e.accuracy.conftest import Story
from e2e.accuracy.fall import Fallen
from e2e.accuracy.stage import OwnSuite, Tenant, r1plus_status, record_of, revisions_of
from e2e.accuracy.test_story_3 import accuracy
from e2e.accuracy.witness import Witness
from e2e.kube import Json
from e2e.story import Name
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract.names import LABEL_SERVING, QUARANTINED

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(2400)]

RAISED = {"probesPerMinute": 240}
FIRST, SECOND = {"maxTokens": 1024}, {"maxTokens": 1000}
"""Two revisions of one engine: both pass."""


def two_good_revisions(tenant: Tenant, seen: Witness, name: Name, told: Story, good: str) -> str:
    """A second one takes over, by its own gate; which."""
    fall.bake(seen, told)
    told.step(f"asks for another revision: context {SECOND}")
    tenant.change(name, context=SECOND)
    second = fall.until_promoted(tenant, name, seen, good)
    tenant.until_ready(name)
    wait_for(lambda: len(tenant.kube.pods_of(name.namespace, name.name)) == 1 or None, "one pod is left", 180.0)
    return second


def struck(tenant: Tenant, name: Name, told: Story, pod: str) -> float:
    """The engine of the pod degrades and its detector alarms; when it was struck (monotonic)."""
    before = faults.probes_heard(tenant.kube, name, pod)
    at = faults.strike(tenant.kube, name, pod, faults.DEGRADED)
    told.tell(f"- the engine of {pod} degrades")
    faults.until_alarmed(tenant.kube, name, pod)
    probes = faults.probes_heard(tenant.kube, name, pod) - before
    told.figure(f"alarm after {probes} probes, {time.monotonic() - at:.0f} s")
    return at


def test_with_one_replica_it_rolls_back(
    tenant: Tenant, target: Target, own_edge: OwnSuite, faulty: None, told: Story
) -> None:
    """4b, one replica: the engine degrades after its Pass; the revision is rolled back."""
    own_edge.put(tenant.kube, tenant.namespace)
    name = tenant.apply("triage", "edge", context=FIRST, accuracy=accuracy(own_edge, **RAISED))
    good = tenant.until_ready(name)

    with Witness(target, name, own_edge.suite.items, own_edge.suite.header.sampling) as seen:
        bad = two_good_revisions(tenant, seen, name, told, good)
        pod = wait_for(lambda: story.ready_pod(tenant.kube, name), "its pod", 60.0)
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
    own_edge.put(kube, tenant.namespace)
    name = tenant.apply("triage", "edge", replicas=2, accuracy=accuracy(own_edge, **RAISED))
    revision = tenant.until_ready(name)
    wait_for(lambda: len(ready(kube.pods_of(name.namespace, name.name))) == 2 or None, "two pods are Ready", 300.0)
    before = set(ready(kube.pods_of(name.namespace, name.name)))

    with Witness(target, name, own_edge.suite.items, own_edge.suite.header.sampling) as seen:
        seen.more_answers()
        bad = min(before)
        at = struck(tenant, name, told, bad)

        def out() -> bool | None:
            labels = (kube.get("pods", name.namespace, bad) or {}).get("metadata", {}).get("labels", {})
            return labels.get(LABEL_SERVING) == QUARANTINED or None

        wait_for(out, f"{bad} is in quarantine", fall.FELL_SECONDS, tenant.evidence(name))
        quarantined = time.monotonic()
        told.figure(f"quarantined {quarantined - at:.0f} s after the fault")
        told.tell("r1plus status:\n" + r1plus_status(kube, name))

        def replaced() -> set[str] | None:
            return set(ready(kube.pods_of(name.namespace, name.name))) - before or None

        wait_for(replaced, "another pod is Ready", 300.0, tenant.evidence(name))
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
    assert seen.client.wrong_before(at - 1.0) == []
    assert [item for when, item in seen.client.wrong if when > sound] == [], "who asks now is answered by sound pods"


def ready(pods: list[Json]) -> list[str]:
    """Names of those that are Ready and in traffic."""
    return [
        pod["metadata"]["name"]
        for pod in pods
        if pod["metadata"]["labels"].get(LABEL_SERVING) != QUARANTINED
        and "deletionTimestamp" not in pod["metadata"]
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))
    ]
