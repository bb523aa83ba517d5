"""What gate and watch of one subject both store: parts of the state file, and complete sweeps."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_contract.verdict import SweepFigures
from r1plus_monitoring.logs import Clock, format_time, log
from r1plus_monitoring.probe.sweeps import compute_figures
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.report.publisher import ReportPublisher
from r1plus_monitoring.session.scorer_recheck import ScorerRecheck
from r1plus_monitoring.store.state import LastSweep, MonitorState, StateStore
from r1plus_policies.gate.verdict import VerdictSubject

_SAVE_EVERY: Final = 1.0
"""Seconds of scores that a killed prober may have to ask again."""


@dataclass(frozen=True, slots=True)
class MonitorContext:
    """What a session works with; the prober owns all of it."""

    publisher: ReportPublisher
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
    """Seconds until an Inconclusive gate is repeated; doubles up to twenty times that."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds by which the parts wait: for a pace, for the next save, for a repeated gate."""
    recheck: ScorerRecheck = field(default_factory=ScorerRecheck)
    """Confirms that the scorer is unchanged."""


class SessionStore:
    """The stored state of one subject."""

    def __init__(self, context: MonitorContext, subject: VerdictSubject) -> None:
        self._context = context
        self._subject = subject
        self._saved_at = float("-inf")

    @property
    def state(self) -> MonitorState:
        """The stored state."""
        return self._context.store.state

    def format_now(self) -> str:
        """Return the current time in RFC 3339."""
        return format_time(self._context.clock())

    def save(self, **changes: object) -> None:
        """Change parts of the state file, now."""
        self._context.store.save(dataclasses.replace(self.state, **changes))  # type: ignore[arg-type]

    def should_save(self) -> bool:
        """Return whether it is time to save what may wait; True at most once per interval."""
        now = self._context.monotonic()
        if now - self._saved_at < _SAVE_EVERY:
            return False
        self._saved_at = now
        return True

    def last_sweep(self) -> SweepFigures | None:
        """Return the last complete sweep of this subject."""
        last = self.state.last
        return last.figures if last and last.subject == self._subject else None

    def record_sweep(self, scores: dict[str, bool]) -> SweepFigures:
        """Write a complete sweep's figures to metrics, report and file, and return them."""
        figures = compute_figures(scores, self.format_now())
        self.save(last=LastSweep(self._subject, figures))
        self._context.exposition.set_accuracy(figures)
        self._context.publisher.update(sweep=figures)
        log("info", "Sweep ended", correct=figures.correct, total=figures.total, upper=round(figures.upper, 4))
        return figures
