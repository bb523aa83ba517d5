"""The pool: every outcome once, in whatever way its pages come; and what it is without a pod."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.monitor.outcomes import OutcomePage, ProbeOutcome, ProbeResult
from r1plus_policies.detector.confidence import confidence_sequence
from r1plus_policies.detector.detector import Detector, DetectorEvidence, DetectorKey, observe_answer
from r1plus_policies.detector.pool import (
    ALPHA,
    MOST_RETIRED,
    DetectorPair,
    Pool,
    exclude,
    fold,
    forget,
    restore_pool,
)
from support.tables import for_each

KEY = DetectorKey("", "credit-1", "h" * 64, 0.98)
NEW = Pool(KEY, 1e5)
RIGHT, WRONG, ERRED = ProbeResult.CORRECT, ProbeResult.INCORRECT, ProbeResult.SERVER_ERROR
RESULTS = st.lists(st.sampled_from([RIGHT, WRONG, ERRED]), max_size=40)


def page(
    results: list[ProbeResult], *, first: int = 1, epoch: str = "e", oldest: int = 1, items: int = 7
) -> OutcomePage:
    outcomes = tuple(ProbeOutcome(n, f"i{n % items}", r) for n, r in enumerate(results, first))
    newest = first + len(results) - 1
    return OutcomePage(epoch, "credit-1", "id", "h" * 64, "1", items, oldest, newest, outcomes)


def apart(whole: OutcomePage, cuts: list[int]) -> list[OutcomePage]:
    """The same outcomes in several pages that may overlap."""
    edges = sorted([0, len(whole.outcomes), *(c % (len(whole.outcomes) + 1) for c in cuts)])
    return [replace(whole, outcomes=whole.outcomes[max(0, a - 3) : b]) for a, b in itertools.pairwise(edges)]


@given(RESULTS, st.lists(st.integers(0, 40), max_size=5))
def test_pages_that_overlap_and_come_twice_count_once(results: list[ProbeResult], cuts: list[int]) -> None:
    whole = fold(page(results), NEW, "a")
    pool = NEW
    for part in apart(page(results), cuts):
        pool = fold(part, fold(part, pool, "a"), "a")
    assert pool == whole
    assert fold(page(results), whole, "a") is whole


@given(RESULTS, st.randoms(use_true_random=False))
def test_pages_out_of_order_are_taken_when_their_turn_comes(results: list[ProbeResult], chance: random.Random) -> None:
    whole = fold(page(results), NEW, "a")
    parts = apart(page(results), [5, 11, 23])
    chance.shuffle(parts)
    pool = NEW
    for _ in parts:
        for part in parts:
            pool = fold(part, pool, "a")
    assert pool == whole


@given(RESULTS, st.randoms(use_true_random=False))
def test_outcomes_out_of_order_in_a_page_are_put_in_order(results: list[ProbeResult], chance: random.Random) -> None:
    whole = page(results)
    mixed = list(whole.outcomes) * 2
    chance.shuffle(mixed)
    assert fold(replace(whole, outcomes=tuple(mixed)), NEW, "a") == fold(whole, NEW, "a")


def test_the_pool_of_one_pod_is_that_pods_detector() -> None:
    results = [RIGHT, WRONG, WRONG, RIGHT] * 5
    detector = Detector(KEY, 1e5)
    for outcome in page(results).outcomes:
        detector = observe_answer(detector, outcome.item, outcome.result is RIGHT)
    pool = fold(page(results), NEW, "a")
    assert pool.total.accuracy == detector.evidence
    assert pool.accuracy == detector.ratio
    assert pool.readings["a"].failed == detector.failed


def test_errors_are_evidence_of_errors_alone() -> None:
    pool = fold(page([ERRED] * 20), NEW, "a")
    assert pool.errors > 1
    assert pool.accuracy == 0
    wrong = fold(page([WRONG] * 20), NEW, "a")
    assert wrong.accuracy > 1
    assert wrong.errors < 1e-3


@for_each("said, after, heard, evidence", {
    "what came before the acknowledgement is passed over": ("second", 40, 45, False),
    "what came after it counts": ("second", 0, 45, True),
    "a monitor that has not acted on it yet is waited for": ("first", 0, 3, False),
    "a monitor that does not say is taken at its word": (None, 0, 45, True),
})  # fmt: skip
def test_an_acknowledgement_begins_a_new_pool(said: str | None, after: int, heard: int, evidence: bool) -> None:
    old = fold(page([WRONG] * 3), replace(NEW, acknowledged="first"), "a")
    fresh = restore_pool(old, KEY, 2e5, "second")
    assert (fresh.accuracy, fresh.alarm_at, fresh.since("a"), fresh.readings["a"].failed) == (0.0, 2e5, 3, ())
    assert restore_pool(fresh, KEY, 3e5, "second") is fresh
    later = replace(page([WRONG] * 45), acknowledged=said, acknowledged_after=after)
    pool = fold(later, fresh, "a")
    assert (pool.since("a"), pool.accuracy >= 1, pool.readings["a"].missed) == (heard, evidence, 0)


def test_the_worst_pod_is_the_one_without_which_the_least_is_left() -> None:
    pool = fold(page([WRONG] * 4), fold(page([RIGHT] * 4), NEW, "b"), "a")
    assert (NEW.worst, fold(page([WRONG] * 4), NEW, "a").worst, pool.worst) == ("", "", "a")
    assert loads(Pool, dumps(replace(pool, before_alarm={"a": "12:00"}))).before_alarm == {"a": "12:00"}
    assert loads(Pool, dumps(pool)) == pool


def test_the_share_of_right_answers_is_counted_since_the_last_alarm_and_without_who_is_out() -> None:
    pool = fold(page([RIGHT] * 30 + [WRONG, ERRED]), NEW, "a")
    assert (NEW.interval, pool.right, pool.answered) == (None, 30, 31)
    assert pool.interval == confidence_sequence(30, 31, ALPHA)
    both = fold(page([RIGHT] * 9 + [WRONG]), pool, "b")
    assert (both.right, both.answered) == (39, 41)
    assert (exclude(both, "a").right, exclude(both, "a").answered) == (9, 10)
    assert (forget(both, "a").right, forget(both, "a").answered) == (39, 41)
    rang = fold(page([RIGHT] * 9 + [WRONG] * 40), both, "b")
    assert (rang.accuracy >= 1, rang.right, rang.answered < 40) == (True, 0, True)
    later = fold(page([RIGHT] * 9 + [WRONG] * 40 + [RIGHT]), rang, "b")
    assert (later.right, later.answered, later.readings["b"].right) == (1, rang.answered + 1, 1)
    assert restore_pool(later, KEY, 1e5, "ack").interval is None
    assert loads(Pool, dumps(later)) == later


def test_a_gap_that_nobody_can_fill_is_counted_and_the_rest_is_taken() -> None:
    pool = fold(page([RIGHT] * 3), NEW, "a")
    later = page([WRONG] * 4, first=10, oldest=8)
    waiting = fold(later, pool, "a")
    assert waiting.readings["a"].sequence == 7, "8 and 9 are still kept there: ask again"
    assert waiting.readings["a"].missed == 4
    assert waiting.total == pool.total
    found = fold(replace(later, oldest=10), waiting, "a")
    assert (found.readings["a"].sequence, found.readings["a"].missed) == (13, 6)
    assert found.total.accuracy.logs > pool.total.accuracy.logs


def test_a_monitor_that_lost_its_state_starts_anew_and_loses_no_evidence() -> None:
    pool = fold(page([WRONG] * 4), NEW, "a")
    # Asked for what follows 4, a monitor that counts from 1 again has nothing to give but its new epoch.
    told = fold(page([], first=3, epoch="f"), pool, "a")
    assert told.since("a") == 0
    assert told.total == pool.total
    both = fold(page([WRONG, WRONG], epoch="f"), told, "a")
    assert both.accuracy > pool.accuracy
    assert fold(page([WRONG] * 9), both, "a") is both, "a late page of the old epoch says nothing new"


def test_only_so_many_epochs_are_remembered() -> None:
    pool = NEW
    for n in range(MOST_RETIRED + 5):
        pool = fold(page([RIGHT], epoch=f"e{n}"), pool, "a")
    assert len(pool.readings["a"].retired) == MOST_RETIRED
    assert pool.readings["a"].retired[-1] == f"e{MOST_RETIRED + 3}"


@for_each("strange", {
    "another revision": replace(page([WRONG]), revision="credit-2"),
    "another suite": replace(page([WRONG]), suite_hash="x"),
})  # fmt: skip
def test_a_page_of_something_else_changes_nothing(strange: OutcomePage) -> None:
    assert fold(strange, NEW, "a") is NEW


def three_pods(bad: str) -> Pool:
    pool = NEW
    for n in range(40):
        for pod in ("a", "b", "c"):
            result = WRONG if pod in bad and n % 2 else RIGHT
            pool = fold(page([result], first=n + 1, items=1000), pool, pod)
    return pool


def test_one_bad_pod_makes_the_pool_ring_and_not_the_pool_without_it() -> None:
    pool = three_pods("b")
    assert pool.accuracy >= 1
    assert pool.accuracy_without("b") < 1e-2
    assert pool.accuracy_without("a") >= 1
    assert pool.accuracy_without("unknown") == pool.accuracy


def test_without_a_pod_the_pool_is_what_it_were_had_that_pod_never_been() -> None:
    never = NEW
    for n in range(40):
        for pod in ("a", "c"):
            never = fold(page([WRONG if pod == "a" and n % 2 else RIGHT], first=n + 1, items=1000), never, pod)
    assert three_pods("ab").without["b"] == never.total
    assert exclude(three_pods("ab"), "b").total == never.total


def test_a_quarantined_pod_is_gone_and_no_other_absence_gains_by_it() -> None:
    pool = three_pods("ab")
    left = exclude(pool, "b")
    assert left.readings.keys() == left.without.keys() == {"a", "c"}
    assert left.accuracy_without("a") <= min(pool.accuracy_without("a"), pool.accuracy_without("b"))
    assert exclude(three_pods("b"), "b").accuracy < 1e-2


def test_a_pod_that_comes_later_is_left_out_of_what_was_before_it() -> None:
    pool = fold(page([WRONG] * 5), NEW, "a")
    both = fold(page([WRONG] * 5), pool, "b")
    assert both.without["b"] == pool.total
    assert both.accuracy > pool.accuracy


def test_a_pod_that_is_gone_leaves_its_evidence() -> None:
    pool = fold(page([WRONG] * 5), NEW, "a")
    gone = forget(pool, "a")
    assert (gone.total, gone.readings, gone.without) == (pool.total, {}, {})
    assert forget(gone, "a") is gone


@given(RESULTS, RESULTS)
def test_a_checkpoint_goes_on_with_equal_bits(first: list[ProbeResult], second: list[ProbeResult]) -> None:
    pool = fold(page(second), fold(page(first), NEW, "a"), "b")
    again = loads(Pool, dumps(pool))
    assert again == pool
    more = page([WRONG, RIGHT], first=len(first) + 1)
    assert fold(more, again, "a") == fold(more, pool, "a")


def test_a_checkpoint_of_an_operator_with_five_bets_is_carried_over_at_its_mean() -> None:
    """What it had folded stays folded, and each pool without a pod keeps its own evidence."""
    five = DetectorEvidence((-1.5, 0.25, 3.0, 2.0, -7.0))
    stored = replace(
        fold(page([WRONG]), fold(page([RIGHT]), NEW, "b"), "a"),
        total=DetectorPair(five, five),
        without={"a": DetectorPair(), "b": DetectorPair(five, DetectorEvidence())},
    )
    again = restore_pool(loads(Pool, dumps(stored)), KEY, 2e5)
    assert (again.accuracy, again.errors) == (pytest.approx(stored.accuracy), pytest.approx(stored.errors))
    assert (again.accuracy_without("a"), again.accuracy_without("b")) == (0.0, pytest.approx(stored.accuracy))
    assert (again.readings, again.alarm_at, again.worst) == (stored.readings, stored.alarm_at, "a")
    assert exclude(fold(page([WRONG] * 4), again, "a"), "a").readings.keys() == {"b"}
    assert restore_pool(again, KEY, 2e5) is again


def test_a_checkpoint_of_another_key_is_no_evidence() -> None:
    pool = fold(page([WRONG] * 5), NEW, "a")
    assert restore_pool(pool, KEY, 2e5) is pool
    other = replace(KEY, suite_hash="x")
    assert restore_pool(pool, other, 2e5) == Pool(other, 2e5)
    assert restore_pool(None, KEY, 2e5) == Pool(KEY, 2e5)
