"""A bad pod out of traffic: alive for whoever wants to look at it, and gone in time. Called by the plan.

Only the label `r1plus.ai/serving` changes. It is in the Service's selector, so traffic ends, and in the Deployment's,
so its ReplicaSet lets the pod go and makes another. Walls select another label and stay. In the same patch the
R1PlusDeployment becomes its owner and it gets an expiry: no instant at which nobody would collect it.
"""

from dataclasses import dataclass
from typing import Final

from r1plus_contract import names
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_operator.plan.events import Event
from r1plus_operator.plan.observation import Json, Observation, PodFacts
from r1plus_operator.plan.revision.record import MAX_MESSAGE, rfc3339
from r1plus_policies.rollback.response import Action, Response

KEPT_SECONDS: Final = 3600.0
"""How long it may be looked at."""
REPLACEMENT_SECONDS: Final = 60.0
"""Until then its replacement must have found a node; else the pod in quarantine makes room."""
_SERVING = f"/metadata/labels/{names.LABEL_SERVING.replace('/', '~1')}"
_NOTE = f"/metadata/annotations/{names.ANNOTATION_QUARANTINE.replace('/', '~1')}"


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The pod's annotation. Seconds since the epoch."""

    since: float
    until: float
    why: str


def read(pod: PodFacts) -> Quarantine | None:
    """The quarantine that a pod is in. One whose annotation was damaged is over: nobody could tell when it would be."""
    if pod.quarantine is None:
        return None
    try:
        return loads(Quarantine, pod.quarantine, tolerant=True)
    except ContractError:
        return Quarantine(0.0, 0.0, "its annotation was damaged")


def patch(pod: PodFacts, cr: Json, now: float, why: str) -> tuple[Json, ...]:
    """The one JSON patch. It fails where the pod is another one by now, or in quarantine already."""
    meta = cr["metadata"]
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "name": meta["name"], "uid": meta["uid"]}
    return (
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "test", "path": _SERVING, "value": names.SERVING},
        {"op": "replace", "path": _SERVING, "value": names.QUARANTINED},
        {"op": "add", "path": _NOTE, "value": dumps(Quarantine(now, now + KEPT_SECONDS, why))},
        {"op": "add", "path": "/metadata/ownerReferences/-", "value": owner},
    )


def relabelled(
    observed: Observation, response: Response, fell: str, now: float
) -> tuple[tuple[str, tuple[Json, ...]], ...]:
    """(pod, patch) of the one that goes into quarantine now. `fell`: the figures, where there are some."""
    if response.action is not Action.QUARANTINE:
        return ()
    pod = next(p for p in observed.pods if p.name == response.pod)
    return ((pod.name, patch(pod, observed.cr, now, (fell or response.message)[:MAX_MESSAGE])),)


def ended(pods: tuple[PodFacts, ...], serving: str | None, now: float) -> list[tuple[PodFacts, str]]:
    """Pods in quarantine that have to go now, and why. `serving`: the revision that takes traffic."""
    found = []
    for pod in pods:
        others = [p for p in pods if p.revision == pod.revision and p.quarantine is None and not p.terminating]
        if not pod.terminating and (why := _over(pod, others, serving, now)):
            found.append((pod, why))
    return found


def _over(pod: PodFacts, others: list[PodFacts], serving: str | None, now: float) -> str:
    held = read(pod)
    if held is None:
        return ""
    if pod.revision != serving:
        return "its revision takes no traffic any more"
    if now >= held.until:
        return "its time is over"
    waiting = next((p for p in others if p.unschedulable), None)
    if waiting is not None and now - held.since >= REPLACEMENT_SECONDS:
        return f"its replacement {waiting.name} finds no node while it is there: {waiting.unschedulable}"
    return ""


def told(response: Response | None, ended: list[tuple[PodFacts, str]], now: float) -> list[Event]:
    """Events of pods that go into quarantine, and of those that are deleted after it."""
    when, notes = rfc3339(now), []
    if response and response.action is Action.QUARANTINE:
        notes.append(Event("PodQuarantined", response.message, when, True, response.pod))
    for pod, why in ended:
        held = read(pod)
        text = f"Pod {pod.name} was deleted: {why}; it was held for: {held.why if held else ''}"
        notes.append(Event("QuarantineEnded", text, when))
    return notes


def next_look(pod: PodFacts, now: float) -> float | None:
    """Seconds until time alone may end it."""
    held = read(pod)
    if held is None:
        return None
    moments = (held.since + REPLACEMENT_SECONDS, held.until)
    return min((at - now for at in moments if at > now), default=None)
