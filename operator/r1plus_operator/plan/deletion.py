"""Plan the end of an R1PlusDeployment that is deleted while a finalizer keeps it. Pure.

Nobody watches it any more: no drop is answered, and no network policy follows what the platform team allows. So none
of its pods may serve. Kubernetes' garbage collector would delete the same objects, but only after the last finalizer.
"""

from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.status.conditions import build_conditions

_REQUESTS = ("requests", "lastRequest")
"""Status fields that stay: policy `requests` numbers the next request by them."""


def plan_deletion(cr: Json, children: tuple[tuple[str, str, str], ...], now: float) -> Plan:
    """Return the deletion of all that the CR still controls, and a status that says so.

    `children`: (kind, name, uid).
    """
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
    return Plan(delete=children, status=status)
