"""Check a deployment's placement against what the platform team allows its tenant.

The chart's policies `control-plane` and `placement` enforce the same in the API server; a test compares them.
"""

from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.tenants import CONTROL_PLANE, TenantPlacement
from r1plus_operator.api.types import Placement, Toleration
from r1plus_operator.plan.engine.selection import Problem
from r1plus_operator.plan.observation import Json, TenantView

GPU_TAINT = "nvidia.com/gpu"
"""Taint of nodes with GPUs. Every tenant may tolerate it: the quota says how many GPUs it has."""


def check_placement(requested: Placement, allowed: TenantPlacement) -> Problem | None:
    """Return what of the requested placement is not allowed, with the remedy; None: everything is."""
    message = _check_selector(requested, allowed) or _check_tolerations(requested, allowed)
    return Problem(ConditionType.CAPACITY_FITS, Reason.PLACEMENT_NOT_ALLOWED, message) if message else None


def check_readable(tenant: TenantView) -> Problem | None:
    """Return why the tenant's allowed nodes are unknown, with the remedy; None: the R1PlusTenant can be read."""
    if not tenant.unreadable:
        return None
    message = (
        "R1PlusTenant tenant cannot be read, so nothing new starts, because its allowed nodes are unknown. Serving"
        f" goes on; ask the platform team to correct it: {tenant.unreadable}"
    )
    return Problem(ConditionType.CAPACITY_FITS, Reason.PLACEMENT_NOT_ALLOWED, message)


def read_placement(pod: Json) -> Placement:
    """Return the placement of a pod spec that was rendered earlier."""
    return Placement.model_validate({key: pod[key] for key in ("nodeSelector", "tolerations") if pod.get(key)})


def _check_selector(requested: Placement, allowed: TenantPlacement) -> str:
    selector = requested.node_selector
    for key in CONTROL_PLANE:
        if key in selector:
            return (
                f"spec.placement.nodeSelector: {key} selects the control plane's nodes, where no model runs; remove it"
            )
    if not allowed.node_selectors or any(one.items() <= selector.items() for one in allowed.node_selectors):
        return ""
    allowed_text = " or ".join(_format_selector(one) for one in allowed.node_selectors)
    return (
        f"spec.placement.nodeSelector: {_format_selector(selector) or 'empty'}: this tenant's models run on nodes with"
        f" {allowed_text} only; add these labels, or ask the platform team for others in spec.placement.nodeSelectors"
        " of R1PlusTenant tenant"
    )


def _check_tolerations(requested: Placement, allowed: TenantPlacement) -> str:
    for i, one in enumerate(requested.tolerations):
        where = f"spec.placement.tolerations[{i}]"
        if one.key is None:
            return f"{where}: without a key it tolerates all taints, the control plane's too; name the taint's key"
        if one.key in CONTROL_PLANE:
            return f"{where}.key: {one.key} is the taint of the control plane's nodes, where no model runs; remove it"
        if one.key != GPU_TAINT and not any(is_allowed_by(other, one) for other in allowed.tolerations):
            return (
                f"{where}: {one.key}: R1PlusTenant tenant does not allow this toleration; remove it, or ask the"
                " platform team to list it in spec.placement.tolerations of R1PlusTenant tenant"
            )
    return ""


def is_allowed_by(allowed: Toleration, requested: Toleration) -> bool:
    """Whether an allowed toleration covers the requested one: the same taints, for at least as long."""
    has_value = allowed.operator == "Exists" or (
        requested.operator != "Exists" and (requested.value or "") == (allowed.value or "")
    )
    has_time = allowed.toleration_seconds is None or (
        requested.toleration_seconds is not None and requested.toleration_seconds <= allowed.toleration_seconds
    )
    return allowed.key == requested.key and has_value and allowed.effect in (None, requested.effect) and has_time


def _format_selector(selector: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
