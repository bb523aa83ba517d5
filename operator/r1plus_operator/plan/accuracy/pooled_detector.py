"""Which pooled detector the operator keeps for a deployment: of the revision that serves, under the suite in force.

Every pass requests it and `observe.pooled_detectors` keeps it. Only the revision's own pods are asked, and only
outcomes of the suite's items count, so that a compromised pod cannot fill the operator's memory.
"""

from dataclasses import dataclass

from r1plus_contract.suites.suite import Suite
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.manifests.children import FALSE_ALARM_DAYS, STEADINESS, compute_max_pods
from r1plus_operator.plan.observation import Observation
from r1plus_operator.plan.requests import read_ack_token
from r1plus_operator.plan.revision.record import Revision
from r1plus_policies.detector.budget import Budget
from r1plus_policies.detector.detector import DetectorKey


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """Which detector to keep, and the pods whose outcomes it folds."""

    key: DetectorKey
    identity: str
    scorer_version: str
    alarm_at: float
    """Evidence at which a new pool raises its alarm."""
    probes_per_minute: int
    """Of each pod's monitor: outcomes that come much faster are not its own."""
    items: frozenset[str]
    pods: frozenset[str]
    """The revision's, except those in quarantine."""
    quarantined_pods: frozenset[str]
    """The pool is recomputed without them."""
    checkpoint: str
    """As it is stored on the revision."""
    acknowledged: str = ""
    """Token of the newest acknowledgement: a pool of another one starts again."""


def request_pool(
    current: Revision | None, observed: Observation, spec: R1PlusDeploymentSpec, suite: Suite | None
) -> PoolRequest | None:
    """Return the pool of the current revision on the effective suite; None where there is no such revision or suite."""
    if current is None or suite is None:
        return None
    header = suite.header
    pods = [p for p in observed.pods if p.revision == current.name and not p.terminating]
    budget = Budget(spec.accuracy.probes_per_minute, compute_max_pods(spec), FALSE_ALARM_DAYS)
    return PoolRequest(
        key=DetectorKey("", current.name, header.sha256, STEADINESS),
        identity=current.identity_digest,
        scorer_version=header.scorer_version,
        alarm_at=budget.pool,
        probes_per_minute=spec.accuracy.probes_per_minute,
        items=frozenset(item.id for item in suite.items),
        pods=frozenset(p.name for p in pods if p.quarantine is None),
        quarantined_pods=frozenset(p.name for p in pods if p.quarantine is not None),
        checkpoint=current.pool,
        acknowledged=read_ack_token(observed.cr),
    )


def read_checkpoint(observed: Observation, current: Revision, suite_hash: str) -> str:
    """Return the pooled detector's checkpoint, as it is stored on the current revision."""
    view = observed.pool
    is_ours = view is not None and view.is_of(current.name, suite_hash, read_ack_token(observed.cr))
    return view.checkpoint if view and is_ours and view.checkpoint else current.pool
