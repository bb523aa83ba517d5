"""observed -> Plan: the one place where a pass decides what to write. Pure; the executor carries it out in order."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.requests import Request
from r1plus_contract.verdict import Gate, Verdict
from r1plus_model_repo.catalog.types import spec_problems
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.gate_results import gates_in, has_passed, remembered, taken, told
from r1plus_operator.plan.accuracy.mounted_suites import MountedSuites, find_mounted
from r1plus_operator.plan.accuracy.pooled_detector import PoolWanted, checkpoint, wanted_pool
from r1plus_operator.plan.accuracy.proof import read_configs, remember_config, withhold_unproven
from r1plus_operator.plan.accuracy.suite_selection import Judging, hash_of, judging
from r1plus_operator.plan.engine import delivery
from r1plus_operator.plan.engine.feasibility import Incumbent
from r1plus_operator.plan.engine.nodes import compute_seconds_until_lost, has_room, is_lost
from r1plus_operator.plan.engine.placement import check_placement, check_readable
from r1plus_operator.plan.engine.selection import Problem, Target, resolve
from r1plus_operator.plan.events import Event, build_transition_events
from r1plus_operator.plan.manifests import alerts, children, pause
from r1plus_operator.plan.manifests.drift import foreign_items_patch, is_in_sync, with_preconditions, with_spec_hash
from r1plus_operator.plan.observation import REFUSED_PODS, Json, Observation, PodFacts, SuiteSource
from r1plus_operator.plan.podspec.pod import name_accuracy_config
from r1plus_operator.plan.requests import build_request_events, read_ack_token
from r1plus_operator.plan.revision.expiry import expire
from r1plus_operator.plan.revision.incumbents import prefer_incumbents
from r1plus_operator.plan.revision.last_valid import LastValid, dump_spec, readable_spec, with_switches, with_threshold
from r1plus_operator.plan.revision.record import (
    KEPT_REVISIONS,
    Revision,
    Runtime,
    asked_hash,
    build,
    is_made_for,
    readable,
    redate,
    revision_hash,
    runtime_for,
    serving_revision,
    to_object,
)
from r1plus_operator.plan.revision.refresh import (
    SLOT_SECONDS,
    Cause,
    Due,
    Outcome,
    Progress,
    Refresh,
    SlotRequest,
    next_outcome,
    refresh_bar,
    requested_refresh,
    take_slot,
)
from r1plus_operator.plan.revision.rollback_record import Record
from r1plus_operator.plan.rollback import breach, quarantine
from r1plus_operator.plan.settings import OperatorConfig, RuntimeUpdate, SuiteTrust
from r1plus_operator.plan.status.conditions import (
    ALERTS_GRACE_SECONDS,
    build_status,
    compute_endpoints_wait,
    is_just_ready,
)
from r1plus_operator.plan.status.context import StatusContext
from r1plus_operator.plan.status.incident import BreachOutcome
from r1plus_operator.plan.status.metrics import PlanMetrics, collect_metrics
from r1plus_operator.plan.status.runtime import build_runtime_status
from r1plus_policies.rollout import RevisionState, Rollout, Stage, Strategy, Terms, decide

AT_ONCE_SECONDS = 0.001
"""Another pass follows a promotion: what fell, where one could go back to and what drains is seen anew from there."""


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
    notes: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds after which time alone changes the plan; all else that it hangs on is an event that asks for a pass."""
    relabel: tuple[tuple[str, tuple[Json, ...]], ...] = ()
    """(pod, JSON patch): out of traffic, into quarantine. Goes first, after the status."""
    pool: PoolWanted | None = None
    """The pooled detector to keep from now on."""
    facts: PlanMetrics = field(default_factory=PlanMetrics)
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


def plan(observed: Observation, config: OperatorConfig, now: float) -> Plan:
    """Plan one pass. A second pass over what the first one wrote yields an empty plan, after a promotion the third."""
    revisions = redate(readable(observed.children), now)
    serves = serving_revision(revisions.values())
    raw, former = observed.cr.get("spec") or {}, _former_spec(serves, observed)
    problem = None
    try:
        spec = R1PlusDeploymentSpec.model_validate(raw)
    except ValidationError as error:
        problem = Problem(
            ConditionType.READY, Reason.INVALID_SPEC, "; ".join(spec_problems(error, R1PlusDeploymentSpec))
        )
        # As a whole, since what is left of a spec after a slip may ask for something else.
        mended = readable_spec(former, {}) if serves and serves.last_valid else readable_spec(raw, former)
        if serves is None or mended is None:
            return Plan(status=build_status(StatusContext(observed, now, None, problem, None, revisions, None)))
        spec = with_switches(mended, raw)
    tenant = observed.tenant
    config = config.for_namespace(assigns_users=tenant is not None and tenant.assigns_users)
    if tenant is not None and not tenant.is_tenant:
        problem = Problem(ConditionType.ISOLATION_VERIFIED, Reason(tenant.reason), tenant.message)
    resolved = problem or _resolve(spec, observed, config, revisions, serves)
    known = (former.get("accuracy") or {}).get("threshold")
    is_raised = isinstance(known, int | float) and spec.accuracy.threshold > known
    if isinstance(resolved, Problem) and (is_raised or resolved.reason is Reason.THRESHOLD_UNREACHABLE):
        # What serves may never have reached it, and nothing new is made to reach it.
        spec = with_threshold(spec, former)
    held = _hold_engine(resolved, spec, observed, config, revisions, serves) if isinstance(resolved, Target) else None
    newer = resolved if held and isinstance(resolved, Target) else None
    return _Pass(observed, config, now, spec, held or resolved, revisions, newer).plan()


def _hold_engine(
    resolved: Target,
    spec: R1PlusDeploymentSpec,
    observed: Observation,
    config: OperatorConfig,
    revisions: Mapping[str, Revision],
    serves: Revision | None,
) -> Target | None:
    """What serves, where the spec goes on asking for it and the catalog alone has a newer engine; else None.

    An edit of the spec waits for nobody, nor does what has begun already.
    """
    if serves is None or resolved.engine.name == serves.engine:
        return None
    same = [r for r in revisions.values() if is_made_for(r, observed.name, spec, resolved)]
    is_edited = serves.last_valid is not None and serves.last_valid.spec.get("engine") != dump_spec(spec).get("engine")
    if is_edited or any(r.candidate_since or r.refresh or r.rollback for r in same):
        return None
    own = tuple(engine for engine in observed.engines if engine.name == serves.engine)
    held = _resolve(spec, replace(observed, engines=own), config, revisions, serves)
    return held if isinstance(held, Target) and is_made_for(serves, observed.name, spec, held) else None


def _resolve(
    spec: R1PlusDeploymentSpec,
    observed: Observation,
    config: OperatorConfig,
    revisions: Mapping[str, Revision],
    serves: Revision | None,
) -> Target | Problem:
    engine = serves.engine if serves else ""
    newest = max(revisions.values(), key=lambda r: r.number, default=None)
    products = [r.identity.gpu_product for r in (serves, newest) if r and r.identity.gpu_product]
    held = [volume for r in revisions.values() if (volume := r.volume)]
    delivered = frozenset(volume.revision_key for volume in held if delivery.is_delivered(volume, observed))
    delivered |= {name for name, facts in observed.volumes.items() if facts.delivered_digest}
    suites = dict(observed.suites)

    def resolve_for(incumbent: Incumbent | None) -> Target | Problem:
        return resolve(
            spec, observed.engines, suites, observed.nodes, config, engine, delivered, products, incumbent=incumbent
        )

    resolved = prefer_incumbents(resolve_for, spec, observed.name, serves, revisions.values())
    tenant = observed.tenant
    if (
        tenant
        and tenant.placement
        and isinstance(resolved, Target)
        and not (serves and is_made_for(serves, observed.name, spec, resolved))
    ):
        # What serves keeps its place, whatever the platform team allows by now.
        return check_readable(tenant) or check_placement(spec.placement, tenant.placement) or resolved
    return resolved


def _former_spec(serves: Revision | None, observed: Observation) -> Json:
    """Return the newest spec that could be read; where none is recorded, what is known of it by what runs."""
    if serves is None:
        return {}
    if serves.last_valid:
        return serves.last_valid.spec
    found: Json = {}
    live = observed.children.get(("Deployment", serves.name)) or {}
    if replicas := (live.get("spec") or {}).get("replicas"):
        found["replicas"] = replicas
    if serves.counted:
        found["accuracy"] = {"threshold": serves.counted[-1].threshold}
    tiers = [engine.spec.tier.value for engine in observed.engines if engine.name == serves.engine]
    return found | ({"tier": tiers[0]} if tiers else {})


@dataclass(slots=True)
class _Pass:
    """One pass: intermediate values that several steps need."""

    observed: Observation
    config: OperatorConfig
    now: float
    spec: R1PlusDeploymentSpec
    resolved: Target | Problem
    revisions: dict[str, Revision]
    newer: Target | None = None
    """What the spec asks for by a newer engine of the catalog, where what serves is `resolved`."""
    due: Due | None = None
    """What is newer than what is wanted, and does not begin in this pass."""
    mounted: MountedSuites = field(init=False)

    def __post_init__(self) -> None:
        at_hand = (*self.observed.suites.values(), *(self.observed.mounted or ()))
        accuracy = self.observed.children.get(("ConfigMap", name_accuracy_config(self.observed.name)))
        self.mounted = find_mounted(accuracy, at_hand) if self._problem else MountedSuites()

    @property
    def _problem(self) -> Problem | None:
        return self.resolved if isinstance(self.resolved, Problem) else None

    @property
    def _is_tenant(self) -> bool:
        """Whether anything may be written."""
        return self.observed.tenant is None or self.observed.tenant.is_tenant

    @property
    def _serving(self) -> Revision | None:
        """What was promoted last."""
        return serving_revision(self.revisions.values())

    def _judging(self) -> Judging | None:
        """By which suite what serves is judged, as verdicts and promotions stand; None while none is in force.

        While the spec has a Problem these are the suites that were asked for before, trusted today or not.
        """
        serving = self._serving
        if isinstance(self.resolved, Target):
            suites, trust = self.observed.suites, self.config.suite_trust
            return judging(self.resolved.source, serving, suites, self.spec, trust)
        asked = self._asked_suite(serving) if serving else None
        if asked is None:
            return None
        former = self.mounted.former
        return judging(asked, serving, {former.name: former} if former else {}, self.spec, SuiteTrust(required=False))

    def _asked_suite(self, serving: Revision) -> SuiteSource | None:
        """Return the suite that the spec asked for last: as it is mounted, else as it is at hand."""
        wanted = serving.last_valid.suite_hash if serving.last_valid else ""
        known = (self.mounted.asked, self.mounted.former, *self.observed.suites.values())
        same = (source for source in known if source and source.suite and hash_of(source) == wanted)
        return next(same, self.mounted.asked)

    def plan(self) -> Plan:
        owner = children.Owner(self.observed.cr)
        self._part_strangers()
        self.observed = withhold_unproven(self.observed, self.revisions, self.spec.accuracy.threshold)
        target = self._target()
        self._take_verdicts()
        self._retry_expired()
        answered = self._answer(target)
        way_back = self._way_back(answered)
        wanted = self._delivered(self._wanted(target, answered, way_back), answered)
        rollout, paused = self._decide(wanted, way_back), self.spec.rollout.paused
        if paused:
            rollout = self._frozen(rollout)
        if rollout.promote:
            self._promote(rollout.promote, way_back, answered)
        is_held = self._problem is not None and way_back is None
        self._record_expiry(wanted, rollout)
        candidate = wanted if wanted != rollout.current and not is_held else None
        self._date_candidacy(candidate, target if is_held else None)
        self._end_refreshes(target, wanted, rollout)
        surplus = self._surplus(rollout, target)
        judged = self._judging()
        self._record_last_valid(target, judged, answered)
        stages = self._stages(owner, rollout, wanted, surplus, way_back)
        configs = self._remember_configs(stages)
        shown = wanted if self.spec.rollout.pinned and not way_back else target
        situation = StatusContext(
            self.observed,
            self.now,
            self.spec,
            self.resolved,
            rollout,
            self.revisions,
            shown,
            wanted,
            target,
            answered,
            judged,
            configs,
            build_runtime_status(self.revisions, rollout.current, target, self.due, self.config),
        )
        status = build_status(situation)
        if paused:
            stages = [[obj for obj in stage if pause.is_written(obj, self._live(obj))] for stage in stages]
        changed = [self._changed(stage) for stage in stages]
        is_moved = self._is_tenant and not paused
        ended = quarantine.ended(self.observed.pods, rollout.current, self.now) if is_moved else []
        before = self.observed.cr.get("status") or {}
        looks = [quarantine.next_look(pod, self.now) for pod in self.observed.pods]
        looks += [
            AT_ONCE_SECONDS if rollout.promote else rollout.requeue_after,
            self._wired_by(rollout),
            compute_endpoints_wait(situation),
            self._slot_ends(),
            # The operator was away, or the status was lost: what is remembered only now may prove a gate.
            AT_ONCE_SECONDS if self.observed.unproven and configs != read_configs(self.observed.cr) else None,
            *(left for pod in self.observed.pods if 0 < (left := compute_seconds_until_lost(pod, self.now)) < math.inf),
            answered.response.look_again if answered else None,
        ]
        planned = Plan(
            relabel=quarantine.relabelled(self.observed, answered.response, answered.drop.text, self.now)
            if answered and not paused
            else (),
            clear=pause.build_mark_patches(self.observed.children, paused=paused)
            + tuple(found for stage in changed for obj in stage if (found := self._strays(obj))),
            apply=tuple(stage for stage in changed if stage),
            delete=()
            if paused
            else (*self._deletions(rollout, surplus), *(("Pod", pod.name, pod.uid) for pod, _ in ended)),
            status=status,
            notes=(
                *build_transition_events(before, status),
                *quarantine.told(answered.response if answered else None, ended, self.now),
                *build_request_events(self.observed.cr, str(status.get("requestRefused", ""))),
            ),
            requeue_after=min(filter(None, looks), default=None),
            pool=wanted_pool(self._serving, self.observed, self.spec, judged.suite if judged else None),
            facts=collect_metrics(self.spec, answered, way_back if rollout.promote else None, situation.runtime_status),
            slot=self.due.slot if self.due else None,
            volumes=frozenset(r.volume.name for r in self.revisions.values() if r.volume and r.name not in surplus),
            lacks_mounted=self.mounted.has_unread and self._serving is not None and self.observed.mounted is None,
        )
        return planned if self._is_tenant else replace(planned, relabel=(), clear=(), apply=(), delete=())

    def _record_last_valid(self, target: str | None, judged: Judging | None, answered: BreachOutcome | None) -> None:
        """Write down on what serves, which this very pass may have promoted, what the spec asks for."""
        serving = self._serving
        if serving is None or target is None:
            return
        before = serving.last_valid or LastValid(target)
        is_judged = answered is not None and answered.serving == serving.name
        last = LastValid(
            target,
            hash_of(judged.asked) if judged else before.suite_hash,
            dump_spec(self.spec),
            answered.has_dropped if answered and is_judged else before.has_dropped and not answered,
        )
        self.revisions[serving.name] = replace(serving, last_valid=last)

    def _answer(self, target: str | None) -> BreachOutcome | None:
        """What is done about the revision that serves; the records of all revisions are brought up to date."""
        serving, judged = self._serving, self._judging()
        if target is None or serving is None or judged is None:
            return None
        name = serving.name
        terms = breach.terms_of(self.observed, self.spec, judged, target)
        self.revisions = breach.settled(self.revisions, name, terms)
        returned = self.revisions[target].rollback if target != name else None
        returned = returned if returned and returned.refuses else None
        scene = breach.Scene(
            observed=self.observed,
            config=self.config,
            now=self.now,
            spec=self.spec,
            judging=judged,
            revisions=self.revisions,
            current=self.revisions[name],
            identity=serving.identity_digest,
            target=target,
            rollout_under_way=not self._problem and not returned and self._under_way(target, name),
        )
        response, record = breach.answer(scene)
        if record is not None and record.control is Verdict.PASS and (gate := breach.fresh(scene, record)):
            self.revisions[record.to] = remembered(self.revisions[record.to], gate)
        pool = checkpoint(self.observed, serving, scene.suite_hash)
        self.revisions[name] = replace(self.revisions[name], rollback=record, pool=pool)
        return BreachOutcome(
            serving=name,
            response=response,
            drop=breach.figures(scene),
            record=breach.attempt(self.revisions[name]),
            target_record=returned,
            quarantined_pods=tuple(p for p in self.observed.pods if p.quarantine is not None and p.revision == name),
            rollback_target=breach.last_good(scene),
            rollback_blockers=breach.lacking(scene),
            has_dropped=breach.has_dropped(scene, bool(serving.last_valid and serving.last_valid.has_dropped)),
            alerts=self.config.alerts,
            control_progress=breach.control_progress(scene, record) if record else "",
        )

    def _under_way(self, target: str, serving: str) -> bool:
        """Whether a candidate that the spec asks for is on its way to traffic."""
        on_its_way = (Stage.GATING, Stage.SCALING, Stage.PROMOTE)
        moves = target != serving and not self.spec.rollout.pinned and self._delivered(target, None) is not None
        return moves and self._decide(target, None).stage in on_its_way

    def _way_back(self, answered: BreachOutcome | None) -> Record | None:
        """The attempt whose control is up, or waits for room."""
        return answered.record if answered and answered.response.revision else None

    def _wanted(self, target: str | None, answered: BreachOutcome | None, way_back: Record | None) -> str | None:
        """The revision to bring up or to keep: the spec's, unless a way back, a pin or a rollback stands before it."""
        if answered is None:
            return target
        if way_back is not None:
            return way_back.to
        return answered.serving if self.spec.rollout.pinned or answered.target_record else target

    def _delivered(self, wanted: str | None, answered: BreachOutcome | None) -> str | None:
        """What is wanted, once its engine is where its pods mount it; until then what serves goes on."""
        if wanted is None or delivery.can_start_pods(self.revisions[wanted].volume, wanted, self.observed):
            return wanted
        return self._serving.name if self._serving else None

    def _promote(self, name: str, way_back: Record | None, answered: BreachOutcome | None) -> None:
        """Date the promotion; where it is a switch back, write that down with what fell."""
        when = self._after_all_promotions()
        if way_back is not None and answered is not None:
            fallen = self.revisions[answered.serving]
            self.revisions[fallen.name] = replace(fallen, rollback=replace(way_back, switched_at=when))
        chosen = self.revisions[name]
        served = chosen.served_before + breach.stint(chosen, self.revisions, when)
        self.revisions[name] = replace(chosen, promoted_at=when, served_before=served, verdicts=chosen.counted)

    def _target(self) -> str | None:
        """Name of the revision that the spec asks for, rendered if it is new.

        What was made as it is asked for now goes on, though the operator has other images by now; unless a newer one
        of it is due, or a newer engine is.
        While the spec has a Problem it asks for what it asked for before; None where nothing serves yet.
        """
        if isinstance(self.resolved, Problem):
            serving = self._serving
            return breach.asked_for_last(self.revisions, serving) if serving else None
        begins = self._due_engine()
        if begins and self.newer:
            self.resolved = self.newer
        stored = self._newest_of(self.resolved)
        if begins is None and self.due is None and stored is not None:
            self.due = self._renewal(stored, self.resolved)
            begins = self.due if self.due and not self.due.waits else None
        if begins is None:
            is_unfit = stored is not None and (self._needs_newer_monitor(stored) or self._names_user_wrongly(stored))
            name = stored.name if stored and not is_unfit else self._render(self.resolved)
            self._answer_refresh(name, self.resolved)
            return name
        self.due = None
        is_of_now = stored is not None and stored.runtime == runtime_for(self.resolved, self.config)
        name = stored.name if stored and is_of_now else self._render(self.resolved)
        refresh = Refresh(
            begins.cause, begins.wave, self.now, begins.request, acknowledged=read_ack_token(self.observed.cr)
        )
        self.revisions[name] = replace(self.revisions[name], refresh=refresh)
        return name

    def _newest_of(self, target: Target) -> Revision | None:
        """The newest stored revision of what is asked for; None: another one has to be made.

        What serves is the newest where it has the images of now, and it is newer than what was made before it with
        others: who changes a spec and changes it back must not get the images back that a refresh has replaced.
        """
        now, serving, found = runtime_for(target, self.config), self._serving, []
        names, asked = {self._name_for(target), self._name_for(target, now)}, asked_hash(self.spec, target)
        for revision in self.revisions.values():
            is_unbuilt = self._is_unbuilt(revision) and revision.name != self._name_for(target, now, revision.number)
            if revision.name not in names and (revision.asked != asked or is_unbuilt):
                continue
            if revision is serving and revision.runtime == now:
                return revision
            is_older = serving is not None and revision.number < serving.number
            if not is_older or revision.runtime in (now, serving.runtime if serving else now):
                found.append(revision)
        return max(found, key=lambda r: r.number, default=None)

    def _name_for(self, target: Target, runtime: Runtime | None = None, number: int | None = None) -> str:
        return f"{self.observed.name}-{revision_hash(self.spec, target, runtime, number)}"

    def _render(self, target: Target) -> str:
        """Render a revision; by its plain name, unless a stored one of another runtime has that."""
        runtime = runtime_for(target, self.config)
        number = max((r.number for r in self.revisions.values()), default=0) + 1
        chosen = (self._name_for(target, *of) for of in ((), (runtime,), (runtime, number)))
        name = next(name for name in chosen if name not in self.revisions)
        self.revisions[name] = build(self.observed.cr, self.spec, target, self.config, number, name)
        return name

    def _request(self) -> Request | None:
        """The refresh that somebody asks for."""
        serving, answered = self._serving, (r.refresh for r in self.revisions.values())
        return requested_refresh(self.observed.cr, serving.name if serving else "", answered)

    def _due_engine(self) -> Due | None:
        """Whether a newer engine of the catalog begins in this pass; where it waits, `due` says for what.

        While its wave is stopped, newer images reach what serves without it.
        """
        if self.newer is None or self._serving is None:
            return None
        engine, request = self.newer.engine, self._request()
        wave = f"{engine.name}@{engine.spec.files.sha256[:12]}/{runtime_for(self.newer, self.config).digest}"
        cause, token = (Cause.REQUESTED, request.token) if request else (Cause.CATALOG, "")
        bar = refresh_bar(cause, self.spec, None, breach.attempt(self._serving))
        due = Due(cause, wave, token, bar) if bar else take_slot(self.observed.wave, cause, wave, token)
        if not due.waits:
            return due
        self.due = None if wave in self.observed.wave.stopped_waves else due
        return None

    def _renewal(self, stored: Revision, target: Target) -> Due | None:
        """Whether a candidate on the images of now is due in place of this revision, and what keeps it waiting."""
        now, request = runtime_for(target, self.config), self._request()
        if stored.runtime == now:
            return None
        automatic = self.config.runtime_update is RuntimeUpdate.AUTOMATIC and self._is_at_rest(stored)
        if request is None and not automatic:
            return None
        cause, token = (Cause.REQUESTED, request.token) if request else (Cause.AUTOMATIC, "")
        bar = refresh_bar(cause, self.spec, stored.rollback, breach.attempt(self._serving))
        return Due(cause, now.digest, token, bar) if bar else take_slot(self.observed.wave, cause, now.digest, token)

    def _answer_refresh(self, name: str, target: Target) -> None:
        """Remember a request that this revision answers: there is nothing newer, or it is on its way already."""
        now, request, revision = runtime_for(target, self.config), self._request(), self.revisions[name]
        if request is None or revision.runtime != now or self.due is not None:
            return
        before = revision.refresh or Refresh(Cause.REQUESTED, now.digest, self.now, outcome=Outcome.ANSWERED)
        self.revisions[name] = replace(revision, refresh=replace(before, request=request.token))

    def _is_at_rest(self, stored: Revision) -> bool:
        """Whether nothing else is on its way: it serves, or the wave that began it is over."""
        over = (Outcome.FAILED, Outcome.ACKNOWLEDGED, Outcome.NO_ROOM)
        return stored is self._serving or (stored.refresh is not None and stored.refresh.outcome in over)

    def _end_refreshes(self, target: str | None, wanted: str | None, rollout: Rollout) -> None:
        """Write down how candidates of a refresh or a wave end."""
        terms = self.spec.rollout
        is_held = self._problem is not None or terms.pinned or terms.paused
        for name, revision in self.revisions.items():
            if record := revision.refresh:
                progress = Progress(
                    stage=rollout.stage if name == wanted else Stage.NONE,
                    serves=name == rollout.current,
                    is_asked_for=name == target and not is_held,
                    is_expired=revision.is_expired,
                    has_no_room=revision.expiry is not None and revision.expiry.no_room != "",
                )
                outcome = next_outcome(record, progress, read_ack_token(self.observed.cr), self.now)
                self.revisions[name] = replace(revision, refresh=replace(record, outcome=outcome))

    def _slot_ends(self) -> float | None:
        """Seconds until a slot that is held goes to the next deployment; None where none is held."""
        began = [r.refresh.began_at for r in self.revisions.values() if r.refresh and r.refresh.outcome is None]
        left = min(began, default=-math.inf) + SLOT_SECONDS - self.now
        return left if left > 0 else None

    def _needs_newer_monitor(self, revision: Revision) -> bool:
        """Whether a candidate's monitor reports a Pass and is too old to prove it. What serves is left alone."""
        serving, judged = self._serving, self._judging()
        if judged is None or revision.proves_gates or revision.rollback or (serving and serving.name == revision.name):
            return False
        if revision.good(hash_of(judged.of(revision)), self.spec.accuracy.threshold):
            return False
        return any(p.revision == revision.name and p.name in self.observed.unproven for p in self.observed.pods)

    def _names_user_wrongly(self, revision: Revision) -> bool:
        """Whether a candidate's pods name a user where the cluster assigns them by now, or none where it does not.

        What serves is left alone, and what is gone back to is what passed.
        """
        is_held = revision is self._serving or revision.rollback is not None
        return not is_held and revision.runtime.names_user != bool(self.config.pod_user.security_fields)

    def _part_strangers(self) -> None:
        """Whoever may create pods in the namespace could label one as ours and answer for its monitor."""
        pods = self.observed.pods
        own = frozenset().union(*(revision.own(pods) for revision in self.revisions.values()))
        strangers = tuple(pod for pod in pods if pod not in own)
        self.observed = replace(self.observed, pods=tuple(pod for pod in pods if pod in own), foreign_pods=strangers)

    def _take_verdicts(self) -> None:
        """Write down every decided gate that the monitors report: exactly for what was scored, once.

        A pod in quarantine is at fault itself: what it finds says nothing of its revision.
        """
        judged = self._judging()
        threshold, acknowledged = self.spec.accuracy.threshold, read_ack_token(self.observed.cr)
        for pod in (p for p in self.observed.pods if p.quarantine is None):
            report = self.observed.reports.get(pod.name)
            if report is None or judged is None or pod.revision not in self.revisions:
                continue
            for gate in gates_in(report):
                revision = self.revisions[pod.revision]
                after = taken(revision, gate, judged.hashes, threshold, acknowledged)
                # Later the pod's containers may have been restarted on images that were not gated.
                is_new = after is not revision or not revision.images
                if is_new and revision.proves_gates and has_passed(revision, gate, judged.hashes):
                    after = after.add_images(pod)
                self.revisions[pod.revision] = after

    def _frozen(self, rollout: Rollout) -> Rollout:
        """As a pause leaves it: nothing is promoted, and what runs is what runs."""
        serving = self._serving
        live = {
            name: int(child["spec"].get("replicas", 1))
            for (kind, name), child in self.observed.children.items()
            if kind == "Deployment" and name in self.revisions
        }
        return replace(rollout, promote=None, current=serving.name if serving else None, replicas=live)

    def _date_candidacy(self, candidate: str | None, held: str | None) -> None:
        """Since when the candidate has been asked for; of every other revision nothing, so that it starts afresh.

        `held`: what a Problem keeps from being asked for. That it was withdrawn is not forgotten meanwhile.
        """
        for name, revision in self.revisions.items():
            if name == held and revision.is_expired:
                continue
            since = (revision.candidate_since or self.now) if name == candidate else None
            expiry = revision.expiry if name == candidate else None
            if (since, expiry) != (revision.candidate_since, revision.expiry):
                self.revisions[name] = replace(revision, candidate_since=since, expiry=expiry)

    def _retry_expired(self) -> None:
        """Let a candidate that was withdrawn begin again when its time has come."""
        deadline = self.spec.rollout.deadline_seconds
        for name, revision in self.revisions.items():
            if revision.is_expired and revision.expiry and revision.expiry.is_over(self.now, deadline):
                self.revisions[name] = replace(revision, candidate_since=None)

    def _record_expiry(self, candidate: str | None, rollout: Rollout) -> None:
        """Write down that the candidate is withdrawn, and whether for lack of room: its pods, which say so, go now."""
        revision = self.revisions.get(candidate or "")
        if rollout.stage is Stage.EXPIRED and revision and not revision.is_expired:
            expiry = expire(revision.expiry, self.now, self._no_room(revision), self.spec.rollout)
            self.revisions[revision.name] = replace(revision, expiry=expiry)

    def _no_room(self, revision: Revision) -> str:
        """Return what the scheduler or a quota says of a revision's pods; empty while there is room."""
        refused = self.observed.children.get(("Deployment", revision.name), {}).get(REFUSED_PODS, "")
        waiting = (pod.unschedulable for pod in self.observed.pods if pod.revision == revision.name)
        found = (refused if "exceeded quota" in refused else "") or next(filter(None, waiting), "")
        return found or ("" if self._has_room(revision) else "no node takes its pod")

    def _has_room(self, revision: Revision) -> bool:
        """Whether a node takes its pod; asked in place only, where what serves is stopped for it."""
        in_place = self.spec.rollout.strategy is Strategy.IN_PLACE
        return not in_place or has_room(revision.template["spec"], self.observed.nodes)

    def _after_all_promotions(self) -> float:
        """Now, or just after the last promotion if the clock has been set back: the newest is what serves."""
        return max(self.now, *(r.promoted_at + 0.001 for r in self.revisions.values() if r.promoted_at), 0.0)

    def _decide(self, target: str | None, way_back: Record | None) -> Rollout:
        """On a way back only the control's own verdict counts, whatever `gate` is, and its deadline is its own.

        What fell comes back by a Pass only, whatever `gate` is.
        """
        enforced = way_back is not None or (target is not None and self.revisions[target].regate != "")
        judged = self._judging()
        states = [self._state(revision, judged) for revision in self.revisions.values()]
        if way_back is not None:
            states = [replace(s, verdict=way_back.control) if s.name == way_back.to else s for s in states]
        return decide(
            target=target,
            revisions=tuple(states),
            terms=Terms(
                self.spec.replicas,
                Gate.ENFORCE if enforced else self.spec.accuracy.gate,
                self.spec.rollout.strategy,
                math.inf if way_back else self.spec.rollout.deadline_seconds,
                is_held=self._problem is not None and (way_back is None or not self._is_tenant),
            ),
            now=self.now,
        )

    def _state(self, revision: Revision, judged: Judging | None) -> RevisionState:
        live = self.observed.children.get(("Deployment", revision.name))
        suite, threshold = hash_of(judged.of(revision)) if judged else "", self.spec.accuracy.threshold
        report = revision.verdict_for(suite, threshold)
        only_beside_traffic = report and report.verdict is Verdict.PASS and not revision.good(suite, threshold)
        pods = [pod for pod in self.observed.pods if pod.revision == revision.name and pod.quarantine is None]
        return RevisionState(
            name=revision.name,
            ready=sum(pod.ready and not pod.terminating and self._may_serve(revision, pod) for pod in pods),
            pods=sum(not is_lost(pod, self.observed.nodes, self.now) for pod in pods),
            replicas=int((live.get("spec") or {}).get("replicas", 1)) if live else None,
            verdict=report.verdict if report and not only_beside_traffic else None,
            promoted_at=revision.promoted_at,
            candidate_since=revision.candidate_since,
            has_dropped=revision.last_valid is not None and revision.last_valid.has_dropped,
            has_room=self._has_room(revision),
            unschedulable_since=min((p.unschedulable_since for p in pods if p.unschedulable_since), default=None),
            retry_at=revision.expiry.retry_at if revision.expiry and revision.is_expired else None,
        )

    def _may_serve(self, revision: Revision, pod: PodFacts) -> bool:
        """Whether traffic may move to a pod. What has it keeps it: no pod would be left where a tag was moved."""
        serving = self._serving
        has_traffic = serving is not None and serving.name == revision.name
        return has_traffic or not revision.find_changed_image(pod)

    def _stages(
        self, owner: children.Owner, rollout: Rollout, target: str | None, surplus: set[str], way_back: Record | None
    ) -> list[list[Json]]:
        """Walls before pods, what a pod mounts before the pod, the switch after the pods."""
        running = [self.revisions[name] for name in rollout.replicas]
        kept = [r for r in self.revisions.values() if r.name not in surplus]
        first = [
            children.build_network_policy(owner, self._callers(), self.config),
            children.build_service_account(owner),
            *(to_object(r, owner.build_metadata(r.name, {names.LABEL_REVISION: r.name})) for r in kept),
            *(children.build_revision_config(owner, r) for r in running),
        ]
        if judged := self._judging():
            order = breach.order(way_back, self.revisions.get(target or ""), self.revisions)
            by_former = [r for r in (self._serving, self.revisions.get(way_back.to) if way_back else None) if r]
            former = judged.told_to(*(r.identity_digest for r in by_former))
            first.append(
                children.build_accuracy_config(
                    owner,
                    self.spec,
                    judged.asked,
                    told(kept, rollout.replicas, judged.hashes),
                    ack_token=read_ack_token(self.observed.cr),
                    control=None if rollout.promote else order,
                    readmitted_identity=self._restored(rollout.current, judged),
                    former=(former, judged.counts) if former else None,
                )
            )
        pods = [
            children.build_deployment(owner, self.spec, self.revisions[name], count)
            for name, count in rollout.replicas.items()
        ]
        last = [children.build_disruption_budget(owner)]
        if rollout.current or target:
            # Only what was promoted: a pod that is Ready by a token that it should not have gets no traffic by it.
            last.append(children.build_service(owner, rollout.current or children.NOTHING_PROMOTED))
        return [first, pods, [*last, *self._monitoring(owner, rollout)]]

    def _remember_configs(self, stages: list[list[Json]]) -> tuple[str, ...]:
        """Digests of what monitors were given, and are from this pass on."""
        before, name = read_configs(self.observed.cr), name_accuracy_config(self.observed.name)
        config = next((obj for obj in stages[0] if (obj["kind"], obj["metadata"]["name"]) == ("ConfigMap", name)), None)
        return remember_config(before, config) if config else before

    def _callers(self) -> set[str]:
        """Other namespaces that are let in: those that the deployment names and the platform team allows."""
        tenant = self.observed.tenant
        return set(self.spec.access.namespaces) & tenant.callers if tenant else set()

    def _restored(self, current: str | None, judged: Judging) -> str:
        """Identity of what passed and serves where nothing else could: its pods are let in again."""
        revision = self.revisions.get(current or "")
        if revision is None or self.spec.rollout.strategy is not Strategy.IN_PLACE:
            return ""
        good = revision.good(hash_of(judged.counts), self.spec.accuracy.threshold)
        return revision.identity_digest if good else ""

    def _monitoring(self, owner: children.Owner, rollout: Rollout) -> list[Json]:
        wanted = []
        if "PodMonitor" in self.observed.kinds:
            wanted.append(alerts.build_pod_monitor(owner, self.config))
        if "PrometheusRule" in self.observed.kinds and rollout.current:
            judged = self._judging()
            items = len(judged.suite.items) if judged else None
            wanted.append(alerts.build_prometheus_rule(owner, self.spec, rollout.current, self.config, items))
        return wanted

    def _changed(self, stage: list[Json]) -> tuple[Json, ...]:
        pairs = ((desired, self._live(desired)) for desired in map(with_spec_hash, stage))
        return tuple(with_preconditions(desired, live) for desired, live in pairs if not is_in_sync(desired, live))

    def _live(self, desired: Json) -> Json | None:
        return self.observed.children.get((desired["kind"], desired["metadata"]["name"]))

    def _strays(self, desired: Json) -> tuple[str, str, tuple[Json, ...]] | None:
        patch = foreign_items_patch(desired, self._live(desired))
        return (desired["kind"], desired["metadata"]["name"], tuple(patch)) if patch else None

    def _surplus(self, rollout: Rollout, target: str | None) -> set[str]:
        """Revisions beyond the history, oldest first; never what runs, is wanted, or is the last that served before."""
        needed = {*rollout.replicas, rollout.current, target}
        served = [r for r in self.revisions.values() if r.promoted_at and r.name != rollout.current]
        needed |= {max(served, key=lambda r: r.promoted_at or 0.0).name} if served else set()
        old = sorted((r for r in self.revisions.values() if r.name not in needed), key=lambda r: r.number)
        # Where it is known what is wanted, nobody waits any more for anything else that is yet to be built: its Job
        # would keep a GPU from what is wanted.
        is_known = target and not self._problem
        unbuilt = {r.name for r in old if is_known and not r.promoted_at and self._is_unbuilt(r)}
        old = [r for r in old if r.name not in unbuilt]
        return unbuilt | {r.name for r in old[: max(0, len(self.revisions) - len(unbuilt) - KEPT_REVISIONS)]}

    def _is_unbuilt(self, revision: Revision) -> bool:
        volume = revision.volume
        building = volume is not None and volume.builder is not None
        return building and not delivery.can_start_pods(volume, revision.name, self.observed)

    def _deletions(self, rollout: Rollout, surplus: set[str]) -> tuple[tuple[str, str, str], ...]:
        gone = []
        for (kind, name), live in self.observed.children.items():
            is_revision_config = kind == "ConfigMap" and name in self.revisions
            idle = (kind == "Deployment" or is_revision_config) and name not in rollout.replicas
            if idle or (kind == "ControllerRevision" and name in surplus):
                gone.append((kind, name, live["metadata"]["uid"]))
        return tuple(gone)

    def _wired_by(self, rollout: Rollout) -> float | None:
        """Seconds until Prometheus should have read the rules of what serves, or scraped a pod that just got ready.

        None once it should have done both.
        """
        current = self.revisions.get(rollout.current or "")
        if current is None:
            return None
        fresh = (p for p in self.observed.pods if p.revision == current.name and is_just_ready(p, self.now))
        begun = (current.promoted_at or 0.0, *(pod.ready_since or 0.0 for pod in fresh))
        return min((left for since in begun if (left := since + ALERTS_GRACE_SECONDS - self.now) > 0), default=None)
