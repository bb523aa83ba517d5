"""How what serves is doing, and what is done about it. A step of the plan: after gate results, before the rollout."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.accuracy.gate_results import append_control_pass
from r1plus_operator.plan.accuracy.pooled_detector import read_checkpoint
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelector
from r1plus_operator.plan.engine import delivery
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.revision.record import Revision, find_current_revision
from r1plus_operator.plan.rollback import breach, drop, records
from r1plus_operator.plan.rollback.context import BreachContext
from r1plus_operator.plan.rollback.outcome import BreachOutcome
from r1plus_operator.plan.rollout.decision import is_under_way


@dataclass(frozen=True, slots=True)
class HealthAssessment:
    """What a pass found about the revision that serves."""

    revisions: Mapping[str, Revision]
    """With their rollback records brought up to date."""
    outcome: BreachOutcome | None
    """None while nothing serves, or no suite is in force."""


def assess_health(
    inputs: PassInputs, selector: SuiteSelector, revisions: Mapping[str, Revision], spec_revision: str | None
) -> HealthAssessment:
    """Return what is done about the revision that serves, and all revisions with their rollback records as of now."""
    current, suites = find_current_revision(revisions.values()), selector.select(revisions)
    if spec_revision is None or current is None or suites is None:
        return HealthAssessment(revisions, None)
    name, observed = current.name, inputs.observed
    terms = records.build_terms(observed, inputs.spec, suites, spec_revision)
    after = records.refresh_rollback_records(revisions, name, terms)
    spec_record = after[spec_revision].rollback if spec_revision != name else None
    spec_rollback = spec_record if spec_record and spec_record.is_in_force else None
    has_candidate = (
        spec_revision != name and not inputs.problem and not inputs.spec.rollout.pinned and not spec_rollback
    )
    context = BreachContext(
        observed=observed,
        config=inputs.config,
        now=inputs.now,
        spec=inputs.spec,
        suites=suites,
        revisions=after,
        current=after[name],
        identity=current.identity_digest,
        spec_revision=spec_revision,
        is_rollout_under_way=has_candidate and is_under_way(inputs, after, selector.select(after), spec_revision),
    )
    response, record = breach.decide_response(context)
    if record is not None and record.control is Verdict.PASS and (gate := records.find_control_gate(context, record)):
        after = {**after, record.to: append_control_pass(after[record.to], gate, after.values())}
    pool = read_checkpoint(observed, current, context.suite_hash)
    new_state = replace(after[name], rollback=record, pool=pool)
    after = {**after, name: new_state}
    context = replace(context, revisions=after)
    outcome = BreachOutcome(
        current=name,
        response=response,
        drop=drop.measure_drop(context),
        rollback_record=new_state.active_rollback,
        spec_rollback=spec_rollback,
        quarantined_pods=tuple(p for p in observed.pods if p.quarantine is not None and p.revision == name),
        rollback_target=breach.find_rollback_target(context),
        rollback_blockers=breach.find_rollback_blockers(context),
        has_dropped=drop.has_dropped(context, bool(current.last_valid and current.last_valid.has_dropped)),
        alerts=inputs.config.alerts,
        is_requested=context.rollback_request is not None,
        control_progress=breach.describe_control_progress(context, record) if record else "",
    )
    return HealthAssessment(after, outcome)


def choose_rollout_revision(inputs: PassInputs, assessment: HealthAssessment, spec_revision: str | None) -> str | None:
    """Return the revision to bring up or to keep.

    It is the spec's, unless a rollback or a pin comes first; the current one, until its engine is on its volume.
    """
    revisions, name = assessment.revisions, _choose_before_delivery(inputs, assessment.outcome, spec_revision)
    if name is None or delivery.can_start_pods(revisions[name].volume, name, inputs.observed):
        return name
    current = find_current_revision(revisions.values())
    return current.name if current else None


def _choose_before_delivery(inputs: PassInputs, outcome: BreachOutcome | None, spec_revision: str | None) -> str | None:
    if outcome is None:
        return spec_revision
    if outcome.rollback is not None:
        return outcome.rollback.to
    return outcome.current if inputs.spec.rollout.pinned or outcome.spec_rollback else spec_revision
