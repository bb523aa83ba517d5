"""The monitor's current report, with a sequence that only grows.

Written by the evaluation session, read by `/verdict` and, for the outcomes behind it, by `/outcomes`.
"""

import dataclasses
from typing import Final

from r1plus_contract.monitor.outcomes import OutcomePage
from r1plus_contract.verdict import MonitorReport, Phase, Verdict
from r1plus_monitoring.logs import Clock
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.store.journal import Journal
from r1plus_monitoring.store.state import StateStore

_SEQUENCE_BLOCK: Final = 1000
"""Sequence numbers that one write of the file reserves, so that not every change of the report is a write."""


class ReportPublisher:
    """Holds one `MonitorReport`; every change of it gets a new sequence number."""

    def __init__(
        self, *, revision: str, identity: str, restarts: int, store: StateStore, exposition: Exposition, clock: Clock
    ) -> None:
        """Start above every number that this pod ever used; Unix time replaces a lost file."""
        self._store = store
        self._exposition = exposition
        self.journal: Journal | None = None
        """Of the subject that is watched; None while none is."""
        self._limit = max(store.state.sequence, int(clock().timestamp()))
        self.report = MonitorReport(
            revision=revision,
            identity=identity,
            phase=Phase.WAITING_FOR_MODEL,
            verdict=Verdict.NO_DATA,
            reason="Starting",
            message="the monitor has started",
            sequence=self._limit,
            prober_restarts=restarts,
        )

    def build_outcome_page(self, since: int) -> OutcomePage:
        """Build the page that `/outcomes` returns; an empty one of no epoch while nothing is watched."""
        if self.journal is None:
            return OutcomePage("", self.report.revision, self.report.identity, "", "", watched=0, oldest=1, newest=0)
        watch_count = self.report.watch.watched if self.report.watch else 0
        return self.journal.build_page(since, self.report.revision, watch_count)

    def update(self, **changes: object) -> None:
        """Change fields of the report; nothing happens when nothing differs."""
        report = dataclasses.replace(self.report, **changes)  # type: ignore[arg-type]
        report = dataclasses.replace(report, ran_under=self._store.state.find_config_digest(report.gate))
        if report == self.report:
            return
        sequence = self.report.sequence + 1
        if sequence > self._limit:
            self._limit = sequence + _SEQUENCE_BLOCK
            self._store.save(dataclasses.replace(self._store.state, sequence=self._limit))
        before, self.report = self.report, dataclasses.replace(report, sequence=sequence)
        if report.verdict is not before.verdict:
            self._exposition.set_verdict(report.verdict)
        if report.watch is not before.watch:
            self._exposition.set_watch(report.watch)
