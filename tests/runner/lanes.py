"""Parts that run at the same time: each lane runs its own parts one after the other."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from devcluster.steps import Steps
from runner.part import POLL_SECONDS, Result, RunningPart, end_parts


def run_lanes(
    lanes: Sequence[Sequence[str]], logs: Path, steps: Steps, *, should_stop: Callable[[Result], bool] = lambda _: False
) -> list[Result]:
    """Return the results of all parts as they end. What runs at the same time stops when `should_stop` says so of one.

    An interrupt ends all that run, then goes on.
    """
    waiting = [list(lane) for lane in lanes]
    results: list[Result] = []
    running = {number: RunningPart(lane.pop(0), logs, steps) for number, lane in enumerate(waiting) if lane}
    try:
        while running:
            for number, part in list(running.items()):
                if not part.has_ended():
                    continue
                results.append(running.pop(number).result)
                if should_stop(part.result):
                    return results
                if waiting[number]:
                    running[number] = RunningPart(waiting[number].pop(0), logs, steps)
            time.sleep(POLL_SECONDS)
    finally:
        end_parts(list(running.values()))
    return results
