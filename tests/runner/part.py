"""One part of the tests: it runs as `make PART`, and its pytest tells us about each test through a file."""

import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.steps import Step, Steps
from runner import processes, progress_plugin

_POLL_SECONDS = 0.2
_SECTION = re.compile(r"^=+ (FAILURES|ERRORS|short test summary info) =+$", re.MULTILINE)
_MOST_DETAILS = 20_000


@dataclass(slots=True)
class Result:
    """What a part gave."""

    part: str
    log: Path
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Processor time of the part's processes, of all cores: far below `seconds` times cores, it waits."""
    total: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)
    """Test id -> "passed", "failed" or "skipped": the worst of its phases so far."""
    durations: list[tuple[float, str, str]] = field(default_factory=list)
    """(seconds, "setup" | "call" | "teardown", test id)."""
    details: str = ""
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

    def _count(self, outcome: str) -> int:
        return list(self.outcomes.values()).count(outcome)


def run_part(name: str, logs: Path, steps: Steps) -> Result:
    """Run `make NAME` with its output in `logs`; show progress as a step. An interrupt ends the part, then goes on."""
    logs.mkdir(parents=True, exist_ok=True)
    events = (logs / f"{name}.events").absolute()
    events.unlink(missing_ok=True)
    events.touch()
    result = Result(name, logs / f"{name}.log")
    env = {
        **os.environ,
        progress_plugin.VARIABLE: str(events),
        "PYTEST_ADDOPTS": f"{os.environ.get('PYTEST_ADDOPTS', '')} -p runner.progress_plugin".strip(),
    }
    with steps.step(name) as step:
        began, cpu_before = time.monotonic(), processes.cpu_seconds_of_ended()
        with result.log.open("wb") as output, events.open() as reader:
            process = processes.start(["make", "--no-print-directory", name], env, output)
            try:
                rest = ""
                while process.poll() is None:
                    rest = _read_events(rest + reader.read(), result, step)
                    time.sleep(_POLL_SECONDS)
            except BaseException:
                processes.interrupt(process)
                raise
            _read_events(rest + reader.read(), result, step)
        result.seconds = time.monotonic() - began
        result.cpu_seconds = processes.cpu_seconds_of_ended() - cpu_before
        result.is_broken = process.returncode != 0
        result.details = _details(result) if result.failed else ""
        step.outcome = _outcome(result)
    return result


def _read_events(text: str, result: Result, step: Step) -> str:
    """Take in the plugin's lines and show how far the part is; returns what is not a whole line yet."""
    *lines, rest = text.split("\n")
    for event in map(json.loads, lines):
        if "total" in event:
            result.total += event["total"]
            continue
        result.durations.append((event["seconds"], event["when"], event["test"]))
        # A setup that passes says nothing yet; a teardown that passes takes nothing back.
        if event["outcome"] != "passed" or event["when"] == "call":
            before = result.outcomes.get(event["test"])
            result.outcomes[event["test"]] = "failed" if before == "failed" else event["outcome"]
    if result.total:
        done = len(result.outcomes)
        step.progress(done / result.total, f"{done} of {result.total} tests, {result.failed} failed")
    return rest


def _outcome(result: Result) -> str:
    if result.failed:
        return f"FAILED: {len(result.failures) or 'the part itself, not a test'} of {result.total} tests"
    return f"{result.passed} passed{f', {result.skipped} skipped' if result.skipped else ''}" if result.total else "ok"


def _details(result: Result) -> str:
    """Return what pytest says of its failures, or the last lines of a part without pytest."""
    text = result.log.read_text(errors="replace")
    section = _SECTION.search(text)
    if section is None:
        return "\n".join(text.splitlines()[-40:])
    details = text[section.start() :]
    if len(details) <= _MOST_DETAILS:
        return details
    return f"{details[:_MOST_DETAILS]}\n... the rest is in the log"
