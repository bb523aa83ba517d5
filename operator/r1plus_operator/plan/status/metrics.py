"""What the metrics tell of a deployment beside its conditions: what a plan bars and does. Called by the plan."""

from dataclasses import dataclass

from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_operator.plan.rollback.outcome import BreachOutcome
from r1plus_policies.rollback.response import Action


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one plan; counted once it has been carried out."""

    tier: str = ""
    threshold: float = 0.0
    blocked: str = ""
    """RollbackReason nothing is done about a fall; empty where nothing bars it."""
    rolled_back: str = ""
    """Cause of the rollback that this very plan makes."""
    runtime: Json | None = None
    """`status.runtime`."""
    quarantined: bool = False
    """Whether this very plan takes a pod out of traffic; the reconciler says whether it did."""


def facts_of(
    spec: R1PlusDeploymentSpec, answered: BreachOutcome | None, switched: RollbackRecord | None, runtime: Json | None
) -> Facts:
    """`switched`: the way back that this plan ends by moving traffic."""
    return Facts(
        tier=spec.tier.value,
        threshold=spec.accuracy.threshold,
        blocked=_blocked(answered) if answered else "",
        rolled_back=switched.cause if switched else "",
        runtime=runtime,
        quarantined=answered is not None and answered.response.action is Action.QUARANTINE,
    )


def _blocked(answered: BreachOutcome) -> str:
    """A rollback that somebody asked for and that cannot be is no fall without an answer: it pages nobody."""
    barred = answered.response.action in (Action.BLOCKED, Action.PAGE) and not answered.is_only_requested
    return answered.response.reason.value if barred else ""
