"""What `serve` tells: a file that `serve status` reads, and lines for whoever started it."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from r1plus_contract.gateway import DataReason, DataState
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.remedies import word_data_state
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.objects import write_synced
from r1plus_edge.wording import build_wording
from r1plus_operator.api.conditions import Reason

_BAR: Final = 24
STEP_PERCENT: Final = 10
"""Without a terminal, progress is told in steps of this size."""


class ServePhase(StrEnum):
    """What `serve` is doing."""

    STARTING = "Starting"
    GATING = "Gating"
    SERVING = "Serving"
    UNAVAILABLE = "Unavailable"
    """What served does not answer now."""
    REFUSED = "Refused"
    """The gate failed, and nothing serves."""
    STOPPING = "Stopping"
    STOPPED = "Stopped"


@dataclass(frozen=True, slots=True)
class StartStep:
    """A step of the start, and how long it took."""

    name: str
    detail: str
    seconds: float
    processor_seconds: float = 0.0
    """Of all processes together: what it costs on a machine that other work keeps busy."""


@dataclass(frozen=True, slots=True)
class ServeStatus:
    """The state of `serve`. Times are seconds since the epoch."""

    phase: ServePhase
    message: str = ""
    deployment: str = ""
    tier: str = ""
    pid: int = 0
    started_at: float = 0.0
    changed_at: float = 0.0
    url: str = ""
    metrics_url: str = ""
    """Of the gateway's internal port."""
    monitor_url: str = ""
    engine: str = ""
    revision: str = ""
    verdict: str = ""
    accuracy: str = ""
    """Right / all items, as last counted."""
    suite: str = ""
    threshold: float = 0.0
    watch: str = ""
    search: str = ""
    """By what documents are searched; empty: there are none."""
    schemas: str = ""
    """How much of the engine's memory for compiled schemas is used; empty: it does not say."""
    restarts: int = 0
    """Of the serving pod's containers and the gateway."""
    percent: int = 0
    """Of the gate."""
    conditions: tuple[str, ...] = ()
    """What does not hold: type, reason and message."""
    failures: tuple[str, ...] = ()
    """Containers that end again and again, with the ends of their logs."""
    update: str = ""
    """How far an update is; empty: none is under way."""
    confinement: tuple[str, ...] = ()
    """What this machine refuses of the helpers' confinement, and what to do."""
    rollback: str = ""
    """What is done about a drop of the accuracy, or which revision could be gone back to."""
    steps: tuple[StartStep, ...] = ()


def read_status(path: Path) -> ServeStatus | None:
    """Return the last status; None: there is none."""
    try:
        return loads(ServeStatus, path.read_text(encoding="utf-8"), tolerant=True)
    except (OSError, ContractError):
        return None


class Narrator(Protocol):
    """Tells a person what happens."""

    def step(self, step: StartStep) -> None:
        """A step is done."""

    def progress(self, name: str, percent: int, detail: str) -> None:
        """A step goes on."""

    def note(self, text: str) -> None:
        """Something else has happened."""

    def serving(self, status: ServeStatus) -> None:
        """It serves for the first time since its start."""


class LineNarrator:
    """Writes lines to standard output; on a terminal, progress is one line that changes."""

    def __init__(
        self,
        announce: Callable[[ServeStatus], str] = lambda status: "",
        on_announced: Callable[[], None] = lambda: None,
    ) -> None:
        """`announce`: what is written when it serves."""
        self._announce = announce
        self._on_announced = on_announced
        self._percent = -1
        self._has_open_line = False

    def step(self, step: StartStep) -> None:
        """See `Narrator`."""
        self._write(f"{step.seconds:7.1f} s  {step.name:<9} {step.detail}")

    def progress(self, name: str, percent: int, detail: str) -> None:
        """See `Narrator`."""
        is_terminal = sys.stdout.isatty()
        if not is_terminal and percent // STEP_PERCENT == self._percent // STEP_PERCENT:
            return
        self._percent = percent
        full = _BAR * percent // 100
        text = f"           {name:<9} [{'#' * full}{'.' * (_BAR - full)}] {percent:3} %  {detail}"
        if is_terminal:
            sys.stdout.write(f"\r\x1b[2K{text}")
            sys.stdout.flush()
            self._has_open_line = True
        else:
            self._write(text)

    def note(self, text: str) -> None:
        """See `Narrator`."""
        self._write(text)

    def serving(self, status: ServeStatus) -> None:
        """See `Narrator`."""
        self._write(self._announce(status))
        self._on_announced()

    def _write(self, text: str) -> None:
        if self._has_open_line:
            sys.stdout.write("\r\x1b[2K")
            self._has_open_line = False
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


@dataclass(slots=True)
class StepInProgress:
    """A step that goes on."""

    detail: str = ""


@dataclass(slots=True)
class Reporter:
    """Keeps the status file, and tells the narrator."""

    path: Path
    narrator: Narrator
    status: ServeStatus = field(default_factory=lambda: ServeStatus(ServePhase.STARTING))
    clock: Callable[[], float] = time.time
    measure_processor: Callable[[], float] = lambda: 0.0
    """Returns the processor seconds of all that serves."""
    _measured: float = 0.0

    def update(self, **changes: object) -> None:
        """Change fields of the status; nothing is written when nothing differs."""
        status = dataclasses.replace(self.status, **changes)  # type: ignore[arg-type]
        if status != self.status:
            self.status = dataclasses.replace(status, changed_at=self.clock())
            with suppress(OSError):  # A full disk must not end what serves.
                write_synced(self.path, dumps(self.status))

    @contextmanager
    def time_step(self, name: str) -> Iterator["StepInProgress"]:
        """Record a step when the block ends; the block sets its detail."""
        step, began = StepInProgress(), time.monotonic()
        yield step
        self.end_step(name, step.detail, time.monotonic() - began)

    def end_step(self, name: str, detail: str, seconds: float) -> None:
        """Record a step of the start."""
        measured = self.measure_processor()
        step = StartStep(name, detail, round(seconds, 1), round(measured - self._measured, 1))
        self._measured = measured
        self.update(steps=(*self.status.steps, step))
        self.narrator.step(step)


def list_conditions(conditions: Sequence[dict[str, str]]) -> tuple[str, ...]:
    """Return the conditions that do not hold, for people. Alerts and isolation are a cluster's."""
    return tuple(
        f"{one['type']}: {one['reason']}: {one['message']}"
        for one in conditions
        if (one["status"] == "False" or one["reason"] == Reason.SERVER_ERRORS.value)
        and one["type"] in ("Ready", "EngineReady", "CapacityFits", "QualityVerified")
    )


def describe_data(state: DataState | None, folder: DataFolder) -> tuple[str, ...]:
    """Return what is wrong with the gateway's data, for people; nothing if they can be used, or are being opened."""
    if state is None or state.reason in (DataReason.READY, DataReason.STARTING):
        return ()
    return (f"DataReady: {state.reason.value}: {word_data_state(state, build_wording(folder))}",)
