"""All that the status is derived from. Made by the plan, read by `report`."""

from collections.abc import Mapping
from dataclasses import dataclass

from r1plus_contract.verdict import GateReport, MonitorReport, Verdict
from r1plus_operator.api.conditions import Finding
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection, hash_of
from r1plus_operator.plan.engine.delivery import found, started
from r1plus_operator.plan.engine.selection import Problem, Target
from r1plus_operator.plan.observation import Json, Observed, PodFacts, SuiteSource
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.rollback.outcome import BreachOutcome
from r1plus_policies.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Situation:
    """One pass."""

    observed: Observed
    now: float
    spec: R1PlusDeploymentSpec | None
    resolved: Target | Problem
    rollout: Rollout | None
    revisions: Mapping[str, Revision]
    target: str | None
    """Of which revision the conditions speak: what the spec asks for, or what a pin holds."""
    wanted: str | None = None
    """Of which revision the rollout is: the target, or the last good one on a way back."""
    asked_for: str | None = None
    """What the spec asks for, pin or no pin."""
    answered: BreachOutcome | None = None
    """What is done about a fall; None where nothing serves."""
    judging: SuiteSelection | None = None
    """What the spec's suite counts for; None while none is in force."""
    configs: tuple[str, ...] = ()
    """Digests of what monitors were given (`proof`); empty: as the status has them."""
    runtime: Json | None = None
    """`status.runtime`; None while there is no revision."""

    @property
    def current(self) -> Revision | None:
        """The revision that takes traffic."""
        name = self.rollout.current if self.rollout else None
        return self.revisions.get(name) if name else None

    @property
    def problem(self) -> Problem | None:
        """Why the spec yields no revision."""
        return self.resolved if isinstance(self.resolved, Problem) else None

    @property
    def is_paused(self) -> bool:
        """Whether the operator moves and repairs nothing."""
        return self.spec is not None and self.spec.rollout.paused

    @property
    def shadowed(self) -> bool:
        """Whether the conditions speak of what serves, and that is still judged by the former suite."""
        serves = self.current is not None and self.target == self.current.name
        return serves and self.judging is not None and self.judging.is_shadowed

    @property
    def delivering(self) -> Finding | None:
        """Why the revision that the conditions speak of has no pods: its engine is not on its volume yet."""
        revision = self.revisions.get(self.target or "")
        if revision is None or revision.volume is None or started(revision.volume, revision.name, self.observed):
            return None
        return found(revision.volume, self.observed)

    def counts_for(self, revision: Revision) -> SuiteSource | None:
        """The suite by which a revision is judged: the former one for what serves, while that is shadowed."""
        return self.judging.of(revision) if self.judging else None

    def verdict(self, revision: Revision) -> GateReport | None:
        """The gate's report on a revision under the suite and threshold in force."""
        suite = self.counts_for(revision)
        return revision.verdict_for(hash_of(suite), self.spec.accuracy.threshold) if suite and self.spec else None

    def pods(self, revision: str | None) -> list[PodFacts]:
        """Living pods of a revision, but for those in quarantine."""
        return [p for p in self.observed.pods if p.revision == revision and not p.terminating and p.quarantine is None]

    def unproven(self, revision: str | None) -> list[str]:
        """Pods of a revision that report a Pass which nothing proves."""
        return [pod.name for pod in self.pods(revision) if pod.name in self.observed.unproven]

    def reports(self, revision: str | None) -> list[MonitorReport]:
        """What the monitors of a revision said last, worst verdict first."""
        found = [self.observed.reports[p.name] for p in self.pods(revision) if p.name in self.observed.reports]
        order = [Verdict.FAIL, Verdict.ERROR, Verdict.NO_DATA, Verdict.INCONCLUSIVE, Verdict.PASS]
        return sorted(found, key=lambda report: order.index(report.verdict))
