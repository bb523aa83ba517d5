"""A candidate whose deadline passed for lack of room is tried again, ever later; one that failed otherwise is not."""

from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.observation import REFUSED_PODS
from support.plan.nodes import BIG, IN_PLACE, kubernetes_node, serving_on
from support.plan.world import DAY, NEXT, World
from support.tables import for_each

NO_ROOM = "0/2 nodes are available: 2 Insufficient memory."
HOUR = 3600.0
MOST_WAITS = 10
"""Passes at the times that plans ask for, until a candidate is tried again."""


def expire(world: World, *, unschedulable: str = NO_ROOM) -> None:
    """Let the candidate's deadline pass while its pod finds no node."""
    world.start_pods(world.candidate()).set_pods(world.candidate(), unschedulable=unschedulable).settle()
    world.wait(HOUR).settle()
    world.expect(Progressing="DeadlineExceeded")


def waits_for_retry(world: World) -> float:
    """Wait until the candidate is tried again; return for how long."""
    began = world.now
    for _ in range(MOST_WAITS):
        if world.status.get("candidate") and world.condition("Progressing")[1] == "RollingOut":
            return world.now - began
        wait = world.plan().requeue_after
        assert wait is not None, world.condition("Progressing")
        world.wait(wait).settle()
    raise AssertionError(f"not tried again after {world.now - began} s: {world.condition('Progressing')}")


def test_what_expired_for_lack_of_room_is_tried_again_ever_later() -> None:
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    waits = []
    for _ in range(8):
        expire(world)
        world.expect(serves=serves, runs={serves: 1}, Progressing=("DeadlineExceeded", NO_ROOM, "is retried"))
        waits.append(round(waits_for_retry(world), -2))
        world.expect(serves=serves, runs={serves: 1, candidate: 1})
    assert waits == [600, 1200, 2400, 4800, 9600, 19200, 21600, 21600]
    world.start_pods(candidate).gate(candidate, Verdict.PASS).settle()
    world.set_ready(candidate).settle()
    world.expect(serves=candidate)
    notes = world.one("ControllerRevision", candidate)["metadata"]["annotations"]
    assert names.ANNOTATION_EXPIRED not in notes


def test_what_a_quota_refused_is_tried_again() -> None:
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    said = 'pods "x" is forbidden: exceeded quota: r1plus-tenant, requested: requests.memory=2Gi'
    world.one("Deployment", candidate)[REFUSED_PODS] = said
    world.wait(HOUR).settle()
    world.expect(runs={serves: 1}, Progressing=("DeadlineExceeded", "exceeded quota"))
    assert round(waits_for_retry(world), -2) == 600


def test_what_expired_for_another_cause_is_not_tried_again() -> None:
    world, serves = serving_on(BIG)
    world.apply(**NEXT)
    expire(world, unschedulable="")
    world.wait(7 * DAY).settle()
    world.expect(runs={serves: 1}, Progressing="DeadlineExceeded")


def test_a_lack_of_room_after_the_deadline_is_no_cause() -> None:
    world, serves = serving_on(BIG, rollout={"strategy": "InPlace"})
    world.apply(**NEXT)
    world.start_pods(world.candidate()).settle()
    world.wait(HOUR).settle()
    world.expect(runs={serves: 1}, Progressing="DeadlineExceeded")
    world.alter(nodes=(kubernetes_node("big", "20Gi", unschedulable=True),)).settle()
    world.alter(nodes=(BIG,)).wait(7 * DAY).settle()
    world.expect(runs={serves: 1}, Progressing="DeadlineExceeded")


@for_each("deadline, tried", {"longer": ("2h", True), "shorter": ("30m", False)})
def test_what_was_too_slow_is_tried_again_with_a_longer_deadline(deadline: str, tried: bool) -> None:
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    expire(world, unschedulable="")
    world.wait(DAY).apply(rollout={"deadline": deadline})
    world.expect(runs={serves: 1, candidate: 1} if tried else {serves: 1})
    world.wait(1.5 * HOUR).settle()
    assert (world.condition("Progressing")[1] == "RollingOut") is tried


def test_another_deadline_tries_at_once() -> None:
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    expire(world)
    world.apply(rollout={"deadline": "2h"})
    world.expect(runs={serves: 1, candidate: 1}, Progressing="RollingOut")


def test_a_changed_spec_forgets_the_tries() -> None:
    world, _ = serving_on(BIG)
    world.apply(**NEXT)
    expire(world)
    waits_for_retry(world)
    expire(world)
    world.apply(context={"maxTokens": 512})
    expire(world)
    assert round(waits_for_retry(world), -2) == 600


def test_an_operator_that_dies_at_the_deadline_leaves_the_retry_to_the_next() -> None:
    for writes in range(4):
        world, _ = serving_on(BIG)
        candidate = world.apply(**NEXT)
        world.start_pods(candidate).set_pods(candidate, unschedulable=NO_ROOM).settle()
        world.wait(HOUR)
        world.carry_out(world.plan(), writes)
        world.settle()
        assert round(waits_for_retry(world), -2) == 600


def test_in_place_what_served_comes_back_when_the_candidate_finds_no_node() -> None:
    world, serves = serving_on(BIG, **IN_PLACE)
    candidate = world.apply(**NEXT)
    world.expect(runs={serves: 0, candidate: 1})
    world.start_pods(candidate).set_pods(candidate, unschedulable=NO_ROOM, unschedulable_since=world.now).settle()
    assert (world.plan().requeue_after or 301) <= 300
    world.wait(300).settle()
    world.expect(runs={serves: 3}, Progressing=("DeadlineExceeded", NO_ROOM, "is retried"))
    assert round(waits_for_retry(world), -2) == 21600
