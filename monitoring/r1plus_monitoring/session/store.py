"""What gate and watch of one subject write down alike: the state file's parts, and complete sweeps."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_contract.verdict import SweepFigures
from r1plus_monitoring.logs import Clock, log, stamp
from r1plus_monitoring.probe.sweeps import figures_of
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.report.publisher import Bulletin
from r1plus_monitoring.session.scorer_recheck import Doubt
from r1plus_monitoring.store.state import LastSweep, State, StateStore
from r1plus_policies.gate.verdict import Subject

_SAVE_EVERY: Final = 1.0
"""Seconds of scores that a killed prober may have to ask again."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an episode works with; the prober owns all of it."""

    bulletin: Bulletin
    store: StateStore
    exposition: Exposition
    admission_dir: Path
    state_dir: Path
    pod: str
    clock: Clock
    seed: Callable[[], int]
    poll_interval: float
    config_digest: Callable[[], str]
    """Of all that is mounted at DIR_ACCURACY now."""
    retry_after: float = 30.0
    """Seconds until an Inconclusive gate starts anew; doubles up to twenty times that."""
    doubt: Doubt = field(default_factory=Doubt)
    """Whether the scorer is what it was."""


class Ledger:
    """One subject's entries."""

    def __init__(self, parts: Parts, subject: Subject) -> None:
        self._parts = parts
        self._subject = subject
        self._saved_at = float("-inf")

    @property
    def state(self) -> State:
        """As it is stored."""
        return self._parts.store.state

    def now(self) -> str:
        """RFC 3339."""
        return stamp(self._parts.clock())

    def save(self, **changes: object) -> None:
        """Change parts of the state file, now."""
        self._parts.store.save(dataclasses.replace(self.state, **changes))  # type: ignore[arg-type]

    def due(self) -> bool:
        """Whether it is time to save what need not be saved at once; says so once."""
        now = time.monotonic()
        if now - self._saved_at < _SAVE_EVERY:
            return False
        self._saved_at = now
        return True

    def last(self) -> SweepFigures | None:
        """The last complete sweep of this subject."""
        last = self.state.last
        return last.figures if last and last.subject == self._subject else None

    def swept(self, scores: dict[str, bool]) -> SweepFigures:
        """A complete sweep's figures, to metrics, report and file."""
        figures = figures_of(scores, self.now())
        self.save(last=LastSweep(self._subject, figures))
        self._parts.exposition.accuracy(figures)
        self._parts.bulletin.update(sweep=figures)
        log("info", "Sweep ended", correct=figures.correct, total=figures.total, upper=round(figures.upper, 4))
        return figures
