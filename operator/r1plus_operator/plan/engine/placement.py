"""Whether a deployment's placement is within what the platform team allows its tenant.

The chart's policies `control-plane` and `placement` say the same to the API server (a test compares them).
"""

from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.tenants import CONTROL_PLANE, TenantPlacement
from r1plus_operator.api.types import Placement, Toleration
from r1plus_operator.plan.engine.selection import Problem
from r1plus_operator.plan.observation import Json, TenantView

GPU_TAINT = "nvidia.com/gpu"
"""Taint of nodes with GPUs. Every tenant may tolerate it: the quota says how many GPUs it has."""


def check_placement(asked: Placement, allowed: TenantPlacement) -> Problem | None:
    """Return what of the placement asked for is not allowed, with the remedy; None: all is."""
    message = _check_selector(asked, allowed) or _check_tolerations(asked, allowed)
    return Problem(ConditionType.CAPACITY_FITS, Reason.PLACEMENT_NOT_ALLOWED, message) if message else None


def check_readable(tenant: TenantView) -> Problem | None:
    """Return that nobody knows where the tenant's models may run, with the remedy; None: the R1PlusTenant is read."""
    if not tenant.unreadable:
        return None
    message = (
        f"R1PlusTenant tenant: {tenant.unreadable}; until the platform team corrects it nobody knows on which nodes"
        " this tenant's models may run: what serves goes on, and nothing new begins"
    )
    return Problem(ConditionType.CAPACITY_FITS, Reason.PLACEMENT_NOT_ALLOWED, message)


def placement_of(pod: Json) -> Placement:
    """Read the placement of a pod spec that was rendered earlier."""
    return Placement.model_validate({key: pod[key] for key in ("nodeSelector", "tolerations") if pod.get(key)})


def _check_selector(asked: Placement, allowed: TenantPlacement) -> str:
    selector = asked.node_selector
    for key in CONTROL_PLANE:
        if key in selector:
            return (
                f"spec.placement.nodeSelector: {key} selects the control plane's nodes, where no model runs; remove it"
            )
    if not allowed.node_selectors or any(one.items() <= selector.items() for one in allowed.node_selectors):
        return ""
    needed = " or ".join(_as_text(one) for one in allowed.node_selectors)
    return (
        f"spec.placement.nodeSelector: {_as_text(selector) or 'empty'}: this tenant's models run on nodes with {needed}"
        " only; add these labels, or ask the platform team for others in spec.placement.nodeSelectors of R1PlusTenant"
        " tenant"
    )


def _check_tolerations(asked: Placement, allowed: TenantPlacement) -> str:
    for i, one in enumerate(asked.tolerations):
        where = f"spec.placement.tolerations[{i}]"
        if one.key is None:
            return f"{where}: without a key it tolerates all taints, the control plane's too; name the taint's key"
        if one.key in CONTROL_PLANE:
            return f"{where}.key: {one.key} is the taint of the control plane's nodes, where no model runs; remove it"
        if one.key != GPU_TAINT and not any(covers(other, one) for other in allowed.tolerations):
            return (
                f"{where}: {one.key}: R1PlusTenant tenant does not allow this toleration; remove it, or ask the"
                " platform team to list it in spec.placement.tolerations of R1PlusTenant tenant"
            )
    return ""


def covers(allowed: Toleration, asked: Toleration) -> bool:
    """Return whether the one tolerates all that the other does, and as long."""
    has_value = allowed.operator == "Exists" or (
        asked.operator != "Exists" and (asked.value or "") == (allowed.value or "")
    )
    has_time = allowed.toleration_seconds is None or (
        asked.toleration_seconds is not None and asked.toleration_seconds <= allowed.toleration_seconds
    )
    return allowed.key == asked.key and has_value and allowed.effect in (None, asked.effect) and has_time


def _as_text(selector: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
