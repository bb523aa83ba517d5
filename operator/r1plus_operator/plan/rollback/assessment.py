"""How what serves is doing, and what is done about it. A step of the plan: after gate results, before the rollout."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.accuracy.gate_results import append_control_pass
from r1plus_operator.plan.accuracy.pooled_detector import checkpoint
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelector
from r1plus_operator.plan.engine import delivery
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.revision.record import Revision, serving_revision
from r1plus_operator.plan.rollback import breach
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
    inputs: PassInputs, selector: SuiteSelector, revisions: Mapping[str, Revision], requested: str | None
) -> HealthAssessment:
    """Return what is done about the revision that serves, and all revisions with their rollback records as of now."""
    serving, suites = serving_revision(revisions.values()), selector.select(revisions)
    if requested is None or serving is None or suites is None:
        return HealthAssessment(revisions, None)
    name, observed = serving.name, inputs.observed
    terms = breach.terms_of(observed, inputs.spec, suites, requested)
    after = breach.settled(revisions, name, terms)
    returned = after[requested].rollback if requested != name else None
    returned = returned if returned and returned.refuses else None
    has_candidate = requested != name and not inputs.problem and not inputs.spec.rollout.pinned and not returned
    scene = breach.Scene(
        observed=observed,
        config=inputs.config,
        now=inputs.now,
        spec=inputs.spec,
        judging=suites,
        revisions=after,
        current=after[name],
        identity=serving.identity_digest,
        target=requested,
        rollout_under_way=has_candidate and is_under_way(inputs, after, selector.select(after), requested),
    )
    response, record = breach.answer(scene)
    if record is not None and record.control is Verdict.PASS and (gate := breach.fresh(scene, record)):
        after = {**after, record.to: append_control_pass(after[record.to], gate)}
    pool = checkpoint(observed, serving, scene.suite_hash)
    current = replace(after[name], rollback=record, pool=pool)
    after = {**after, name: current}
    scene = replace(scene, revisions=after)
    outcome = BreachOutcome(
        serving=name,
        response=response,
        fell=breach.figures(scene),
        record=current.active_rollback,
        returned=returned,
        held=tuple(p for p in observed.pods if p.quarantine is not None and p.revision == name),
        last_good=breach.last_good(scene),
        lacking=breach.lacking(scene),
        has_dropped=breach.has_dropped(scene, bool(serving.last_valid and serving.last_valid.has_dropped)),
        alerts=inputs.config.alerts,
        control_progress=breach.control_progress(scene, record) if record else "",
    )
    return HealthAssessment(after, outcome)


def choose_desired(inputs: PassInputs, assessment: HealthAssessment, requested: str | None) -> str | None:
    """Return the revision to bring up or to keep.

    It is the requested one, unless a rollback or a pin comes first; what serves, until its engine is on its volume.
    """
    revisions, desired = assessment.revisions, _choose_despite_delivery(inputs, assessment.outcome, requested)
    if desired is None or delivery.started(revisions[desired].volume, desired, inputs.observed):
        return desired
    serving = serving_revision(revisions.values())
    return serving.name if serving else None


def _choose_despite_delivery(inputs: PassInputs, outcome: BreachOutcome | None, requested: str | None) -> str | None:
    if outcome is None:
        return requested
    if outcome.rollback is not None:
        return outcome.rollback.to
    return outcome.serving if inputs.spec.rollout.pinned or outcome.returned else requested
