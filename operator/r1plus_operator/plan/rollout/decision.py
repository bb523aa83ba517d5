"""Who takes traffic and which pods run: turns what was observed into the policy's states. A step of the plan."""

import math
from collections.abc import Mapping
from dataclasses import replace

from r1plus_contract.verdict import Gate, Verdict
from r1plus_operator.plan.accuracy.gate_tries import count_missing_passes
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection, hash_of
from r1plus_operator.plan.engine.nodes import has_room, is_lost
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.observation import REFUSED_PODS, Observation, PodFacts
from r1plus_operator.plan.podspec.pod import GRACE_SECONDS
from r1plus_operator.plan.revision.record import Revision, find_current_revision
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_policies.rollout import (
    DRAIN_SECONDS,
    GATEWAY_DRAIN_SECONDS,
    RevisionState,
    Rollout,
    RolloutSettings,
    RolloutStage,
    Strategy,
    decide,
)

CLOCK_SECONDS = 5.0
"""By how much the API server's clock may be ahead of ours, so that no pod is deleted twice."""
_ON_ITS_WAY = (RolloutStage.GATING, RolloutStage.SCALING, RolloutStage.PROMOTE)


def decide_rollout(
    inputs: PassInputs,
    revisions: Mapping[str, Revision],
    suites: SuiteSelection | None,
    rollout_revision: str | None,
    rollback: RollbackRecord | None,
) -> Rollout:
    """Return the rollout of `rollout_revision`; while the spec is paused, what runs.

    `rollback`: the one that is under way, to that revision.
    """
    rollout = _decide(inputs, revisions, suites, rollout_revision, rollback)
    if not inputs.spec.rollout.paused:
        return rollout
    current, children = find_current_revision(revisions.values()), inputs.observed.children
    live = {
        name: int(child["spec"].get("replicas", 1))
        for (kind, name), child in children.items()
        if kind == "Deployment" and name in revisions
    }
    return replace(rollout, promote=None, current=current.name if current else None, replicas=live)


def is_under_way(
    inputs: PassInputs, revisions: Mapping[str, Revision], suites: SuiteSelection | None, candidate: str
) -> bool:
    """Whether a candidate that the spec asks for is on its way to traffic, were there no rollback."""
    return _decide(inputs, revisions, suites, candidate, None).stage in _ON_ITS_WAY


def list_overdue_pods(inputs: PassInputs, rollout: Rollout) -> tuple[tuple[str, str], ...]:
    """Return (name, uid) of pods that have had `rollout.drain` for their requests and would go on beyond it."""
    latest = inputs.now + GRACE_SECONDS + CLOCK_SECONDS
    return tuple(
        (pod.name, pod.uid)
        for pod in inputs.observed.pods
        if pod.revision in rollout.drained_out
        and pod.quarantine is None
        and (not pod.terminating or pod.grace_ends_at > latest)
    )


def find_capacity_problem(inputs: PassInputs, revision: Revision) -> str:
    """Return what the scheduler or a quota reports of a revision's pods; empty while there is room."""
    observed = inputs.observed
    if refusal := _find_quota_refusal(observed, revision):
        return refusal
    reports = (pod.unschedulable for pod in observed.pods if pod.revision == revision.name)
    if report := next(filter(None, reports), ""):
        return report
    return "" if _has_room(inputs, revision) else "no node takes its pod"


def _find_quota_refusal(observed: Observation, revision: Revision) -> str:
    """Return what the API server reports where a ResourceQuota refuses a revision's pods; empty: it does not."""
    refusal = str(observed.children.get(("Deployment", revision.name), {}).get(REFUSED_PODS, ""))
    return refusal if "exceeded quota" in refusal else ""


def _decide(
    inputs: PassInputs,
    revisions: Mapping[str, Revision],
    suites: SuiteSelection | None,
    rollout_revision: str | None,
    rollback: RollbackRecord | None,
) -> Rollout:
    """Return the rollout of `rollout_revision`.

    In a rollback only the control's own verdict counts, whatever `gate` is, and it has a deadline of its own.
    A revision whose accuracy dropped comes back by a Pass only, whatever `gate` is.
    """
    spec = inputs.spec
    is_returning = rollout_revision is not None and revisions[rollout_revision].regate_token != ""
    current = find_current_revision(revisions.values())
    states = [_state(inputs, revision, suites, current, revisions) for revision in revisions.values()]
    if rollback is not None:
        states = [replace(s, verdict=rollback.control) if s.name == rollback.to else s for s in states]
    return decide(
        target=rollout_revision,
        revisions=tuple(states),
        terms=RolloutSettings(
            spec.replicas,
            Gate.ENFORCE if rollback or is_returning else spec.accuracy.gate,
            spec.rollout.strategy,
            math.inf if rollback else spec.rollout.deadline_seconds,
            is_held=inputs.problem is not None and (rollback is None or not inputs.is_tenant),
            least_drain=GATEWAY_DRAIN_SECONDS if inputs.gateway is not None else DRAIN_SECONDS,
            drain=spec.rollout.drain_seconds,
        ),
        now=inputs.now,
    )


def _state(
    inputs: PassInputs,
    revision: Revision,
    suites: SuiteSelection | None,
    current: Revision | None,
    revisions: Mapping[str, Revision],
) -> RevisionState:
    observed = inputs.observed
    live = observed.children.get(("Deployment", revision.name))
    pods = [pod for pod in observed.pods if pod.revision == revision.name and pod.quarantine is None]
    return RevisionState(
        name=revision.name,
        ready=sum(pod.ready and not pod.terminating and _can_serve(revision, pod, current) for pod in pods),
        pods=sum(not is_lost(pod, observed.nodes, inputs.now) for pod in pods),
        replicas=int((live.get("spec") or {}).get("replicas", 1)) if live else None,
        verdict=_verdict(inputs, revision, suites, revisions),
        promoted_at=None if revision.is_set_aside else revision.promoted_at,
        candidate_since=revision.candidate_since,
        has_dropped=revision.last_valid is not None and revision.last_valid.has_dropped,
        has_room=_has_room(inputs, revision),
        unschedulable_since=min((p.unschedulable_since for p in pods if p.unschedulable_since), default=None),
        is_over_quota=bool(_find_quota_refusal(observed, revision)),
        retry_at=revision.expiry.retry_at if revision.expiry and revision.is_expired else None,
        user_requests=_count_user_requests(observed, pods),
    )


def _count_user_requests(observed: Observation, pods: list[PodFacts]) -> int | None:
    """Return how many requests pods run; None where one that is Ready does not say, or says a negative number.

    A deleted pod ends its requests by itself.
    """
    total = 0
    for pod in pods:
        report = observed.reports.get(pod.name)
        count = report.user_requests if report and (report.user_requests or 0) >= 0 else None
        if pod.terminating or (count is None and not pod.ready):
            continue
        if count is None:
            return None
        total += count
    return total


def _verdict(
    inputs: PassInputs, revision: Revision, suites: SuiteSelection | None, revisions: Mapping[str, Revision]
) -> Verdict | None:
    """Return the gate's verdict on the suite in force.

    None also for a Pass that was won only beside traffic, or that has to be repeated.
    """
    suite, threshold = hash_of(suites.of(revision)) if suites else "", inputs.spec.accuracy.threshold
    report = revision.verdict_for(suite, threshold)
    if report is None or (report.verdict is Verdict.PASS and not revision.has_passed(suite, threshold)):
        return None
    if report.verdict is Verdict.PASS and count_missing_passes(revision, revisions.values(), inputs.spec, suite):
        return None
    return report.verdict


def _can_serve(revision: Revision, pod: PodFacts, current: Revision | None) -> bool:
    """Whether traffic may move to a pod. What has it keeps it: no pod would be left where a tag was moved."""
    has_traffic = current is not None and current.name == revision.name
    return has_traffic or not revision.find_changed_image(pod)


def _has_room(inputs: PassInputs, revision: Revision) -> bool:
    """Whether a node takes its pod; checked in place only, where what serves is stopped for it."""
    in_place = inputs.spec.rollout.strategy is Strategy.IN_PLACE
    return not in_place or has_room(revision.template["spec"], inputs.observed.nodes)
