"""Derive conditions EngineReady and CapacityFits: how pods of the revision that the spec asks for start."""

from r1plus_contract import names
from r1plus_contract.remedies import Remedy, word
from r1plus_contract.requests import Verb, format_command
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.plan.engine.selection import Target
from r1plus_operator.plan.observation import REFUSED_PODS, ContainerFacts, PodFacts
from r1plus_operator.plan.status.context import StatusContext
from r1plus_operator.plan.status.explanations import explain_pause
from r1plus_policies.rollout import RolloutStage


def derive_engine_ready(s: StatusContext) -> Finding:
    """Return EngineReady: whether the engine was chosen, delivered and loaded."""
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
        text = f"Deployment {s.subject} is not started: {explain_pause(s)}. Engine {choice_text}"
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
        remedy = f"see {word(Remedy.READ_LOG_BEFORE, pod=pod.name, container=container.name)}"
        return Finding("False", Reason.CRASH_LOOPING, f"{text}{detail}; {remedy}")
    return None


def find_pod_problem(pods: list[PodFacts]) -> str:
    """Return what keeps the first pod with a problem from starting; empty: none has one."""
    for pod in pods:
        if pod.unschedulable:
            return pod.unschedulable
        for container in pod.containers:
            if problem := _find_container_problem(pod, container):
                return problem.message
    return ""


def derive_capacity_fits(s: StatusContext) -> Finding:
    """Return CapacityFits: whether nodes, quotas and policies take the pods."""
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
