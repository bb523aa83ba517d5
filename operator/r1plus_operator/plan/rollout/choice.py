"""Which revision the spec asks for: a stored one, or one that is rendered now. A step of the plan.

A stored revision stays in use though the operator has other images by now, unless a refresh or a newer engine is due.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from r1plus_contract.requests import Request
from r1plus_operator.plan.accuracy.suite_selection import hash_of, select_suites
from r1plus_operator.plan.engine.selection import Problem, Target
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.requests import find_refresh_request, read_ack_token
from r1plus_operator.plan.revision.factory import build_revision, hash_request, hash_revision, select_runtime
from r1plus_operator.plan.revision.record import Revision, Runtime, find_current_revision
from r1plus_operator.plan.revision.refresh import (
    Cause,
    DueRefresh,
    Refresh,
    RefreshOutcome,
    find_refresh_blocker,
    take_slot,
)
from r1plus_operator.plan.revision.resolution import Resolution
from r1plus_operator.plan.rollout.history import is_unbuilt
from r1plus_operator.plan.settings import RuntimeUpdate


@dataclass(frozen=True, slots=True)
class RevisionChoice:
    """What the spec asks for, as a revision."""

    spec_revision: str | None
    """Its name; None where the spec has a Problem and nothing serves yet."""
    revisions: Mapping[str, Revision]
    """Those that are stored, and the one that the spec asks for."""
    target: Target | Problem
    """What it was chosen for: where the newer engine of the catalog begins in this pass, that one."""
    due: DueRefresh | None = None
    """A newer runtime or engine that does not begin in this pass, and why."""


def choose_revision(inputs: PassInputs, resolution: Resolution, revisions: Mapping[str, Revision]) -> RevisionChoice:
    """Return the revision that the spec asks for, rendered if it is new.

    While the spec has a Problem it is the one that the spec asked for before.
    """
    current, target = find_current_revision(revisions.values()), resolution.target
    if isinstance(target, Problem):
        spec_revision = find_last_spec_revision(revisions, current) if current else None
        return RevisionChoice(spec_revision, revisions, target)
    request = find_refresh_request(inputs.observed.cr, current.name if current else "", revisions)
    due = _find_due_engine(inputs, resolution.newer, current, request)
    if due and not due.wait_reason and resolution.newer:
        target = resolution.newer
    runtime = select_runtime(target, inputs.config)
    revision = _find_stored(inputs, revisions, current, target, runtime)
    if due is None and revision is not None:
        due = _find_due_runtime(inputs, revision, current, runtime, request)
    if due is not None and not due.wait_reason:
        revisions, name = _begin_refresh(inputs, revisions, target, runtime, revision, due)
        return RevisionChoice(name, revisions, target)
    if revision is None or _is_unfit(inputs, revision, current, target):
        new = _render(inputs, revisions, target, runtime)
        revisions, revision = {**revisions, new.name: new}, new
    if request is not None and revision.runtime == runtime and due is None:
        revisions = {**revisions, revision.name: _record_answer(inputs, revision, runtime, request)}
    return RevisionChoice(revision.name, revisions, target, due)


def find_last_spec_revision(revisions: Mapping[str, Revision], current: Revision) -> str:
    """Return the revision that the spec asked for before it had a Problem.

    Where that is not recorded, as in a cluster that an earlier version stored: what a rollback record says of it, else
    the candidate, else what serves.
    """
    if current.last_valid and current.last_valid.target in revisions:
        return current.last_valid.target
    records = [(r.name, r.rollback) for r in revisions.values() if r.rollback and not r.rollback.lifted]
    newest_first = sorted(records, key=lambda pair: -pair[1].started_at)
    by_records = [name if record.switched_at is not None else record.terms.asked_for for name, record in newest_first]
    candidates = [r.name for r in revisions.values() if r.candidate_since]
    return next((name for name in (*by_records, *candidates) if name in revisions), current.name)


def _find_due_engine(
    inputs: PassInputs, newer: Target | None, current: Revision | None, request: Request | None
) -> DueRefresh | None:
    """Return the newer engine of the catalog that begins in this pass, or what it waits for.

    None also while its wave is stopped: meanwhile newer images reach what serves without it.
    """
    if newer is None or current is None:
        return None
    view, engine = inputs.observed.wave, newer.engine
    wave = f"{engine.name}@{engine.spec.files.sha256[:12]}/{select_runtime(newer, inputs.config).digest}"
    cause, token = (Cause.USER_REQUEST, request.token) if request else (Cause.CATALOG, "")
    bar = find_refresh_blocker(cause, inputs.spec, None, current.active_rollback)
    due = DueRefresh(cause, wave, token, bar) if bar else take_slot(view, cause, wave, token)
    return None if due.wait_reason and wave in view.stopped_waves else due


def _find_due_runtime(
    inputs: PassInputs, revision: Revision, current: Revision | None, runtime: Runtime, request: Request | None
) -> DueRefresh | None:
    """Return the candidate on the operator's images that is due in place of `revision`, or what it waits for."""
    if revision.runtime == runtime:
        return None
    is_automatic = inputs.config.runtime_update is RuntimeUpdate.AUTOMATIC and _is_at_rest(revision, current)
    if request is None and not is_automatic:
        return None
    cause, token = (Cause.USER_REQUEST, request.token) if request else (Cause.AUTOMATIC, "")
    bar = find_refresh_blocker(cause, inputs.spec, revision.rollback, current.active_rollback if current else None)
    if bar:
        return DueRefresh(cause, runtime.digest, token, bar)
    return take_slot(inputs.observed.wave, cause, runtime.digest, token)


def _is_at_rest(revision: Revision, current: Revision | None) -> bool:
    """Whether no rollout is on its way: it serves, or the wave that began it is over."""
    ends = (RefreshOutcome.FAILED, RefreshOutcome.USER_ACK, RefreshOutcome.NO_ROOM)
    return revision is current or (revision.refresh is not None and revision.refresh.outcome in ends)


def _begin_refresh(
    inputs: PassInputs,
    revisions: Mapping[str, Revision],
    target: Target,
    runtime: Runtime,
    revision: Revision | None,
    due: DueRefresh,
) -> tuple[Mapping[str, Revision], str]:
    """Return the revisions with the candidate that a refresh or a wave begins now, and its name."""
    if revision is None or revision.runtime != runtime:
        revision = _render(inputs, revisions, target, runtime)
    token = read_ack_token(inputs.observed.cr)
    refresh = Refresh(due.cause, due.wave, inputs.now, due.request, acknowledged=token)
    return {**revisions, revision.name: replace(revision, refresh=refresh)}, revision.name


def _record_answer(inputs: PassInputs, revision: Revision, runtime: Runtime, request: Request) -> Revision:
    """Return the revision as the answer to a request: nothing is newer, or it is on its way already."""
    before = revision.refresh or Refresh(
        Cause.USER_REQUEST, runtime.digest, inputs.now, outcome=RefreshOutcome.NOTHING_NEWER
    )
    return replace(revision, refresh=replace(before, request=request.token))


def _find_stored(
    inputs: PassInputs,
    revisions: Mapping[str, Revision],
    current: Revision | None,
    target: Target,
    runtime: Runtime,
) -> Revision | None:
    """Return the newest stored revision of the target; None: it has to be rendered.

    What serves is the newest where it has the operator's images. It is newer than revisions that were made before it
    with others: a spec that is changed and changed back must not get the images back that a refresh has replaced.
    """
    names = {_build_name(inputs, target), _build_name(inputs, target, runtime)}
    request_hash, matches = hash_request(inputs.spec, target), []
    for revision in revisions.values():
        waits_for_build = is_unbuilt(revision, inputs.observed) and revision.name != _build_name(
            inputs, target, runtime, revision.number
        )
        if revision.name not in names and (revision.request_hash != request_hash or waits_for_build):
            continue
        if revision is current and revision.runtime == runtime:
            return revision
        is_older = current is not None and revision.number < current.number
        if not is_older or revision.runtime in (runtime, current.runtime if current else runtime):
            matches.append(revision)
    return max(matches, key=lambda r: r.number, default=None)


def _build_name(inputs: PassInputs, target: Target, runtime: Runtime | None = None, number: int | None = None) -> str:
    return f"{inputs.observed.name}-{hash_revision(inputs.spec, target, runtime, number)}"


def _render(inputs: PassInputs, revisions: Mapping[str, Revision], target: Target, runtime: Runtime) -> Revision:
    """Return a new revision; by its plain name, unless a stored one of another runtime has that."""
    number = max((r.number for r in revisions.values()), default=0) + 1
    free = (_build_name(inputs, target, *suffix) for suffix in ((), (runtime,), (runtime, number)))
    name = next(name for name in free if name not in revisions)
    return build_revision(inputs.observed.cr, inputs.spec, target, inputs.config, number, name)


def _is_unfit(inputs: PassInputs, revision: Revision, current: Revision | None, target: Target) -> bool:
    """Whether a stored revision has to be rendered again. What serves, or had a rollback, is left as it is."""
    if revision is current or revision.rollback is not None:
        return False
    names_user_wrongly = revision.runtime.names_user != bool(inputs.config.pod_user.security_fields)
    return names_user_wrongly or _needs_newer_monitor(inputs, revision, current, target)


def _needs_newer_monitor(inputs: PassInputs, revision: Revision, current: Revision | None, target: Target) -> bool:
    """Whether the revision's monitor reports a Pass and is too old to prove it."""
    observed, spec = inputs.observed, inputs.spec
    if revision.can_prove_gates:
        return False
    suites = select_suites(target.source, current, observed.suites, spec, inputs.config.suite_trust)
    if revision.has_passed(hash_of(suites.of(revision)), spec.accuracy.threshold):
        return False
    return any(pod.revision == revision.name and pod.name in observed.unproven for pod in observed.pods)
