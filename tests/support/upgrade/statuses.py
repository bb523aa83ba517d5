"""What GitOps tools take the objects of the stored clusters for, and those objects with the conditions of today's operator."""

from collections.abc import Mapping
from typing import Any, Final

from r1plus_contract.verdict import Gate
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.plan.status.conditions import build_conditions
from r1plus_operator.plan.status.kstatus_conditions import derive_deployment_standing, derive_tenant_standing
from support.kstatus import Kstatus
from support.upgrade.comparison import RENAMED_REASONS
from support.upgrade.fixture import StoredCluster, read_cluster, stored_clusters

Json = dict[str, Any]
KSTATUS: Final[Mapping[str, Kstatus]] = {
    "acknowledged": Kstatus.CURRENT,
    "dropping": Kstatus.IN_PROGRESS,
    "filling": Kstatus.IN_PROGRESS,
    "gating": Kstatus.IN_PROGRESS,
    "in-place": Kstatus.IN_PROGRESS,
    "observed": Kstatus.CURRENT,
    "on-volume": Kstatus.CURRENT,
    "own-suite": Kstatus.IN_PROGRESS,
    "paused": Kstatus.CURRENT,
    "pinned": Kstatus.CURRENT,
    "quarantined": Kstatus.CURRENT,
    "refreshed": Kstatus.CURRENT,
    "refused": Kstatus.FAILED,
    "resumed": Kstatus.CURRENT,
    "returned": Kstatus.FAILED,
    "rolled-back": Kstatus.FAILED,
    "served": Kstatus.CURRENT,
    "tenant": Kstatus.CURRENT,
    "unpinned": Kstatus.CURRENT,
}
"""Name of a stored R1PlusDeployment, or R1PlusTenant -> its kstatus."""


def list_recorded() -> dict[str, Json]:
    """Return the R1PlusDeployments and R1PlusTenants of all stored clusters, by folder and name."""
    clusters = map(read_cluster, stored_clusters())
    return {f"{one.folder.name} {obj['metadata']['name']}": obj for one in clusters for obj in _list_of(one)}


def _list_of(cluster: StoredCluster) -> list[Json]:
    return [_with_standing(obj) for kind in ("R1PlusDeployment", "R1PlusTenant") for obj in cluster.of_kind(kind)]


def _with_standing(obj: Json) -> Json:
    """Return the object with Reconciling or Stalled, derived from its own conditions."""
    status, generation = obj["status"], obj["metadata"]["generation"]
    findings = {ConditionType(one["type"]): _read_finding(one) for one in status["conditions"]}
    if obj["kind"] == "R1PlusTenant":
        standing = derive_tenant_standing(findings)
    else:
        standing = derive_deployment_standing(findings, None, Gate(obj["spec"]["accuracy"]["gate"]))
    conditions = build_conditions({**findings, **standing}, status, generation, 0.0)
    return obj | {"status": status | {"conditions": conditions}}


def _read_finding(condition: Json) -> Finding:
    reason = condition["reason"]
    return Finding(condition["status"], Reason(RENAMED_REASONS.get(reason, reason)), condition["message"])
