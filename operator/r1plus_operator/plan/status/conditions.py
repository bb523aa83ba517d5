"""Build `status` from the context of a pass. Only `lastTransitionTime` depends on the previous status.

Conditions describe the revision that the *spec asks for*; Ready and the figures describe the one that *takes traffic*.
Figures that drift are rounded, so that the status changes only when its meaning changes.
"""

from collections.abc import Callable, Collection, Mapping

from r1plus_contract import names
from r1plus_contract.plain_text import to_printable
from r1plus_contract.requests import Verb, format_command
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import Gate, GateReport, MonitorReport, Phase, Verdict
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.proof import STATUS_FIELD, read_configs
from r1plus_operator.plan.accuracy.suite_selection import hash_of
from r1plus_operator.plan.engine.selection import Problem, Target
from r1plus_operator.plan.observation import REFUSED_PODS, ContainerFacts, Json, PodFacts
from r1plus_operator.plan.podspec.pod import name_accuracy_config
from r1plus_operator.plan.requests import build_request_status, explain_refused_rollback
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.status import incident
from r1plus_operator.plan.status.alert_delivery import derive_alerts_condition
from r1plus_operator.plan.status.context import StatusContext
from r1plus_policies.rollback.response import RollbackReason
from r1plus_policies.rollout import RolloutStage

MAX_MESSAGE = 4000
"""Characters of a condition's message; the schema's limit is slightly higher."""
ALERTS_GRACE_SECONDS = 180.0
"""Time after a switch in which Prometheus may not have read the new rules yet; it takes a minute or two.

Also the time after a pod became ready in which Prometheus may not have scraped it yet.
"""
ENDPOINTS_GRACE_SECONDS = 30.0
"""Time after a promotion, or after a pod became ready, in which the Service may not have an endpoint yet."""
REFUSED_REMEDY = (
    "an admission policy or the operator's role forbids it (docs/admission.md); the operator retries every minute"
)
FAILED_REMEDY = "the write failed and is retried until it succeeds; see the API server's log"
PROGRESS_STEP = 10
"""Percent: progress of a gate is reported in steps of this size."""


def build_status(s: StatusContext) -> Json:
    """Return the whole `status`."""
    observation, current = s.observation, s.current
    generation = int(observation.cr["metadata"].get("generation", 0))
    findings = {kind: derive(s) for kind, derive in _DERIVATIONS.items()}
    status: Json = {
        "observedGeneration": generation,
        "reason": _choose_reason(findings[ConditionType.READY], findings[ConditionType.PROGRESSING], s.problem).value,
        "conditions": build_conditions(findings, observation.cr.get("status") or {}, generation, s.now),
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
    status = build_request_status(cr, explain_refused_rollback(cr, serving_revision))
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
        status["accuracy"] = f"{newest.correct}/{newest.total}"
    elif gate:
        status["accuracy"] = f"{gate.items - gate.lost}/{gate.items}"
    # A report without a suite comes from a monitor that cannot score any: its verdict counts for the suite in force.
    latest = next((r for r in s.list_reports(revision.name) if r.suite_hash in (hash_of(suite), "")), None)
    if latest and latest.verdict is Verdict.PASS and gate is None:
        status["verdict"] = Verdict.NO_DATA.value  # The Pass does not count: see QualityVerified.
    elif latest and latest.phase in (Phase.WATCHING, Phase.BLOCKED):
        status["verdict"] = latest.verdict.value
    elif gate:
        status["verdict"] = gate.verdict.value
    return status


def _choose_reason(ready: Finding, progressing: Finding, problem: Problem | None) -> Reason:
    """Return the reason that `kubectl get` prints: of Ready, or why the spec is not what serves."""
    if ready.status != "True" or progressing.reason is Reason.COMPLETE:
        return ready.reason
    return problem.reason if problem and progressing.reason is Reason.BLOCKED else progressing.reason


def build_conditions(
    findings: Mapping[ConditionType, Finding], status: Json, generation: int, now: float
) -> list[Json]:
    """Return the list of conditions; `status` is the previous one."""
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
    return new_conditions


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
        return Finding("False", reason, f"{text}, but {change}; {_explain_pause(s)}")
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
    return Finding("False", Reason.NOT_SERVING, f"{text}; {_find_pod_problem(pods) or 'they are starting'}")


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


def _explain_pause(s: StatusContext) -> str:
    command = format_command(Verb.RESUME, f"{s.observation.name} -n {s.observation.namespace}")
    return f"spec.rollout.paused: the operator starts and repairs nothing; {command} resumes it"


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


def _derive_engine_ready(s: StatusContext) -> Finding:
    if s.problem and s.problem.condition is ConditionType.ENGINE_READY:
        return Finding("False", s.problem.reason, s.problem.message)
    if s.problem:
        return Finding("Unknown", Reason.PENDING, "Not checked, because the spec cannot be served; see Progressing")
    if s.delivery_finding:
        return s.delivery_finding
    pods = s.list_pods(s.subject)
    for pod in pods:
        for container in pod.containers:
            if problem := _find_container_problem(pod, container):
                return problem
    foreign_pods = [pod.name for pod in s.observation.foreign_pods if pod.revision == s.subject and not pod.terminating]
    if foreign_pods:
        remedy = "delete it, or keep webhooks that inject containers away from this namespace"
        text = f"Pod {foreign_pods[0]} has the labels of revision {s.subject} but does not run its template, so its"
        return Finding("False", Reason.FOREIGN_POD, f"{text} reports are ignored; {remedy}")
    return _derive_loading(s, pods)


def _derive_loading(s: StatusContext, pods: list[PodFacts]) -> Finding:
    """Return EngineReady of an engine whose pods have no problem."""
    assert isinstance(s.resolved, Target)
    choice_text = f"{s.resolved.engine.name}: {s.resolved.choice.why}"
    if any(c.name == names.CONTAINER_TRITON and c.ready for p in pods for c in p.containers) or s.list_reports(
        s.subject
    ):
        return Finding("True", Reason.ENGINE_LOADED, choice_text)
    is_kept_out = s.outcome is not None and s.outcome.spec_rollback is not None
    if is_kept_out or (s.rollout is not None and s.rollout.stage is RolloutStage.REFUSED):
        return Finding("True", Reason.ENGINE_CHOSEN, choice_text)
    if s.is_paused and ("Deployment", s.subject or "") not in s.observation.children:
        text = f"Deployment {s.subject} is not started: {_explain_pause(s)}. Engine {choice_text}"
        return Finding("Unknown", Reason.PAUSED, text)
    return Finding("Unknown", Reason.ENGINE_LOADING, f"{choice_text}; the engine is loading")


def _find_container_problem(pod: PodFacts, container: ContainerFacts) -> Finding | None:
    detail = f": {container.message.strip()[:600]}" if container.message else ""
    for marker in (Reason.ENGINE_DIGEST_MISMATCH, Reason.ARCHITECTURE_MISMATCH, Reason.ENGINE_INCOMPATIBLE):
        if marker in container.message:
            report = container.message[container.message.index(marker) :]
            return Finding("False", marker, report.strip().splitlines()[0][:900])
    if container.has_pull_error:
        text = f"Pod {pod.name} cannot pull the image of container {container.name}{detail}"
        return Finding("False", Reason.IMAGE_PULL_FAILED, f"{text}; check the image's name and the pull secrets")
    if container.terminated_reason == "OOMKilled":
        remedy = "lower spec.batching.maxBatchSize or spec.context.maxTokens"
        text = f"Container {container.name} of pod {pod.name} ran out of memory"
        return Finding("False", Reason.OUT_OF_MEMORY, f"{text}; {remedy}")
    if container.waiting_reason == "CrashLoopBackOff":
        text = f"Container {container.name} of pod {pod.name} exits repeatedly (last exit code {container.exit_code})"
        remedy = f"see `kubectl logs {pod.name} -c {container.name} --previous`"
        return Finding("False", Reason.CRASH_LOOPING, f"{text}{detail}; {remedy}")
    return None


def _find_pod_problem(pods: list[PodFacts]) -> str:
    for pod in pods:
        if pod.unschedulable:
            return pod.unschedulable
        for container in pod.containers:
            if problem := _find_container_problem(pod, container):
                return problem.message
    return ""


def _derive_capacity_fits(s: StatusContext) -> Finding:
    if s.problem and s.problem.condition is ConditionType.CAPACITY_FITS:
        return Finding("False", s.problem.reason, s.problem.message)
    if s.problem:
        return Finding("Unknown", Reason.PENDING, "Not checked, because the spec cannot be served; see Progressing")
    if error := s.observation.children.get(("Deployment", s.subject or ""), {}).get(REFUSED_PODS):
        return _report_refused_pods(error, remedy=_suggest_user_remedy(s))
    for pod in s.list_pods(s.subject):
        if pod.unschedulable:
            remedy = "free capacity, change spec.placement, or lower batch and context"
            return Finding(
                "False", Reason.UNSCHEDULABLE, f"The scheduler finds no node for a pod: {pod.unschedulable}; {remedy}"
            )
    assert isinstance(s.resolved, Target)
    return Finding("True", Reason.FITS, s.resolved.fit.explain())


def _suggest_user_remedy(s: StatusContext) -> str:
    """Return the remedy if pods set a user although their namespace assigns one; empty: they do not."""
    revision, tenant = s.revisions.get(s.subject or ""), s.observation.tenant
    if revision is None or tenant is None or not (tenant.assigns_users and revision.runtime.names_user):
        return ""
    text = f"pods of revision {revision.name} set a user, but this namespace assigns users"
    return f"{text}; {format_command(Verb.REFRESH)} requests a candidate whose pods set none"


def _report_refused_pods(error: str, remedy: str) -> Finding:
    if "exceeded quota" in error or "must specify limits" in error:
        remedy = "raise the namespace's ResourceQuota, or lower spec.replicas, batch or context"
        return Finding("False", Reason.QUOTA_EXCEEDED, f"A quota of the namespace refuses pods: {error}; {remedy}")
    ask = "ask the owner of this namespace's admission policies to allow them; the pods meet Pod Security restricted"
    return Finding("False", Reason.POD_REFUSED, f"The API server refuses pods: {error}; {remedy or ask}")


def _derive_quality_verified(s: StatusContext) -> Finding:
    if s.problem:
        return _derive_quality_despite_problem(s, s.problem)
    if s.subject is None:
        return Finding("Unknown", Reason.PENDING, "Not checked, because the spec cannot be served; see Progressing")
    gate = s.find_gate_report(s.revisions[s.subject])
    has_failed = gate is not None and gate.verdict is Verdict.FAIL
    # `gate: Observe` promoted a failed revision and `onBreach` is Alert: report the failed gate.
    is_let_through = has_failed and s.outcome is not None and s.outcome.response.reason is RollbackReason.ALERT_ONLY
    if s.outcome and not is_let_through and (outcome_finding := incident.derive_quality(s.outcome, s.subject)):
        return outcome_finding
    counts = s.select_suite(s.revisions[s.subject])
    report = next((r for r in s.list_reports(s.subject) if counts and r.suite_hash in (hash_of(counts), "")), None)
    if gate and gate.verdict is Verdict.FAIL:
        return Finding(
            "False",
            Reason.GATE_FAILED,
            f"Revision {s.subject} failed its gate. {gate.reason}: {gate.message}; {_explain_refusal(s)}",
        )
    if report and report.phase is Phase.WATCHING and report.verdict is Verdict.FAIL:
        return Finding("False", Reason.BELOW_THRESHOLD, report.message)
    if report and report.phase is Phase.BLOCKED:
        return _report_undecided(report)  # An earlier Pass is no news: the monitor cannot score any more.
    return _derive_gate_finding(s, s.revisions[s.subject], gate, report)


def _derive_gate_finding(
    s: StatusContext, revision: Revision, gate: GateReport | None, report: MonitorReport | None
) -> Finding:
    """Return QualityVerified of a revision whose monitors report no problem."""
    if explanation := _explain_changed_image(s, revision):
        return Finding("False", Reason.IMAGE_CHANGED, explanation)
    if s.is_shadowed:
        return _report_shadowed_suite(s)
    if gate:
        return Finding("True", Reason.GATE_PASSED, gate.message)
    if unproven_pods := s.list_unproven_pods(revision.name):
        return Finding("False", Reason.PASS_UNPROVEN, _explain_unproven(s, revision, unproven_pods[0]))
    return _report_undecided(report)


def _explain_changed_image(s: StatusContext, revision: Revision) -> str:
    """Return which pod runs an image that was never gated, and what to do; empty: none does."""
    for pod in s.list_pods(revision.name):
        if container_change := revision.find_changed_image(pod):
            text = f"Pod {pod.name} runs another image than its revision passed the gate on: an image tag was moved"
            remedy = "Name images by digest in the chart's values, or push the gated one again; then delete the pod"
            return f"{text}. {remedy}. Revision {revision.name}: container {container_change}"
    return ""


def _explain_unproven(s: StatusContext, revision: Revision, pod: str) -> str:
    """Return why a Pass does not count, and what to do."""
    if not revision.can_prove_gates:
        text = f"Revision {revision.name} has a monitor of an older version, which cannot prove that it ran its gate"
        return (
            f"{text}: its Pass does not count. Change spec.engine, batch or context to get a new revision and monitor"
        )
    config = name_accuracy_config(s.observation.name)
    text = f"The Pass of pod {pod} does not count: the pod did not run the gate, or not with ConfigMap {config} as the"
    return f"{text} operator wrote it. Find in the audit log who else wrote that ConfigMap, then delete the pod"


def _derive_quality_despite_problem(s: StatusContext, problem: Problem) -> Finding:
    """Return QualityVerified while the spec has a problem. An accuracy drop is reported first."""
    drop = incident.derive_quality(s.outcome, s.subject) if s.outcome and s.subject else None
    if drop and drop.reason is not Reason.ROLLED_BACK:
        return _append_problem(drop, problem)
    if problem.condition is not ConditionType.QUALITY_VERIFIED:
        return Finding("Unknown", Reason.PENDING, "Not checked, because the spec cannot be served; see Progressing")
    if s.current and s.suites is None:
        text = f"{problem.message}. The serving revision is not monitored, because its suite is gone"
        return Finding("False", problem.reason, text)
    return Finding("False", problem.reason, problem.message)


def _report_shadowed_suite(s: StatusContext) -> Finding:
    """Return the figures of the former suite, which counts, and the progress of the new one in the shadow."""
    assert s.suites is not None
    assert s.current is not None
    assert s.spec is not None
    new, old = s.suites.spec_suite, s.suites.effective_suite
    shadows = [r.shadow for r in s.list_reports(s.subject) if r.shadow and r.shadow.suite_hash == hash_of(new)]
    latest = max(shadows, key=lambda shadow: shadow.percent, default=None)
    problem = next((shadow.problem for shadow in shadows if shadow.problem), "")
    progress = f"{latest.percent} % of its gate" if latest else "not begun yet"
    gate = s.current.verdict_for(hash_of(old), s.spec.accuracy.threshold)
    figures = f". By suite {old.name}: {gate.verdict}, {gate.message}" if gate else ""
    state = f"cannot run: {problem}" if problem else f"runs in parallel ({progress})"
    if latest and latest.percent == 100 and (unproven_pods := s.list_unproven_pods(s.subject)):
        state = f"does not count. {_explain_unproven(s, s.current, unproven_pods[0])}"
    text = (
        f"Traffic is unaffected. Revision {s.current.name} still counts by suite {old.name}; suite {new.name} {state}"
    )
    rule = f"Suite {new.name} counts once its gate is decided"
    return Finding("Unknown", Reason.SUITE_SHADOWED, f"{text}. {rule}{figures}")


def _explain_refusal(s: StatusContext) -> str:
    if s.spec and s.spec.accuracy.gate is Gate.OBSERVE:
        return "it serves anyway, because spec.accuracy.gate is Observe"
    text = f"revision {s.current.name} goes on serving" if s.current else "nothing serves"
    return f"{text}; choose another engine; the lost items are in ControllerRevision {s.subject} (r1plus.ai/verdict)"


def _report_undecided(report: MonitorReport | None) -> Finding:
    if report is None:
        return Finding(
            "Unknown", Reason.NOT_YET_KNOWN, "No monitor has reported yet; it starts with the pod, see EngineReady"
        )
    if report.phase is Phase.BLOCKED or report.verdict is Verdict.ERROR:
        # The cause is the platform, so this says nothing about the engine.
        reason = Reason.SUITE_MISMATCH if report.reason == Reason.SUITE_MISMATCH.value else Reason.NO_DATA
        return Finding("False", reason, f"{report.reason}: {report.message}")
    if report.phase is Phase.GATING and report.progress:
        share = 100 * report.progress.done // max(1, report.progress.total)
        return Finding(
            "Unknown",
            Reason.GATE_RUNNING,
            f"The gate on suite {report.suite} is running: {share - share % PROGRESS_STEP} %",
        )
    if report.verdict is Verdict.INCONCLUSIVE:
        return Finding("Unknown", Reason.GATE_INCONCLUSIVE, report.message)
    text = f"The monitor reports {report.phase}, and no gate result of this revision counts yet: {report.message}"
    return Finding("Unknown", Reason.NOT_YET_KNOWN, text)


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


def _derive_progressing(s: StatusContext) -> Finding:
    if s.observation.write_error:
        return Finding(
            "False",
            Reason.WRITE_REFUSED,
            f"A write of the operator is refused: {s.observation.write_error}; {REFUSED_REMEDY}",
        )
    if s.is_paused:
        text = (
            "spec.rollout.paused: the operator moves and repairs nothing but network policies; probes and alerts go on"
        )
        paused_finding = Finding("False", Reason.PAUSED, f"{text}; {format_command(Verb.RESUME)} resumes it")
        return _append_problem(paused_finding, s.problem) if s.problem else paused_finding
    rollback_finding = incident.derive_progress(s.outcome, s.subject or "") if s.outcome else None
    if s.problem and (rollback_finding is None or rollback_finding.reason is Reason.ROLLED_BACK):
        return _report_blocked(s.problem)
    if rollback_finding:
        return _append_problem(rollback_finding, s.problem) if s.problem else rollback_finding
    return _report_rollout(s)


def _report_rollout(s: StatusContext) -> Finding:
    assert s.rollout is not None
    if s.current and s.spec_revision != s.subject:
        text = f"spec.rollout.pinned holds traffic at revision {s.current.name}; the spec asks for {s.spec_revision}"
        return Finding("False", Reason.PINNED, f"{text}; {format_command(Verb.UNPIN)} rolls it out")
    if s.delivery_finding:
        status = "True" if s.delivery_finding.status == "Unknown" else "False"
        return Finding(status, s.delivery_finding.reason, f"Revision {s.subject} waits for its engine; see EngineReady")
    stage = s.rollout.stage
    if stage is RolloutStage.REFUSED:
        text = f"Revision {s.subject} failed its gate; see QualityVerified"
        if s.current:
            text += f". Traffic stays with revision {s.current.name}"
        return Finding("False", Reason.CANDIDATE_REFUSED, text)
    if stage is RolloutStage.BLOCKED:
        return Finding("False", Reason.BLOCKED, "spec.replicas: 0, so no candidate is started; raise it to roll out")
    if stage in (RolloutStage.NONE, RolloutStage.PROMOTE):
        engine = f" ({s.current.engine})" if s.current else ""
        text = f"Revision {s.rollout.current}{engine} takes traffic"
        for name, end in s.rollout.draining.items():
            text += f"; pods of {name} stay for the requests that they run, until {format_timestamp(end)} at the latest"
        return Finding("False", Reason.COMPLETE, text)
    if stage is RolloutStage.EXPIRED or s.rollout.overdue:
        return _report_overdue(s)
    no_room_text = f"waits: no node takes its pod now, so {s.rollout.current} is not stopped for it; free or add a node"
    states = {
        RolloutStage.GATING: "is being gated",
        RolloutStage.SCALING: "passed and is being scaled",
        RolloutStage.NO_ROOM: no_room_text,
    }
    return Finding("True", Reason.ROLLING_OUT, f"Revision {s.subject} {states[stage]}")


def _append_problem(finding: Finding, problem: Problem) -> Finding:
    text = f"{finding.message}. The spec cannot be served: {problem.reason}: {problem.message}"
    return Finding(finding.status, finding.reason, text)


def _report_blocked(problem: Problem) -> Finding:
    if problem.reason is Reason.INVALID_SPEC:
        return Finding(
            "False",
            Reason.INVALID_SPEC,
            f"{problem.message}. The serving revision keeps the last valid spec; correct the fields",
        )
    return Finding(
        "False", Reason.BLOCKED, f"{problem.condition} blocks the rollout ({problem.reason}); see its message"
    )


def _report_overdue(s: StatusContext) -> Finding:
    assert s.spec is not None
    revision = s.revisions.get(s.subject or "")
    expiry = revision.expiry if revision and revision.is_expired else None
    if s.current and expiry and expiry.retry_at:
        why, retry_at = expiry.no_room, format_timestamp(expiry.retry_at)
        text = (
            f"Revision {s.subject} was withdrawn because it has no room: {why}; {s.current.name} goes on serving."
            f" {s.subject} is retried at {retry_at}; free capacity, or lower batch, context or replicas"
        )
        return Finding("False", Reason.DEADLINE_EXCEEDED, text)
    limit = f"Revision {s.subject} was not promoted within spec.rollout.deadline ({s.spec.rollout.deadline})"
    remedy = "see the other conditions for the cause; raise the deadline or change the spec to retry"
    result = (
        f"it was withdrawn and {s.current.name} goes on serving"
        if s.current
        else "it keeps trying, because nothing else serves"
    )
    return Finding("False", Reason.DEADLINE_EXCEEDED, f"{limit}; {result}; {remedy}")


_DERIVATIONS: dict[ConditionType, Callable[[StatusContext], Finding]] = {
    ConditionType.READY: _derive_ready,
    ConditionType.ENGINE_READY: _derive_engine_ready,
    ConditionType.CAPACITY_FITS: _derive_capacity_fits,
    ConditionType.QUALITY_VERIFIED: _derive_quality_verified,
    ConditionType.ISOLATION_VERIFIED: _derive_isolation_verified,
    ConditionType.ALERTS_WIRED: _derive_alerts_wired,
    ConditionType.PROGRESSING: _derive_progressing,
}
