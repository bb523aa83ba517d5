"""The shortest schedule that still breaks the same promise: deployments and happenings are dropped while it does."""

from collections.abc import Callable
from dataclasses import replace

from simulation.run import run_schedule
from simulation.schedule import Schedule

Fails = Callable[[Schedule], bool]
SLACK_SECONDS = 300.0
"""By how much later a shorter schedule may fail."""


def shrink_failure(schedule: Schedule, invariant: str, at: float) -> Schedule:
    """Shrink a schedule that breaks an invariant at this second."""

    def fails(smaller: Schedule) -> bool:
        violation = run_schedule(smaller, frozenset((invariant,)), until=at + SLACK_SECONDS).violation
        return violation is not None

    later = {n for n, one in enumerate(schedule.happenings) if one.at > at}
    return shrink(schedule.without(later), fails)


def shrink(schedule: Schedule, fails: Fails, most_runs: int = 120) -> Schedule:
    """Drop whole deployments, then what happens, as long as `fails` holds; at most so many runs."""
    runs = 0

    def still_fails(smaller: Schedule) -> bool:
        nonlocal runs
        runs += 1
        return runs <= most_runs and fails(smaller)

    for start in schedule.starts:
        key = (start.namespace, start.name)
        happenings = tuple(one for one in schedule.happenings if (one.namespace, one.name) != key)
        smaller = replace(
            schedule, starts=tuple(one for one in schedule.starts if one is not start), happenings=happenings
        )
        if len(schedule.starts) > 1 and still_fails(smaller):
            schedule = smaller
    before = None
    while schedule != before:
        # What is dropped shifts every draw after it, so that another round may find more.
        before, schedule = schedule, _drop_runs(schedule, still_fails)
    return schedule


def _drop_runs(schedule: Schedule, fails: Fails) -> Schedule:
    """Drop runs of what happens, from half of it down to single ones, as long as `fails` holds."""
    size = max(1, len(schedule.happenings) // 2)
    while size:
        first = 0
        while first < len(schedule.happenings):
            smaller = schedule.without(set(range(first, first + size)))
            if fails(smaller):
                schedule = smaller
            else:
                first += size
        size //= 2
    return schedule
