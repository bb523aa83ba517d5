"""Which pooled detector the operator keeps for a deployment: of the revision that serves, under the suite in force.

The plan says it in every pass, the verdict source keeps it: it asks only the pods that the plan knows for the
revision's own, and takes only outcomes of the suite's items, so that a pod that was broken into fills no memory.
"""

from dataclasses import dataclass

from r1plus_contract.suite import Suite
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.manifests.children import FALSE_ALARM_DAYS, STEADINESS, compute_max_pods
from r1plus_operator.plan.observation import Observation
from r1plus_operator.plan.requests import read_ack_token
from r1plus_operator.plan.revision.record import Revision
from r1plus_policies.detector.budget import Budget
from r1plus_policies.detector.detector import DetectorKey


@dataclass(frozen=True, slots=True)
class PoolWanted:
    """What to keep and from whom."""

    key: DetectorKey
    identity: str
    scorer_version: str
    alarm_at: float
    """For a pool that is born now."""
    items: frozenset[str]
    pods: frozenset[str]
    """Of the revision, in no quarantine."""
    held: frozenset[str]
    """In quarantine: the pool is recomputed without them."""
    stored: str
    """Checkpoint as it is written on the revision."""
    acknowledged: str = ""
    """The newest acknowledgement: a pool of another one starts anew."""


def wanted_pool(
    current: Revision | None, observed: Observation, spec: R1PlusDeploymentSpec, suite: Suite | None
) -> PoolWanted | None:
    """The pool of the revision that serves, on the suite that counts for it; None where there is no such thing."""
    if current is None or suite is None:
        return None
    header = suite.header
    pods = [p for p in observed.pods if p.revision == current.name and not p.terminating]
    budget = Budget(spec.accuracy.probes_per_minute, compute_max_pods(spec), FALSE_ALARM_DAYS)
    return PoolWanted(
        key=DetectorKey("", current.name, header.sha256, STEADINESS),
        identity=current.identity_digest,
        scorer_version=header.scorer_version,
        alarm_at=budget.pool,
        items=frozenset(item.id for item in suite.items),
        pods=frozenset(p.name for p in pods if p.quarantine is None),
        held=frozenset(p.name for p in pods if p.quarantine is not None),
        stored=current.pool,
        acknowledged=read_ack_token(observed.cr),
    )


def checkpoint(observed: Observation, serving: Revision, suite_hash: str) -> str:
    """Of the pooled detector, as it is to stand on the revision that serves."""
    view = observed.pool
    ours = view is not None and view.is_of(serving.name, suite_hash, read_ack_token(observed.cr))
    return view.checkpoint if view and ours and view.checkpoint else serving.pool
