"""What a rollout leaves on the revisions: promotions, candidacies, withdrawals, ends of refreshes. Steps of the plan.

Each function returns a new mapping, in the same order; a revision that does not change is the same object.
"""

from collections.abc import Mapping
from dataclasses import replace

from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.accuracy.identity_verdicts import select_same_identity
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection, hash_of
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.requests import read_ack_token
from r1plus_operator.plan.revision.expiry import expire
from r1plus_operator.plan.revision.last_valid import LastValid, dump_spec
from r1plus_operator.plan.revision.record import Revision, date_promotion, find_current_revision, seconds_in_traffic
from r1plus_operator.plan.revision.refresh import RefreshProgress, next_outcome
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_operator.plan.rollout.decision import find_capacity_problem
from r1plus_policies.rollout import Rollout, RolloutStage

PASS_OUTLIVES_TRAFFIC = 86_400.0
"""Seconds out of traffic after which a Pass says nothing of today's nodes, drivers and load."""


def retry_expired(inputs: PassInputs, revisions: Mapping[str, Revision]) -> Mapping[str, Revision]:
    """Return the revisions with those as new candidates that were withdrawn and whose time has come."""
    deadline = inputs.spec.rollout.deadline_seconds
    ready = {
        name: replace(revision, candidate_since=None)
        for name, revision in revisions.items()
        if revision.is_expired and revision.expiry and revision.expiry.is_over(inputs.now, deadline)
    }
    return {**revisions, **ready}


def record_rollout(
    inputs: PassInputs,
    revisions: Mapping[str, Revision],
    rollout: Rollout,
    spec_revision: str | None,
    rollout_revision: str | None,
    rollback: RollbackRecord | None,
) -> Mapping[str, Revision]:
    """Return the revisions as the rollout leaves them.

    `spec_revision`: what the spec asks for; `rollout_revision`: what the rollout is of; `rollback`: the one under way.
    """
    if rollout.promote:
        revisions = _record_promotion(inputs, revisions, rollout.promote, rollback)
    is_held = inputs.problem is not None and rollback is None
    revisions = _record_expiry(inputs, revisions, rollout, rollout_revision)
    candidate = rollout_revision if rollout_revision != rollout.current and not is_held else None
    if rollback is None:
        revisions = _void_old_pass(inputs, revisions, candidate)
    revisions = _date_candidacy(
        inputs, revisions, candidate, spec_revision if is_held else None, restarts=rollout.restarts_deadline
    )
    return _record_refresh_outcomes(inputs, revisions, rollout, spec_revision, rollout_revision)


def record_last_valid(
    inputs: PassInputs,
    revisions: Mapping[str, Revision],
    spec_revision: str | None,
    suites: SuiteSelection | None,
    dropped: Mapping[str, bool],
) -> Mapping[str, Revision]:
    """Return the revisions with what the spec asks for on the one that serves, also if it was promoted just now.

    `dropped`: whether the accuracy of the revision that was assessed in this pass has dropped, by name; else empty.
    """
    current = find_current_revision(revisions.values())
    if current is None or spec_revision is None:
        return revisions
    before = current.last_valid or LastValid(spec_revision)
    last = LastValid(
        spec_revision,
        hash_of(suites.spec_suite) if suites else before.suite_hash,
        dump_spec(inputs.spec),
        dropped.get(current.name, False) if dropped else before.has_dropped,
    )
    return {**revisions, current.name: replace(current, last_valid=last)}


def _record_promotion(
    inputs: PassInputs, revisions: Mapping[str, Revision], name: str, rollback: RollbackRecord | None
) -> Mapping[str, Revision]:
    """Date the promotion; where it ends a rollback, also on the revision that traffic leaves."""
    at = date_promotion(revisions.values(), inputs.now)
    current = find_current_revision(revisions.values())
    if rollback is not None and current is not None:
        revisions = {**revisions, current.name: replace(current, rollback=replace(rollback, switched_at=at))}
    revision = revisions[name]
    seconds = revision.served_before + seconds_in_traffic(revision, revisions, at)
    verdicts = revision.valid_verdicts
    return {
        **revisions,
        name: replace(revision, promoted_at=at, served_before=seconds, verdicts=verdicts, is_set_aside=False),
    }


def _record_expiry(
    inputs: PassInputs, revisions: Mapping[str, Revision], rollout: Rollout, candidate: str | None
) -> Mapping[str, Revision]:
    """Record that the candidate is withdrawn, and whether for lack of room: its pods, which show that, go now."""
    revision = revisions.get(candidate or "")
    if rollout.stage is not RolloutStage.EXPIRED or revision is None or revision.is_expired:
        return revisions
    cause = find_capacity_problem(inputs, revision)
    expiry = expire(revision.expiry, inputs.now, cause, inputs.spec.rollout)
    return {**revisions, revision.name: replace(revision, expiry=expiry)}


def _void_old_pass(
    inputs: PassInputs, revisions: Mapping[str, Revision], candidate: str | None
) -> Mapping[str, Revision]:
    """Remove the verdicts of a revision that becomes the candidate long after its identity left traffic, if it passed.

    So its pods run the whole gate, as a rollback's control does, and no short check. One that was withdrawn for lack of
    room keeps the Pass of the same try.
    """
    revision = revisions.get(candidate or "")
    if revision is None or revision.candidate_since or revision.expiry:
        return revisions
    same = select_same_identity(revision, revisions.values())
    served = [r for r in same if r.promoted_at is not None]
    left_at = max(
        ((r.promoted_at or 0.0) + seconds_in_traffic(r, revisions, inputs.now) for r in served), default=inputs.now
    )
    has_passed = any(verdict.verdict is Verdict.PASS for r in served for verdict in r.valid_verdicts[-1:])
    if not has_passed or inputs.now - left_at < PASS_OUTLIVES_TRAFFIC:
        return revisions
    old = {verdict for r in served for verdict in r.verdicts}
    fresh = {r.name: replace(r, verdicts=tuple(v for v in r.verdicts if v not in old)) for r in same}
    return {**revisions, **fresh}


def _date_candidacy(
    inputs: PassInputs,
    revisions: Mapping[str, Revision],
    candidate: str | None,
    held: str | None,
    *,
    restarts: bool,
) -> Mapping[str, Revision]:
    """Date since when the candidate has been one. Every other revision loses its date, so that it starts again.

    `held`: what a Problem keeps from being a candidate. That it was withdrawn is not forgotten meanwhile. `restarts`:
    the candidate's deadline begins again.
    """
    after = dict(revisions)
    for name, revision in revisions.items():
        if name == held and revision.is_expired:
            continue
        before = None if restarts else revision.candidate_since
        since = (before or inputs.now) if name == candidate else None
        expiry = revision.expiry if name == candidate else None
        if (since, expiry) != (revision.candidate_since, revision.expiry):
            after[name] = replace(revision, candidate_since=since, expiry=expiry)
    return after


def _record_refresh_outcomes(
    inputs: PassInputs,
    revisions: Mapping[str, Revision],
    rollout: Rollout,
    spec_revision: str | None,
    rollout_revision: str | None,
) -> Mapping[str, Revision]:
    """Record how candidates of a refresh or a wave end."""
    terms, after = inputs.spec.rollout, dict(revisions)
    is_held = inputs.problem is not None or terms.pinned or terms.paused
    token = read_ack_token(inputs.observed.cr)
    for name, revision in revisions.items():
        if refresh := revision.refresh:
            progress = RefreshProgress(
                stage=rollout.stage if name == rollout_revision else RolloutStage.NONE,
                serves=name == rollout.current,
                is_asked_for=name == spec_revision and not is_held,
                is_expired=revision.is_expired,
                has_no_room=revision.expiry is not None and revision.expiry.no_room != "",
            )
            outcome = next_outcome(refresh, progress, token, inputs.now)
            after[name] = replace(revision, refresh=replace(refresh, outcome=outcome))
    return after
