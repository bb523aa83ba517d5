"""The rollback records of the revisions: begun, brought up to date, completed, lifted or void."""

from collections.abc import Mapping
from dataclasses import replace

from r1plus_contract.monitor.settings import ControlOrder
from r1plus_contract.plain_text import to_printable
from r1plus_contract.verdict import GateReport, Verdict, WatchStanding
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection
from r1plus_operator.plan.observation import Observation
from r1plus_operator.plan.requests import read_release_tokens
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.rollback_record import (
    BELOW_THRESHOLD,
    MOST_TEXT,
    USER_REQUEST,
    RollbackRecord,
    RollbackTerms,
)
from r1plus_operator.plan.rollback.context import BreachContext
from r1plus_operator.plan.rollback.drop import has_suite_mismatch, list_mismatches, measure_drop, read_standing


def build_terms(
    observed: Observation, spec: R1PlusDeploymentSpec, suites: SuiteSelection, spec_revision: str
) -> RollbackTerms:
    """Return the terms that hold now."""
    return RollbackTerms(spec_revision, suites.terms, spec.accuracy.threshold, read_release_tokens(observed.cr))


def refresh_rollback_records(
    revisions: Mapping[str, Revision], current: str | None, terms: RollbackTerms
) -> dict[str, Revision]:
    """Return the revisions with their records brought up to date: completed, lifted or void."""
    return {
        name: replace(r, rollback=_refresh_record(r.rollback, name, revisions, current, terms)) if r.rollback else r
        for name, r in revisions.items()
    }


def begin_record(context: BreachContext, target: str) -> RollbackRecord:
    """Return the record of a rollback that begins now, from the current revision to the target."""
    request, before, drop = context.rollback_request, context.current.rollback, measure_drop(context)
    standings = (read_standing(context, context.report(pod)) for pod in context.pods(context.current.name))
    return RollbackRecord(
        to=target,
        terms=build_terms(context.observed, context.spec, context.suites, context.spec_revision),
        started_at=context.now,
        cause=USER_REQUEST if request else BELOW_THRESHOLD,
        fell=replace(drop, text=request.summary[:MOST_TEXT]) if request else drop,
        request=request.token if request else "",
        before=tuple(sorted(before.targets)) if before else (),
        fallen=any(standing is WatchStanding.BELOW_THRESHOLD for standing in standings),
    )


def record_control(context: BreachContext, record: RollbackRecord | None) -> RollbackRecord | None:
    """Return the record with what the control's monitors report.

    That they cannot score is recorded in their words: the control's pods go when the rollback ends.
    """
    if record is None or record.control is not None or record.blocked:
        return record
    if gate := find_control_gate(context, record):
        return replace(record, control=gate.verdict, said=to_printable(gate.message[:MOST_TEXT]))
    message = next((report.message for report in list_mismatches(context, context.pods(record.to))), "")
    is_of_control = bool(message) and not has_suite_mismatch(context)
    return replace(record, blocked=to_printable(message[:MOST_TEXT])) if is_of_control else record


def find_control_gate(context: BreachContext, record: RollbackRecord) -> GateReport | None:
    """Return the control's own gate, decided at the serving batch since the rollback began."""
    target = context.revisions.get(record.to)
    if target is None:
        return None
    threshold = context.spec.accuracy.threshold
    about = (record.token, target.identity_digest, context.suite_hash, threshold, target.batch)
    gates = (report.gate for report in context.reports(context.pods(record.to)) if report.gate)
    final = (gate for gate in gates if gate.verdict in (Verdict.PASS, Verdict.FAIL))
    return next((g for g in final if (g.control, g.identity, g.suite_hash, g.threshold, g.batch) == about), None)


def build_control_order(
    record: RollbackRecord | None, candidate: Revision | None, revisions: Mapping[str, Revision]
) -> ControlOrder | None:
    """Return the gate that monitors are ordered to run again: of the control, or of a candidate that comes back."""
    target = revisions.get(record.to) if record else None
    if record and target:
        return ControlOrder(target.identity_digest, record.token)
    token = candidate.regate_token if candidate else ""
    return ControlOrder(candidate.identity_digest, token) if candidate and token else None


def _refresh_record(
    record: RollbackRecord,
    owner: str,
    revisions: Mapping[str, Revision],
    current: str | None,
    terms: RollbackTerms,
) -> RollbackRecord | None:
    record = _complete_record(record, revisions[owner], revisions.get(record.to), terms)
    if record.terms.released != terms.released:
        return replace(record, lifted=True, released=terms.released) if record.has_voided_gates else None
    if record.switched_at is not None:
        has_lower_threshold = terms.threshold < record.terms.threshold
        has_other_suite = terms.spec_terms.suite_hash != record.terms.spec_terms.suite_hash
        is_lifted = record.lifted or terms.asked_for != owner or has_other_suite or has_lower_threshold
        return replace(record, lifted=is_lifted)
    if owner == current and terms == record.terms:
        return record
    return replace(record, lifted=True) if record.before else None


def _complete_record(
    record: RollbackRecord, owner: Revision, target: Revision | None, terms: RollbackTerms
) -> RollbackRecord:
    """Date the switch by the promotion itself: of the two writes of a switch either may have been the last.

    Promotions have an order whatever the clock does. While the spec asks for what it asked for then, nothing but a
    control that passed promotes the rollback target.
    """
    if target is None or record.lifted:
        return record
    is_ours = record.control is Verdict.PASS or terms.spec_terms == record.terms.spec_terms
    if not is_ours or target.promoted_at is None or target.promoted_at <= (owner.promoted_at or 0.0):
        return replace(record, switched_at=None)
    return replace(record, control=Verdict.PASS, switched_at=record.switched_at or target.promoted_at)
