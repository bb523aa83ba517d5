"""Plan the end of an R1PlusDeployment that is deleted while a finalizer keeps it. Pure.

Nobody watches it any more: no drop is answered, and no network policy follows what the platform team allows. So none
of its pods may serve. Kubernetes' garbage collector would delete the same objects, but only after the last finalizer.
"""

from dataclasses import dataclass

from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.status.conditions import build_conditions

_REQUESTS = ("requests", "lastRequest")
"""Status fields that stay: policy `requests` numbers the next request by them."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A CR that is being deleted, and what is left of it."""

    cr: Json
    children: tuple[tuple[str, str, str], ...]
    """(kind, name, uid) of what it controls."""
    pods: tuple[tuple[str, str], ...] = ()
    """(name, uid) of its pods in quarantine: no ReplicaSet has them any more, so they go with no Deployment."""


def plan_deletion(deletion: Deletion, now: float) -> Plan:
    """Return the deletion of all that is left, and a status that says so."""
    cr = deletion.cr
    before, meta = cr.get("status") or {}, cr["metadata"]
    generation = int(meta.get("generation", 0))
    holders = ", ".join(meta.get("finalizers") or ()) or "none"
    text = (
        "The R1PlusDeployment is being deleted and serves no more. It stays until its finalizers are removed by those"
        f" who set them: {holders}"
    )
    findings = {ConditionType.READY: Finding("False", Reason.DELETING, text)}
    status: Json = {
        **{field: before[field] for field in _REQUESTS if field in before},
        "observedGeneration": generation,
        "reason": Reason.DELETING.value,
        "conditions": build_conditions(findings, before, generation, now),
    }
    return Plan(delete=deletion.children, cut=deletion.pods, status=status)
