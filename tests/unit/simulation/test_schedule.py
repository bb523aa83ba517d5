"""Schedules: data that is the same for the same seed, can be kept in a file, and is refused where it is of another version."""

import json
from pathlib import Path

import pytest

from simulation.schedule import (
    CALM_SECONDS,
    FAULTS,
    LEAST_FAULTS,
    Schedule,
    ScheduleError,
    draw_schedule,
    read_schedule,
    write_schedule,
)
from simulation.shrink import shrink
from support.tables import for_each


@for_each("seed", {f"seed {seed}": seed for seed in range(20)})
def test_each_seed_has_what_a_seed_promises(seed: int) -> None:
    schedule = draw_schedule(seed)
    assert schedule == draw_schedule(seed)
    deployments = [(start.namespace, start.name) for start in schedule.starts]
    assert len({namespace for namespace, _ in deployments}) >= 2
    assert all(sum(ns == namespace for ns, _ in deployments) >= 2 for namespace, _ in deployments)
    faults = [one for one in schedule.happenings if one.do in FAULTS]
    assert len(faults) >= LEAST_FAULTS
    assert schedule.end >= max(one.at for one in schedule.happenings) + CALM_SECONDS >= faults[-1].at + 1800


def test_a_schedule_that_was_kept_is_read_as_it_was(tmp_path: Path) -> None:
    schedule = draw_schedule(7)
    write_schedule(schedule, tmp_path / "s.json", breaks="a promise")
    assert read_schedule(tmp_path / "s.json") == (schedule, {"breaks": "a promise"})


@for_each(
    ("text", "message"),
    {
        "a file of an older version": (json.dumps({"version": 0}), r"a schedule of version 0; .* reads version 1"),
        "no JSON": ("{", "no schedule"),
        "another JSON": ("[]", "no schedule"),
        "a schedule without starts": (json.dumps({"version": 1, "seed": 1}), "no schedule"),
    },
)
def test_a_file_that_is_no_schedule_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ScheduleError, match=message):
        read_schedule(tmp_path / "s.json")


def test_shrinking_leaves_only_what_the_failure_needs() -> None:
    schedule = draw_schedule(3)
    needed = {schedule.happenings[2], schedule.happenings[-1]}

    def fails(smaller: Schedule) -> bool:
        return needed <= set(smaller.happenings)

    assert set(shrink(schedule, fails).happenings) == needed
