"""Run parts again and again beside busy processes or with stalls, and count what fails."""

import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster.steps import Steps
from runner.lanes import run_lanes
from runner.part import Result


def repeat_parts(names: Sequence[str], times: int, logs: Path, load: Mapping[str, int]) -> int:
    """Run each of `names` `times` times, in turn, and print a JSON line last; returns 1 if any run failed.

    Each run keeps its log. Nothing runs a second time: here a flake is a finding.
    """
    steps = Steps(times * len(names))
    results = [
        result
        for number in range(1, times + 1)
        for name in names
        for result in run_lanes([[name]], logs / f"flaky-{number}", steps)
    ]
    failures = collections.Counter(
        test for result in results for test in result.failures or [result.part] * result.failed
    )
    for test, count in failures.most_common():
        print(f"  failed {count} of {times}: {test}")
    for result in results:
        if result.failed and not result.failures:
            print(f"What {result.part} itself says:\n{result.details}")
            break
    figures = {
        "runs": len(results),
        "failed_runs": sum(bool(result.failed) for result in results),
        "failures": dict(failures),
        **load,
        "parts": {name: _summarize([result for result in results if result.part == name]) for name in names},
        "logs": str(logs),
    }
    print(json.dumps(figures))
    return int(bool(failures))


def _summarize(results: Sequence[Result]) -> dict[str, object]:
    return {
        "runs": len(results),
        "failed_runs": sum(bool(result.failed) for result in results),
        "tests": max((result.total for result in results), default=0),
        "seconds": [round(result.seconds) for result in results],
    }
