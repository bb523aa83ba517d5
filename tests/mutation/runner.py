"""Each mutant in a child process of its own, forked from a parent that has imported third-party packages only.

A child that computes too long, or that waits for ever, is killed. That counts as killed if the same test, with the same limits,
passes on the unchanged tree at once. Else the mutant has a second try, and is unclear after that.
"""

import contextlib
import gc
import importlib
import os
import select
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import pytest

from mutation.child import Files, Report, test_here
from mutation.coverage_map import CoverageMap
from mutation.mutants import Mutant
from mutation.processes import IdleCount

LOOK_SECONDS = 5.0
IDLE_LOOKS = 12
"""A child that sleeps at so many looks in a row waits for ever: no unit test waits for a minute."""
STUCK_SECONDS = 1800.0
"""For what wakes now and then, and comes to no end either."""
TRIES = 2


class Status(StrEnum):
    """How a mutant ended."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"
    UNCOVERED = "uncovered"
    UNCLEAR = "unclear"
    """A test was late that is late on the unchanged tree, too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one mutant ended, and at what cost."""

    mutant: Mutant
    status: Status
    killer: str = ""
    """The first test that failed, or that came to no end."""
    tests: int = 0
    """How many tests cover the mutant."""
    seconds: float = 0.0
    """Processor time of its process."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A mutant to test; with `late`, its outcome so far, the unchanged tree to test by the same test."""

    mutant: Mutant
    tests: Sequence[int]
    tried: int = 0
    late: Outcome | None = None


@dataclass(slots=True)
class _Child:
    task: _Task
    pid: int
    files: Files
    deadline: float
    idle: IdleCount = field(init=False)
    next_look: float = field(init=False)

    def __post_init__(self) -> None:
        self.idle = IdleCount(self.pid)
        self.next_look = time.monotonic() + LOOK_SECONDS

    def is_stuck(self, idle_looks: int) -> bool:
        """Look at the child if it is time to, and return whether it comes to no end."""
        now = time.monotonic()
        if now >= self.next_look:
            self.next_look = now + LOOK_SECONDS
            self.idle.look()
        return self.idle.count >= idle_looks or now > self.deadline


def run_mutants(
    root: Path, mutants: Sequence[Mutant], coverage: CoverageMap, jobs: int, idle_looks: int = IDLE_LOOKS
) -> Iterator[Outcome]:
    """Yield the outcome of each mutant as it ends, `jobs` of them at once."""
    _import_third_party(coverage.packages)
    waiting = [_Task(mutant, coverage.covering(mutant)) for mutant in reversed(mutants)]
    running: dict[int, _Child] = {}
    poll = select.poll()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    task = waiting.pop()
                    if not task.tests:
                        yield Outcome(task.mutant, Status.UNCOVERED)
                        continue
                    child = _start(root, task, coverage, Path(scratch))
                    handle = os.pidfd_open(child.pid)
                    running[handle] = child
                    poll.register(handle, select.POLLIN)
                for handle in _find_ended(poll, running, idle_looks):
                    poll.unregister(handle)
                    os.close(handle)
                    found = _judge(running.pop(handle), coverage)
                    if isinstance(found, Outcome):
                        yield found
                    else:
                        waiting.append(found)
        finally:
            for child in running.values():
                _kill(child)


def _import_third_party(modules: Sequence[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            # Only a head start: what fails here is imported by the tests, in their order.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    gc.freeze()


def _find_ended(poll: select.poll, running: dict[int, _Child], idle_looks: int) -> list[int]:
    ended = [handle for handle, _ in poll.poll(LOOK_SECONDS * 1000)] if running else []
    for child in running.values():
        if child.is_stuck(idle_looks):
            _kill(child)
    return ended


def _kill(child: _Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _start(root: Path, task: _Task, coverage: CoverageMap, scratch: Path) -> _Child:
    files = Files(*(Path(tempfile.mkstemp(dir=scratch)[1]) for _ in range(3)))
    changed = None if task.late else task.mutant
    pid = os.fork()
    if pid == 0:
        try:
            code = test_here(root, changed, coverage, task.tests, files)
        except BaseException:  # noqa: BLE001 - the child must not return into the parent's code; what the mutant raised
            code = 1
        os._exit(code)
    return _Child(task, pid, files, time.monotonic() + STUCK_SECONDS)


def _judge(child: _Child, coverage: CoverageMap) -> Outcome | _Task:
    """Return how the mutant ended, or what has to be tested before that is known."""
    outcome, is_late = _read_outcome(child)
    task = child.task
    if task.late is not None:
        if outcome.status == Status.SURVIVED:
            return task.late
        if task.tried < TRIES:
            return _Task(task.mutant, coverage.covering(task.mutant), task.tried)
        return replace(task.late, status=Status.UNCLEAR)
    if not is_late or outcome.killer not in coverage.tests:
        return outcome
    return _Task(task.mutant, [coverage.tests.index(outcome.killer)], task.tried + 1, outcome)


def _read_outcome(child: _Child) -> tuple[Outcome, bool]:
    """Return the outcome, and whether it came about by a limit of time."""
    _, status, usage = os.wait4(child.pid, 0)
    _kill(child)  # what its tests left behind
    code = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    mutant, files = child.task.mutant, child.files
    for folder in files.folders.read_text().splitlines():
        shutil.rmtree(folder, ignore_errors=True)
    if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"No test ran with {mutant.id}:\n{files.log.read_text()[-4000:]}")
    report = Report.read(files.report)
    if code == 0:
        return Outcome(mutant, Status.SURVIVED, "", len(child.task.tests), seconds), False
    is_killed = code in (-signal.SIGPROF, -signal.SIGKILL)
    ended = Status.TIMEOUT if is_killed else Status.KILLED
    return Outcome(mutant, ended, report.test, len(child.task.tests), seconds), is_killed or report.is_late
