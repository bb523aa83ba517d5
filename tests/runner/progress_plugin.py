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


def list_own_options(arguments: Sequence[str]) -> list[str]:
    """Return the options that decide what a test sees, such as `--engine vllm`: not paths, nor how tests are spread."""
    own: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, None)
        elif word.startswith("-") and word not in _PLAIN and word.partition("=")[0] not in _WITH_VALUE:
            own.append(word)
    return own


_WITH_VALUE = ("-m", "-k", "-n", "-p", "--numprocesses", "--dist")
_PLAIN = ("-q", "-s", "-v", "-x", "--no-header", "--no-loadscope-reorder")


class _Writer:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._has_total = False

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._write({"options": list_own_options(session.config.invocation_params.args)})

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._write({"exit_status": int(exitstatus)})

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write_total(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: Sequence[str]) -> None:
        self._write_total(len(ids))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        event: dict[str, Any] = {"test": report.nodeid, "when": report.when, "outcome": report.outcome}
        # A worker that crashed has a report without keywords: a crash is no chance.
        if FIRST_RUN_COUNTS in report.keywords or report.when not in ("setup", "call", "teardown"):
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
