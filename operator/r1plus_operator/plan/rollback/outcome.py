"""What a pass decided about an accuracy drop of what serves. The status, Events and metrics are derived from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from r1plus_operator.plan.observation import PodFacts
from r1plus_operator.plan.revision.rollback_record import REQUESTED, Fell, Record
from r1plus_operator.plan.settings import AlertTerms
from r1plus_policies.rollback.response import Response


@dataclass(frozen=True, slots=True)
class BreachOutcome:
    """What a pass decided about the revision that serves, and what an earlier one did about the requested revision."""

    serving: str
    response: Response
    fell: Fell
    record: Record | None = None
    """The rollback from the revision that serves, while it is under way."""
    returned: Record | None = None
    """The rollback from the requested revision, which keeps it from coming back."""
    held: tuple[PodFacts, ...] = ()
    """Pods in quarantine."""
    last_good: str = ""
    """The revision to which traffic would go back if a user asked for it now."""
    lacking: tuple[str, ...] = ()
    """What each earlier revision lacks to be that one."""
    has_dropped: bool = False
    """Whether a pod in traffic was counted below the threshold last."""
    alerts: AlertTerms = field(default_factory=AlertTerms)
    control_progress: str = ""
    """How far the control that is under way is; empty while its monitors do not report it."""

    @property
    def only_asked(self) -> bool:
        """Whether a user asked for a rollback and nothing dropped."""
        return not self.fell.now and (self.record is None or self.record.cause == REQUESTED)

    @property
    def rollback(self) -> Record | None:
        """The rollback whose control is up, or waits for room."""
        return self.record if self.response.revision else None

    @property
    def dropped(self) -> Mapping[str, bool]:
        """Whether the accuracy of the revision that serves has dropped, by its name."""
        return {self.serving: self.has_dropped}
