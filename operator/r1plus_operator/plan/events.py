"""Events: a transition of a condition, told once, for whoever reads `kubectl describe`. Called by the plan."""

from dataclasses import dataclass

from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.plan.observation import Json


@dataclass(frozen=True, slots=True)
class Note:
    """A Kubernetes Event to leave on the CR. `at` (RFC 3339) tells one occurrence from the next."""

    reason: str
    message: str
    at: str
    warning: bool = False
    pod: str = ""
    """Told only if this very pass took this pod out of traffic."""


_WORTH_TELLING_AT_ONCE = frozenset(
    {ConditionType.ENGINE_READY, ConditionType.CAPACITY_FITS, ConditionType.QUALITY_VERIFIED}
)
_EXPECTED = frozenset({Reason.COMPLETE, Reason.PENDING, Reason.SCALED_TO_ZERO})
"""Reasons of a `False` that is no trouble."""


def transitions(before: Json, after: Json) -> tuple[Note, ...]:
    """A note per condition whose status or reason is another than before.

    A new CR has had none: of what its first pass finds only what is in the way is told.
    """
    known = {c["type"]: (c["status"], c["reason"]) for c in before.get("conditions") or ()}
    notes = []
    for condition in after["conditions"]:
        told = known.get(condition["type"])
        if told == (condition["status"], condition["reason"]):
            continue
        warning = condition["status"] == "False" and condition["reason"] not in _EXPECTED
        if told or (warning and condition["type"] in _WORTH_TELLING_AT_ONCE):
            message = f"{condition['type']} is {condition['status']}: {condition['message']}"
            notes.append(Note(condition["reason"], message, condition["lastTransitionTime"], warning))
    return tuple(notes)
