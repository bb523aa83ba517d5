"""What a pass decided about an accuracy drop of what serves. The status, Events and metrics are derived from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from r1plus_operator.plan.observation import PodFacts
from r1plus_operator.plan.revision.rollback_record import USER_REQUEST, AccuracyDrop, RollbackRecord
from r1plus_operator.plan.settings import AlertTerms
from r1plus_policies.rollback.response import BreachResponse


@dataclass(frozen=True, slots=True)
class BreachOutcome:
    """What a pass decided about the current revision, and what an earlier one decided about the spec's."""

    current: str
    """The revision that takes traffic."""
    response: BreachResponse
    drop: AccuracyDrop
    rollback_record: RollbackRecord | None = None
    """The rollback from the current revision, while it is under way."""
    spec_rollback: RollbackRecord | None = None
    """The rollback from the revision that the spec asks for, which keeps it from coming back."""
    quarantined_pods: tuple[PodFacts, ...] = ()
    rollback_target: str = ""
    """The revision to which traffic would go back if a user asked for it now."""
    rollback_blockers: tuple[str, ...] = ()
    """What each earlier revision lacks to be the rollback target."""
    has_dropped: bool = False
    """Whether a pod in traffic was counted below the threshold last."""
    alerts: AlertTerms = field(default_factory=AlertTerms)
    is_requested: bool = False
    """Whether a user asks for a rollback that has not been made."""
    control_progress: str = ""
    """How far the control that is under way is; empty while its monitors do not report it."""

    @property
    def is_only_requested(self) -> bool:
        """Whether a user asked for a rollback and no accuracy drop was measured."""
        record = self.rollback_record
        is_requested = record.cause == USER_REQUEST if record else self.is_requested
        return not self.drop.now and is_requested

    @property
    def rollback(self) -> RollbackRecord | None:
        """The rollback whose control is up, or waits for room."""
        return self.rollback_record if self.response.revision else None

    @property
    def drops_by_name(self) -> Mapping[str, bool]:
        """Whether the accuracy of the current revision has dropped, by its name."""
        return {self.current: self.has_dropped}
