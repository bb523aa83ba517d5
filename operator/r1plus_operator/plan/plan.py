"""observed -> Plan: the one place where a pass decides what to write. Pure; the executor carries it out in order."""

from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.jsonable import ContractError
from r1plus_contract.verdict import GateReport, Verdict
from r1plus_model_repo.catalog.types import spec_problems
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan import alerts, objects
from r1plus_operator.plan.drift import in_sync, stamped, strays
from r1plus_operator.plan.inputs import Json, Observed, OperatorConfig
from r1plus_operator.plan.notes import Note, transitions
from r1plus_operator.plan.report import WIRING_SECONDS, Situation, status_of
from r1plus_operator.plan.revision import KEPT_REVISIONS, Revision, build, read, revision_hash, to_object
from r1plus_operator.plan.target import Problem, Target, resolve
from r1plus_policies.rollout import RevisionState, Rollout, Stage, Terms, decide

REQUEUE_WHILE_WAITING = 15.0
"""A candidate that waits is looked at again, in case an event was lost."""

MAX_MESSAGE, MAX_LISTED, MAX_NAME = 1000, 64, 128
"""Characters and entries kept of a monitor's report."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write. `apply` is in stages: all of a stage stands before the next begins.

    An object that was seen alive bears its uid, so that applying it can never make another one.
    """

    clear: tuple[tuple[str, str, tuple[Json, ...]], ...] = ()
    """(kind, name, JSON patch): what others put into lists of ours, out of an apply's reach; goes first."""
    apply: tuple[tuple[Json, ...], ...] = ()
    delete: tuple[tuple[str, str, str], ...] = ()
    """(kind, name, uid)."""
    status: Json = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None

    @property
    def writes(self) -> int:
        """Writes beside the status."""
        return len(self.clear) + sum(len(stage) for stage in self.apply) + len(self.delete)

    @property
    def creates(self) -> bool:
        """Whether an object may come into being."""
        return any("uid" not in obj["metadata"] for stage in self.apply for obj in stage)


def plan(observed: Observed, config: OperatorConfig, now: float) -> Plan:
    """Plan one pass. A second pass over what the first one wrote yields an empty plan."""
    revisions = _revisions(observed)
    try:
        spec = R1PlusDeploymentSpec.model_validate(observed.cr.get("spec") or {})
    except ValidationError as error:
        problem = Problem(ConditionType.READY, Reason.INVALID_SPEC, "; ".join(spec_problems(error)))
        return Plan(status=status_of(Situation(observed, now, None, problem, None, revisions, None)))
    resolved = resolve(spec, observed.engines, dict(observed.suites), observed.nodes, config)
    return _Pass(observed, config, now, spec, resolved, revisions).plan()


def _revisions(observed: Observed) -> dict[str, Revision]:
    found = {}
    for (kind, name), live in observed.children.items():
        if kind == "ControllerRevision":
            try:
                found[name] = read(live)
            except ContractError:
                # Damaged by hand: rendered again if it is wanted, pruned if not.
                continue
    return found


@dataclass(slots=True)
class _Pass:
    """One pass: intermediate values that several steps need."""

    observed: Observed
    config: OperatorConfig
    now: float
    spec: R1PlusDeploymentSpec
    resolved: Target | Problem
    revisions: dict[str, Revision]

    def plan(self) -> Plan:
        owner = objects.Owner(self.observed.cr)
        target = self._target()
        self._part_strangers()
        self._take_verdicts()
        rollout = self._decide(target)
        if rollout.promote:
            chosen = self.revisions[rollout.promote]
            self.revisions[chosen.name] = replace(chosen, promoted_at=self._after_all_promotions())
        self._date_candidacy(target if target != rollout.current else None)
        surplus = self._surplus(rollout, target)
        stages = self._stages(owner, rollout, target, surplus)
        situation = Situation(self.observed, self.now, self.spec, self.resolved, rollout, self.revisions, target)
        status = status_of(situation)
        changed = [self._changed(stage) for stage in stages]
        return Plan(
            clear=tuple(found for stage in changed for obj in stage if (found := self._strays(obj))),
            apply=tuple(stage for stage in changed if stage),
            delete=self._deletions(rollout, surplus),
            status=status,
            notes=transitions(self.observed.cr.get("status") or {}, status),
            requeue_after=min(filter(None, (rollout.requeue_after, self._patience(rollout))), default=None),
        )

    def _target(self) -> str | None:
        """Name of the revision that the spec asks for, rendered if it is new; None where the spec yields none."""
        if isinstance(self.resolved, Problem):
            return None
        name = f"{self.observed.name}-{revision_hash(self.spec, self.resolved)}"
        if name not in self.revisions:
            number = max((r.number for r in self.revisions.values()), default=0) + 1
            self.revisions[name] = build(self.observed.cr, self.spec, self.resolved, self.config, number)
        return name

    def _part_strangers(self) -> None:
        """Whoever may create pods in the namespace could label one as ours and answer for its monitor."""
        pods = self.observed.pods
        own = frozenset().union(*(revision.own(pods) for revision in self.revisions.values()))
        strangers = tuple(pod for pod in pods if pod not in own)
        self.observed = replace(self.observed, pods=tuple(pod for pod in pods if pod in own), strangers=strangers)

    @property
    def suite_hash(self) -> str | None:
        """Of the suite in force; None while none is."""
        return self.resolved.suite.header.sha256 if isinstance(self.resolved, Target) else None

    def _take_verdicts(self) -> None:
        """Write down every decided gate that the monitors report: exactly for what was scored, once."""
        for pod in self.observed.pods:
            report = self.observed.reports.get(pod.name)
            revision = self.revisions.get(pod.revision)
            if report is None or revision is None or report.gate is None:
                continue
            gate = report.gate
            decided = gate.verdict in (Verdict.PASS, Verdict.FAIL)
            scored = (gate.identity, gate.suite_hash, gate.threshold)
            ours = scored == (revision.identity_digest, self.suite_hash, self.spec.accuracy.threshold)
            if decided and ours and self._is_news(revision, gate):
                self.revisions[revision.name] = replace(revision, verdicts=(*revision.verdicts, _clipped(gate)))

    def _is_news(self, revision: Revision, gate: GateReport) -> bool:
        """Nothing stood under this suite and threshold, or only a Pass of batch 1 and this one is of the real batch."""
        known = self._verdict(revision)
        return known is None or (known.verdict is Verdict.PASS and gate.batch == revision.batch != known.batch)

    def _date_candidacy(self, candidate: str | None) -> None:
        """Since when the candidate has been asked for; of every other revision nothing, so that it starts afresh."""
        for name, revision in self.revisions.items():
            since = (revision.candidate_since or self.now) if name == candidate else None
            if since != revision.candidate_since:
                self.revisions[name] = replace(revision, candidate_since=since)

    def _after_all_promotions(self) -> float:
        """Now, or just after the last promotion if the clock has been set back: the newest is what serves."""
        return max(self.now, *(r.promoted_at + 0.001 for r in self.revisions.values() if r.promoted_at), 0.0)

    def _verdict(self, revision: Revision) -> GateReport | None:
        """The gate's report under the suite and threshold in force."""
        return revision.verdict_for(self.suite_hash or "", self.spec.accuracy.threshold)

    def _decide(self, target: str | None) -> Rollout:
        return decide(
            target=target,
            revisions=tuple(self._state(revision) for revision in self.revisions.values()),
            terms=Terms(
                self.spec.replicas,
                self.spec.accuracy.gate,
                self.spec.rollout.strategy,
                self.spec.rollout.deadline_seconds,
            ),
            now=self.now,
        )

    def _state(self, revision: Revision) -> RevisionState:
        live = self.observed.children.get(("Deployment", revision.name))
        report = self._verdict(revision)
        only_beside_traffic = report and report.verdict is Verdict.PASS and not report.admits_at(revision.batch)
        pods = [pod for pod in self.observed.pods if pod.revision == revision.name]
        return RevisionState(
            name=revision.name,
            ready=sum(pod.ready and not pod.terminating for pod in pods),
            pods=len(pods),
            replicas=int((live.get("spec") or {}).get("replicas", 1)) if live else None,
            verdict=report.verdict if report and not only_beside_traffic else None,
            promoted_at=revision.promoted_at,
            candidate_since=revision.candidate_since,
        )

    def _stages(
        self, owner: objects.Owner, rollout: Rollout, target: str | None, surplus: set[str]
    ) -> list[list[Json]]:
        """Walls before pods, what a pod mounts before the pod, the switch after the pods."""
        running = [self.revisions[name] for name in rollout.replicas]
        kept = [r for r in self.revisions.values() if r.name not in surplus]
        first = [
            objects.network_policy(owner, self.spec, self.config),
            objects.service_account(owner),
            *(to_object(r, owner.metadata(r.name, {names.LABEL_REVISION: r.name})) for r in kept),
            *(objects.revision_config(owner, r) for r in running),
        ]
        if isinstance(self.resolved, Target):
            verdicts = tuple(v for r in kept for v in r.verdicts if v.suite_hash == self.suite_hash)
            first.append(objects.accuracy_config(owner, self.spec, self.resolved.source, verdicts))
        pods = [
            objects.deployment(owner, self.spec, self.revisions[name], count)
            for name, count in rollout.replicas.items()
        ]
        selected = rollout.current or target
        last = [objects.disruption_budget(owner)]
        if selected:
            last.append(objects.service(owner, selected))
        return [first, pods, [*last, *self._monitoring(owner, rollout)]]

    def _monitoring(self, owner: objects.Owner, rollout: Rollout) -> list[Json]:
        wanted = []
        if "PodMonitor" in self.observed.kinds:
            wanted.append(alerts.pod_monitor(owner, self.config))
        if "PrometheusRule" in self.observed.kinds and rollout.current:
            wanted.append(alerts.prometheus_rule(owner, self.spec, rollout.current, self.config))
        return wanted

    def _changed(self, stage: list[Json]) -> tuple[Json, ...]:
        pairs = ((desired, self._live(desired)) for desired in map(stamped, stage))
        return tuple(_same_object(desired, live) for desired, live in pairs if not in_sync(desired, live))

    def _live(self, desired: Json) -> Json | None:
        return self.observed.children.get((desired["kind"], desired["metadata"]["name"]))

    def _strays(self, desired: Json) -> tuple[str, str, tuple[Json, ...]] | None:
        patch = strays(desired, self._live(desired))
        return (desired["kind"], desired["metadata"]["name"], tuple(patch)) if patch else None

    def _surplus(self, rollout: Rollout, target: str | None) -> set[str]:
        """Revisions beyond the history, oldest first; never what runs, is wanted, or is the last that served before."""
        needed = {*rollout.replicas, rollout.current, target}
        served = [r for r in self.revisions.values() if r.promoted_at and r.name != rollout.current]
        needed |= {max(served, key=lambda r: r.promoted_at or 0.0).name} if served else set()
        old = sorted((r for r in self.revisions.values() if r.name not in needed), key=lambda r: r.number)
        return {r.name for r in old[: max(0, len(self.revisions) - KEPT_REVISIONS)]}

    def _deletions(self, rollout: Rollout, surplus: set[str]) -> tuple[tuple[str, str, str], ...]:
        gone = []
        for (kind, name), live in self.observed.children.items():
            is_revision_config = kind == "ConfigMap" and name in self.revisions
            idle = (kind == "Deployment" or is_revision_config) and name not in rollout.replicas
            if idle or (kind == "ControllerRevision" and name in surplus):
                gone.append((kind, name, live["metadata"]["uid"]))
        return tuple(gone)

    def _patience(self, rollout: Rollout) -> float | None:
        """When to look again although nothing has happened."""
        if rollout.stage in (Stage.GATING, Stage.SCALING):
            return REQUEUE_WHILE_WAITING
        current = self.revisions.get(rollout.current or "")
        left = (current.promoted_at or 0.0) + WIRING_SECONDS - self.now if current else 0.0
        return left if left > 0 else None


def _same_object(desired: Json, live: Json | None) -> Json:
    if live is None:
        return desired
    return {**desired, "metadata": {**desired["metadata"], "uid": live["metadata"]["uid"]}}


def _clipped(gate: GateReport) -> GateReport:
    """A report within what an annotation holds: a broken pod must not make every later write too large."""
    return replace(
        gate,
        message=gate.message[:MAX_MESSAGE],
        lost_items=tuple(item[:MAX_NAME] for item in gate.lost_items[:MAX_LISTED]),
        strata=tuple(replace(s, name=s.name[:MAX_NAME]) for s in gate.strata[:MAX_LISTED]),
    )
