"""What has really happened, as nobody in the world knows it: which gates were decided, what was counted, who served."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from r1plus_contract import names
from r1plus_contract.jsonable import ContractError
from r1plus_contract.verdict import GateReport, Verdict
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.storage import read_revision
from support.simulation.world.monitors import MonitorFleet, PodMonitor

Json = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class DecidedGate:
    """A gate that a pod's monitor has run to its end."""

    at: float
    pod: str
    report: GateReport


@dataclass
class Oracle:
    """Everything is by namespace and name."""

    fleet: MonitorFleet
    gates: dict[Key, list[DecidedGate]] = field(default_factory=dict)
    """Revision -> the gates that its pods have decided, the newest last. By name: two deployments of a namespace may
    have revisions of the same identity, which here lose different items."""
    revisions: dict[Key, Revision] = field(default_factory=dict)
    """Every revision that there ever was, as it was last written."""
    owners: dict[Key, str] = field(default_factory=dict)
    """Revision -> its R1PlusDeployment."""
    selected: dict[Key, str] = field(default_factory=dict)
    """R1PlusDeployment -> the revision that its Service selects."""
    dropped_at: dict[str, float] = field(default_factory=dict)
    """uid of a pod -> when its monitor had counted a drop, while that stands."""
    rolled_back_at: dict[Key, float] = field(default_factory=dict)
    """Revision -> when traffic was taken from it because all that serves had dropped."""
    _seen: set[tuple[str, GateReport]] = field(default_factory=set)

    def look(self, now: float) -> None:
        """Read all monitors."""
        for monitor in self.fleet.by_address.values():
            for gate in reversed(list_own_gates(monitor)):
                if (monitor.uid, gate) not in self._seen:
                    self._seen.add((monitor.uid, gate))
                    key = (monitor.namespace, monitor.revision)
                    self.gates.setdefault(key, []).append(DecidedGate(now, monitor.pod, gate))
            if monitor.has_dropped:
                self.dropped_at.setdefault(monitor.uid, now)
            else:
                self.dropped_at.pop(monitor.uid, None)

    def record_revision(self, obj: Json) -> None:
        """Remember a ControllerRevision."""
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        try:
            self.revisions[key] = read_revision(obj)
        except ContractError:
            return
        self.owners[key] = (obj["metadata"].get("labels") or {}).get(names.LABEL_DEPLOYMENT, "")

    def gates_of(self, namespace: str, revision: str) -> list[DecidedGate]:
        """Return the gates of a revision, the newest last."""
        return self.gates.get((namespace, revision), [])

    def find_decision(self, namespace: str, deployment: str, report: GateReport) -> float:
        """Return when a gate was really decided, by a pod of any revision of a deployment; infinite: it never was."""
        moments = (
            gate.at
            for key, gates in self.gates.items()
            if key[0] == namespace and self.owners.get(key) == deployment
            for gate in gates
            if gate.report == report
        )
        return min(moments, default=math.inf)

    def last_pass(self, namespace: str, revision: str) -> DecidedGate | None:
        """Return the newest Pass of a revision."""
        passes = [gate for gate in self.gates_of(namespace, revision) if gate.report.verdict is Verdict.PASS]
        return passes[-1] if passes else None

    def monitors_of(self, namespace: str, revision: str) -> Iterator[PodMonitor]:
        """Yield the monitors of a revision's pods."""
        yield from self.fleet.of_revision(namespace, revision)


def list_own_gates(monitor: PodMonitor) -> tuple[GateReport, ...]:
    """Return the gates that this pod has run itself, the newest first."""
    return monitor.store.state.reports
