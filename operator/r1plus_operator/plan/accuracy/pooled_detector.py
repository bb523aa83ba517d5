"""Which pooled detector the operator keeps for a deployment: of the revision that serves, under the suite in force.

The plan says it in every pass, the verdict source keeps it: it asks only the pods that the plan knows for the
revision's own, and takes only outcomes of the suite's items, so that a pod that was broken into fills no memory.
"""

from dataclasses import dataclass

from r1plus_contract.suite import Suite
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.manifests.children import FALSE_ALARM_DAYS, STEADINESS, most_pods
from r1plus_operator.plan.observation import Observed
from r1plus_operator.plan.requests import acknowledged_in
from r1plus_operator.plan.revision.record import Revision
from r1plus_policies.detector.budget import Budget
from r1plus_policies.detector.detector import DetectorKey


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """What to keep and from whom."""

    key: DetectorKey
    identity: str
    scorer_version: str
    alarm_at: float
    """For a pool that is born now."""
    items: frozenset[str]
    pods: frozenset[str]
    """Of the revision, in no quarantine."""
    quarantined_pods: frozenset[str]
    """In quarantine: the pool is recomputed without them."""
    checkpoint: str
    """Checkpoint as it is written on the revision."""
    acknowledged: str = ""
    """The newest acknowledgement: a pool of another one starts anew."""


def request_pool(
    current: Revision | None, observed: Observed, spec: R1PlusDeploymentSpec, suite: Suite | None
) -> PoolRequest | None:
    """The pool of the revision that serves, on the suite that counts for it; None where there is no such thing."""
    if current is None or suite is None:
        return None
    header = suite.header
    pods = [p for p in observed.pods if p.revision == current.name and not p.terminating]
    budget = Budget(spec.accuracy.probes_per_minute, most_pods(spec), FALSE_ALARM_DAYS)
    return PoolRequest(
        key=DetectorKey("", current.name, header.sha256, STEADINESS),
        identity=current.identity_digest,
        scorer_version=header.scorer_version,
        alarm_at=budget.pool,
        items=frozenset(item.id for item in suite.items),
        pods=frozenset(p.name for p in pods if p.quarantine is None),
        quarantined_pods=frozenset(p.name for p in pods if p.quarantine is not None),
        checkpoint=current.pool,
        acknowledged=acknowledged_in(observed.cr),
    )


def read_checkpoint(observed: Observed, current: Revision, suite_hash: str) -> str:
    """Of the pooled detector, as it is to stand on the revision that serves."""
    view = observed.pool
    ours = view is not None and view.is_of(current.name, suite_hash, acknowledged_in(observed.cr))
    return view.checkpoint if view and ours and view.checkpoint else current.pool
