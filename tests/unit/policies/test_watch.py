"""A pod's watch as a value: alarms are latched, dated once and counted; what was heard is heard once."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.monitor.outcomes import ProbeOutcome, ProbeResult
from r1plus_contract.verdict import GateReport, Verdict, WatchStanding
from r1plus_policies.detector.detector import Detector, DetectorKey
from r1plus_policies.gate.verdict import GateItem, VerdictSubject
from r1plus_policies.watch.confirmation import next_item, record_answer
from r1plus_policies.watch.memory import (
    WatchState,
    build_watch_report,
    derive_standing,
    describe_watch,
    new_watch,
    observe_outcome,
    record_confirmation,
    recount,
    round_evidence,
)
from support.tables import for_each

RIGHT, WRONG, ERROR = ProbeResult.CORRECT, ProbeResult.INCORRECT, ProbeResult.SERVER_ERROR
SUBJECT = VerdictSubject("id", "suite", "hash", "1")
DETECTOR = Detector(DetectorKey("p", "r", "hash", 0.98), 1e5)
ITEMS = [GateItem(f"i{n:02}", "even" if n % 2 == 0 else "odd") for n in range(100)]


def gate(*lost: str, verdict: Verdict = Verdict.PASS, more: int = 0) -> GateReport:
    return GateReport(
        verdict, "", "", "id", "suite", "hash", "1", 0.95, 100, len(lost) + more, 5, lost_items=lost, batch=4
    )


NEW = new_watch(SUBJECT, DETECTOR, DETECTOR, gate("i00"))


def after(state: WatchState, results: list[ProbeResult], first: int = 1) -> WatchState:
    for n, result in enumerate(results, first):
        state = observe_outcome(state, ProbeOutcome(n, f"i{n % 50:02}", result), f"t{n}", seed=n)
    return state


def counted(state: WatchState, wrong: set[str], at: str = "later", threshold: float = 0.95) -> WatchState:
    assert state.counting is not None
    while (item := next_item(ITEMS, state.counting, 0.98)) is not None:
        state = dataclasses.replace(
            state, counting=record_answer(state.counting, item, WRONG if item in wrong else RIGHT)
        )
        assert state.counting is not None
    return record_confirmation(state, ITEMS, threshold, at)


RANG = after(NEW, [WRONG] * 6)


def test_the_first_alarm_is_dated_and_starts_one_count() -> None:
    assert (NEW.alarmed_at, derive_standing(NEW, ITEMS, 0.95)) == ("", WatchStanding.STEADY)
    before = after(NEW, [WRONG] * 5)
    assert (before.alarmed_at, before.counting) == ("", None)
    assert (RANG.alarmed_at, RANG.counting and RANG.counting.seed) == ("t6", 6)
    later = after(RANG, [WRONG] * 5, first=7)
    assert (later.alarmed_at, later.counting) == ("t6", RANG.counting)
    assert derive_standing(later, ITEMS, 0.95) is WatchStanding.CONFIRMING
    assert "raised an alarm at t6; lost items are being counted over all 100" in describe_watch(later, ITEMS, 0.95)


def test_errors_ring_their_own_bell_and_another_count() -> None:
    state = counted(RANG, set())
    assert derive_standing(state, ITEMS, 0.95) is WatchStanding.CHANGED
    errs = after(state, [ERROR] * 8, first=7)
    assert errs.counting is not None
    assert errs.accuracy == state.accuracy
    assert errs.alarmed_at == "t6"
    assert derive_standing(counted(errs, set()), ITEMS, 0.95) is WatchStanding.ERRORS


@given(st.lists(st.sampled_from([RIGHT, WRONG, ERROR]), max_size=30), st.integers(0, 30))
def test_what_was_heard_is_heard_once(results: list[ProbeResult], again: int) -> None:
    state = after(NEW, results)
    assert after(state, results[:again]) == state
    assert loads(WatchState, dumps(state)) == state


@pytest.mark.parametrize(
    ("wrong", "found", "words"),
    [
        pytest.param({"i00"}, WatchStanding.CHANGED, "0 items lost since the gate; 1 of 100 lost in all, 5 allowed", id="nothing new"),
        pytest.param({"i00", "i02", "i04", "i01"}, WatchStanding.CHANGED,
                     "3 items lost since the gate: even 2, odd 1; 4 of 100 lost in all, 5 allowed at threshold 0.95", id="above"),
        pytest.param({f"i{n:02}" for n in range(6)}, WatchStanding.BELOW_THRESHOLD,
                     "5 items lost since the gate: odd 3, even 2; 6 of 100 lost in all, 5 allowed at threshold 0.95", id="below"),
    ],
)  # fmt: skip
def test_what_a_count_says(wrong: set[str], found: WatchStanding, words: str) -> None:
    state = counted(RANG, wrong)
    assert state.counting is None
    report = build_watch_report(state, ITEMS, 0.95)
    assert (report.standing, report.watched, report.evidence) == (found, 99, 1.0)
    assert (report.confirmation.correct, report.confirmation.total) == (100 - len(wrong), 100)
    assert report.confirmation.finished_at == "later"
    assert report.lost_since_gate == tuple(sorted(wrong - {"i00"}))
    assert describe_watch(state, ITEMS, 0.95).startswith(words)


def test_what_is_lost_is_told_by_stratum_however_few_ids_are_named() -> None:
    report = build_watch_report(counted(RANG, {item.id for item in ITEMS}), ITEMS, 0.95)
    assert len(report.lost_since_gate) == 50
    assert {(s.name, s.items, s.lost, s.allowed) for s in report.strata} == {("even", 50, 49, 3), ("odd", 50, 50, 3)}
    assert build_watch_report(counted(RANG, {"i00"}), ITEMS, 0.95).strata == (), "nothing since the gate"


def test_a_graver_count_replaces_a_milder_one_and_not_the_other_way() -> None:
    bad = {f"i{n:02}" for n in range(9)}
    mild = counted(RANG, {"i02"}, "first")
    grave = counted(recount(mild, 7), bad, "second")
    assert (grave.confirmed_at, derive_standing(grave, ITEMS, 0.95)) == ("second", WatchStanding.BELOW_THRESHOLD)
    still = counted(recount(grave, 8), set(), "third")
    assert (still.confirmed_at, derive_standing(still, ITEMS, 0.95)) == ("second", WatchStanding.BELOW_THRESHOLD)
    assert derive_standing(still, ITEMS, 0.9) is WatchStanding.CHANGED, "a lower threshold judges the same count"


def test_a_count_under_way_is_not_begun_anew() -> None:
    assert recount(RANG, 99) is RANG
    assert record_confirmation(NEW, ITEMS, 0.95, "now") == NEW


@for_each("report, unwatched, watched", {
    "what the gate lost is not watched": (gate("i00", "i01"), ("i00", "i01"), 98),
    "all of it": (gate(), (), 100),
    "a list that was cut short": (gate("i00", more=60), None, 0),
    "a gate that may have stopped early": (gate("i00", verdict=Verdict.FAIL), None, 0),
})  # fmt: skip
def test_what_is_watched(report: GateReport, unwatched: tuple[str, ...] | None, watched: int) -> None:
    state = new_watch(SUBJECT, DETECTOR, DETECTOR, report)
    assert (state.unwatched, build_watch_report(state, ITEMS, 0.95).watched) == (unwatched, watched)


@for_each("evidence, said", {
    "none": (0.0, 0.0),
    "next to none": (9.9e-5, 0.0),
    "the least that is told": (1e-4, 1e-4),
    "rounded down": (0.00999, 1e-3),
    "never 1 before the alarm": (0.9999, 0.1),
    "the alarm": (1.0, 1.0),
    "and no more than that": (1e300, 1.0),
})  # fmt: skip
def test_evidence_is_told_in_powers_of_ten(evidence: float, said: float) -> None:
    assert round_evidence(evidence) == said
