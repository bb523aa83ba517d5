"""A way back whose operator dies after any write is followed to the same end."""

from collections.abc import Callable

import pytest

from r1plus_contract.verdict import Verdict
from support.plan.falls import DAY, fallen
from support.plan.world import World

pytestmark = pytest.mark.first_run_counts

STORY: list[Callable[[World], None]] = [
    lambda w: w.start_pods(w.status["candidate"]) if _way_back(w) else None,
    lambda w: w.control(Verdict.PASS) and None if _way_back(w) and w.accuracy_settings()["control"] else None,
    lambda w: w.set_ready(w.status["candidate"]) if _way_back(w) and _passed(w) else None,
]
"""What the world does, again and again, whenever the operator has got that far."""


def _way_back(world: World) -> bool:
    return (
        world.condition("Progressing")[1] == "RollingBack"
        and ("Deployment", world.status["candidate"]) in world.children
    )


def _passed(world: World) -> bool:
    good = world.status["candidate"]
    return any(p.revision == good and n in world.reports for n, p in world.pods.items())


def _die_at(world: World, write: int, *, backwards: bool) -> None:
    """Passes and a world that answers, until the operator has made so many writes; it dies after the last of them."""
    left = write
    for _ in range(12):
        for act in STORY:
            act(world)
        planned = world.plan()
        writes = [obj for stage in planned.apply for obj in stage]
        if len(writes) + len(planned.delete) + len(planned.cut) >= left:
            world.carry_out(planned, left, backwards=backwards)
            return
        left -= len(writes) + len(planned.delete) + len(planned.cut)
        world.pass_once()


@pytest.mark.parametrize("backwards", [False, True], ids=["as planned", "the last of a stage first"])
@pytest.mark.parametrize(
    "write", [pytest.param(write, marks=[] if write % 3 == 1 else pytest.mark.unit_long) for write in range(1, 16)]
)
def test_an_operator_that_dies_after_any_write_is_followed_to_the_same_end(write: int, backwards: bool) -> None:
    world, good, bad = fallen()
    _die_at(world, write, backwards=backwards)
    for _ in range(12):
        world.wait(30.0).settle()
        for act in STORY:
            act(world)
    world.start_pods(good, ready=True).settle()
    world.expect(serves=good, runs={good: 1}, QualityVerified="False RolledBack")
    record = world.revision(bad).rollback
    assert (record.to, record.control, record.lifted) == (good, Verdict.PASS, False)
    assert record.switched_at == pytest.approx(world.revision(good).promoted_at)


def test_a_clock_that_was_set_back_does_not_take_a_beginning_for_an_end() -> None:
    world, good, bad = fallen()
    world.now -= 2 * DAY
    world.settle()
    assert (world.selected(), world.status["candidate"]) == (bad, good)
    world.start_pods(good).pass_control(good)
    world.expect(serves=good, QualityVerified="RolledBack")
