"""Accuracy drops to test: worlds in which a served revision dropped, was controlled, was rolled back from."""

from typing import Any

from r1plus_contract.verdict import SweepFigures, Verdict
from r1plus_operator.plan.observation import PoolView
from support.plan.world import DAY, FULL, NEXT, World

ROLLBACK = {"accuracy": {"onBreach": "Rollback"}}


def fallen(*, replicas: int = 1, lost: tuple[str, ...] = ("i0", "i1"), **spec: Any) -> tuple[World, str, str]:
    """A good revision served for a day, a second one took over and its pods fell; the world, the good, the bad."""
    world = World({**FULL, **ROLLBACK, "replicas": replicas, **spec})
    good = world.bring_up()
    world.wait(DAY).apply(**NEXT)
    world.start_pods(good, ready=True)
    bad = world.bring_up()
    world.wait(60.0).settle()
    world.gate(bad, Verdict.PASS).drop(*lost)
    assert world.selected() == bad
    return world, good, bad


def controlled(**spec: Any) -> tuple[World, str, str]:
    """The last good revision is up, without traffic, and nobody has judged it yet."""
    world, good, bad = fallen(**spec)
    world.settle()
    assert world.status["candidate"] == good
    world.start_pods(good).settle()
    return world, good, bad


def rolled_back(**spec: Any) -> tuple[World, str, str]:
    """The last good revision passed its control and serves again."""
    world, good, bad = controlled(**spec)
    world.pass_control(good).start_pods(good, ready=True).settle()
    return world, good, bad


def pooled(world: World, bad: str, **view: Any) -> None:
    """The pool without its worst pod alarms; the sweeps since then stand in the reports."""
    world.pool = PoolView(bad, world.suite_hash(), 3.0, 1.0, **view)


def swept(world: World, correct: int) -> None:
    world.report(sweep=SweepFigures(correct, 4, 0.0, 1.0, "2026-01-02T00:00:00Z"))
