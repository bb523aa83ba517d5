"""What the prober must not forget: half a gate, half a sweep, verdicts, the watch, the sequence.

One file, written whole or not at all. Its folder outlives the prober and the container, not the pod; a new pod starts
with an empty one and loses nothing that counts, since verdicts also live on the revision.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.verdict import GateReport, SweepFigures
from r1plus_monitoring.logs import log
from r1plus_policies.gate.run import GateRecord
from r1plus_policies.gate.verdict import Subject
from r1plus_policies.watch.memory import WatchState

STATE_FILE: Final = "state.json"
HEARTBEAT_FILE: Final = "heartbeat"
RESTARTS_FILE: Final = "restarts"
MOST_REPORTS: Final = 16


@dataclass(frozen=True, slots=True)
class HalfGate:
    """A gate that is not decided yet, with what it was held to."""

    subject: Subject
    threshold: float
    batch: int
    record: GateRecord
    seconds: float
    order: str = ""
    """Control or acknowledgement that asked for it: half of another's gate is no part of this one."""
    ran_under: str = ""
    """Digest of the files that were mounted when it began."""


@dataclass(frozen=True, slots=True)
class OwnGate:
    """A verdict that this pod has reached itself."""

    report: GateReport
    ran_under: str
    """Digest of the files that were mounted when it began."""


@dataclass(frozen=True, slots=True)
class HalfSweep:
    """A continuous sweep that is not complete yet: item id -> 1 or 0."""

    subject: Subject
    seed: int
    scores: dict[str, str]


@dataclass(frozen=True, slots=True)
class LastSweep:
    """The figures of the last complete sweep and what they belong to."""

    subject: Subject
    figures: SweepFigures


@dataclass(frozen=True, slots=True)
class State:
    """The file's content."""

    sequence: int = 0
    """No report that left this pod has a higher one."""
    gates: tuple[OwnGate, ...] = ()
    gate: HalfGate | None = None
    sweep: HalfSweep | None = None
    last: LastSweep | None = None
    watch: WatchState | None = None
    shadow: HalfGate | None = None
    """Of the suite that is asked beside the one that counts."""

    @property
    def reports(self) -> tuple[GateReport, ...]:
        """The verdicts of this pod, the newest first."""
        return tuple(gate.report for gate in self.gates)

    def ran_under(self, report: GateReport | None) -> str:
        """Return the digest under which this pod ran that gate; empty if it did not run it."""
        return next((gate.ran_under for gate in self.gates if gate.report == report), "")


class StateStore:
    """Reads once at the start, then writes. One prober at a time owns it: the supervisor sees to that."""

    def __init__(self, folder: Path) -> None:
        """`folder` must exist and be writable."""
        self._path = folder / STATE_FILE
        self.state = self._load()

    def save(self, state: State) -> None:
        """Replace the file in one step; a reader sees the old one or the new one."""
        self.state = state
        part = self._path.with_name(f".{STATE_FILE}.part")
        part.write_text(dumps(state), encoding="utf-8")
        part.replace(self._path)

    def _load(self) -> State:
        try:
            return loads(State, self._path.read_bytes())
        except FileNotFoundError:
            return State()
        except ContractError as error:
            log("warning", "State file was unreadable, started without it", error=str(error))
            return State()


def beat(folder: Path) -> None:
    """Tell the supervisor that the event loop turns."""
    path = folder / HEARTBEAT_FILE
    path.touch()
    os.utime(path)


def restarts(folder: Path) -> int:
    """How often the supervisor has started the prober anew in this pod."""
    try:
        return int((folder / RESTARTS_FILE).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0
