"""Each mutant in a child process of its own, forked from a parent that has imported third-party packages only.

The child imports the changed source in place of the mutated module; no file of the tree changes. Tests that start another
Python process see the unchanged module there.
"""

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import select
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from mutation.coverage_map import PYTEST_OPTIONS, CoverageMap, set_hypothesis_profile
from mutation.mutants import Mutant

LIMIT_FACTOR = 10
"""A test may use this many times the processor time that it needs on the unchanged tree."""
LEAST_LIMIT_SECONDS = 2.0
COLLECTION_LIMIT_SECONDS = 60.0
STUCK_SECONDS = 1800.0
"""A child that waits this long, and computes nothing, waits for ever."""
SLOW_SECONDS = 0.25


class Status(StrEnum):
    """How a mutant ended."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"
    UNCOVERED = "uncovered"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one mutant ended, and at what cost."""

    mutant: Mutant
    status: Status
    killer: str = ""
    """The first test that failed."""
    tests: int = 0
    """How many tests cover the mutant."""
    seconds: float = 0.0
    """Processor time of its process."""


@dataclass(slots=True)
class _Child:
    mutant: Mutant
    pid: int
    report: Path
    log: Path
    tests: int
    deadline: float


def run_mutants(root: Path, mutants: Sequence[Mutant], coverage: CoverageMap, jobs: int) -> Iterator[Outcome]:
    """Yield the outcome of each mutant as it ends, `jobs` of them at once."""
    _import_third_party(coverage.packages)
    waiting = list(reversed(mutants))
    running: dict[int, _Child] = {}
    poll = select.poll()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    mutant = waiting.pop()
                    if not (tests := coverage.covering(mutant)):
                        yield Outcome(mutant, Status.UNCOVERED)
                        continue
                    child = _start(root, mutant, coverage, tests, Path(scratch))
                    handle = os.pidfd_open(child.pid)
                    running[handle] = child
                    poll.register(handle, select.POLLIN)
                for handle in _find_ended(poll, running):
                    poll.unregister(handle)
                    os.close(handle)
                    yield _read_outcome(running.pop(handle))
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


def _find_ended(poll: select.poll, running: dict[int, _Child]) -> list[int]:
    soonest = min((child.deadline for child in running.values()), default=0.0)
    ended = [handle for handle, _ in poll.poll(max(0.0, soonest - time.monotonic()) * 1000)] if running else []
    for child in running.values():
        if time.monotonic() > child.deadline:
            _kill(child)
    return ended


def _kill(child: _Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _start(root: Path, mutant: Mutant, coverage: CoverageMap, tests: Sequence[int], scratch: Path) -> _Child:
    report, log = (Path(tempfile.mkstemp(dir=scratch)[1]) for _ in range(2))
    pid = os.fork()
    if pid == 0:
        try:
            code = _test_here(root, mutant, coverage, tests, report, log)
        except BaseException:  # noqa: BLE001 - the child must not return into the parent's code; what the mutant raised
            code = 1
        os._exit(code)
    return _Child(mutant, pid, report, log, len(tests), time.monotonic() + STUCK_SECONDS)


def _read_outcome(child: _Child) -> Outcome:
    _, status, usage = os.wait4(child.pid, 0)
    _kill(child)  # what its tests left behind
    code = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"No test ran with {child.mutant.id}:\n{child.log.read_text()[-4000:]}")
    if code == 0:
        ended = Status.SURVIVED
    elif code in (-signal.SIGPROF, -signal.SIGKILL):
        ended = Status.TIMEOUT
    else:
        ended = Status.KILLED
    return Outcome(child.mutant, ended, child.report.read_text(), child.tests, seconds)


def _test_here(root: Path, mutant: Mutant, coverage: CoverageMap, tests: Sequence[int], report: Path, log: Path) -> int:
    os.setsid()
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(root)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    finder = _MutantFinder(mutant, root)
    sys.meta_path.insert(0, finder)
    code = 0
    for part in _in_parts(coverage, tests):
        files = list(dict.fromkeys(coverage.tests[number].split("::")[0] for number in part))
        code = int(pytest.main([*PYTEST_OPTIONS, *files], plugins=[_Selection(coverage, part, report)]))
        if code:
            break
    # Tests that pass without the mutant say nothing of it.
    return int(pytest.ExitCode.NO_TESTS_COLLECTED) if code == 0 and not finder.is_found else code


def _in_parts(coverage: CoverageMap, tests: Sequence[int]) -> Iterator[list[int]]:
    """Yield the quick tests of the module with the most specific test first, since most mutants die there; then the rest."""
    quick = [number for number in tests if coverage.seconds[number] < SLOW_SECONDS] or tests
    specific = min(quick, key=lambda number: (coverage.breadth[number], number))
    file = coverage.tests[specific].split("::")[0]
    first = [number for number in quick if coverage.tests[number].startswith(f"{file}::")]
    yield first
    if rest := sorted(set(tests).difference(first)):
        yield rest


class _Selection:
    """A pytest plugin: runs the chosen tests, slow ones last, limits each, and records the first that fails."""

    def __init__(self, coverage: CoverageMap, tests: Sequence[int], report: Path) -> None:
        self._seconds = {coverage.tests[number]: coverage.seconds[number] for number in tests}
        self._known = set(coverage.tests)
        self._report = report
        _limit(COLLECTION_LIMIT_SECONDS)

    def pytest_configure(self) -> None:
        set_hypothesis_profile()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # A mutant may rename a case; what is unknown runs as well.
        chosen = [item for item in items if item.nodeid in self._seconds or item.nodeid not in self._known]
        # Quick ones stay with their module and its fixtures; of the slow ones, the slowest is last.
        items[:] = sorted(chosen, key=lambda item: max(SLOW_SECONDS, self._seconds.get(item.nodeid, 0.0)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        _limit(max(LEAST_LIMIT_SECONDS, LIMIT_FACTOR * self._seconds.get(item.nodeid, 0.0)))
        outcome = yield
        _limit(COLLECTION_LIMIT_SECONDS)
        return outcome

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._report.write_text(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._report.write_text(report.nodeid)


def _limit(seconds: float) -> None:
    """End this process by SIGPROF once it has computed for so long; a busy machine does not count."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


class _MutantFinder(importlib.abc.MetaPathFinder):
    """Finds the mutated module, and nothing else."""

    def __init__(self, mutant: Mutant, root: Path) -> None:
        self._mutant = mutant
        self._path = root / mutant.file
        self.is_found = False
        """Whether somebody has imported it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        self.is_found = True
        loader = _MutantLoader(fullname, str(self._path), self._mutant.source)
        folders = [str(self._path.parent)] if self._path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=loader, submodule_search_locations=folders
        )


class _MutantLoader(importlib.machinery.SourceFileLoader):
    """Compiles the changed source; reads and writes no bytecode file."""

    def __init__(self, name: str, path: str, changed: str) -> None:
        super().__init__(name, path)
        self._changed = changed

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._changed, self.path, "exec", dont_inherit=True)
