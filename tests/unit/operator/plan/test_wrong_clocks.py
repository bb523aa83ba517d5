"""What a leader with a wrong clock has stored: a date in the future counts as now, and the order of events stays."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.rollback_record import BELOW_THRESHOLD, AccuracyDrop, RollbackRecord, RollbackTerms
from r1plus_operator.plan.revision.storage import SKEW_SECONDS, redate
from r1plus_policies.rollout import DRAIN_SECONDS, RETRY_SECONDS
from support.plan.falls import controlled, fallen
from support.plan.nodes import BIG, serving_on
from support.plan.world import DAY, NEXT, World, start_world

HOUR = 3600.0


def promote_a_day_ahead(world: World) -> tuple[str, str]:
    """Let a leader whose clock is a day ahead promote the next revision; return what served, and what does now."""
    before, candidate = world.selected(), world.apply(**NEXT)
    world.start_pods(candidate).gate(candidate, Verdict.PASS).settle()
    world.wait(DAY).set_ready(candidate).pass_once()
    world.wait(-DAY)
    assert world.selected() == candidate
    return before, candidate


def test_a_promotion_dated_in_the_future_counts_as_now() -> None:
    world, _ = serving_on(BIG)
    before, serves = promote_a_day_ahead(world)
    world.settle()
    world.expect(serves=serves, runs={before: 1, serves: 1})
    world.wait(DRAIN_SECONDS).settle()
    world.expect(serves=serves, runs={serves: 1}, Progressing="Complete")
    assert world.revision(serves).promoted_at < world.now
    assert not world.pass_once().writes


def test_a_wrong_clock_that_switched_back_changes_nothing_else() -> None:
    world, good, bad = controlled()
    world.control(Verdict.PASS).settle()
    world.wait(DAY).set_ready(good).pass_once()
    world.wait(-DAY).settle()
    record = world.revision(bad).rollback
    assert record is not None
    assert record.switched_at is not None
    assert (world.revision(bad).promoted_at or 0.0) < record.switched_at <= world.now
    assert world.revision(good).promoted_at == pytest.approx(record.switched_at, abs=0.002)
    world.start_pods(good, ready=True).wait(DRAIN_SECONDS).settle()
    world.expect(serves=good, runs={good: 1}, Progressing="RolledBack")


def test_a_control_that_began_in_the_future_is_overdue_in_its_time() -> None:
    world, good, bad = fallen()
    world.wait(30 * DAY).settle()
    world.start_pods(good).wait(-30 * DAY).settle()
    record = world.revision(bad).rollback
    assert record is not None
    assert record.started_at > world.now, "it names the attempt"
    world.expect(Progressing="RollingBack")
    world.wait(DAY).settle()
    assert "RollbackTargetOverdue" in str(world.status)


def withdraw_a_day_ahead(**pods: str) -> tuple[World, str, str]:
    """Let a leader whose clock is a day ahead end a candidate's deadline; return what serves, and the candidate."""
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    world.start_pods(candidate).set_pods(candidate, **pods).settle()
    world.wait(DAY).settle()
    world.expect(serves=serves, runs={serves: 1}, Progressing="DeadlineExceeded")
    world.wait(-DAY).settle()
    return world, serves, candidate


def test_a_deadline_that_a_clock_ahead_ended_begins_again() -> None:
    world, serves, candidate = withdraw_a_day_ahead()
    world.expect(serves=serves, runs={serves: 1, candidate: 1}, Progressing="RollingOut")
    assert not world.pass_once().writes
    world.wait(HOUR - 60).settle()
    world.expect(runs={serves: 1, candidate: 1}, Progressing="RollingOut")
    world.wait(60).settle()
    world.expect(runs={serves: 1}, Progressing="DeadlineExceeded")


def test_a_deadline_that_ended_by_another_leaders_clock_is_over() -> None:
    """Clocks of two leaders differ a little."""
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    world.start_pods(candidate).wait(HOUR).settle()
    expiry = world.revision(candidate).expiry
    assert expiry is not None
    world.wait(expiry.at - SKEW_SECONDS - world.now).settle()
    world.expect(serves=serves, runs={serves: 1}, Progressing="DeadlineExceeded")


def test_a_lack_of_room_from_the_future_counts_as_now() -> None:
    world, serves, candidate = withdraw_a_day_ahead(unschedulable="0/1 nodes are available")
    world.expect(runs={serves: 1}, Progressing=("DeadlineExceeded", "is retried"))
    world.wait(RETRY_SECONDS).settle()
    world.expect(runs={serves: 1, candidate: 1})


STORED = start_world().revision()
MOMENTS = st.floats(0, 2e6).map(lambda at: round(at, 3))


@given(st.lists(st.tuples(MOMENTS, st.none() | MOMENTS), min_size=1, max_size=6))
@example([(999_999.999, None), (1e6, 1_000_001.5), (1_000_001.5, None), (1_086_400.0, 1_086_400.0)])
def test_promotions_and_rollbacks_keep_their_order(moments: list[tuple[float, float | None]]) -> None:
    now, record = 1e6, RollbackRecord("r", RollbackTerms("r", "s", 0.98, ""), 0.0, BELOW_THRESHOLD, AccuracyDrop())
    revisions = {
        str(i): replace(STORED, promoted_at=promoted, rollback=replace(record, switched_at=switched))
        for i, (promoted, switched) in enumerate(moments)
    }

    def dates(found: Mapping[str, Revision]) -> list[float]:
        pairs = [(r.promoted_at, r.rollback and r.rollback.switched_at) for r in found.values()]
        return [at for pair in pairs for at in pair if at is not None]

    before, after = dates(revisions), dates(redate(revisions, now))
    assert all(b == a for b, a in zip(before, after, strict=True) if b <= now)
    assert all(a <= now + 1.1 for a in after)
    assert [(a < b, a == b) for a in before for b in before] == [(a < b, a == b) for a in after for b in after]
    if all(at > now + 1 for at in before):
        spans = [[max(dated) - at for at in dated] for dated in (before, after)]
        assert spans[0] == pytest.approx(spans[1], abs=0.02)
    assert redate(redate(revisions, now), now + 2) == redate(revisions, now)
