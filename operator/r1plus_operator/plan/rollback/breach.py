"""What is done about an accuracy drop: fills in the policy's inputs and carries its response into the record.

Called by `assessment`. The policy is `r1plus_policies.rollback.decision`.
"""

import math
from dataclasses import replace

from r1plus_contract.timestamps import parse_timestamp
from r1plus_contract.verdict import Phase
from r1plus_operator.plan.engine.placement import check_placement, read_placement
from r1plus_operator.plan.observation import REFUSED_PODS, AgeBounds, PodFacts, read_count_time
from r1plus_operator.plan.revision.record import Revision, seconds_in_traffic
from r1plus_operator.plan.revision.rollback_record import MOST_TEXT, RollbackRecord
from r1plus_operator.plan.rollback import eligibility
from r1plus_operator.plan.rollback.context import BreachContext
from r1plus_operator.plan.rollback.drop import has_suite_mismatch, is_acknowledged, read_standing
from r1plus_operator.plan.rollback.records import begin_record, record_control
from r1plus_policies.rollback.decision import respond
from r1plus_policies.rollback.response import (
    Action,
    BreachResponse,
    Control,
    DeploymentHealth,
    PastRevision,
    PodHealth,
    PoolHealth,
    RollbackReason,
)

PROGRESS_STEP = 10
"""Percent: the progress of a control is reported in steps of this size."""
_LATCHING = frozenset(
    {
        RollbackReason.ROLLBACK_TARGET_ALSO_FAILED,
        RollbackReason.ROLLBACK_TARGET_OVERDUE,
        RollbackReason.SUITE_MISMATCH,
        RollbackReason.PAUSED,
    }
)
"""Reasons for which a record is kept though nothing of its rollback runs: without it the rollback would start again."""


def decide_response(context: BreachContext) -> tuple[BreachResponse, RollbackRecord | None]:
    """Return what is done, and the rollback record of the current revision afterwards."""
    record = record_control(context, context.current.active_rollback)
    response = respond(_build_health(context, record))
    if response.revision and record is None:
        return response, begin_record(context, response.revision)
    if response.revision or response.reason in _LATCHING:
        return response, record or context.current.rollback
    if record is None:
        return response, context.current.rollback
    # The permission was withdrawn, or the pin was set: the rollback is void; earlier ones are remembered.
    return response, replace(record, lifted=True) if record.before else None


def find_rollback_target(context: BreachContext) -> str:
    """Return the revision to which a request would roll back now; empty where there is none."""
    request = DeploymentHealth(
        context.current.name,
        (),
        context.now,
        past=_list_past(context),
        rollback_request="somebody",
        bake=context.config.bake_seconds,
    )
    response = respond(request)
    return response.revision if response.action is Action.CONTROL else ""


def find_rollback_blockers(context: BreachContext) -> tuple[str, ...]:
    """Return what each earlier revision lacks to be the rollback target, a line for each."""
    engines = {name: revision.engine for name, revision in context.revisions.items()}
    return eligibility.rollback_blockers(_list_past(context), engines, context.config.bake_seconds)


def describe_control_progress(context: BreachContext, record: RollbackRecord) -> str:
    """Return how far the furthest monitor of the control is, in steps; empty while none reports it."""
    reports = context.reports(context.pods(record.to))
    gates = [r.progress for r in reports if r.phase is Phase.GATING and r.progress and r.progress.total]
    furthest = max(gates, key=lambda progress: progress.done / progress.total, default=None)
    if furthest is None:
        return ""
    share = 100 * furthest.done // furthest.total
    return f"{share - share % PROGRESS_STEP} % of its {furthest.total} probes are done"


def _build_health(context: BreachContext, record: RollbackRecord | None) -> DeploymentHealth:
    spec, current, tenant = context.spec, context.current, context.observed.tenant
    request = context.rollback_request
    records = [r.rollback for r in context.revisions.values() if r.rollback and not r.rollback.released]
    return DeploymentHealth(
        current=current.name,
        pods=tuple(_build_pod_health(context, pod) for pod in context.pods(current.name)),
        now=context.now,
        replicas=spec.replicas,
        on_breach=spec.accuracy.on_breach,
        is_pinned=spec.rollout.pinned,
        not_tenant="" if tenant is None or tenant.is_tenant else tenant.message,
        is_paused=spec.rollout.paused,
        pool=_build_pool_health(context),
        past=_list_past(context),
        control=_build_control(context, record) if record else None,
        rollback_request=request.summary if request else "",
        replay_passed=False if has_suite_mismatch(context) else None,
        rollout_under_way=context.is_rollout_under_way,
        candidate_since=context.revisions[context.spec_revision].candidate_since,
        earlier_targets=current.rollback.targets if current.rollback else frozenset(),
        last_rollback=max((r.switched_at for r in records if r.switched_at), default=None),
        deadline=spec.rollout.deadline_seconds,
        bake=context.config.bake_seconds,
        cooldown=context.config.cooldown_seconds,
        ack_seconds_left=context.ack_seconds_left,
    )


def _build_pod_health(context: BreachContext, pod: PodFacts) -> PodHealth:
    report, count_age = context.report(pod), context.observed.count_ages.get(pod.name)
    return PodHealth(
        name=pod.name,
        standing=read_standing(context, report),
        evidence=max(report.watch.evidence, report.watch.error_evidence) if report and report.watch else 0.0,
        node=pod.node,
        serves=pod.ready and pod.quarantine is None,
        is_quarantined=pod.quarantine is not None,
        counted_at=_date(context, read_count_time(report), count_age) if report else None,
        is_acknowledged=report is not None and is_acknowledged(context, report),
    )


def _date(context: BreachContext, stamp: str, age: AgeBounds | None) -> float | None:
    """Return when a count or a sweep ended, which its monitor dates by its node's clock; None: it does not say."""
    ended_at = parse_timestamp(stamp)
    if not ended_at:
        return None
    return age.date(ended_at, context.now) if age else ended_at


def _build_pool_health(context: BreachContext) -> PoolHealth:
    view = context.observed.pool
    if view is None or not view.is_of(context.current.name, context.suite_hash, context.acknowledgement):
        return PoolHealth()
    right = total = 0
    ends = []
    for pod in (pod for pod in context.pods_in_traffic if pod.name != view.worst):
        report = context.report(pod)
        sweep = report.sweep if report and report.suite_hash == context.suite_hash else None
        is_new = sweep is not None and sweep.finished_at != view.before_alarm.get(pod.name, "")
        # A compromised monitor must not outvote the others by more items than the suite has.
        if sweep and is_new and 0 <= sweep.correct <= sweep.total <= len(context.suite.items):
            right, total = right + sweep.correct, total + sweep.total
            ends.append(_date(context, sweep.finished_at, context.observed.sweep_ages.get(pod.name)))
    below = right < context.spec.accuracy.threshold * total if total else None
    return PoolHealth(view.evidence, view.without_worst, below, view.worst, min(filter(None, ends), default=None))


def _list_past(context: BreachContext) -> tuple[PastRevision, ...]:
    """Return what served before, except with the identity that serves.

    That has the same engine, and a control's order names an identity: the pods with traffic would run it, too.
    """
    current = context.current.identity_digest
    others = (r for r in context.revisions.values() if r.promoted_at and r.identity_digest != current)
    return tuple(_build_past(context, r) for r in others)


def _build_past(context: BreachContext, revision: Revision) -> PastRevision:
    seconds = seconds_in_traffic(revision, context.revisions, context.now)
    return PastRevision(
        name=revision.name,
        promoted_at=revision.promoted_at or 0.0,
        served_seconds=revision.served_before + seconds,
        has_passed=revision.has_passed(_select_common_suite(context, revision), context.spec.accuracy.threshold),
        has_engine=not _is_engine_replaced(context, revision),
        is_placed=_is_placed(context, revision),
        given_up=revision.rollback is not None and revision.rollback.is_in_force,
        supports_control=revision.can_regate and _can_prove(context, revision),
    )


def _is_engine_replaced(context: BreachContext, revision: Revision) -> bool:
    """Whether the catalog has another engine under the name of the revision's: its image may hold that one by now.

    An engine that is gone, or that has no files here any more, is no obstacle: the revision stores what its pods run,
    and the control shows whether that still starts.
    """
    named = (engine.spec.artifact for engine in context.observed.engines if engine.name == revision.engine)
    return any(artifact and artifact.sha256 != revision.identity.engine_digest for artifact in named)


def _is_placed(context: BreachContext, revision: Revision) -> bool:
    """Whether the tenant may still have pods where the revision's template places them."""
    placement = context.observed.tenant.placement if context.observed.tenant else None
    return placement is None or check_placement(read_placement(revision.template["spec"]), placement) is None


def _can_prove(context: BreachContext, revision: Revision) -> bool:
    """Whether a Pass of its control would count: an older monitor only repeats what its revision has passed."""
    return revision.can_prove_gates or revision.has_passed(context.suite_hash, context.spec.accuracy.threshold)


def _select_common_suite(context: BreachContext, revision: Revision) -> str:
    """Return the hash of the suite in force, or of the newest that both the revision and the current one have passed.

    A suite that took effect beside traffic was never run on what served before; the control will run it.
    """
    common = (context.suite_hash, *(gate.suite_hash for gate in reversed(context.current.valid_verdicts)))
    threshold = context.spec.accuracy.threshold
    return next((suite for suite in common if revision.verdict_for(suite, threshold)), context.suite_hash)


def _build_control(context: BreachContext, record: RollbackRecord) -> Control:
    report = next((pod.unschedulable for pod in context.pods(record.to) if pod.unschedulable), "")
    refusal = context.observed.children.get(("Deployment", record.to), {}).get(REFUSED_PODS, "")
    no_room = (refusal or report)[:MOST_TEXT]
    return Control(
        record.to, _find_control_start(context, record), record.control, record.said, no_room, record.blocked
    )


def _find_control_start(context: BreachContext, record: RollbackRecord) -> float:
    """Return when a control began: by its candidate where a wrong clock dated its record.

    The date of the record is part of its token, so it stays. Without a candidate the control was given up and is
    overdue.
    """
    if record.started_at <= context.now:
        return record.started_at
    since = context.revisions[record.to].candidate_since if record.to in context.revisions else None
    return -math.inf if since is None else since
