"""A pytest plugin that writes one JSON line per test phase, so that the runner can show progress without parsing output."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

FIRST_RUN_COUNTS = "first_run_counts"
"""The marker of tests of security and faults: there a race is a finding, and no second run takes it back."""
VARIABLE = "R1PLUS_TEST_EVENTS"
"""Names the file. It is taken out of the environment: xdist's workers and a nested pytest must not write to it."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the writer in the process that the runner started, and in no other.

    SIGTERM, which that process gets when the runner is killed, takes fixtures down as SIGINT does.
    """
    path = os.environ.pop(VARIABLE, None)
    if path is not None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        config.pluginmanager.register(_Writer(Path(path)))


class _Writer:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._has_total = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write_total(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: Sequence[str]) -> None:
        self._write_total(len(ids))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        event: dict[str, Any] = {"test": report.nodeid, "when": report.when, "outcome": report.outcome}
        if FIRST_RUN_COUNTS in report.keywords:
            event["first_run_counts"] = True
        self._write({**event, "seconds": report.duration})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write({"test": report.nodeid, "when": "collect", "outcome": "failed", "seconds": 0.0})

    def _write_total(self, total: int) -> None:
        if total and not self._has_total:
            self._has_total = True
            self._write({"total": total})

    def _write(self, event: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(event) + "\n")
