"""A promotion changes what all else is seen from: the pass that makes it asks for another one at once, and that tells."""

from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.plan.status.requeue import AT_ONCE_SECONDS
from r1plus_policies.rollout import DRAIN_SECONDS
from support.plan.world import World

SPEC = {"tier": "full", "context": {"maxTokens": 2048}}


def promoted(world: World, revision: str) -> Plan:
    """The pass in which a revision that may take traffic takes it."""
    for _ in range(6):
        world.start_pods(revision, ready=True)
        planned = world.pass_once()
        if world.revision(revision).promoted_at:
            return planned
    raise AssertionError(f"{revision} was not promoted")


def test_what_fell_before_it_took_traffic_is_told_at_once() -> None:
    world = World({**SPEC, "accuracy": {"gate": "Observe"}})
    world.settle()
    revision = world.candidate()
    world.start_pods(revision).gate(revision, Verdict.FAIL, lost=4)
    assert promoted(world, revision).requeue_after == AT_ONCE_SECONDS
    world.pass_once()
    assert world.status["incident"]["revision"] == revision


def test_where_one_could_go_back_to_is_told_at_once_and_the_drain_ends_in_time() -> None:
    world = World(dict(SPEC))
    first = world.bring_up()
    assert "rollbackBlockers" not in world.status
    second = world.apply(context={"maxTokens": 1024})
    world.start_pods(second).gate(second, Verdict.PASS)
    assert promoted(world, second).requeue_after == AT_ONCE_SECONDS
    again = world.pass_once()
    assert (again.writes, again.requeue_after) == (0, DRAIN_SECONDS - 1.0)
    assert [line.split()[0] for line in world.status["rollbackBlockers"]] == [first]
