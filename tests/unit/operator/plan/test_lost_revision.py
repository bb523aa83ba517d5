"""The ControllerRevision of what serves is gone or damaged: traffic stays, and nothing that was refused gets it."""

from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.revision.record import NOTHING_PROMOTED
from support.plan.falls import fallen, rolled_back
from support.plan.world import DAY, NEXT, World, serve_world
from support.tables import for_each


def serve_second(**spec: Any) -> tuple[World, str, str]:
    """Return a world in which a second revision serves, the first and the second."""
    world = serve_world(**spec)
    first = world.selected()
    world.wait(DAY).apply(**NEXT)
    world.start_pods(first, ready=True)
    second = world.bring_up()
    world.wait(2 * DAY).settle()
    return world, first, second


def lose(world: World, name: str, *kinds: str) -> None:
    for kind in ("ControllerRevision", *kinds):
        del world.children[kind, name]
    if "Deployment" in kinds:
        world.pods = {pod: facts for pod, facts in world.pods.items() if facts.revision != name}


def test_what_serves_keeps_traffic_and_gets_its_revision_again() -> None:
    world, _, second = serve_second()
    data = world.one("ControllerRevision", second)["data"]
    lose(world, second)
    world.pass_once()
    assert "RevisionRestored" in world.notes
    world.expect(serves=second, runs={second: 1}, Ready="Serving", QualityVerified="GatePassed")
    assert world.one("ControllerRevision", second)["data"] == data
    world.settle()
    world.expect(serves=second, runs={second: 1}, Progressing="Complete")
    assert world.notes.count("RevisionRestored") == 1


def test_what_was_rolled_back_gets_no_traffic_by_the_loss_of_what_serves() -> None:
    world, good, bad = rolled_back()
    world.wait(2 * DAY).settle()
    lose(world, good)
    for _ in range(4):
        world.pass_once()
        world.expect(serves=good, runs={good: 1})
    assert world.revision(bad).regate_token
    world.expect(Progressing="RolledBack")


def test_pods_whose_pass_is_unproven_keep_traffic() -> None:
    world, _, second = serve_second()
    world.report(second, ran_under="0" * 64).settle()
    lose(world, second)
    world.settle()
    world.wait(DAY).settle()
    world.expect(serves=second, runs={second: 1}, Ready="Serving", QualityVerified="PassUnproven")


def test_a_drop_of_what_was_restored_is_answered() -> None:
    world, good, bad = fallen()
    world.steady().settle()
    lose(world, bad)
    world.settle()
    world.drop("i0", "i1").settle()
    world.expect(serves=bad, candidate=good, QualityVerified="RollingBack")


@for_each("parts", {
    "the ConfigMap is gone as well": ("ConfigMap",),
    "the ConfigMap is of an older version": (),
})  # fmt: skip
def test_nothing_is_written_where_it_cannot_be_made_again(parts: tuple[str, ...]) -> None:
    world, good, _ = rolled_back()
    world.wait(2 * DAY).settle()
    config = world.one("ConfigMap", good)
    world.children["ConfigMap", good] = {**config, "metadata": {**config["metadata"], "annotations": {}}}
    lose(world, good, *parts)
    for _ in range(3):
        assert not world.pass_once().writes
    world.expect(serves=good, runs={good: 1}, Ready=("False RevisionLost", f"Deployment {good}"))


def test_a_damaged_one_is_not_written_over() -> None:
    world, _, second = serve_second()
    world.children["ControllerRevision", second] |= {"data": {"x": 1}}
    assert not world.pass_once().writes
    world.expect(serves=second, Ready="False RevisionLost")


def test_where_nothing_is_left_of_what_served_a_refused_revision_gets_no_traffic() -> None:
    world, good, bad = rolled_back()
    world.wait(2 * DAY).settle()
    lose(world, good, "Deployment", "ConfigMap")
    world.settle()
    world.start_pods(bad, ready=True).settle()
    assert world.selected() not in (bad, NOTHING_PROMOTED)
    world.expect(Ready="False NotServing")
    world.control(Verdict.PASS).settle()
    world.set_ready(bad).settle()
    world.expect(serves=bad, Ready="Serving")


def test_where_nothing_is_left_of_what_served_an_older_pass_counts_under_the_terms_in_force() -> None:
    world, first, second = serve_second()
    world.change(context={"maxTokens": 2048})
    lose(world, second, "Deployment", "ConfigMap")
    world.settle()
    world.start_pods(first).settle()
    assert world.selected() == second
    world.set_ready(first).settle()
    world.expect(serves=first, runs={first: 1}, Progressing="Complete")


@pytest.mark.parametrize("selected", ["credit-0123456789", "nothing"])
def test_a_changed_selector_of_the_service_is_repaired(selected: str) -> None:
    world, _, second = serve_second()
    world.one("Service", "credit")["spec"]["selector"] |= {names.LABEL_REVISION: selected}
    world.settle()
    world.expect(serves=second, runs={second: 1})


def test_a_selector_that_was_changed_to_a_candidate_is_repaired() -> None:
    world = World({"tier": "full"})
    world.settle()
    candidate = world.candidate()
    world.one("Service", "credit")["spec"]["selector"] |= {names.LABEL_REVISION: candidate}
    world.start_pods(candidate, ready=True).settle()
    world.expect(serves=NOTHING_PROMOTED)
