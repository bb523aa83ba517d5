"""What a pass leaves to time it asks for: the earliest moment at which time alone may change the plan."""

import pytest

from r1plus_contract.verdict import WatchStanding
from r1plus_operator.plan.rollback import quarantine
from r1plus_operator.plan.rollback.quarantine import REPLACEMENT_SECONDS
from r1plus_operator.plan.status.conditions import ALERTS_GRACE_SECONDS
from support.plan.falls import controlled, fallen
from support.plan.world import World, serve_world

FULL = {"tier": "full", "context": {"maxTokens": 2048}}
DEADLINE_SECONDS = 3600.0


def test_nothing_is_looked_at_for_time_alone_where_nothing_waits() -> None:
    world = serve_world()
    world.now += ALERTS_GRACE_SECONDS
    assert world.pass_once().requeue_after is None


def test_after_a_switch_it_is_when_prometheus_should_have_read_the_rules() -> None:
    world = World(dict(FULL))
    promoted_at = world.revision(world.bring_up()).promoted_at
    assert promoted_at is not None
    assert world.pass_once().requeue_after == pytest.approx(promoted_at + ALERTS_GRACE_SECONDS - (world.now - 1.0))


@pytest.mark.parametrize("waited", [0.0, REPLACEMENT_SECONDS], ids=["its replacement's minute", "then its end"])
def test_of_a_pod_in_quarantine_it_is(waited: float) -> None:
    world, _, _ = fallen(replicas=2)
    world.now += ALERTS_GRACE_SECONDS
    one, other = sorted(world.pods)
    world.stand(other, WatchStanding.STEADY).settle()
    world.now += waited
    held = quarantine.read(world.pods[one])
    assert held is not None
    looked = world.pass_once().requeue_after
    ends = held.until if waited else held.since + REPLACEMENT_SECONDS
    assert looked == pytest.approx(ends - (world.now - 1.0))


def test_of_a_way_back_it_is_the_deadline_of_its_control_unless_something_is_due_before() -> None:
    world, _, bad = controlled()
    soon = world.pass_once().requeue_after
    assert soon is not None
    assert soon < ALERTS_GRACE_SECONDS
    world.now += ALERTS_GRACE_SECONDS
    record = world.revision(bad).rollback
    assert record is not None
    looked = world.pass_once().requeue_after
    assert looked == pytest.approx(record.started_at + DEADLINE_SECONDS - (world.now - 1.0))
