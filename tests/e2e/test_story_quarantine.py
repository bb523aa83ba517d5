"""One of two pods goes bad: it is taken out of traffic, and deleted when it has been looked at.

It runs between the story and the count of rights that were used (`test_story_surplus`), by its name. That the pod is bad
is written into its monitor's memory: a pod that really computes otherwise is in `make e2e-accuracy STORY=4b`.
"""

from collections.abc import Iterator

import pytest

from e2e import story
from e2e.inside import remember_a_fall
from e2e.kube import Json, Kube
from e2e.story import EDGE, Name, name_in
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract.names import ANNOTATION_QUARANTINE, LABEL_SERVING, QUARANTINED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

AS_BEFORE: Json = {"spec": {"replicas": None, "accuracy": {"onBreach": None}}}


@pytest.fixture
def twice(target: Target) -> Iterator[Name]:
    """The smallest deployment with two pods, whose owner lets the operator act."""
    kube, name = target.kube, name_in(EDGE)
    if kube.get("r1plusdeployments", name.namespace, name.name) is None:
        story.apply(kube, story.TENANTS)
        story.apply(kube, EDGE)
    story.until_ready(kube, [name], print)
    kube.patch(
        "r1plusdeployments", name.namespace, name.name, {"spec": {"replicas": 2, "accuracy": {"onBreach": "Rollback"}}}
    )
    wait_for(lambda: len(story.pods_in_traffic(kube, name)) == 2, f"two pods of {name} are Ready")
    yield name
    kube.patch("r1plusdeployments", name.namespace, name.name, AS_BEFORE)
    story.until_ready(kube, [name], print)


def test_a_pod_that_is_bad_alone_leaves_traffic_and_is_deleted_when_its_time_is_over(twice: Name, kube: Kube) -> None:
    bad, good = story.pods_in_traffic(kube, twice)
    remember_a_fall(kube, twice.namespace, bad)

    def pod() -> Json | None:
        return kube.get("pods", twice.namespace, bad)

    def out() -> bool:
        return (pod() or {})["metadata"]["labels"][LABEL_SERVING] == QUARANTINED

    wait_for(out, f"{bad} is in quarantine", lambda: str((pod() or {}).get("metadata")))
    assert good in story.pods_in_traffic(kube, twice)
    # An hour of looking at it is over as soon as nobody can tell any more when it began.
    kube.kubectl("annotate", "pod", "-n", twice.namespace, bad, f"{ANNOTATION_QUARANTINE}=damaged", "--overwrite")
    wait_for(lambda: pod() is None, f"{bad} is deleted")
    wait_for(lambda: len(story.pods_in_traffic(kube, twice)) == 2, "its replacement is Ready")
