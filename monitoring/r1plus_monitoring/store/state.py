"""What the prober must not forget: a partial gate, a partial sweep, verdicts, the watch, the sequence.

One file, replaced atomically. Its folder outlives the prober and the container, not the pod. A new pod starts with an
empty one and loses no verdict, since verdicts are also stored on the revision.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.verdict import GateReport, SweepFigures
from r1plus_monitoring.logs import log
from r1plus_policies.gate.run import GateRecord
from r1plus_policies.gate.verdict import VerdictSubject
from r1plus_policies.watch.memory import WatchState

STATE_FILE: Final = "state.json"
HEARTBEAT_FILE: Final = "heartbeat"
RESTARTS_FILE: Final = "restarts"
MOST_REPORTS: Final = 16


@dataclass(frozen=True, slots=True)
class PartialGate:
    """A gate that is not decided yet, with its conditions."""

    subject: VerdictSubject
    threshold: float
    batch: int
    record: GateRecord
    seconds: float
    order: str = ""
    """Control or acknowledgement that requested it: only the same order continues it."""
    ran_under: str = ""
    """Digest of the files that were mounted when it began."""


@dataclass(frozen=True, slots=True)
class OwnGate:
    """A verdict that this pod has reached itself."""

    report: GateReport
    ran_under: str
    """Digest of the files that were mounted when it began."""


@dataclass(frozen=True, slots=True)
class PartialSweep:
    """A continuous sweep that is not complete yet: item id -> 1 or 0."""

    subject: VerdictSubject
    seed: int
    scores: dict[str, str]


@dataclass(frozen=True, slots=True)
class LastSweep:
    """The figures of the last complete sweep and what they belong to."""

    subject: VerdictSubject
    figures: SweepFigures


@dataclass(frozen=True, slots=True)
class MonitorState:
    """The file's content."""

    sequence: int = 0
    """No report that left this pod has a higher one."""
    gates: tuple[OwnGate, ...] = ()
    gate: PartialGate | None = None
    sweep: PartialSweep | None = None
    last: LastSweep | None = None
    watch: WatchState | None = None
    shadow: PartialGate | None = None
    """Of the shadow suite."""

    @property
    def reports(self) -> tuple[GateReport, ...]:
        """The verdicts of this pod, the newest first."""
        return tuple(gate.report for gate in self.gates)

    def find_config_digest(self, report: GateReport | None) -> str:
        """Return the digest under which this pod ran that gate; empty if it did not run it."""
        return next((gate.ran_under for gate in self.gates if gate.report == report), "")


class StateStore:
    """Reads once at the start, then writes. The supervisor makes sure that one prober at a time owns it."""

    def __init__(self, folder: Path) -> None:
        """`folder` must exist and be writable."""
        self._path = folder / STATE_FILE
        self.state = self._load()

    def save(self, state: MonitorState) -> None:
        """Replace the file in one step; a reader sees the old one or the new one."""
        self.state = state
        replace_text(self._path, dumps(state))

    def _load(self) -> MonitorState:
        try:
            return loads(MonitorState, self._path.read_bytes())
        except FileNotFoundError:
            return MonitorState()
        except ValueError as error:
            # ContractError among them; the others are values that this version's detectors refuse.
            log("warning", "State file was unreadable, started without it", error=str(error))
            return MonitorState()


def touch_heartbeat(folder: Path) -> None:
    """Show the supervisor that the event loop runs."""
    path = folder / HEARTBEAT_FILE
    path.touch()
    os.utime(path)


def read_restarts(folder: Path) -> int:
    """Return how often the supervisor has restarted the prober in this pod."""
    try:
        return int((folder / RESTARTS_FILE).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0
