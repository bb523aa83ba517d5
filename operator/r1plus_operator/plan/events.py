"""Kubernetes Events: one per transition of a condition, as `kubectl describe` shows them. Called by the plan."""

from dataclasses import dataclass

from r1plus_operator.api.conditions import KSTATUS_CONDITIONS, ConditionType, Reason
from r1plus_operator.plan.observation import Json


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the CR. `at` (RFC 3339) distinguishes one occurrence from the next."""

    reason: str
    message: str
    at: str
    is_warning: bool = False
    pod: str = ""
    """Emit the Event only if this pass takes this pod out of traffic; empty: always."""


_REPORTED_AT_ONCE = frozenset({ConditionType.ENGINE_READY, ConditionType.CAPACITY_FITS, ConditionType.QUALITY_VERIFIED})
_EXPECTED_REASONS = frozenset({Reason.COMPLETE, Reason.PENDING, Reason.SCALED_TO_ZERO})
"""Reasons of a `False` that needs no action."""


def build_transition_events(before: Json, after: Json) -> tuple[Event, ...]:
    """Return an Event for each condition whose status or reason has changed.

    A new CR has no conditions yet: its first pass reports only what blocks it.
    """
    previous = {c["type"]: (c["status"], c["reason"]) for c in before.get("conditions") or ()}
    events = []
    for condition in after["conditions"]:
        if condition["type"] in KSTATUS_CONDITIONS:
            continue  # They repeat another condition, which has the Event.
        old = previous.get(condition["type"])
        if old == (condition["status"], condition["reason"]):
            continue
        is_warning = condition["status"] == "False" and condition["reason"] not in _EXPECTED_REASONS
        if old or (is_warning and condition["type"] in _REPORTED_AT_ONCE):
            message = f"{condition['type']} is {condition['status']}: {condition['message']}"
            events.append(Event(condition["reason"], message, condition["lastTransitionTime"], is_warning))
    return tuple(events)
