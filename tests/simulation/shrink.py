"""The shortest schedule that still breaks the same promise: happenings are dropped while it does."""

from collections.abc import Callable
from dataclasses import replace

from simulation.schedule import Schedule

Fails = Callable[[Schedule], bool]


def shrink(schedule: Schedule, fails: Fails, most_runs: int = 200) -> Schedule:
    """Drop halves, then quarters, then single happenings, then whole deployments, as long as `fails` holds."""
    runs = 0

    def still_fails(smaller: Schedule) -> bool:
        nonlocal runs
        runs += 1
        return runs <= most_runs and fails(smaller)

    for start in schedule.starts:
        key = (start.namespace, start.name)
        kept = tuple(one for one in schedule.happenings if (one.namespace, one.name) != key)
        smaller = replace(schedule, starts=tuple(one for one in schedule.starts if one is not start), happenings=kept)
        if len(schedule.starts) > 1 and still_fails(smaller):
            schedule = smaller
    size = max(1, len(schedule.happenings) // 2)
    while size:
        start_at = 0
        while start_at < len(schedule.happenings):
            smaller = schedule.without(set(range(start_at, start_at + size)))
            if still_fails(smaller):
                schedule = smaller
            else:
                start_at += size
        size //= 2
    return schedule
