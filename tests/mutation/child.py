"""What a forked child does: it imports the changed source, runs the tests that cover it, and reports the first failure.

No file of the tree changes. Tests that start another Python process see the unchanged module there.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Self

import pytest

from mutation.coverage_map import PYTEST_OPTIONS, CoverageMap, set_hypothesis_profile
from mutation.mutants import Mutant

LIMIT_FACTOR = 10
"""A test may use this many times the processor time that it needs on the unchanged tree."""
LEAST_LIMIT_SECONDS = 2.0
COLLECTION_LIMIT_SECONDS = 60.0
SLOW_SECONDS = 0.25
WAITING = "tests/support/waiting.py"
DEADLINE_SECONDS = 20.0
"""Deadline of `support.waiting` here. A test that misses it is run again on the unchanged tree (`runner`)."""
_DEADLINE = re.compile(r"^DEADLINE_SECONDS = .*$", re.MULTILINE)
_HANGS = ("WaitError", "TimeoutError")
"""Names of the errors by which a test says that something did not come in time."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a child has written before it ended, however it ended."""

    test: str = ""
    """The test that failed; of a child that was killed, the test that ran."""
    is_late: bool = False
    """Whether the test failed because something did not come in time."""

    @classmethod
    def read(cls, path: Path) -> Self:
        text = path.read_text()
        return cls(**json.loads(text)) if text else cls()

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


@dataclass(frozen=True, slots=True)
class Files:
    """Where a child writes."""

    report: Path
    log: Path
    folders: Path
    """Names of the temporary folders that it made, one a line."""


def test_here(root: Path, mutant: Mutant | None, coverage: CoverageMap, tests: Sequence[int], files: Files) -> int:
    """Run these tests on the mutant, or on the unchanged tree, in this process; return pytest's exit code."""
    os.setsid()
    with files.log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(root)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _record_folders(files.folders)
    finder = _SourceFinder(_changed_sources(root, mutant))
    sys.meta_path.insert(0, finder)
    code = 0
    for part in _in_parts(coverage, tests):
        names = list(dict.fromkeys(coverage.tests[number].split("::")[0] for number in part))
        code = int(pytest.main([*PYTEST_OPTIONS, *names], plugins=[_Selection(coverage, part, files.report)]))
        if code:
            break
    is_imported = mutant is None or mutant.module in finder.found
    # On the unchanged tree the same files were collected: a conftest.py cannot import the mutant.
    if code == pytest.ExitCode.USAGE_ERROR and is_imported:
        Report(names[0]).write(files.report)
        return int(pytest.ExitCode.TESTS_FAILED)
    # Tests that pass without the mutant say nothing of it.
    return int(pytest.ExitCode.NO_TESTS_COLLECTED) if code == 0 and not is_imported else code


def _record_folders(path: Path) -> None:
    """Write down each temporary folder, so that the parent removes what a killed child leaves."""

    def record(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "tempfile.mkdtemp":
            with contextlib.suppress(OSError), path.open("a") as names:
                names.write(f"{arguments[0]}\n")

    sys.addaudithook(record)


def _changed_sources(root: Path, mutant: Mutant | None) -> dict[str, tuple[Path, str]]:
    """Return module -> its file and changed source: the mutant's, and the shorter deadline of tests."""
    changed: dict[str, tuple[Path, str]] = {}
    waiting = root / WAITING
    if waiting.exists():
        text, count = _DEADLINE.subn(f"DEADLINE_SECONDS = {DEADLINE_SECONDS}", waiting.read_text())
        assert count == 1, f"{WAITING} has {count} lines with the deadline"
        changed["support.waiting"] = (waiting, text)
    if mutant is not None:
        changed[mutant.module] = (root / mutant.file, mutant.source)
    return changed


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
        self._has_failed = False
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
        if not self._has_failed:
            Report(item.nodeid).write(self._report)
        _limit(max(LEAST_LIMIT_SECONDS, LIMIT_FACTOR * self._seconds.get(item.nodeid, 0.0)))
        outcome = yield
        _limit(COLLECTION_LIMIT_SECONDS)
        return outcome

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        report = yield
        if report.failed and not self._has_failed:
            self._has_failed = True
            Report(item.nodeid, call.excinfo is not None and call.excinfo.typename in _HANGS).write(self._report)
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self._has_failed:
            self._has_failed = True
            Report(report.nodeid).write(self._report)


def _limit(seconds: float) -> None:
    """End this process by SIGPROF once it has computed for so long; a busy machine does not count."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


class _SourceFinder(importlib.abc.MetaPathFinder):
    """Finds the modules that are changed, and nothing else."""

    def __init__(self, changed: Mapping[str, tuple[Path, str]]) -> None:
        self._changed = changed
        self.found: set[str] = set()
        """Names of those that something has imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._changed:
            return None
        self.found.add(fullname)
        file, source = self._changed[fullname]
        loader = _SourceLoader(fullname, str(file), source)
        folders = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=folders)


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles the changed source; reads and writes no bytecode file."""

    def __init__(self, name: str, path: str, changed: str) -> None:
        super().__init__(name, path)
        self._changed = changed

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._changed, self.path, "exec", dont_inherit=True)
