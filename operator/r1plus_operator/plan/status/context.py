"""The context that `status` is built from. The plan makes it, `conditions` reads it."""

from collections.abc import Mapping
from dataclasses import dataclass

from r1plus_contract.verdict import GateReport, MonitorReport, Verdict
from r1plus_operator.api.conditions import Finding
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection, hash_of
from r1plus_operator.plan.engine.delivery import can_start_pods, derive_delivery_finding, with_current_source
from r1plus_operator.plan.engine.selection import Problem, Target
from r1plus_operator.plan.observation import Json, Observation, PodFacts, SuiteSource
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.rollback.outcome import BreachOutcome
from r1plus_policies.rollout import Rollout


@dataclass(frozen=True, slots=True)
class StatusContext:
    """Results of one pass."""

    observation: Observation
    now: float
    spec: R1PlusDeploymentSpec | None
    resolved: Target | Problem
    rollout: Rollout | None
    revisions: Mapping[str, Revision]
    subject: str | None
    """Name of the revision that the conditions describe: the one that the spec asks for, or that a pin keeps."""
    rollout_target: str | None = None
    """Name of the revision that is rolled out: that one, or the rollback target."""
    spec_revision: str | None = None
    """Name of the revision that the spec asks for, whether or not traffic is pinned."""
    outcome: BreachOutcome | None = None
    """What is done about an accuracy drop; None: nothing serves."""
    suites: SuiteSelection | None = None
    """The suites in force; None: there is none."""
    config_digests: tuple[str, ...] = ()
    """Digests of the monitors' ConfigMaps (`proof`); empty: those in the previous status."""
    runtime_status: Json | None = None
    """`status.runtime`; None: there is no revision."""

    @property
    def current(self) -> Revision | None:
        """The revision that takes traffic."""
        name = self.rollout.current if self.rollout else None
        return self.revisions.get(name) if name else None

    @property
    def problem(self) -> Problem | None:
        """Why the spec yields no revision; None: it yields one."""
        return self.resolved if isinstance(self.resolved, Problem) else None

    @property
    def is_paused(self) -> bool:
        """Whether the operator moves and repairs nothing."""
        return self.spec is not None and self.spec.rollout.paused

    @property
    def is_shadowed(self) -> bool:
        """Whether the conditions describe what serves, and the former suite still judges it."""
        serves = self.current is not None and self.subject == self.current.name
        return serves and self.suites is not None and self.suites.is_shadowed

    @property
    def delivery_finding(self) -> Finding | None:
        """EngineReady while the engine is not on its volume yet, so there are no pods; None: nothing waits for it."""
        revision = self.revisions.get(self.subject or "")
        if (
            revision is None
            or revision.volume is None
            or can_start_pods(revision.volume, revision.name, self.observation)
        ):
            return None
        name = revision.volume.order.engine
        engine = next((one for one in self.observation.engines if one.name == name), None)
        return derive_delivery_finding(with_current_source(revision.volume, engine), self.observation)

    def select_suite(self, revision: Revision) -> SuiteSource | None:
        """Return the suite that judges a revision: for what serves the former one, while the new one is shadowed."""
        return self.suites.of(revision) if self.suites else None

    def find_gate_report(self, revision: Revision) -> GateReport | None:
        """Return the gate's report on a revision under the suite and threshold in force; None: there is none."""
        suite = self.select_suite(revision)
        return revision.verdict_for(hash_of(suite), self.spec.accuracy.threshold) if suite and self.spec else None

    def list_pods(self, revision: str | None) -> list[PodFacts]:
        """Return the pods of a revision that are not terminating and not in quarantine."""
        return [
            p for p in self.observation.pods if p.revision == revision and not p.terminating and p.quarantine is None
        ]

    def list_unproven_pods(self, revision: str | None) -> list[str]:
        """Return the names of a revision's pods that report a Pass without proof."""
        return [pod.name for pod in self.list_pods(revision) if pod.name in self.observation.unproven]

    def list_reports(self, revision: str | None) -> list[MonitorReport]:
        """Return the last reports of a revision's monitors, worst verdict first."""
        reports = [
            self.observation.reports[p.name] for p in self.list_pods(revision) if p.name in self.observation.reports
        ]
        order = [Verdict.FAIL, Verdict.ERROR, Verdict.NO_DATA, Verdict.INCONCLUSIVE, Verdict.PASS]
        return sorted(reports, key=lambda report: order.index(report.verdict))
