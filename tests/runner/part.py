"""One part of the tests: it runs as `make PART`, and its pytest tells us about each test through a file."""

import contextlib
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.steps import Step, Steps
from runner import processes, progress_plugin

_SECTION = re.compile(r"^=+ (FAILURES|ERRORS|short test summary info) =+$", re.MULTILINE)
_MOST_DETAILS = 20_000
_MAKE_ERROR = re.compile(r"^make(?:\[\d+\])?: \*\*\* .*?(\S+(?: \d+)?)$", re.MULTILINE)
TESTS_FAILED = 1
"""pytest's exit status where tests failed, and nothing else was wrong."""
POLL_SECONDS = 0.2
"""Between two looks at what runs."""


@dataclass(slots=True)
class Result:
    """What a part gave."""

    part: str
    log: Path
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Processor time of the processes that it waited for, on all cores: far below `seconds` times cores, it waits."""
    total: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)
    """Test id -> "passed", "failed" or "skipped": the worst of its phases so far."""
    durations: list[tuple[float, str, str]] = field(default_factory=list)
    """(seconds, "setup" | "call" | "teardown", test id)."""
    details: str = ""
    first_run_counts: set[str] = field(default_factory=set)
    """Tests whose failure no second run takes back."""
    flakes: dict[str, str] = field(default_factory=dict)
    """Test id -> output of its failure, of tests that passed when they ran again alone."""
    own_options: list[str] = field(default_factory=list)
    """Options of its pytest, such as `--engine vllm`: without them a test is another one."""
    exit_statuses: list[int] = field(default_factory=list)
    """Of each pytest that ended by itself."""
    is_broken: bool = False
    """It failed although no test did."""

    @property
    def failures(self) -> list[str]:
        """The tests that failed."""
        return [test for test, outcome in self.outcomes.items() if outcome == "failed"]

    @property
    def passed(self) -> int:
        """Tests that passed, setup and teardown included."""
        return self._count("passed")

    @property
    def skipped(self) -> int:
        """Tests that were skipped, or failed as they were expected to."""
        return self._count("skipped")

    @property
    def failed(self) -> int:
        """Tests that failed; 1 if the part failed without one (a linter, a crash)."""
        return self._count("failed") or int(self.is_broken)

    def forgive(self, test: str, output: str) -> None:
        """Count a failed test as passed: it was a flake. The part has failed no longer if failed tests were its only fault."""
        self.outcomes[test], self.flakes[test] = "passed", output
        has_ended = len(self.outcomes) >= self.total and set(self.exit_statuses) == {TESTS_FAILED}
        self.is_broken = self.is_broken and (bool(self.failures) or not has_ended or not _has_failed_by_tests(self.log))

    def _count(self, outcome: str) -> int:
        return list(self.outcomes.values()).count(outcome)


def end_parts(parts: Sequence["RunningPart"]) -> None:
    """Interrupt all that have not ended, then wait for each."""
    for part in parts:
        part.interrupt()
    for part in parts:
        part.wait()


class RunningPart:
    """`make NAME`, or another command with pytest, from its start to its end. Its maker calls `end_parts` with it."""

    def __init__(self, name: str, logs: Path, steps: Steps, command: Sequence[str] = (), title: str = "") -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.result = Result(name, logs / f"{name}.log")
        events = (logs / f"{name}.events").absolute()
        events.unlink(missing_ok=True)
        events.touch()
        addopts = f"{os.environ.get('PYTEST_ADDOPTS', '')} -p runner.progress_plugin".strip()
        env = {**os.environ, progress_plugin.VARIABLE: str(events), "PYTEST_ADDOPTS": addopts}
        self._stack = contextlib.ExitStack()
        self._step = self._stack.enter_context(steps.step(title or name))
        self._reader = self._stack.enter_context(events.open())
        self._unread = ""
        self._began = time.monotonic()
        with self.result.log.open("wb") as output:
            self._process = processes.start(command or ["make", "--no-print-directory", name], env, output)

    def has_ended(self) -> bool:
        """Take in what its tests have reported, and return whether all of it has ended."""
        cpu_seconds = processes.poll(self._process)
        self._unread = _read_events(self._unread + self._reader.read(), self.result, self._step)
        if cpu_seconds is None:
            return False
        result = self.result
        result.seconds, result.cpu_seconds = time.monotonic() - self._began, cpu_seconds
        result.is_broken = self._process.returncode != 0
        result.details = read_details(result.log) if result.failed else ""
        self._step.outcome = _outcome(result)
        self._stack.close()
        return True

    def interrupt(self) -> None:
        """Let it take down its fixtures, unless it has ended."""
        if self._process.returncode is None:
            self._step.outcome = "stopped"
            processes.interrupt(self._process)

    def run_to_end(self) -> None:
        """Wait until it has ended by itself."""
        while not self.has_ended():
            time.sleep(POLL_SECONDS)

    def wait(self) -> None:
        """Wait until it has ended after an interrupt."""
        processes.wait(self._process)
        self._stack.close()


def _read_events(text: str, result: Result, step: Step) -> str:
    """Take in the plugin's lines and show how far the part is; returns what is not a whole line yet."""
    *lines, rest = text.split("\n")
    for event in map(json.loads, lines):
        if "test" not in event:
            result.total += event.get("total", 0)
            result.own_options += event.get("options", [])
            result.exit_statuses += [event["exit_status"]] if "exit_status" in event else []
            continue
        result.durations.append((event["seconds"], event["when"], event["test"]))
        if event.get(progress_plugin.FIRST_RUN_COUNTS):
            result.first_run_counts.add(event["test"])
        # A setup that passes says nothing yet; a teardown that passes takes nothing back.
        if event["outcome"] != "passed" or event["when"] == "call":
            before = result.outcomes.get(event["test"])
            result.outcomes[event["test"]] = "failed" if before == "failed" else event["outcome"]
    if result.total:
        done = len(result.outcomes)
        step.progress(done / result.total, f"{done} of {result.total} tests, {result.failed} failed")
    return rest


def _has_failed_by_tests(log: Path) -> bool:
    """Return whether make says that its command ended as pytest does where tests failed: no signal, no other error."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return {error[1] for error in _MAKE_ERROR.finditer(text)} <= {f"Error {TESTS_FAILED}"}


def _outcome(result: Result) -> str:
    if result.failed:
        return f"FAILED: {len(result.failures) or 'the part itself, not a test'} of {result.total} tests"
    return f"{result.passed} passed{f', {result.skipped} skipped' if result.skipped else ''}" if result.total else "ok"


def read_details(log: Path) -> str:
    """Return what pytest says of its failures, or the last lines of a part without pytest."""
    text = log.read_text(errors="replace")
    section = _SECTION.search(text)
    if section is None:
        return "\n".join(text.splitlines()[-40:])
    details = text[section.start() :]
    if len(details) <= _MOST_DETAILS:
        return details
    return f"{details[:_MOST_DETAILS]}\n... the rest is in the log"
