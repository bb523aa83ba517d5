"""What happens to `lite` while other tests run: it becomes Ready, its prober hangs, and then one of two pods of it goes bad.

That the pod is bad is written into its monitor's memory: a pod that really computes otherwise is in `make e2e STORY=accuracy PART=4b`.
"""

from concurrent.futures import Future

from e2e import chart, story
from e2e.background import run_in_background
from e2e.inside import remember_a_fall
from e2e.kube import Json, Kube
from e2e.prober_outage import ProberOutage, prober_outage
from e2e.story import Name
from e2e.target import Target
from e2e.tiers import FirstDay, first_day
from e2e.waiting import wait_for
from r1plus_contract.names import ANNOTATION_QUARANTINE, LABEL_SERVING, QUARANTINED

TWICE: Json = {"spec": {"replicas": 2, "accuracy": {"onBreach": "Rollback"}}}
AS_BEFORE: Json = {"spec": {"replicas": None, "accuracy": {"onBreach": None}}}


class LiteStory:
    """A future for each step."""

    def __init__(self, lite: Name, target: Target) -> None:
        self.first_day: Future[FirstDay]
        self.hanging: Future[ProberOutage]
        self.quarantined: Future[None]
        self.first_day, self.hanging, self.quarantined = run_in_background(
            lambda: first_day(target, lite),
            lambda: prober_outage(target, lite, "SIGSTOP"),
            lambda: quarantine_one_of_two(target.kube, lite),
        )


def quarantine_one_of_two(kube: Kube, name: Name) -> None:
    """Give the deployment two pods and let the operator act; see the one that is bad alone leave traffic, and then go."""
    story.until_ready(kube, [name], print)
    kube.patch("r1plusdeployments", name.namespace, name.name, TWICE)
    _until_two(kube, name)
    bad, good = story.pods_in_traffic(kube, name)
    remember_a_fall(kube, name.namespace, bad)

    def pod() -> Json | None:
        return kube.get("pods", name.namespace, bad)

    def is_out() -> bool:
        found = pod()
        return found is not None and found["metadata"]["labels"][LABEL_SERVING] == QUARANTINED

    wait_for(is_out, f"{bad} is in quarantine", lambda: str((pod() or {}).get("metadata")))
    in_traffic = story.pods_in_traffic(kube, name)
    assert good in in_traffic, in_traffic
    # An hour of looking at it is over as soon as nobody can tell any more when it began.
    note = {"metadata": {"annotations": {ANNOTATION_QUARANTINE: "damaged"}}}
    kube.patch("pods", name.namespace, bad, note, chart.as_leader(kube))
    wait_for(lambda: pod() is None, f"{bad} is deleted")
    _until_two(kube, name)
    kube.patch("r1plusdeployments", name.namespace, name.name, AS_BEFORE)
    story.until_ready(kube, [name], print)


def _until_two(kube: Kube, name: Name) -> None:
    wait_for(lambda: len(story.pods_in_traffic(kube, name)) == 2, f"two pods of {name} are Ready")
