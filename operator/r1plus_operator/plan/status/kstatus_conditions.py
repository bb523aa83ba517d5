"""Derive Reconciling and Stalled: by them kstatus, and so Flux, Helm and Argo CD, see how far an object is.

Each is there only while it is True, and never both. Without them kstatus takes Ready.
"""

from collections.abc import Mapping

from r1plus_contract.verdict import Gate
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.standings import STANDINGS, KstatusStanding
from r1plus_operator.plan.engine.selection import Problem

Findings = Mapping[ConditionType, Finding]
_TYPES: Mapping[KstatusStanding, ConditionType] = {
    KstatusStanding.RECONCILING: ConditionType.RECONCILING,
    KstatusStanding.STALLED: ConditionType.STALLED,
}
_TENANT_ORDER = (
    ConditionType.READY,
    ConditionType.ISOLATION_VERIFIED,
    ConditionType.GATEWAY_READY,
    ConditionType.DATA_READY,
)
_EXPLAINED_BY_QUALITY = (Reason.CANDIDATE_REFUSED, Reason.ROLLED_BACK)
"""Reasons of Progressing that QualityVerified explains, with the figures."""


def derive_deployment_standing(findings: Findings, problem: Problem | None, gate: Gate | None) -> Findings:
    """Return Reconciling or Stalled of an R1PlusDeployment, or neither.

    The rollout decides. At its end QualityVerified does: of what serves it says whether it is right. `problem`: why the
    spec yields no revision. `gate`: the spec's; with Observe a failed gate stalls nothing, as the spec asked for it.
    """
    progressing, decisive = findings[ConditionType.PROGRESSING], _find_decisive(findings, problem)
    standing = STANDINGS[decisive.reason]
    if progressing.reason is Reason.COMPLETE:
        if decisive.reason is Reason.GATE_FAILED and gate is Gate.OBSERVE:
            standing = KstatusStanding.AT_REST
    elif progressing.status == "True":
        standing = KstatusStanding.RECONCILING
    elif progressing.reason is Reason.BLOCKED and standing is KstatusStanding.AT_REST:
        standing = KstatusStanding.RECONCILING  # What blocks it is only not known yet.
    return _build(standing, decisive)


def derive_tenant_standing(findings: Findings) -> Findings:
    """Return Reconciling or Stalled of an R1PlusTenant, or neither: the first condition that stalls, else moves."""
    ordered = [findings[kind] for kind in _TENANT_ORDER if kind in findings]
    for standing in (KstatusStanding.STALLED, KstatusStanding.RECONCILING):
        found = [one for one in ordered if one.status != "True" and STANDINGS[one.reason] is standing]
        if found:
            return _build(standing, found[0])
    return {}


def _find_decisive(findings: Findings, problem: Problem | None) -> Finding:
    """Return the finding that decides, with the most exact reason and message."""
    progressing, engine = findings[ConditionType.PROGRESSING], findings[ConditionType.ENGINE_READY]
    quality = findings[ConditionType.QUALITY_VERIFIED]
    if progressing.reason is Reason.COMPLETE:
        return quality
    if progressing.reason is Reason.BLOCKED and problem:
        return Finding("False", problem.reason, problem.message)
    if progressing.reason is engine.reason:
        return engine
    if progressing.reason in _EXPLAINED_BY_QUALITY:
        return Finding("False", progressing.reason, quality.message)
    return progressing


def _build(standing: KstatusStanding, decisive: Finding) -> Findings:
    kind = _TYPES.get(standing)
    return {kind: Finding("True", decisive.reason, decisive.message)} if kind else {}
