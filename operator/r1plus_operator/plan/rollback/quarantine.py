"""A bad pod out of traffic: kept alive for inspection, and deleted in time. Called by the plan.

Only the label `r1plus.ai/serving` changes. It is in the Service's selector, so traffic ends, and in the Deployment's,
so its ReplicaSet releases the pod and makes another. Network policies select another label and stay. The same patch
makes the R1PlusDeployment its owner and sets an expiry, so that it is collected in any case.
"""

from dataclasses import dataclass
from typing import Final

from r1plus_contract import names
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.timestamps import format_timestamp
from r1plus_operator.plan.events import Event
from r1plus_operator.plan.observation import Json, Observation, PodFacts
from r1plus_operator.plan.revision.storage import MAX_MESSAGE
from r1plus_policies.rollback.response import Action, BreachResponse

KEPT_SECONDS: Final = 3600.0
"""How long it may be inspected."""
REPLACEMENT_SECONDS: Final = 60.0
"""Until then its replacement must have found a node; else the pod in quarantine makes room."""
_SERVING_LABEL = f"/metadata/labels/{names.LABEL_SERVING.replace('/', '~1')}"
_ANNOTATION = f"/metadata/annotations/{names.ANNOTATION_QUARANTINE.replace('/', '~1')}"


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The pod's annotation. Seconds since the epoch."""

    since: float
    until: float
    why: str


def read(pod: PodFacts) -> Quarantine | None:
    """Return the pod's quarantine; None where it is in none. One whose annotation was damaged is over."""
    if pod.quarantine is None:
        return None
    try:
        return loads(Quarantine, pod.quarantine, tolerant=True)
    except ContractError:
        return Quarantine(0.0, 0.0, "unknown, because its annotation was damaged")


def build_patch(pod: PodFacts, cr: Json, now: float, why: str) -> tuple[Json, ...]:
    """Return the one JSON patch. It fails where the pod is another one by now, or in quarantine already."""
    meta = cr["metadata"]
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "name": meta["name"], "uid": meta["uid"]}
    return (
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "test", "path": _SERVING_LABEL, "value": names.SERVING},
        {"op": "replace", "path": _SERVING_LABEL, "value": names.QUARANTINED},
        {"op": "add", "path": _ANNOTATION, "value": dumps(Quarantine(now, now + KEPT_SECONDS, why))},
        {"op": "add", "path": "/metadata/ownerReferences/-", "value": owner},
    )


def build_relabels(
    observed: Observation, response: BreachResponse, figures: str, now: float
) -> tuple[tuple[str, tuple[Json, ...]], ...]:
    """Return (pod, patch) of the pod that goes into quarantine now. `figures`: of the accuracy drop, if any."""
    if response.action is not Action.QUARANTINE:
        return ()
    pod = next(p for p in observed.pods if p.name == response.pod)
    return ((pod.name, build_patch(pod, observed.cr, now, (figures or response.message)[:MAX_MESSAGE])),)


def find_ended(pods: tuple[PodFacts, ...], current: str | None, now: float) -> list[tuple[PodFacts, str]]:
    """Return the pods in quarantine that are deleted now, and why. `current`: the revision that takes traffic."""
    ends = []
    for pod in pods:
        others = [p for p in pods if p.revision == pod.revision and p.quarantine is None and not p.terminating]
        if not pod.terminating and (why := _explain_end(pod, others, current, now)):
            ends.append((pod, why))
    return ends


def _explain_end(pod: PodFacts, others: list[PodFacts], current: str | None, now: float) -> str:
    quarantine = read(pod)
    if quarantine is None:
        return ""
    if pod.revision != current:
        return "its revision no longer takes traffic"
    if now >= quarantine.until:
        return "its hour for inspection is over"
    replacement = next((p for p in others if p.unschedulable), None)
    if replacement is not None and now - quarantine.since >= REPLACEMENT_SECONDS:
        return f"its replacement {replacement.name} needs its room: {replacement.unschedulable}"
    return ""


def build_events(response: BreachResponse | None, ends: list[tuple[PodFacts, str]], now: float) -> list[Event]:
    """Return the Events of pods that go into quarantine, and of those that are deleted after it."""
    when, notes = format_timestamp(now), []
    if response and response.action is Action.QUARANTINE:
        notes.append(Event("PodQuarantined", response.message, when, True, response.pod))
    for pod, why in ends:
        quarantine = read(pod)
        cause = quarantine.why if quarantine else ""
        text = f"Quarantined pod {pod.name} was deleted: {why}; cause of the quarantine: {cause}"
        notes.append(Event("QuarantineEnded", text, when))
    return notes


def seconds_to_next_look(pod: PodFacts, now: float) -> float | None:
    """Return the seconds until time alone may end the pod's quarantine; None where it is in none."""
    quarantine = read(pod)
    if quarantine is None:
        return None
    moments = (quarantine.since + REPLACEMENT_SECONDS, quarantine.until)
    return min((at - now for at in moments if at > now), default=None)
