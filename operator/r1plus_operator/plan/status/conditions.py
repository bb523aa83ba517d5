"""Build `status` from the context of a pass. Only `lastTransitionTime` depends on the previous status.

Conditions describe the revision that the *spec asks for*; Ready and the figures describe the one that *takes traffic*.
Figures that drift are rounded, so that the status changes only when its meaning changes.
"""

from collections.abc import Callable, Collection, Mapping

from r1plus_contract import names
from r1plus_contract.plain_text import to_printable
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import Phase, Verdict
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.proof import STATUS_FIELD, read_configs
from r1plus_operator.plan.accuracy.suite_selection import hash_of
from r1plus_operator.plan.engine.selection import Problem
from r1plus_operator.plan.observation import Json, PodFacts
from r1plus_operator.plan.requests import build_request_status, explain_refusals
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.status import incident
from r1plus_operator.plan.status.alert_delivery import derive_alerts_condition
from r1plus_operator.plan.status.context import StatusContext
from r1plus_operator.plan.status.explanations import explain_pause
from r1plus_operator.plan.status.kstatus_conditions import derive_deployment_standing
from r1plus_operator.plan.status.pod_conditions import derive_capacity_fits, derive_engine_ready, find_pod_problem
from r1plus_operator.plan.status.progress_condition import derive_progressing
from r1plus_operator.plan.status.quality_condition import derive_quality_verified
from r1plus_policies.rollout import RolloutStage

MAX_MESSAGE = 4000
"""Characters of a condition's message; the schema's limit is slightly higher."""
MAX_CONDITIONS = 16
"""Of an object, in its schema."""
ALERTS_GRACE_SECONDS = 180.0
"""Time after a switch in which Prometheus may not have read the new rules yet; it takes a minute or two.

Also the time after a pod became ready in which Prometheus may not have scraped it yet.
"""
ENDPOINTS_GRACE_SECONDS = 30.0
"""Time after a promotion, or after a pod became ready, in which the Service may not have an endpoint yet."""

_OWN_TYPES = frozenset(kind.value for kind in ConditionType)


def build_status(s: StatusContext) -> Json:
    """Return the whole `status`."""
    observation, current = s.observation, s.current
    generation = int(observation.cr["metadata"].get("generation", 0))
    findings = {kind: derive(s) for kind, derive in _DERIVATIONS.items()}
    standing = derive_deployment_standing(findings, s.problem, s.spec.accuracy.gate if s.spec else None)
    status: Json = {
        "observedGeneration": generation,
        "reason": _choose_reason(findings, s.problem).value,
        "conditions": build_conditions({**findings, **standing}, observation.cr.get("status") or {}, generation, s.now),
    }
    if current:
        ready_pods = sum(1 for pod in s.list_pods(current.name) if pod.ready)
        status |= {
            "revision": current.name,
            "replicas": len(s.list_pods(current.name)),
            "readyReplicas": ready_pods,
            "endpoint": f"{observation.name}.{observation.namespace}.svc:{names.PORT_GRPC}",
        }
    if configs := s.config_digests or read_configs(observation.cr):
        status[STATUS_FIELD] = list(configs)
    if s.subject and (not current or s.subject != current.name):
        status["candidate"] = s.subject
    if s.rollout_target and s.rollout_target not in (s.subject, current.name if current else None):
        status["candidate"] = s.rollout_target
    status |= _build_rollback_status(s)
    shown_revision = current or (s.revisions.get(s.subject) if s.subject else None)
    if shown_revision:
        status |= {"engine": shown_revision.engine, "batch": shown_revision.batch, "context": shown_revision.context}
        if shown_revision.identity.gpu_product:
            status["gpu"] = shown_revision.identity.gpu_product
        status |= _build_accuracy_status(s, shown_revision)
    if s.runtime_status:
        status["runtime"] = s.runtime_status
    return status


def _build_rollback_status(s: StatusContext) -> Json:
    """Return the fields about user requests, the rollback target or what blocks it, and the incident."""
    outcome = s.outcome
    cr, serving_revision = s.observation.cr, s.current.name if s.current else ""
    status = build_request_status(cr, explain_refusals(cr, serving_revision, s.revisions))
    if outcome and outcome.rollback_target:
        status["lastGood"] = outcome.rollback_target
    elif outcome and outcome.rollback_blockers:
        status["rollbackBlockers"] = [line[:256] for line in outcome.rollback_blockers]
    if outcome and s.subject:
        before = s.observation.cr.get("status") or {}
        if incident_status := incident.build_incident(outcome, s.subject, before, s.now):
            status["incident"] = incident_status
    return status


def _build_accuracy_status(s: StatusContext, revision: Revision) -> Json:
    """Return suite, exact count and verdict of the revision."""
    status: Json = {}
    suite = s.select_suite(revision)
    if suite is None or s.spec is None:
        return status
    status["suite"] = suite.name
    gate = revision.verdict_for(hash_of(suite), s.spec.accuracy.threshold)
    report = next((r for r in s.list_reports(revision.name) if r.suite_hash == hash_of(suite)), None)
    counts = [report.sweep, report.watch.confirmation if report.watch else None] if report else []
    newest = max(filter(None, counts), key=lambda count: count.finished_at, default=None)
    if newest:
        status["accuracy"] = f"{newest.correct}/{newest.total}"[: incident.MAX_COUNT]
    elif gate:
        status["accuracy"] = f"{gate.items - gate.lost}/{gate.items}"[: incident.MAX_COUNT]
    # A report without a suite comes from a monitor that cannot score any: its verdict counts for the suite in force.
    latest = next((r for r in s.list_reports(revision.name) if r.suite_hash in (hash_of(suite), "")), None)
    if latest and latest.verdict is Verdict.PASS and gate is None:
        status["verdict"] = Verdict.NO_DATA.value  # The Pass does not count: see QualityVerified.
    elif latest and latest.phase in (Phase.WATCHING, Phase.BLOCKED):
        status["verdict"] = latest.verdict.value
    elif gate:
        status["verdict"] = gate.verdict.value
    return status


def _choose_reason(findings: Mapping[ConditionType, Finding], problem: Problem | None) -> Reason:
    """Return the reason that `kubectl get` prints: of Ready, that what serves is gated again, or why the spec does not
    serve."""
    ready, progressing = findings[ConditionType.READY], findings[ConditionType.PROGRESSING]
    quality = findings[ConditionType.QUALITY_VERIFIED].reason
    if ready.status == "True" and progressing.reason is Reason.COMPLETE and quality is Reason.GATE_RUNNING:
        return quality
    if ready.status != "True" or progressing.reason is Reason.COMPLETE:
        return ready.reason
    return problem.reason if problem and progressing.reason is Reason.BLOCKED else progressing.reason


def build_conditions(
    findings: Mapping[ConditionType, Finding], status: Json, generation: int, now: float
) -> list[Json]:
    """Return the list of conditions; `status` is the previous one, and types of other managers stay as in it."""
    before = {c["type"]: c for c in status.get("conditions") or ()}
    new_conditions = []
    for kind, finding in findings.items():
        old = before.get(kind.value)
        same = old is not None and old.get("status") == finding.status
        new_conditions.append(
            {
                "type": kind.value,
                "status": finding.status,
                "reason": finding.reason.value,
                "message": to_printable(finding.message[:MAX_MESSAGE]),
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if old and same else format_timestamp(now),
            }
        )
    foreign_conditions = [one for kind, one in before.items() if kind not in _OWN_TYPES]
    return [*new_conditions, *foreign_conditions][:MAX_CONDITIONS]


def _derive_ready(s: StatusContext) -> Finding:
    current = s.current
    if current is None:
        why = s.problem.message if s.problem else _explain_wait(s)
        reason = s.problem.reason if s.problem else Reason.NOT_SERVING
        return Finding("False", reason, why)
    if s.spec and s.spec.replicas == 0:
        return Finding("False", Reason.SCALED_TO_ZERO, "spec.replicas: 0, so nothing serves; raise it to serve")
    pods = s.list_pods(current.name)
    ready = sum(1 for pod in pods if pod.ready)
    expected_pods = s.rollout.replicas.get(current.name, 1) if s.rollout else 1
    text = f"{ready} of {expected_pods} pods of revision {current.name} are ready"
    if change := _explain_manual_change(s, current, ready):
        reason = Reason.NO_ENDPOINTS if ready else Reason.NOT_SERVING
        return Finding("False", reason, f"{text}, but {change}; {explain_pause(s)}")
    if ready and expected_pods and not _is_reachable(s):
        problem_text = f"{text}, but Service {s.observation.name} has no endpoint for them"
        if compute_endpoints_wait(s):
            return Finding("False", Reason.PENDING, f"{problem_text} yet; it gets them within seconds")
        slices = f"-n {s.observation.namespace} -l kubernetes.io/service-name={s.observation.name}"
        return Finding("False", Reason.NO_ENDPOINTS, f"{problem_text}; see `kubectl get endpointslices {slices}`")
    if ready and expected_pods:
        return Finding("True", Reason.SERVING, text)
    if not expected_pods:
        problem_text = (
            f"spec.rollout.strategy is InPlace: revision {current.name} is stopped while {s.rollout_target} is gated"
        )
        return Finding("False", Reason.IN_PLACE_ROLLOUT, f"{problem_text}; if that fails, {current.name} starts again")
    return Finding("False", Reason.NOT_SERVING, f"{text}; {find_pod_problem(pods) or 'they are starting'}")


def _explain_manual_change(s: StatusContext, current: Revision, ready: int) -> str:
    """Return which manual change of a paused deployment stops it from serving; empty: none."""
    if not s.is_paused:
        return ""
    live = s.observation.children.get(("Deployment", current.name))
    if live is None and not ready:
        return f"Deployment {current.name} was deleted"
    if live and not live["spec"].get("replicas", 1):
        return f"Deployment {current.name} was scaled to 0 by hand"
    return (
        "" if ("Service", s.observation.name) in s.observation.children else f"Service {s.observation.name} was deleted"
    )


def compute_endpoints_wait(s: StatusContext) -> float | None:
    """Return the seconds until the Service should have a ready endpoint; None: it has one, or is overdue."""
    pods = [pod for pod in s.list_pods(s.current.name) if pod.ready] if s.current else []
    if s.current is None or not pods or _is_reachable(s):
        return None
    since = max(s.current.promoted_at or 0.0, min(pod.ready_since or 0.0 for pod in pods))
    wait = since + ENDPOINTS_GRACE_SECONDS - s.now
    return wait if 0 < wait < 2 * ENDPOINTS_GRACE_SECONDS else None  # A node's clock may be far ahead of ours.


def _is_reachable(s: StatusContext) -> bool:
    """Whether the Service has a ready endpoint; assumed if there is no EndpointSlice.

    Just after a switch its endpoints are pods of the previous revision, which serve until the Service follows.
    """
    endpoints = s.observation.endpoints
    return endpoints is None or any(pod.ready and pod.name in endpoints for pod in s.observation.pods)


def _explain_wait(s: StatusContext) -> str:
    if s.delivery_finding:
        return f"revision {s.subject} waits for its engine; see EngineReady"
    stage = s.rollout.stage if s.rollout else RolloutStage.BLOCKED
    if stage is RolloutStage.REFUSED:
        return f"revision {s.subject} failed its gate, and no earlier revision serves; see QualityVerified"
    if stage is RolloutStage.BLOCKED:
        return "spec.replicas: 0, so nothing is started; raise it to serve"
    return f"revision {s.subject} has not passed yet; see EngineReady, CapacityFits and QualityVerified"


def _derive_isolation_verified(s: StatusContext) -> Finding:
    tenant = s.observation.tenant
    if tenant is None:
        return Finding("Unknown", Reason.PENDING, "The namespace has not been observed yet")
    explanation = explain_forbidden_callers(s.spec, tenant.callers) if s.spec and tenant.is_tenant else ""
    if explanation and tenant.status != "False":
        return Finding("False", Reason.CALLER_NOT_ALLOWED, explanation)
    return Finding(tenant.status, Reason(tenant.reason), tenant.message)


def explain_forbidden_callers(spec: R1PlusDeploymentSpec, callers: Collection[str]) -> str:
    """Return which of the deployment's callers its tenant does not allow, and what to do; empty: it allows all."""
    forbidden = sorted(set(spec.access.namespaces) - set(callers))
    if not forbidden:
        return ""
    return (
        f"spec.access.namespaces: {', '.join(forbidden)}: not among spec.callers.namespaces of R1PlusTenant"
        f" {names.TENANT}, so they are blocked; ask the platform team to add them, or remove them"
    )


def _derive_alerts_wired(s: StatusContext) -> Finding:
    missing_kinds = sorted({"PodMonitor", "PrometheusRule"} - s.observation.kinds)
    if missing_kinds:
        missing = " and no ".join(missing_kinds)
        text = f"No alert can fire, because this cluster has no {missing}; install prometheus-operator"
        return Finding("False", Reason.NO_PROMETHEUS_OPERATOR, text)
    if s.current is None:
        return Finding("Unknown", Reason.PENDING, "Alert rules are written for a serving revision; none serves yet")
    # Without ready pods, check the others: condition Ready reports that none is ready.
    in_traffic = [p for p in s.list_pods(s.current.name) if p.ready] or s.list_pods(s.current.name)
    alerts_finding = derive_alerts_condition(s.observation, s.current.name, {p.name for p in in_traffic})
    is_recent = s.now - (s.current.promoted_at or 0.0) < ALERTS_GRACE_SECONDS
    if is_recent and alerts_finding.reason in (Reason.RULE_NOT_LOADED, Reason.TARGET_MISSING):
        return Finding(
            "Unknown", Reason.PENDING, f"{alerts_finding.message}; revision {s.current.name} has just started to serve"
        )
    if alerts_finding.reason is Reason.TARGET_DOWN:
        scraped_ready = {p.name for p in in_traffic if not is_just_ready(p, s.now)}
        if derive_alerts_condition(s.observation, s.current.name, scraped_ready).reason is not Reason.TARGET_DOWN:
            text = f"{alerts_finding.message}; the pod has just become ready, and Prometheus may have scraped it before"
            return Finding("Unknown", Reason.PENDING, text)
    return alerts_finding


def is_just_ready(pod: PodFacts, now: float) -> bool:
    """Whether the last scrape of a pod may be from before it was ready. Its node's clock may be ahead of ours."""
    return pod.ready_since is not None and abs(now - pod.ready_since) < ALERTS_GRACE_SECONDS


_DERIVATIONS: dict[ConditionType, Callable[[StatusContext], Finding]] = {
    ConditionType.READY: _derive_ready,
    ConditionType.ENGINE_READY: derive_engine_ready,
    ConditionType.CAPACITY_FITS: derive_capacity_fits,
    ConditionType.QUALITY_VERIFIED: derive_quality_verified,
    ConditionType.ISOLATION_VERIFIED: _derive_isolation_verified,
    ConditionType.ALERTS_WIRED: _derive_alerts_wired,
    ConditionType.PROGRESSING: derive_progressing,
}
