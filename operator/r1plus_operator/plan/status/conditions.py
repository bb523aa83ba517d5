"""status: what a pass tells the user. Derived from the situation alone; only `lastTransitionTime` looks at the old one.

Conditions speak of what the *spec asks for* (the target revision); Ready and the figures of what *takes traffic*.
Figures that drift are rounded, so that the status changes when its meaning changes.
"""

from collections.abc import Callable, Collection, Mapping

from r1plus_contract import names
from r1plus_contract.plain_text import plain
from r1plus_contract.requests import Verb, format_command
from r1plus_contract.verdict import Gate, GateReport, MonitorReport, Phase, Verdict
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.proof import STATUS_FIELD, read_configs
from r1plus_operator.plan.accuracy.suite_selection import hash_of
from r1plus_operator.plan.engine.selection import Problem, Target
from r1plus_operator.plan.observation import REFUSED_PODS, ContainerFacts, Json, PodFacts
from r1plus_operator.plan.podspec.pod import accuracy_name
from r1plus_operator.plan.requests import refused_rollback, tell_requests
from r1plus_operator.plan.revision.record import Revision, rfc3339
from r1plus_operator.plan.status import incident
from r1plus_operator.plan.status.alert_delivery import wiring
from r1plus_operator.plan.status.context import Situation
from r1plus_policies.rollback.response import RollbackReason
from r1plus_policies.rollout import RolloutStage

MAX_MESSAGE = 4000
"""Characters of a condition's message; the schema's limit is a little above."""
WIRING_SECONDS = 180.0
"""After a switch, until then it is no trouble that Prometheus has not read the new rules: it takes a minute or two.

Nor, after a pod got ready, that it has not scraped it since.
"""
ENDPOINTS_SECONDS = 30.0
"""After a promotion, or after a pod got ready, until then it is no trouble that the Service leads to none yet."""
REFUSED_REMEDY = "an admission policy or the operator's role forbids it (docs/admission.md); tried again every minute"
FAILED_REMEDY = "not written, and tried again until it is; the API server's log says more"
PROGRESS_STEP = 10
"""Percent: progress of a gate is told in steps of this size."""


def status_of(situation: Situation) -> Json:
    """The whole `status`."""
    observed, current = situation.observed, situation.current
    generation = int(observed.cr["metadata"].get("generation", 0))
    found = {kind: derive(situation) for kind, derive in _DERIVATIONS.items()}
    status: Json = {
        "observedGeneration": generation,
        "reason": _reason(found[ConditionType.READY], found[ConditionType.PROGRESSING], situation.problem).value,
        "conditions": conditions(found, observed.cr.get("status") or {}, generation, situation.now),
    }
    if current:
        ready = sum(1 for pod in situation.pods(current.name) if pod.ready)
        status |= {
            "revision": current.name,
            "replicas": len(situation.pods(current.name)),
            "readyReplicas": ready,
            "endpoint": f"{observed.name}.{observed.namespace}.svc:{names.PORT_GRPC}",
        }
    if configs := situation.configs or read_configs(observed.cr):
        status[STATUS_FIELD] = list(configs)
    if situation.target and (not current or situation.target != current.name):
        status["candidate"] = situation.target
    if situation.wanted and situation.wanted not in (situation.target, current.name if current else None):
        status["candidate"] = situation.wanted
    status |= _of_people_and_falls(situation)
    shown = current or (situation.revisions.get(situation.target) if situation.target else None)
    if shown:
        status |= {"engine": shown.engine, "batch": shown.batch, "context": shown.context}
        if shown.identity.gpu_product:
            status["gpu"] = shown.identity.gpu_product
        status |= _accuracy(situation, shown)
    if situation.runtime:
        status["runtime"] = situation.runtime
    return status


def _of_people_and_falls(situation: Situation) -> Json:
    """Where traffic could go back to, what was asked for, and the fall that is dealt with."""
    answered = situation.answered
    cr, serving = situation.observed.cr, situation.current.name if situation.current else ""
    found = tell_requests(cr, refused_rollback(cr, serving))
    if answered and answered.rollback_target:
        found["lastGood"] = answered.rollback_target
    elif answered and answered.rollback_blockers:
        found["noLastGood"] = [line[:256] for line in answered.rollback_blockers]
    if answered and situation.target:
        before = situation.observed.cr.get("status") or {}
        if told := incident.told(answered, situation.target, before, situation.now):
            found["incident"] = told
    return found


def _accuracy(situation: Situation, shown: Revision) -> Json:
    """Suite, exact count and verdict of the revision shown."""
    found: Json = {}
    suite = situation.counts_for(shown)
    if suite is None or situation.spec is None:
        return found
    found["suite"] = suite.name
    gate = shown.verdict_for(hash_of(suite), situation.spec.accuracy.threshold)
    report = next((r for r in situation.reports(shown.name) if r.suite_hash == hash_of(suite)), None)
    counts = [report.sweep, report.watch.confirmation if report.watch else None] if report else []
    newest = max(filter(None, counts), key=lambda count: count.finished_at, default=None)
    if newest:
        found["accuracy"] = f"{newest.correct}/{newest.total}"
    elif gate:
        found["accuracy"] = f"{gate.items - gate.lost}/{gate.items}"
    # A monitor that says of no suite that it can score owes the verdict of the one in force.
    said = next((r for r in situation.reports(shown.name) if r.suite_hash in (hash_of(suite), "")), None)
    if said and said.verdict is Verdict.PASS and gate is None:
        found["verdict"] = Verdict.NO_DATA.value  # Not taken: see QualityVerified.
    elif said and said.phase in (Phase.WATCHING, Phase.BLOCKED):
        found["verdict"] = said.verdict.value
    elif gate:
        found["verdict"] = gate.verdict.value
    return found


def _reason(ready: Finding, progressing: Finding, problem: Problem | None) -> Reason:
    """The one reason that `kubectl get` has room for: of Ready, unless it serves and the spec is not what serves."""
    if ready.status != "True" or progressing.reason is Reason.COMPLETE:
        return ready.reason
    return problem.reason if problem and progressing.reason is Reason.BLOCKED else progressing.reason


def conditions(found: Mapping[ConditionType, Finding], status: Json, generation: int, now: float) -> list[Json]:
    """As a status lists them; `status` is the one before."""
    before = {c["type"]: c for c in status.get("conditions") or ()}
    made = []
    for kind, finding in found.items():
        old = before.get(kind.value)
        same = old is not None and old.get("status") == finding.status
        made.append(
            {
                "type": kind.value,
                "status": finding.status,
                "reason": finding.reason.value,
                "message": plain(finding.message[:MAX_MESSAGE]),
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if old and same else rfc3339(now),
            }
        )
    return made


def _ready(s: Situation) -> Finding:
    current = s.current
    if current is None:
        why = s.problem.message if s.problem else _waiting(s)
        reason = s.problem.reason if s.problem else Reason.NOT_SERVING
        return Finding("False", reason, why)
    if s.spec and s.spec.replicas == 0:
        return Finding("False", Reason.SCALED_TO_ZERO, "spec.replicas: 0, so nothing serves")
    pods = s.pods(current.name)
    ready = sum(1 for pod in pods if pod.ready)
    wanted = s.rollout.replicas.get(current.name, 1) if s.rollout else 1
    text = f"{ready} of {wanted} pods of revision {current.name} are ready"
    if changed := _changed_by_hand(s, current, ready):
        reason = Reason.NO_ENDPOINTS if ready else Reason.NOT_SERVING
        return Finding("False", reason, f"{text}, and {changed}; {_not_repaired(s)}")
    if ready and wanted and not _is_reachable(s):
        told = f"{text}, and Service {s.observed.name} leads to none of them"
        if endpoints_due(s):
            return Finding("False", Reason.PENDING, f"{told} yet; it follows within seconds")
        return Finding("False", Reason.NO_ENDPOINTS, f"{told}; look at its EndpointSlices")
    if ready and wanted:
        return Finding("True", Reason.SERVING, text)
    if not wanted:
        told = f"spec.rollout.strategy is InPlace: revision {current.name} was stopped so that {s.wanted} can be gated"
        return Finding("False", Reason.IN_PLACE_ROLLOUT, f"{told}; a refusal brings {current.name} back")
    return Finding("False", Reason.NOT_SERVING, f"{text}; {_trouble(pods) or 'they are starting'}")


def _changed_by_hand(s: Situation, current: Revision, ready: int) -> str:
    """What people have taken away of a paused deployment so that nothing answers; empty: nothing."""
    if not s.is_paused:
        return ""
    live = s.observed.children.get(("Deployment", current.name))
    if live is None and not ready:
        return f"Deployment {current.name} was deleted"
    if live and not live["spec"].get("replicas", 1):
        return f"Deployment {current.name} was scaled to 0 by hand"
    return "" if ("Service", s.observed.name) in s.observed.children else f"Service {s.observed.name} was deleted"


def _not_repaired(s: Situation) -> str:
    command = format_command(Verb.RESUME, f"{s.observed.name} -n {s.observed.namespace}")
    remedy = f"{command} lets the operator act again"
    return f"spec.rollout.paused: nothing is started and nothing is repaired; {remedy}"


def endpoints_due(s: Situation) -> float | None:
    """Seconds until the Service should lead to a ready pod; None while it does, and once it should have."""
    pods = [pod for pod in s.pods(s.current.name) if pod.ready] if s.current else []
    if s.current is None or not pods or _is_reachable(s):
        return None
    since = max(s.current.promoted_at or 0.0, min(pod.ready_since or 0.0 for pod in pods))
    left = since + ENDPOINTS_SECONDS - s.now
    return left if 0 < left < 2 * ENDPOINTS_SECONDS else None  # A node's clock may be far ahead of ours.


def _is_reachable(s: Situation) -> bool:
    """Whether the Service leads to a ready pod; taken for granted where no EndpointSlice tells of it.

    Just after a switch it leads to pods of the revision before, which go on serving until it follows.
    """
    reached = s.observed.endpoints
    return reached is None or any(pod.ready and pod.name in reached for pod in s.observed.pods)


def _waiting(s: Situation) -> str:
    if s.delivering:
        return f"revision {s.target} waits for its engine; see EngineReady"
    stage = s.rollout.stage if s.rollout else RolloutStage.BLOCKED
    if stage is RolloutStage.REFUSED:
        return f"revision {s.target} was refused by its gate and nothing served before it; see QualityVerified"
    if stage is RolloutStage.BLOCKED:
        return "spec.replicas: 0, so nothing is started"
    return f"revision {s.target} has not passed yet; see EngineReady, CapacityFits and QualityVerified"


def _engine_ready(s: Situation) -> Finding:
    if s.problem and s.problem.condition is ConditionType.ENGINE_READY:
        return Finding("False", s.problem.reason, s.problem.message)
    if s.problem:
        return Finding("Unknown", Reason.PENDING, "Decided once the spec can be served")
    if s.delivering:
        return s.delivering
    pods = s.pods(s.target)
    for pod in pods:
        for container in pod.containers:
            if finding := _container_trouble(container):
                return finding
    strangers = [pod.name for pod in s.observed.strangers if pod.revision == s.target and not pod.terminating]
    if strangers:
        remedy = "delete it, or keep webhooks that inject containers away from this namespace"
        text = f"Pod {strangers[0]} bears the labels of revision {s.target} but does not run its template, so its"
        return Finding("False", Reason.FOREIGN_POD, f"{text} reports are not believed; {remedy}")
    return _loading(s, pods)


def _loading(s: Situation, pods: list[PodFacts]) -> Finding:
    """What is found of an engine that nothing stands in the way of."""
    assert isinstance(s.resolved, Target)
    chosen = f"{s.resolved.engine.name}: {s.resolved.choice.why}"
    if any(c.name == names.CONTAINER_TRITON and c.ready for p in pods for c in p.containers) or s.reports(s.target):
        return Finding("True", Reason.ENGINE_LOADED, chosen)
    kept_out = s.answered is not None and s.answered.spec_rollback is not None
    if kept_out or (s.rollout is not None and s.rollout.stage is RolloutStage.REFUSED):
        return Finding("True", Reason.ENGINE_CHOSEN, chosen)
    if s.is_paused and ("Deployment", s.target or "") not in s.observed.children:
        return Finding("Unknown", Reason.PAUSED, f"{chosen}. Deployment {s.target} does not exist; {_not_repaired(s)}")
    return Finding("Unknown", Reason.ENGINE_LOADING, f"{chosen}; loading")


def _container_trouble(container: ContainerFacts) -> Finding | None:
    said = f": {container.message.strip()[:600]}" if container.message else ""
    for marker in (Reason.ENGINE_DIGEST_MISMATCH, Reason.ARCHITECTURE_MISMATCH, Reason.ENGINE_INCOMPATIBLE):
        if marker in container.message:
            told = container.message[container.message.index(marker) :]
            return Finding("False", marker, told.strip().splitlines()[0][:900])
    if container.unpullable:
        remedy = "check the image's name and the pull secrets"
        return Finding("False", Reason.IMAGE_PULL_FAILED, f"Container {container.name}{said}; {remedy}")
    if container.terminated_reason == "OOMKilled":
        remedy = "lower spec.batching.maxBatchSize or spec.context.maxTokens"
        return Finding("False", Reason.OUT_OF_MEMORY, f"Container {container.name} ran out of memory; {remedy}")
    if container.waiting_reason == "CrashLoopBackOff":
        text = f"Container {container.name} exits again and again (last exit code {container.exit_code}){said}"
        return Finding("False", Reason.CRASH_LOOPING, text)
    return None


def _trouble(pods: list[PodFacts]) -> str:
    for pod in pods:
        if pod.unschedulable:
            return pod.unschedulable
        for container in pod.containers:
            if finding := _container_trouble(container):
                return finding.message
    return ""


def _capacity_fits(s: Situation) -> Finding:
    if s.problem and s.problem.condition is ConditionType.CAPACITY_FITS:
        return Finding("False", s.problem.reason, s.problem.message)
    if s.problem:
        return Finding("Unknown", Reason.PENDING, "Decided once the spec can be served")
    if refused := s.observed.children.get(("Deployment", s.target or ""), {}).get(REFUSED_PODS):
        return _refused_pods(refused, remedy=_user_remedy(s))
    for pod in s.pods(s.target):
        if pod.unschedulable:
            remedy = "free capacity, change spec.placement, or lower batch and context"
            return Finding("False", Reason.UNSCHEDULABLE, f"{pod.unschedulable}; {remedy}")
    assert isinstance(s.resolved, Target)
    return Finding("True", Reason.FITS, s.resolved.fit.explain())


def _user_remedy(s: Situation) -> str:
    """What to do where pods name a user and their namespace assigns one; empty where that is not so."""
    revision, tenant = s.revisions.get(s.target or ""), s.observed.tenant
    if revision is None or tenant is None or not (tenant.assigns_users and revision.runtime.names_user):
        return ""
    text = f"pods of revision {revision.name} name a user, and this namespace assigns users by now"
    return f"{text}; {format_command(Verb.REFRESH)} asks for a candidate whose pods name none"


def _refused_pods(said: str, remedy: str) -> Finding:
    if "exceeded quota" in said or "must specify limits" in said:
        remedy = "raise the namespace's ResourceQuota, or lower spec.replicas, batch or context"
        return Finding("False", Reason.QUOTA_EXCEEDED, f"{said}; {remedy}")
    ask = "ask whoever keeps this namespace's admission policies; the pods need no more than Pod Security restricted"
    return Finding("False", Reason.POD_REFUSED, f"{said}; {remedy or ask}")


def _quality_verified(s: Situation) -> Finding:
    if s.problem:
        return _quality_despite(s, s.problem)
    if s.target is None:
        return Finding("Unknown", Reason.PENDING, "Decided once the spec can be served")
    gate = s.verdict(s.revisions[s.target])
    failed = gate is not None and gate.verdict is Verdict.FAIL
    # A revision that Observe let through, and nobody wants it gone: that its gate failed says it best.
    let_through = failed and s.answered is not None and s.answered.response.reason is RollbackReason.ALERT_ONLY
    if s.answered and not let_through and (found := incident.quality(s.answered, s.target)):
        return found
    counts = s.counts_for(s.revisions[s.target])
    report = next((r for r in s.reports(s.target) if counts and r.suite_hash in (hash_of(counts), "")), None)
    if gate and gate.verdict is Verdict.FAIL:
        return Finding("False", Reason.GATE_FAILED, f"{gate.reason}: {gate.message}; {_refusal(s)}")
    if report and report.phase is Phase.WATCHING and report.verdict is Verdict.FAIL:
        return Finding("False", Reason.BELOW_THRESHOLD, report.message)
    if report and report.phase is Phase.BLOCKED:
        return _undecided(report)  # A Pass that stands says nothing of now: the monitor can no longer score.
    return _judge_by_gate(s, s.revisions[s.target], gate, report)


def _judge_by_gate(s: Situation, revision: Revision, gate: GateReport | None, report: MonitorReport | None) -> Finding:
    """What is found of a revision that no monitor says anything bad of."""
    if changed := _explain_changed_image(s, revision):
        return Finding("False", Reason.IMAGE_CHANGED, changed)
    if s.shadowed:
        return _shadowed(s)
    if gate:
        return Finding("True", Reason.GATE_PASSED, gate.message)
    if unproven := s.unproven(revision.name):
        return Finding("False", Reason.PASS_UNPROVEN, _explain_unproven(s, revision, unproven[0]))
    return _undecided(report)


def _explain_changed_image(s: Situation, revision: Revision) -> str:
    """Which pod runs an image that was never gated, and what to do; empty: none does."""
    for pod in s.pods(revision.name):
        if changed := revision.find_changed_image(pod):
            text = f"Pod {pod.name} of revision {revision.name}: container {changed}: somebody moved the image's tag"
            return (
                f"{text}. Name images by digest in the chart's values, or push the gated one again, and delete the pod"
            )
    return ""


def _explain_unproven(s: Situation, revision: Revision, pod: str) -> str:
    """Say why a Pass is not taken, and what to do."""
    if not revision.can_prove_gates:
        text = f"Revision {revision.name} has a monitor of an older version, which cannot prove that it ran its gate"
        return f"{text}: its Pass is not taken. Change spec.engine, batch or context: a new revision gets a new monitor"
    config = accuracy_name(s.observed.name)
    text = f"The Pass that pod {pod} reports is not taken: it did not run the gate, or not under a ConfigMap {config}"
    return f"{text} that the operator wrote. Find out in the audit log who wrote another, then delete the pod"


def _quality_despite(s: Situation, problem: Problem) -> Finding:
    """An accuracy drop of what serves is told before a Problem of the spec: users get wrong answers meanwhile."""
    drop = incident.quality(s.answered, s.target) if s.answered and s.target else None
    if drop and drop.reason is not Reason.ROLLED_BACK:
        return _with_problem(drop, problem)
    if problem.condition is not ConditionType.QUALITY_VERIFIED:
        return Finding("Unknown", Reason.PENDING, "Decided once the spec can be served")
    if s.current and s.judging is None:
        told = f"{problem.message}. What serves is not watched: the suite that it was judged by is gone"
        return Finding("False", problem.reason, told)
    return Finding("False", problem.reason, problem.message)


def _shadowed(s: Situation) -> Finding:
    """Of the suite that is asked for nothing is known yet; of the one that counts the figures are told."""
    assert s.judging is not None
    assert s.current is not None
    assert s.spec is not None
    new, old = s.judging.spec_suite, s.judging.effective_suite
    said = [r.shadow for r in s.reports(s.target) if r.shadow and r.shadow.suite_hash == hash_of(new)]
    furthest = max(said, key=lambda shadow: shadow.percent, default=None)
    problem = next((shadow.problem for shadow in said if shadow.problem), "")
    how_far = f"{furthest.percent} % of its gate" if furthest else "it has not begun"
    gate = s.current.verdict_for(hash_of(old), s.spec.accuracy.threshold)
    figures = f": {gate.verdict}, {gate.message}" if gate else ""
    doing = f"cannot be asked: {problem}" if problem else f"is asked beside it: {how_far}"
    if furthest and furthest.percent == 100 and (unproven := s.unproven(s.target)):
        doing = f"does not count. {_explain_unproven(s, s.current, unproven[0])}"
    text = f"Revision {s.current.name} is judged by suite {old.name}{figures}; suite {new.name} {doing}"
    return Finding("Unknown", Reason.SUITE_SHADOWED, f"{text}. It counts once its gate is decided")


def _refusal(s: Situation) -> str:
    if s.spec and s.spec.accuracy.gate is Gate.OBSERVE:
        return "it serves nevertheless, since spec.accuracy.gate is Observe"
    stands = f"revision {s.current.name} goes on serving" if s.current else "nothing serves"
    return f"{stands}; choose another engine; ControllerRevision {s.target} lists what was lost (r1plus.ai/verdict)"


def _undecided(report: MonitorReport | None) -> Finding:
    if report is None:
        return Finding("Unknown", Reason.NOT_YET_KNOWN, "No monitor has reported yet")
    if report.phase is Phase.BLOCKED or report.verdict is Verdict.ERROR:
        # Nothing can be told of the engine, and why is the platform's business, not the engine's.
        reason = Reason.SUITE_MISMATCH if report.reason == Reason.SUITE_MISMATCH.value else Reason.NO_DATA
        return Finding("False", reason, f"{report.reason}: {report.message}")
    if report.phase is Phase.GATING and report.progress:
        share = 100 * report.progress.done // max(1, report.progress.total)
        return Finding(
            "Unknown", Reason.GATE_RUNNING, f"Gate on suite {report.suite}: {share - share % PROGRESS_STEP} %"
        )
    if report.verdict is Verdict.INCONCLUSIVE:
        return Finding("Unknown", Reason.GATE_INCONCLUSIVE, report.message)
    return Finding("Unknown", Reason.NOT_YET_KNOWN, f"{report.phase}: {report.message}")


def _isolation_verified(s: Situation) -> Finding:
    tenant = s.observed.tenant
    if tenant is None:
        return Finding("Unknown", Reason.PENDING, "The namespace has not been looked at yet")
    uninvited = explain_uninvited(s.spec, tenant.callers) if s.spec and tenant.is_tenant else ""
    if uninvited and tenant.status != "False":
        return Finding("False", Reason.CALLER_NOT_ALLOWED, uninvited)
    return Finding(tenant.status, Reason(tenant.reason), tenant.message)


def explain_uninvited(spec: R1PlusDeploymentSpec, callers: Collection[str]) -> str:
    """Return which callers the deployment names and its tenant does not allow, and what to do; empty: none."""
    uninvited = sorted(set(spec.access.namespaces) - set(callers))
    if not uninvited:
        return ""
    return (
        f"spec.access.namespaces: {', '.join(uninvited)}: not among spec.callers.namespaces of R1PlusTenant"
        f" {names.TENANT}, so shut; ask the platform team, or take it out"
    )


def _alerts_wired(s: Situation) -> Finding:
    missing = sorted({"PodMonitor", "PrometheusRule"} - s.observed.kinds)
    if missing:
        text = f"This cluster has no {' and no '.join(missing)}: install prometheus-operator to be alerted"
        return Finding("False", Reason.NO_PROMETHEUS_OPERATOR, text)
    if s.current is None:
        return Finding("Unknown", Reason.PENDING, "Rules are made for the revision that serves; none does yet")
    # Without a ready one, those that shall be: Ready says that none is.
    in_traffic = [p for p in s.pods(s.current.name) if p.ready] or s.pods(s.current.name)
    found = wiring(s.observed, s.current.name, {p.name for p in in_traffic})
    fresh = s.now - (s.current.promoted_at or 0.0) < WIRING_SECONDS
    if fresh and found.reason in (Reason.RULE_NOT_LOADED, Reason.TARGET_MISSING):
        return Finding("Unknown", Reason.PENDING, f"{found.message}; revision {s.current.name} serves only just now")
    if found.reason is Reason.TARGET_DOWN:
        scraped_ready = {p.name for p in in_traffic if not is_just_ready(p, s.now)}
        if wiring(s.observed, s.current.name, scraped_ready).reason is not Reason.TARGET_DOWN:
            text = f"{found.message}; the pod is ready only just now, and Prometheus may have looked before"
            return Finding("Unknown", Reason.PENDING, text)
    return found


def is_just_ready(pod: PodFacts, now: float) -> bool:
    """Whether Prometheus may have scraped a pod last before it was ready. Its node's clock may be ahead of ours."""
    return pod.ready_since is not None and abs(now - pod.ready_since) < WIRING_SECONDS


def _progressing(s: Situation) -> Finding:
    if s.observed.refused:
        return Finding("False", Reason.WRITE_REFUSED, f"{s.observed.refused}; {REFUSED_REMEDY}")
    if s.is_paused:
        text = "spec.rollout.paused: the operator moves and repairs nothing but the walls; probes and alerts go on"
        held = Finding("False", Reason.PAUSED, f"{text}; {format_command(Verb.RESUME)} lets it act again")
        return _with_problem(held, s.problem) if s.problem else held
    found = incident.progress(s.answered, s.target or "") if s.answered else None
    if s.problem and (found is None or found.reason is Reason.ROLLED_BACK):
        return _blocked(s.problem)
    if found:
        return _with_problem(found, s.problem) if s.problem else found
    return _advancing(s)


def _advancing(s: Situation) -> Finding:
    assert s.rollout is not None
    if s.current and s.asked_for != s.target:
        text = f"spec.rollout.pinned holds traffic at revision {s.current.name}; the spec asks for {s.asked_for}"
        return Finding("False", Reason.PINNED, f"{text}; {format_command(Verb.UNPIN)} lets it roll out")
    if s.delivering:
        goes_on = "True" if s.delivering.status == "Unknown" else "False"
        return Finding(goes_on, s.delivering.reason, f"Revision {s.target} waits for its engine; see EngineReady")
    stage = s.rollout.stage
    if stage is RolloutStage.REFUSED:
        return Finding("False", Reason.CANDIDATE_REFUSED, f"Revision {s.target} was refused; see QualityVerified")
    if stage is RolloutStage.BLOCKED:
        return Finding("False", Reason.BLOCKED, "spec.replicas: 0, so no candidate is started")
    if stage in (RolloutStage.NONE, RolloutStage.PROMOTE):
        engine = f" ({s.current.engine})" if s.current else ""
        return Finding("False", Reason.COMPLETE, f"Revision {s.rollout.current}{engine} takes traffic")
    if stage is RolloutStage.EXPIRED or s.rollout.overdue:
        return _overdue(s)
    waits = f"waits: no node takes its pod now, so {s.rollout.current} is not stopped for it; free or add a node"
    doing = {
        RolloutStage.GATING: "is being gated",
        RolloutStage.SCALING: "passed and is being scaled",
        RolloutStage.NO_ROOM: waits,
    }
    return Finding("True", Reason.ROLLING_OUT, f"Revision {s.target} {doing[stage]}")


def _with_problem(finding: Finding, problem: Problem) -> Finding:
    told = f"{finding.message}. The spec cannot be served: {problem.reason}: {problem.message}"
    return Finding(finding.status, finding.reason, told)


def _blocked(problem: Problem) -> Finding:
    if problem.reason is Reason.INVALID_SPEC:
        return Finding("False", Reason.INVALID_SPEC, f"{problem.message}. What serves goes on by the last valid spec")
    return Finding("False", Reason.BLOCKED, f"{problem.condition} is in the way: {problem.reason}")


def _overdue(s: Situation) -> Finding:
    assert s.spec is not None
    revision = s.revisions.get(s.target or "")
    expiry = revision.expiry if revision and revision.is_expired else None
    if s.current and expiry and expiry.retry_at:
        why, again = expiry.no_room, rfc3339(expiry.retry_at)
        text = (
            f"Revision {s.target} was withdrawn because it found no room: {why}; {s.current.name} goes on serving;"
            f" it is tried again at {again}; free capacity, or lower batch, context or replicas"
        )
        return Finding("False", Reason.DEADLINE_EXCEEDED, text)
    limit = f"Revision {s.target} was not promoted within spec.rollout.deadline ({s.spec.rollout.deadline})"
    remedy = "see the other conditions for what held it up; raise the deadline or change the spec to try again"
    went = f"withdrawn, {s.current.name} goes on serving" if s.current else "it goes on trying: nothing else serves"
    return Finding("False", Reason.DEADLINE_EXCEEDED, f"{limit}; {went}; {remedy}")


_DERIVATIONS: dict[ConditionType, Callable[[Situation], Finding]] = {
    ConditionType.READY: _ready,
    ConditionType.ENGINE_READY: _engine_ready,
    ConditionType.CAPACITY_FITS: _capacity_fits,
    ConditionType.QUALITY_VERIFIED: _quality_verified,
    ConditionType.ISOLATION_VERIFIED: _isolation_verified,
    ConditionType.ALERTS_WIRED: _alerts_wired,
    ConditionType.PROGRESSING: _progressing,
}
