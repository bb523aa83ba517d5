"""Figures of a plan for the metrics, in addition to the conditions. Called by the plan."""

from dataclasses import dataclass

from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_operator.plan.rollback.outcome import BreachOutcome
from r1plus_policies.rollback.response import Action


@dataclass(frozen=True, slots=True)
class PlanMetrics:
    """Figures of one plan; they count once it has been carried out."""

    tier: str = ""
    threshold: float = 0.0
    blocked: str = ""
    """RollbackReason nothing is done about an accuracy drop; empty: nothing blocks it."""
    rolled_back: str = ""
    """Cause of the rollback that this plan completes; empty: it completes none."""
    runtime: Json | None = None
    """`status.runtime`."""
    quarantined: bool = False
    """Whether this plan takes a pod out of traffic; the reconciler reports whether it did."""


def collect_metrics(
    spec: R1PlusDeploymentSpec, outcome: BreachOutcome | None, switched: RollbackRecord | None, runtime: Json | None
) -> PlanMetrics:
    """Return the figures. `switched` is the rollback that this plan completes by moving traffic."""
    return PlanMetrics(
        tier=spec.tier.value,
        threshold=spec.accuracy.threshold,
        blocked=_get_blocking_reason(outcome) if outcome else "",
        rolled_back=switched.cause if switched else "",
        runtime=runtime,
        quarantined=outcome is not None and outcome.response.action is Action.QUARANTINE,
    )


def _get_blocking_reason(outcome: BreachOutcome) -> str:
    """Return why a rollback is blocked; empty: none is. A request alone, without an accuracy drop, pages no one."""
    is_blocked = outcome.response.action in (Action.BLOCKED, Action.PAGE) and not outcome.is_only_requested
    return outcome.response.reason.value if is_blocked else ""
