"""Runs of several schedules: at once they come to the same as one by one, in the same order."""

from simulation.run import run_schedules
from simulation.schedule import Schedule


def test_schedules_that_run_at_once_come_to_the_same_in_their_order() -> None:
    schedules = [Schedule(seed, (), ()) for seed in (2, 1)]
    one_by_one = list(run_schedules(schedules))
    assert len({outcome.digest for outcome in one_by_one}) == len(schedules)
    assert list(run_schedules(schedules, jobs=2)) == one_by_one
