"""Condition DataReady of an R1PlusTenant: whether its gateway can use the tenant's data, and what is kept."""

from r1plus_contract.gateway import DataReason
from r1plus_operator.api.conditions import Finding, Reason
from r1plus_operator.plan.tenancy.gateway_condition import GatewayState, find_missing_volumes, shorten


def derive_data_condition(state: GatewayState, retention_days: int | None, now: float) -> Finding:
    """Return the condition of an enabled gateway's data. `retention_days`: how long content is kept; None: none is."""
    for pod in state.live_pods:
        if problem := find_missing_volumes(state.gateway, pod, now):
            return problem
        data = state.data_states.get(pod.name)
        if data is not None and not (data.is_ready or data.reason is DataReason.STARTING):
            text = f"Pod {pod.name} reports: {shorten(data.message)}"
            return Finding("False", Reason(data.reason.value), text)
    if any(pod.name in state.data_states and state.data_states[pod.name].is_ready for pod in state.live_pods):
        text = f"The tenant's data can be read and written. {_explain_retention(retention_days)}"
        return Finding("True", Reason.READY, text)
    return Finding("Unknown", Reason.STARTING, "No pod of the gateway has reported on the data yet; see GatewayReady")


def _explain_retention(days: int | None) -> str:
    if days is None:
        return "No conversation is stored; spec.data.retentionDays would keep them"
    return f"Conversations are kept for {days} day{'' if days == 1 else 's'} after their last use"
