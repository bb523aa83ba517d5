"""What a decision about an accuracy drop is derived from. Made by `assessment`, once a pass."""

from collections.abc import Mapping
from dataclasses import dataclass

from r1plus_contract.requests import Request
from r1plus_contract.suites.suite import Suite
from r1plus_contract.verdict import MonitorReport
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection
from r1plus_operator.plan.observation import Observation, PodFacts
from r1plus_operator.plan.requests import find_rollback_request, read_ack_time, read_ack_token
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.settings import OperatorConfig


@dataclass(frozen=True, slots=True)
class BreachContext:
    """One pass, as far as it concerns the revision that serves."""

    observed: Observation
    config: OperatorConfig
    now: float
    spec: R1PlusDeploymentSpec
    suites: SuiteSelection
    revisions: Mapping[str, Revision]
    current: Revision
    """The one that serves."""
    identity: str
    """Digest of the current revision's identity; hashed once."""
    spec_revision: str
    """Name of the one that the spec asks for."""
    is_rollout_under_way: bool

    @property
    def suite(self) -> Suite:
        """By which what serves is judged."""
        return self.suites.suite

    @property
    def suite_hash(self) -> str:
        """Its hash."""
        return self.suite.header.sha256

    @property
    def acknowledgement(self) -> str:
        """Token of the newest one."""
        return read_ack_token(self.observed.cr)

    @property
    def ack_seconds_left(self) -> float:
        """Seconds for which a count from before the newest acknowledgement waits for the sweeps that follow it.

        One dated further ahead than the deadline gives none: otherwise its date, which a client writes, would be the
        only bound.
        """
        age, deadline = self.now - read_ack_time(self.observed.cr), self.spec.rollout.deadline_seconds
        return deadline - age if abs(age) < deadline else 0.0

    @property
    def rollback_request(self) -> Request | None:
        """The rollback that a user asks for and that has not been made: from what serves, once."""
        return find_rollback_request(self.observed.cr, self.current.name, self.revisions)

    @property
    def pods_in_traffic(self) -> list[PodFacts]:
        """Living pods of the current revision, except those in quarantine."""
        return [pod for pod in self.pods(self.current.name) if pod.quarantine is None]

    def pods(self, revision: str) -> list[PodFacts]:
        """Return the living pods of a revision, in quarantine or not."""
        return [p for p in self.observed.pods if p.revision == revision and not p.terminating]

    def report(self, pod: PodFacts) -> MonitorReport | None:
        """Return the last report of the pod's monitor."""
        return self.observed.reports.get(pod.name)

    def reports(self, pods: list[PodFacts]) -> list[MonitorReport]:
        """Return the last reports of these pods' monitors."""
        return [report for pod in pods if (report := self.report(pod))]
