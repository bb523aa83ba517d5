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
    """What a part gave. `failed` counts tests, or is 1 if the part failed without one (a linter, a crash)."""

    part: str
    log: Path
    seconds: float = 0.0
    total: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)
    durations: list[tuple[float, str, str]] = field(default_factory=list)
    """(seconds, "setup" | "call" | "teardown", test id)."""
    details: str = ""


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
        began = time.monotonic()
        with result.log.open("wb") as output, events.open() as reader:
            process = processes.start(["make", "--no-print-directory", name], env, output)
            try:
                while process.poll() is None:
                    _read_events(reader.read().splitlines(), result, step)
                    time.sleep(_POLL_SECONDS)
            except BaseException:
                processes.interrupt(process)
                raise
            _read_events(reader.read().splitlines(), result, step)
        result.seconds = time.monotonic() - began
        if process.returncode and not result.failed:
            result.failed = 1
        result.details = _details(result) if result.failed else ""
        step.outcome = _outcome(result)
    return result


def _read_events(lines: list[str], result: Result, step: Step) -> None:
    """Count the plugin's lines. A test counts once, at its teardown; a failed setup or teardown fails it."""
    for line in lines:
        event = json.loads(line)
        if "total" in event:
            result.total += event["total"]
            continue
        test, when, outcome = event["test"], event["when"], event["outcome"]
        result.durations.append((event["seconds"], when, test))
        if outcome == "failed" and test not in result.failures:
            result.failures.append(test)
            result.failed += 1
        elif outcome == "skipped":
            result.skipped += 1
        elif when == "call":
            result.passed += 1
    done = result.passed + result.failed + result.skipped
    if result.total:
        step.progress(done / result.total, f"{done} of {result.total} tests, {result.failed} failed")


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
