"""Run one part again and again beside busy processes or with stalls, and count what fails."""

import collections
import json
from collections.abc import Mapping
from pathlib import Path

from devcluster.steps import Steps
from runner.lanes import run_lanes


def repeat_part(name: str, times: int, logs: Path, load: Mapping[str, int]) -> int:
    """Run `name` `times` times and print a JSON line last; returns 1 if any run failed. Each run keeps its log."""
    steps = Steps(times)
    results = [
        result for number in range(1, times + 1) for result in run_lanes([[name]], logs / f"flaky-{number}", steps)
    ]
    failures = collections.Counter(
        test for result in results for test in result.failures or [result.part] * result.failed
    )
    for test, count in failures.most_common():
        print(f"  failed {count} of {times}: {test}")
    if details := next((result.details for result in results if result.failed and not result.failures), ""):
        print(f"What the part itself says:\n{details}")
    figures = {
        "part": name,
        "runs": times,
        "failed_runs": sum(bool(result.failed) for result in results),
        "failures": dict(failures),
        **load,
        "seconds": [round(result.seconds) for result in results],
        "logs": str(logs),
    }
    print(json.dumps(figures))
    return int(bool(failures))
