"""Where a promise of the simulation is excepted, as docs/reference/accuracy.md says, and that others judge it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from simulation.mutants import MUTANTS
from simulation.schedule import Happening, Schedule, write_schedule
from support.simulation.command import read_figures, run_simulation
from support.tables import for_each

PROMOTED = MUTANTS["the Pass of what serves is dropped"].schedule
"""What serves is replaced at 200 s."""
KEEPS = "what_serves_keeps_its_pass"


def judge(schedule: Schedule, only: str, folder: Path) -> dict[str, Any]:
    """Run a schedule on the operator as it is, and return the figures."""
    write_schedule(schedule, folder / "schedule.json")
    done = run_simulation("--schedule", str(folder / "schedule.json"), "--only", only)
    figures = read_figures(done)
    assert figures["violations"] == [], done.stdout
    return dict(figures["tried"])


def add(schedule: Schedule, do: str, at: float, value: float = 0.0) -> Schedule:
    start = schedule.starts[0]
    return replace(schedule, happenings=(*schedule.happenings, Happening(at, do, start.namespace, start.name, value)))


def observe(schedule: Schedule) -> Schedule:
    starts = (
        replace(start, spec={**start.spec, "accuracy": {**start.spec["accuracy"], "gate": "Observe"}})
        for start in schedule.starts
    )
    return replace(schedule, starts=tuple(starts))


def test_what_serves_is_judged_by_the_pass_that_promoted_it(tmp_path: Path) -> None:
    schedule = add(add(PROMOTED, "degrade_serving", 400.0, 8.0), "ack", 900.0)
    assert judge(schedule, KEEPS, tmp_path)[KEEPS] > 0


@for_each("schedule", {
    "nothing had to pass": observe(PROMOTED),
    "the ControllerRevision is lost, and no pod can prove its Pass": add(add(PROMOTED, "vanish_pod", 350.0), "delete_serving_revision", 450.0),
    "etcd forgot the promotion": add(add(PROMOTED, "set_back", 400.0, 300.0), "set_threshold", 500.0, 0.95),
})  # fmt: skip
def test_a_pass_is_not_kept_where(schedule: Schedule, tmp_path: Path) -> None:
    judge(schedule, KEEPS, tmp_path)


def test_nothing_had_to_pass_under_observe(tmp_path: Path) -> None:
    assert KEEPS not in judge(observe(PROMOTED), KEEPS, tmp_path)


def test_an_edit_passes_a_busy_namespace(tmp_path: Path) -> None:
    name = "edits_pass_busy_namespaces"
    assert judge(MUTANTS["all namespaces share one pace"].schedule, name, tmp_path)[name] > 0
