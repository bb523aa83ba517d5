"""Whether a deployment is promoted, can no longer be, or is under way, by what its status says."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from r1plus_cli.deployment.view import AT_REST, NOT_SEEN, PAUSED, PINNED, PROGRESSING, DeploymentView, build_view
from r1plus_contract.plain_text import to_printable
from r1plus_operator.api.conditions import ConditionType, Reason


class PromotionResult(StrEnum):
    """How a wait ended."""

    PROMOTED = "Promoted"
    """What the newest spec asks for takes traffic."""
    REFUSED = "Refused"
    """Its accuracy is below the threshold: at its gate, or later."""
    STALLED = "Stalled"
    """It waits for a person, for another reason."""
    DELETED = "Deleted"
    """The object was deleted, or is being deleted."""
    TIMED_OUT = "TimedOut"


@dataclass(frozen=True, slots=True)
class PromotionOutcome:
    """The end of a wait, with the figures of the status."""

    result: PromotionResult
    reason: str
    """That of the condition that decides; empty if no condition does."""
    message: str
    view: DeploymentView | None
    """The object as last seen; None if it never was."""
    generation: int = 0
    """The spec's, as last seen."""


REFUSALS: Final = frozenset(
    {
        Reason.CANDIDATE_REFUSED,
        Reason.GATE_FAILED,
        Reason.BELOW_THRESHOLD,
        Reason.ROLLED_BACK,
        Reason.ROLLBACK_BLOCKED,
        Reason.ROLLBACK_TARGET_ALSO_FAILED,
    }
)
"""Reasons of Stalled that say that the accuracy is too low."""
_HELD: Final = (PAUSED, PINNED)
"""Reasons of Progressing that end only by a person's request."""


class PromotionTracker:
    """Judges an object each time that it is seen, and remembers what it was."""

    def __init__(self, key: str) -> None:
        self.key = key
        """namespace/name."""
        self.view: DeploymentView | None = None
        self.generation = 0
        self._uid = ""

    def observe(self, body: Mapping[str, Any] | None) -> PromotionOutcome | None:
        """Return the outcome, or None while it is under way. `body`: the object; None: it does not exist."""
        if body is None:
            return self._end(PromotionResult.DELETED, "", "it was deleted") if self.view else None
        metadata = body["metadata"]
        uid = str(metadata.get("uid", ""))
        if self.view and uid != self._uid:
            return self._end(PromotionResult.DELETED, "", "it was deleted, and made again")
        self._uid, self.view, self.generation = uid, build_view(body), int(metadata.get("generation", 1))
        if metadata.get("deletionTimestamp"):
            return self._end(PromotionResult.DELETED, Reason.DELETING, "it is being deleted")
        return self._judge(self.view, _read_true_conditions(body)) if self.view.up_to_date else None

    def give_up(self) -> PromotionOutcome:
        """Return the outcome of a wait whose time is over: it says how far the object is."""
        if self.view is None:
            return self._end(PromotionResult.TIMED_OUT, "", f"there is no R1PlusDeployment {self.key}")
        if not self.view.conditions:
            return self._end(PromotionResult.TIMED_OUT, "", NOT_SEEN)
        condition = self.view.select_condition() if self.view.up_to_date else None
        return self._end(PromotionResult.TIMED_OUT, condition.reason if condition else "", self.view.format_headline())

    def _judge(self, view: DeploymentView, true_conditions: Mapping[str, tuple[str, str]]) -> PromotionOutcome | None:
        if ConditionType.STALLED in true_conditions:
            reason, message = true_conditions[ConditionType.STALLED]
            result = PromotionResult.REFUSED if reason in REFUSALS else PromotionResult.STALLED
            return self._end(result, reason, message)
        progress = view.reason_of(PROGRESSING)
        if progress in _HELD:
            return self._end(PromotionResult.STALLED, progress, view.condition_message(PROGRESSING))
        if ConditionType.RECONCILING in true_conditions or progress != AT_REST:
            return None
        if view.reason_of(ConditionType.READY) == Reason.SCALED_TO_ZERO:
            message = view.condition_message(ConditionType.READY)
            return self._end(PromotionResult.STALLED, Reason.SCALED_TO_ZERO, message)
        if not view.ready:
            return None
        return self._end(PromotionResult.PROMOTED, progress, view.condition_message(PROGRESSING))

    def _end(self, result: PromotionResult, reason: str, message: str) -> PromotionOutcome:
        return PromotionOutcome(result, str(reason), message, self.view, self.generation)


def _read_true_conditions(body: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return reason and message of each condition that is True, by its type."""
    conditions = body.get("status", {}).get("conditions") or ()
    return {
        one["type"]: (to_printable(one.get("reason", "")), to_printable(one.get("message", "")))
        for one in conditions
        if one.get("status") == "True"
    }
