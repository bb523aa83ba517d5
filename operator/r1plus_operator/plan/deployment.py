"""One pass over an R1PlusDeployment: from what was observed to what to write. Pure; the applier carries it out.

The steps are functions in modules of their own. Each takes frozen values and returns a new one, so that their
arguments are their order: `resolve_spec`, `split_foreign_pods`, `choose_revision`, `record_gate_results`,
`assess_health`, `decide_rollout`, `record_rollout`, `build_manifests`, `derive_status`. The revision that the spec asks
for is chosen first, since gate results count only under its suite.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from r1plus_operator.plan.accuracy.gate_results import record_gate_results
from r1plus_operator.plan.accuracy.monitor_config import build_accuracy_config
from r1plus_operator.plan.accuracy.mounted_suites import MountedSuites, find_mounted_suites
from r1plus_operator.plan.accuracy.pooled_detector import PoolRequest, request_pool
from r1plus_operator.plan.accuracy.proof import append_config, read_configs, withhold_unproven
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection, SuiteSelector
from r1plus_operator.plan.events import Note, transitions
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.manifests.stages import build_manifests, find_changes
from r1plus_operator.plan.observation import Json, Observed
from r1plus_operator.plan.podspec.pod import accuracy_name
from r1plus_operator.plan.requests import note_requests
from r1plus_operator.plan.requeue import seconds_to_next_pass
from r1plus_operator.plan.revision.foreign_pods import split_foreign_pods
from r1plus_operator.plan.revision.record import Revision, find_current_revision, read_revisions, redate
from r1plus_operator.plan.revision.refresh import SlotRequest
from r1plus_operator.plan.revision.resolution import resolve_spec
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_operator.plan.rollback import quarantine
from r1plus_operator.plan.rollback.assessment import assess_health, choose_rollout_revision
from r1plus_operator.plan.rollback.outcome import BreachOutcome
from r1plus_operator.plan.rollback.records import build_control_order
from r1plus_operator.plan.rollout.choice import RevisionChoice, choose_revision
from r1plus_operator.plan.rollout.decision import decide_rollout
from r1plus_operator.plan.rollout.history import select_surplus
from r1plus_operator.plan.rollout.records import record_last_valid, record_rollout, retry_expired
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.status.conditions import status_of
from r1plus_operator.plan.status.context import Situation
from r1plus_operator.plan.status.metrics import Facts, facts_of
from r1plus_operator.plan.status.runtime import tell_runtime
from r1plus_policies.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write. `apply` is in stages: all of a stage stands before the next begins.

    An object that was seen alive bears its uid, so that applying it can never make another one. A ControllerRevision
    bears its resourceVersion as well, so that a write that was held up on its way cannot undo one that overtook it:
    nothing else remembers verdicts and promotions. Every other kind is put right by the next pass.
    """

    clear: tuple[tuple[str, str, tuple[Json, ...]], ...] = ()
    """(kind, name, JSON patch): what others put into lists of ours, out of an apply's reach; goes first."""
    apply: tuple[tuple[Json, ...], ...] = ()
    delete: tuple[tuple[str, str, str], ...] = ()
    """(kind, name, uid)."""
    status: Json = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None
    """Seconds after which time alone changes the plan; all else that it hangs on is an event that asks for a pass."""
    relabel: tuple[tuple[str, tuple[Json, ...]], ...] = ()
    """(pod, JSON patch): out of traffic, into quarantine. Goes first, after the status."""
    pool: PoolRequest | None = None
    """The pooled detector to keep from now on."""
    facts: Facts = field(default_factory=Facts)
    slot: SlotRequest | None = None
    """What the deployment waits for before it may begin a candidate that no spec asks for."""
    volumes: frozenset[str] = frozenset()
    """Names of the volumes that the revisions need which this plan leaves."""
    lacks_mounted: bool = False
    """Whether what serves is judged by a mounted suite that has to be read for it: `Observed.mounted`."""

    @property
    def writes(self) -> int:
        """Writes beside the status."""
        return len(self.relabel) + len(self.clear) + sum(len(stage) for stage in self.apply) + len(self.delete)

    @property
    def creates(self) -> bool:
        """Whether an object may come into being."""
        return any("uid" not in obj["metadata"] for stage in self.apply for obj in stage)


@dataclass(frozen=True, slots=True)
class _Decision:
    """What a pass decides; what it writes is derived from this."""

    choice: RevisionChoice
    outcome: BreachOutcome | None
    """What is done about an accuracy drop; None while nothing serves."""
    rollout_revision: str | None
    """The revision of which the rollout is."""
    rollout: Rollout
    revisions: Mapping[str, Revision]
    """As they are written."""
    suites: SuiteSelection | None
    """Those in force, after a promotion of this pass."""
    surplus: Set[str]
    """Names of revisions that are not kept."""

    @property
    def rollback(self) -> RollbackRecord | None:
        """The rollback that is under way."""
        return self.outcome.rollback if self.outcome else None


def plan(observed: Observed, config: OperatorConfig, now: float) -> Plan:
    """Plan one pass. A second pass over what the first one wrote yields an empty plan, after a promotion the third."""
    tenant = observed.tenant
    config = config.in_namespace(assigns_users=tenant is not None and tenant.assigns_users)
    revisions = redate(read_revisions(observed.children), now)
    resolution = resolve_spec(observed, config, revisions)
    if resolution.spec is None:
        unreadable = Situation(observed, now, None, resolution.target, None, revisions, None)
        return Plan(status=status_of(unreadable))
    observed = split_foreign_pods(observed, revisions)
    observed = withhold_unproven(observed, revisions, resolution.spec.accuracy.threshold)
    inputs = PassInputs(observed, config, now, resolution.spec, resolution.problem)
    choice, mounted = choose_revision(inputs, resolution, revisions), _find_mounted(inputs)
    decision = _decide(inputs, choice, SuiteSelector(inputs, choice.target, mounted))
    return _assemble(inputs, decision, mounted)


def _decide(inputs: PassInputs, choice: RevisionChoice, selector: SuiteSelector) -> _Decision:
    """Record gate results, assess what serves, decide the rollout, and record what follows from it."""
    threshold, spec_revision = inputs.spec.accuracy.threshold, choice.spec_revision
    known = selector.select(choice.revisions)
    gated = record_gate_results(inputs.observed, choice.revisions, known, threshold)
    assessment = assess_health(inputs, selector, retry_expired(inputs, gated), spec_revision)
    outcome, assessed = assessment.outcome, assessment.revisions
    rollback, rollout_revision = (
        outcome.rollback if outcome else None,
        choose_rollout_revision(inputs, assessment, spec_revision),
    )
    rollout = decide_rollout(inputs, assessed, selector.select(assessed), rollout_revision, rollback)
    rolled_out = record_rollout(inputs, assessed, rollout, spec_revision, rollout_revision, rollback)
    suites = selector.select(rolled_out)
    revisions = record_last_valid(inputs, rolled_out, spec_revision, suites, outcome.drops_by_name if outcome else {})
    surplus = select_surplus(inputs, revisions, rollout, spec_revision)
    return _Decision(choice, outcome, rollout_revision, rollout, revisions, suites, surplus)


def _assemble(inputs: PassInputs, decision: _Decision, mounted: MountedSuites) -> Plan:
    """Build the manifests, derive the status, and put the plan together."""
    observed, spec, now = inputs.observed, inputs.spec, inputs.now
    revisions, rollout, suites = decision.revisions, decision.rollout, decision.suites
    outcome, due, surplus, paused = decision.outcome, decision.choice.due, decision.surplus, spec.rollout.paused
    current, items = find_current_revision(revisions.values()), len(suites.suite.items) if suites else None
    accuracy_config = _build_accuracy_config(inputs, decision)
    stages = build_manifests(inputs, revisions, surplus, rollout, decision.rollout_revision, accuracy_config, items)
    changes = find_changes(inputs, stages, revisions, surplus, rollout)
    situation = _derive_situation(inputs, decision, accuracy_config)
    status = status_of(situation)
    is_moved = inputs.is_tenant and not paused
    ended = quarantine.find_ended(observed.pods, rollout.current, now) if is_moved else []
    planned = Plan(
        relabel=quarantine.build_relabels(observed, outcome.response, outcome.drop.text, now)
        if outcome and not paused
        else (),
        clear=changes.clear,
        apply=changes.apply,
        delete=(*changes.delete, *(("Pod", pod.name, pod.uid) for pod, _ in ended)),
        status=status,
        notes=(
            *transitions(observed.cr.get("status") or {}, status),
            *quarantine.build_events(outcome.response if outcome else None, ended, now),
            *note_requests(observed.cr, str(status.get("requestRefused", ""))),
        ),
        requeue_after=seconds_to_next_pass(situation),
        pool=request_pool(current, observed, spec, suites.suite if suites else None),
        facts=facts_of(spec, outcome, decision.rollback if rollout.promote else None, situation.runtime),
        slot=due.slot if due else None,
        volumes=frozenset(volume.name for r in revisions.values() if r.name not in surplus and (volume := r.volume)),
        lacks_mounted=mounted.has_unread and current is not None and observed.mounted is None,
    )
    return planned if inputs.is_tenant else replace(planned, relabel=(), clear=(), apply=(), delete=())


def _find_mounted(inputs: PassInputs) -> MountedSuites:
    """Return the suites that monitors have mounted; none where the spec can be served, since they are not needed."""
    if inputs.problem is None:
        return MountedSuites()
    observed = inputs.observed
    at_hand = (*observed.suites.values(), *(observed.mounted or ()))
    return find_mounted_suites(observed.children.get(("ConfigMap", accuracy_name(observed.name))), at_hand)


def _build_accuracy_config(inputs: PassInputs, decision: _Decision) -> Json | None:
    """Return what the monitors read; None while no suite is in force."""
    revisions, rollback = decision.revisions, decision.rollback
    if decision.suites is None:
        return None
    control = build_control_order(rollback, revisions.get(decision.rollout_revision or ""), revisions)
    return build_accuracy_config(
        inputs, decision.suites, revisions, decision.surplus, decision.rollout, rollback, control
    )


def _derive_situation(inputs: PassInputs, decision: _Decision, accuracy_config: Json | None) -> Situation:
    """Return what the status is derived from."""
    spec_revision, rollout_revision, configs = (
        decision.choice.spec_revision,
        decision.rollout_revision,
        read_configs(inputs.observed.cr),
    )
    revisions, rollout, due = decision.revisions, decision.rollout, decision.choice.due
    is_pinned = inputs.spec.rollout.pinned and not decision.rollback
    return Situation(
        inputs.observed,
        inputs.now,
        inputs.spec,
        decision.choice.target,
        rollout,
        revisions,
        rollout_revision if is_pinned else spec_revision,
        rollout_revision,
        spec_revision,
        decision.outcome,
        decision.suites,
        append_config(configs, accuracy_config) if accuracy_config else configs,
        tell_runtime(revisions, rollout.current, spec_revision, due, inputs.config),
    )
