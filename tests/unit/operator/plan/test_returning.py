"""A revision that the spec asks for again: after a day out of traffic its Pass no longer counts."""

import json

from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.rollout.records import PASS_OUTLIVES_TRAFFIC
from support.plan.world import DAY, FULL, NEXT, World, serve_world
from support.tables import for_each


def known_verdicts(world: World, revision: str) -> list[str]:
    """Return the verdicts on a revision that monitors read."""
    text = world.one("ConfigMap", "credit-accuracy")["data"]["verdicts.json"]
    return [
        r["verdict"] for r in json.loads(text)["reports"] if r["identity"] == world.revision(revision).identity_digest
    ]


def return_after(seconds: float) -> tuple[World, str, str]:
    """The first revision served for days; another one has served for so long, and the spec asks for the first again."""
    world = serve_world()
    first = world.selected()
    world.now += 3 * DAY
    world.settle()
    world.apply(**NEXT)
    second = world.bring_up()
    world.now += seconds
    world.settle()
    world.apply(**FULL)
    return world, first, second


def test_after_an_hour_its_pass_counts_and_a_short_check_is_enough() -> None:
    world, first, second = return_after(3600)
    world.expect(serves=second, candidate=first)
    assert known_verdicts(world, first) == ["Pass"]
    world.start_pods(first, ready=True).settle()
    world.expect(serves=first)


def test_after_a_day_it_runs_the_whole_gate_and_only_a_new_pass_gives_it_traffic() -> None:
    world, first, second = return_after(PASS_OUTLIVES_TRAFFIC)
    world.expect(serves=second, candidate=first)
    assert known_verdicts(world, first) == []
    assert known_verdicts(world, second) == ["Pass"]
    world.start_pods(first, ready=True).settle()
    world.expect(serves=second, candidate=first)
    world.gate(first, Verdict.PASS).settle()
    world.expect(serves=first)
    assert known_verdicts(world, first) == ["Pass"]
    assert len(world.revision(first).verdicts) == 1


def test_after_a_day_a_fail_of_the_whole_gate_keeps_it_from_traffic() -> None:
    world, first, second = return_after(2 * DAY)
    world.start_pods(first, ready=True).settle()
    world.gate(first, Verdict.FAIL, lost=2).settle()
    world.expect(serves=second, QualityVerified="False GateFailed")
    assert [v.verdict for v in world.revision(first).verdicts] == [Verdict.FAIL]


def test_its_new_pass_is_not_voided_again_while_it_waits_for_traffic() -> None:
    world, first, second = return_after(2 * DAY)
    world.start_pods(first).settle()
    world.gate(first, Verdict.PASS).settle()
    world.now += 1800
    world.settle()
    world.expect(serves=second, candidate=first)
    assert known_verdicts(world, first) == ["Pass"]


def test_a_rollback_to_it_keeps_its_old_pass_and_is_decided_by_its_control() -> None:
    world = serve_world(accuracy={"onBreach": "Rollback"})
    first = world.selected()
    world.now += 3 * DAY
    world.settle()
    world.apply(**NEXT)
    second = world.bring_up()
    world.now += 2 * DAY
    world.settle()
    world.gate(second, Verdict.PASS).drop("i0", "i1").settle()
    world.expect(serves=second, candidate=first, QualityVerified="False RollingBack")
    assert [v.verdict for v in world.revision(first).verdicts] == [Verdict.PASS]
    assert world.accuracy_settings()["control"]["identity"] == world.revision(first).identity_digest


@for_each("gone_for", {"a second less than a day": PASS_OUTLIVES_TRAFFIC - 30, "no time": 0.0})
def test_how_long_it_served_does_not_matter(gone_for: float) -> None:
    world, first, _ = return_after(gone_for)
    assert known_verdicts(world, first) == ["Pass"]


@for_each(
    "gone_for, known", {"less than a day": (PASS_OUTLIVES_TRAFFIC - 30, ["Pass"]), "a day": (PASS_OUTLIVES_TRAFFIC, [])}
)
def test_another_revision_of_the_identity_has_its_old_pass_for_a_day_too(gone_for: float, known: list[str]) -> None:
    world = serve_world()
    first = world.selected()
    world.apply(**NEXT)
    world.bring_up()
    world.now += gone_for
    world.settle()
    moved = world.apply(**FULL, placement={"nodeSelector": {"zone": "a"}})
    assert moved != first
    assert world.revision(moved).identity_digest == world.revision(first).identity_digest
    assert known_verdicts(world, moved) == known
