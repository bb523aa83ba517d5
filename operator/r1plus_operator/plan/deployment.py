"""One pass over an R1PlusDeployment: from what was observed to what to write. Pure; the applier carries it out.

The steps are functions in modules of their own, called here in order. Each takes frozen values and returns a new one,
so that its arguments are the steps before it. The revision that the spec asks for is chosen before gate results are
recorded, since they count only under its suite.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from r1plus_contract.monitor.settings import ControlOrder
from r1plus_contract.remedies import use_wording
from r1plus_operator.plan.accuracy.gate_results import record_gate_results
from r1plus_operator.plan.accuracy.gate_tries import build_repeat_token, count_missing_passes
from r1plus_operator.plan.accuracy.identity_verdicts import void_shared_verdicts
from r1plus_operator.plan.accuracy.monitor_config import build_accuracy_config
from r1plus_operator.plan.accuracy.mounted_suites import MountedSuites, find_mounted_suites
from r1plus_operator.plan.accuracy.pooled_detector import PoolRequest, request_pool
from r1plus_operator.plan.accuracy.proof import append_config, read_configs, withhold_unproven
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection, SuiteSelector, hash_of
from r1plus_operator.plan.events import Event, build_transition_events
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.manifests.stages import Changes, build_manifests, find_changes
from r1plus_operator.plan.observation import Json, Observation
from r1plus_operator.plan.podspec.pod import name_accuracy_config
from r1plus_operator.plan.requests import build_request_events
from r1plus_operator.plan.revision.foreign_pods import split_foreign_pods
from r1plus_operator.plan.revision.record import Revision, find_current_revision
from r1plus_operator.plan.revision.refresh import SlotRequest
from r1plus_operator.plan.revision.resolution import resolve_spec
from r1plus_operator.plan.revision.restored import (
    build_restored_events,
    date_restored,
    find_loss,
    find_selected,
    set_aside_promotions,
)
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_operator.plan.revision.storage import read_revisions, redate
from r1plus_operator.plan.rollback import quarantine
from r1plus_operator.plan.rollback.assessment import HealthAssessment, assess_health, choose_rollout_revision
from r1plus_operator.plan.rollback.outcome import BreachOutcome
from r1plus_operator.plan.rollback.records import build_control_order
from r1plus_operator.plan.rollout.choice import RevisionChoice, choose_revision
from r1plus_operator.plan.rollout.decision import decide_rollout, list_overdue_pods
from r1plus_operator.plan.rollout.history import select_surplus
from r1plus_operator.plan.rollout.records import record_last_valid, record_rollout, retry_expired
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.status.conditions import build_status
from r1plus_operator.plan.status.context import StatusContext
from r1plus_operator.plan.status.metrics import PlanMetrics, collect_metrics
from r1plus_operator.plan.status.requeue import seconds_to_next_pass
from r1plus_operator.plan.status.runtime import build_runtime_status
from r1plus_policies.rollout import Rollout, RolloutStage

OBJECTION_SECONDS = 60.0
"""Until a pass that may write nothing is repeated: somebody must put the mark of a revision back."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write. `apply` is in stages: all of a stage is written before the next begins.

    An object that was observed has its uid, so that applying it can never create another one. A ControllerRevision has
    its resourceVersion as well, so that a delayed write cannot undo a later one: nothing else remembers verdicts and
    promotions. The next pass repairs every other kind.
    """

    clear: tuple[tuple[str, str, tuple[Json, ...]], ...] = ()
    """(kind, name, JSON patch): items that others put into lists of ours, out of an apply's reach; goes first."""
    apply: tuple[tuple[Json, ...], ...] = ()
    delete: tuple[tuple[str, str, str], ...] = ()
    """(kind, name, uid)."""
    status: Json = field(default_factory=dict)
    notes: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds after which time alone changes the plan; everything else that it depends on is an event."""
    relabel: tuple[tuple[str, tuple[Json, ...]], ...] = ()
    """(pod, JSON patch): out of traffic, into quarantine. Goes first, after the status."""
    cut: tuple[tuple[str, str], ...] = ()
    """(pod, uid): deleted with a short grace period: its drain is over, its room is needed, or its quarantine ends."""
    pool: PoolRequest | None = None
    """The pooled detector to keep from now on."""
    facts: PlanMetrics = field(default_factory=PlanMetrics)
    slot: SlotRequest | None = None
    """The slot that the deployment waits for before a refresh or a wave may begin."""
    volumes: frozenset[str] = frozenset()
    """Names of the volumes that the remaining revisions need."""
    moves_traffic: bool = False
    """Whether the Service gets another revision: the status says so once it has it."""

    @property
    def writes(self) -> int:
        """How many objects are written, without the status."""
        deletions = len(self.delete) + len(self.cut)
        return len(self.relabel) + len(self.clear) + sum(len(stage) for stage in self.apply) + deletions

    @property
    def creates(self) -> bool:
        """Whether an object may be created."""
        return any("uid" not in obj["metadata"] for stage in self.apply for obj in stage)

    def without_writes(self) -> "Plan":
        """Return what the plan only reports."""
        return replace(self, relabel=(), clear=(), apply=(), delete=(), cut=(), moves_traffic=False)


@dataclass(frozen=True, slots=True)
class _Decision:
    """What a pass decides; what it writes is derived from this."""

    choice: RevisionChoice
    suites: SuiteSelection | None
    """Those in force, after a promotion of this pass."""
    outcome: BreachOutcome | None
    """What is done about an accuracy drop; None while nothing serves."""
    rollout_revision: str | None
    """The revision of which the rollout is."""
    rollout: Rollout
    revisions: Mapping[str, Revision]
    """As they are written."""
    surplus: Set[str]
    """Names of revisions that are not kept."""

    @property
    def rollback(self) -> RollbackRecord | None:
        """The rollback that is under way."""
        return self.outcome.rollback if self.outcome else None


def plan(observation: Observation, config: OperatorConfig, now: float) -> Plan:
    """Plan one pass. A second pass over what the first one wrote yields an empty plan, after a promotion the third."""
    with use_wording(config.wording):
        next_plan = _plan(observation, config, now)
    if observation.write_objection:
        return replace(next_plan.without_writes(), requeue_after=OBJECTION_SECONDS)
    return next_plan


def _plan(observation: Observation, config: OperatorConfig, now: float) -> Plan:
    tenant = observation.tenant
    if tenant is not None:
        config = config.for_namespace(assigns_users=tenant.assigns_users, run_as_user=tenant.run_as_user)
    children, selected = observation.children, find_selected(observation.children, observation.name)
    revisions = void_shared_verdicts(date_restored(redate(read_revisions(children), now), now))
    if loss := find_loss(revisions, children, selected):
        return Plan(status=build_status(StatusContext(observation, now, None, loss, None, revisions, None)))
    revisions = set_aside_promotions(revisions, children, selected)
    gone = selected if any(r.is_set_aside for r in revisions.values()) else ""
    resolution = resolve_spec(observation, config, revisions)
    if resolution.spec is None:
        unreadable = StatusContext(observation, now, None, resolution.target, None, revisions, None)
        return Plan(status=build_status(unreadable))
    observation = split_foreign_pods(observation, revisions)
    observation = withhold_unproven(observation, revisions, resolution.spec.accuracy.threshold)
    inputs = PassInputs(observation, config, now, resolution.spec, resolution.problem, gone)
    choice, mounted_suites = choose_revision(inputs, resolution, revisions), _find_mounted(inputs)
    selector = SuiteSelector(inputs, choice.target, mounted_suites)
    gated_revisions = record_gate_results(inputs, choice.revisions, selector.select(choice.revisions))
    assessment = assess_health(inputs, selector, retry_expired(inputs, gated_revisions), choice.spec_revision)
    decision = _decide(inputs, selector, choice, assessment)
    return _assemble(inputs, decision)


def _decide(
    inputs: PassInputs, selector: SuiteSelector, choice: RevisionChoice, assessment: HealthAssessment
) -> _Decision:
    """Decide the rollout, and record what follows from it on the revisions."""
    spec_revision, outcome, assessed_revisions = choice.spec_revision, assessment.outcome, assessment.revisions
    rollback = outcome.rollback if outcome else None
    name = choose_rollout_revision(inputs, assessment, spec_revision)
    rollout = decide_rollout(inputs, assessed_revisions, selector.select(assessed_revisions), name, rollback)
    after = record_rollout(inputs, assessed_revisions, rollout, spec_revision, name, rollback)
    suites = selector.select(after)
    revisions = record_last_valid(inputs, after, spec_revision, suites, outcome.drops_by_name if outcome else {})
    surplus = select_surplus(inputs, revisions, rollout, spec_revision)
    return _Decision(choice, suites, outcome, name, rollout, revisions, surplus)


def _assemble(inputs: PassInputs, decision: _Decision) -> Plan:
    """Build the manifests, derive the status, and put the plan together."""
    observation, spec, now, outcome = inputs.observed, inputs.spec, inputs.now, decision.outcome
    revisions, rollout, surplus = decision.revisions, decision.rollout, decision.surplus
    suite, due, is_paused = decision.suites.suite if decision.suites else None, decision.choice.due, spec.rollout.paused
    accuracy_config, items = _build_accuracy_config(inputs, decision), len(suite.items) if suite else None
    stages = build_manifests(inputs, revisions, surplus, rollout, decision.rollout_revision, accuracy_config, items)
    changes = find_changes(inputs, stages, revisions, surplus, rollout)
    situation = _derive_situation(inputs, decision, accuracy_config)
    status, current = build_status(situation), find_current_revision(revisions.values())
    can_move = inputs.is_tenant and not is_paused
    ends = quarantine.find_ended(observation.pods, rollout.current, now) if can_move else []
    result = Plan(
        relabel=quarantine.build_relabels(observation, outcome.response, outcome.drop.text, now)
        if outcome and not is_paused
        else (),
        clear=changes.clear,
        apply=changes.apply,
        delete=changes.delete,
        cut=() if is_paused else (*((pod.name, pod.uid) for pod, _ in ends), *list_overdue_pods(inputs, rollout)),
        status=status,
        notes=(
            *build_transition_events(observation.cr.get("status") or {}, status),
            *quarantine.build_events(outcome.response if outcome else None, ends, now),
            *build_request_events(observation.cr, status),
            *(build_restored_events(revisions, now) if inputs.is_tenant else ()),
        ),
        requeue_after=seconds_to_next_pass(situation),
        pool=request_pool(current, observation, spec, suite),
        facts=collect_metrics(spec, outcome, decision.rollback if rollout.promote else None, situation.runtime_status),
        slot=due.slot if due else None,
        volumes=frozenset(volume.name for r in revisions.values() if r.name not in surplus and (volume := r.volume)),
        moves_traffic=_moves_traffic(inputs, rollout, changes),
    )
    return result if inputs.is_tenant else result.without_writes()


def _moves_traffic(inputs: PassInputs, rollout: Rollout, changes: Changes) -> bool:
    """Whether the changes have the Service with another revision; also in a pass after the promotion, if one failed."""
    name = inputs.observed.name
    is_written = any(
        (obj["kind"], obj["metadata"]["name"]) == ("Service", name) for stage in changes.apply for obj in stage
    )
    return is_written and find_selected(inputs.observed.children, name) != (rollout.current or "")


def _find_mounted(inputs: PassInputs) -> MountedSuites:
    """Return the suites that monitors have mounted; none where the spec can be served, since they are not needed."""
    if inputs.problem is None:
        return MountedSuites()
    observation = inputs.observed
    at_hand = (*observation.suites.values(), *observation.mounted)
    return find_mounted_suites(observation.children.get(("ConfigMap", name_accuracy_config(observation.name))), at_hand)


def _build_accuracy_config(inputs: PassInputs, decision: _Decision) -> Json | None:
    """Return what the monitors read; None while no suite is in force."""
    suites, revisions, rollback = decision.suites, decision.revisions, decision.rollback
    if suites is None:
        return None
    candidate = revisions.get(decision.rollout_revision or "")
    control = build_control_order(rollback, candidate, revisions) or _build_repeat_order(inputs, decision, candidate)
    return build_accuracy_config(inputs, suites, revisions, decision.surplus, decision.rollout, rollback, control)


def _build_repeat_order(inputs: PassInputs, decision: _Decision, candidate: Revision | None) -> ControlOrder | None:
    """Return the gate that a candidate which has passed one has to pass again; None: it needs none."""
    if decision.suites is None or candidate is None or decision.rollout.stage is not RolloutStage.GATING:
        return None
    suite_hash = hash_of(decision.suites.of(candidate))
    if not count_missing_passes(candidate, decision.revisions.values(), inputs.spec, suite_hash):
        return None
    token = build_repeat_token(candidate, suite_hash, inputs.spec.accuracy.threshold)
    return ControlOrder(candidate.identity_digest, token)


def _derive_situation(inputs: PassInputs, decision: _Decision, accuracy_config: Json | None) -> StatusContext:
    """Return what the status is derived from."""
    choice, rollout_revision, revisions = decision.choice, decision.rollout_revision, decision.revisions
    configs = read_configs(inputs.observed.cr)
    is_pinned = inputs.spec.rollout.pinned and not decision.rollback
    return StatusContext(
        observation=inputs.observed,
        now=inputs.now,
        spec=inputs.spec,
        resolved=choice.target,
        rollout=decision.rollout,
        revisions=revisions,
        subject=rollout_revision if is_pinned else choice.spec_revision,
        rollout_target=rollout_revision,
        spec_revision=choice.spec_revision,
        outcome=decision.outcome,
        suites=decision.suites,
        config_digests=append_config(configs, accuracy_config) if accuracy_config else configs,
        runtime_status=build_runtime_status(
            revisions, decision.rollout.current, choice.spec_revision, choice.due, inputs.config
        ),
    )
