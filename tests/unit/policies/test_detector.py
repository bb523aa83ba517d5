"""The detector against its definition, its promise and its state."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_policies.detector.budget import Budget
from r1plus_policies.detector.detector import (
    Detector,
    DetectorEvidence,
    DetectorKey,
    advance,
    build_bets,
    carry_over,
    evidence_ratio,
    log_mean,
    observe_answer,
    restore_detector,
)
from support.tables import for_each

KEY = DetectorKey("credit-1-abcde", "credit-1", "a" * 64, 0.98)
P0S = st.floats(0.5, 0.9999)
ANSWERS = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans()), max_size=60)


def fresh(alarm_at: float = 2.33e6, p0: float = 0.98) -> Detector:
    return Detector(DetectorKey("p", "r", "h", p0), alarm_at)


def after(answers: list[tuple[str, bool]], detector: Detector) -> Detector:
    for item, passed in answers:
        detector = observe_answer(detector, item, passed)
    return detector


def bets_by_definition(p0: float) -> list[tuple[float, bool]]:
    """(failure rate, whether it is 0.7 on an item whose last answer failed) of each bet."""
    factors = (1.5, 2, 3, 5, 10) if p0 >= 0.97 else (1.25, 1.5, 2, 3, 5)
    rates = [min(0.98, m * (1 - p0)) for m in factors]
    return [(e, True) for e in rates] + [(e, False) for e in rates[1:4]]


def by_definition(answers: list[tuple[str, bool]], p0: float) -> float:
    """log of the mean over the bets of sum over every start j of the product of L from j on, in plain numbers."""
    e0, bets, total = 1 - p0, bets_by_definition(p0), 0.0
    for rate, has_memory in bets:
        failed, ratios = set[str](), []
        for item, passed in answers:
            e = 0.7 if has_memory and item in failed else rate
            ratios.append((1 - e) / p0 if passed else e / e0)
            failed = failed - {item} if passed else failed | {item}
        total += math.fsum(math.prod(ratios[j:]) for j in range(len(ratios)))
    return math.log(total / len(bets))


@given(ANSWERS.filter(bool), st.sampled_from([0.5, 0.9, 0.95, 0.97, 0.98, 0.995]))
def test_the_evidence_is_the_sum_over_all_starts(answers: list[tuple[str, bool]], p0: float) -> None:
    found = log_mean(after(answers, fresh(p0=p0)).evidence.logs)
    assert found == pytest.approx(by_definition(answers, p0), rel=1e-9, abs=1e-9)


@given(P0S, st.floats(0, 1))
def test_no_bet_gains_while_the_hypothesis_holds(p0: float, better: float) -> None:
    p, table = p0 + (1 - p0) * better, build_bets(p0)
    for right, wrong in ((table.right, table.wrong), (table.right_again, table.wrong_again)):
        for a, b in zip(right, wrong, strict=True):
            assert p * math.exp(a) + (1 - p) * math.exp(b) <= 1 + 1e-9
            assert p0 * math.exp(a) + (1 - p0) * math.exp(b) == pytest.approx(1)


@given(
    st.sampled_from([0.5, 0.95, 0.98]),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=9),
    st.lists(st.floats(0, 1), min_size=1, max_size=16),
)
def test_the_mean_evidence_after_n_probes_is_at_most_n_whatever_the_past_decides(
    p0: float, asked: list[str], better: list[float]
) -> None:
    """By enumeration of every sequence of answers: a probability above p0 may depend on all answers so far."""
    paths: list[tuple[float, tuple[bool, ...], Detector]] = [(1.0, (), fresh(p0=p0))]
    for item in asked:
        after_one = []
        for weight, past, detector in paths:
            p = p0 + (1 - p0) * better[hash(past) % len(better)]
            for passed, chance in ((True, p), (False, 1 - p)):
                after_one.append((weight * chance, (*past, passed), observe_answer(detector, item, passed)))
        paths = after_one
    mean = math.fsum(weight * math.exp(log_mean(detector.evidence.logs)) for weight, _, detector in paths)
    assert mean <= len(asked) * (1 + 1e-9)
    if set(better) == {0.0}:
        assert mean == pytest.approx(len(asked)), "at exactly p0 nothing is given away"


@for_each("p0, rates", {
    "a deterministic engine: far alternatives": (0.98, (0.03, 0.04, 0.06, 0.1, 0.2)),
    "0.97 is still steady": (0.97, (0.045, 0.06, 0.09, 0.15, 0.3)),
    "just below it is not": (0.969, (0.03875, 0.0465, 0.062, 0.093, 0.155)),
    "a noisy one: near alternatives": (0.95, (0.0625, 0.075, 0.1, 0.15, 0.25)),
    "no bet beyond 0.98": (0.7, (0.375, 0.45, 0.6, 0.9, 0.98)),
})  # fmt: skip
def test_alternatives(p0: float, rates: tuple[float, ...]) -> None:
    wrong, wrong_again = (
        [math.exp(x) * (1 - p0) for x in logs] for logs in (build_bets(p0).wrong, build_bets(p0).wrong_again)
    )
    assert wrong == pytest.approx([*rates, *rates[1:4]])
    assert wrong_again == pytest.approx([0.7] * 5 + list(rates[1:4]))


@for_each("wrong, with_memory", {
    "4 % wrong at random": (0.04, False),
    "5 %": (0.05, False),
    "9 %": (0.09, False),
    "20 % is found by both": (0.20, True),
})  # fmt: skip
def test_bets_with_memory_alone_gain_nothing_from_answers_that_are_wrong_at_random(
    wrong: float, with_memory: bool
) -> None:
    """The mean of log L per probe, where an item's last answer failed with the same probability."""
    bets = build_bets(0.98)
    drifts = [
        (1 - wrong) * (wrong * w + (1 - wrong) * r) + wrong * (wrong * again_w + (1 - wrong) * again_r)
        for r, w, again_r, again_w in zip(bets.right, bets.wrong, bets.right_again, bets.wrong_again, strict=True)
    ]
    assert (max(drifts[:5]) > 0) is with_memory
    assert max(drifts[5:]) > 0


@for_each("p0, said", {
    "an engine that may never err": (1.0, "p0: 1.0 must be at least 0.5 and below 1"),
    "bets would be on fewer failures than p0 allows": (0.49, "p0: 0.49 must be at least 0.5"),
    "no probability": (-1.0, "p0: -1.0"),
    "no number": (math.nan, "p0: nan"),
})  # fmt: skip
def test_what_p0_cannot_be(p0: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Detector(DetectorKey("p", "r", "h", p0), 1e5)


@pytest.mark.parametrize("alarm_at", [1.0, 0.0, math.inf, math.nan])
def test_what_a_threshold_cannot_be(alarm_at: float) -> None:
    with pytest.raises(ValueError, match=r"alarm_at: .* must be above 1 and finite"):
        fresh(alarm_at)


FORMER = '{"logs":[-1.5,0.25,3.0,2.0,-7.0],"alarmed":false}'
"""Evidence as a version with five bets stored it."""


@for_each("stored", {
    "of five bets": loads(DetectorEvidence, FORMER),
    "after its alarm": replace(loads(DetectorEvidence, FORMER), alarmed=True),
    "of more bets than there are": DetectorEvidence((1.0, 2.0) * 10),
    "of a later version, which was taken back": DetectorEvidence((0.5,)),
})  # fmt: skip
def test_evidence_of_another_version_is_carried_over_at_its_mean(stored: DetectorEvidence) -> None:
    detector = Detector(KEY, 1e5, stored, ("a", "b"))
    again = restore_detector(loads(Detector, dumps(detector)), KEY, 1e6)
    assert (again.ratio, again.alarmed) == (pytest.approx(detector.ratio), stored.alarmed)
    assert (again.failed, again.alarm_at) == (("a", "b"), 1e5)
    assert log_mean(observe_answer(again, "c", False).evidence.logs) > log_mean(again.evidence.logs)
    assert restore_detector(again, KEY, 1e6) is again


def test_the_promise_holds_across_an_upgrade() -> None:
    """The mean of the evidence grows by at most one a probe, also in the step after it was carried over."""
    before = loads(DetectorEvidence, FORMER)
    evidence = carry_over(before, 0.98)
    gains = [build_bets(0.98).gains_of(passed, again=True) for passed in (True, False)]
    right, wrong = (math.exp(log_mean(advance(evidence, gain, 1e9).logs)) for gain in gains)
    assert 0.98 * right + 0.02 * wrong == pytest.approx(math.exp(log_mean(before.logs)) + 1)


@given(ANSWERS, ANSWERS)
def test_a_state_that_was_stored_goes_on_with_equal_bits(
    first: list[tuple[str, bool]], second: list[tuple[str, bool]]
) -> None:
    detector = after(first, fresh())
    again = loads(Detector, dumps(detector))
    assert again == detector
    assert after(second, again) == after(second, detector)


@for_each("other", {
    "another pod": DetectorKey("other", "credit-1", "a" * 64, 0.98),
    "another revision": DetectorKey(KEY.pod, "credit-2", "a" * 64, 0.98),
    "another suite": DetectorKey(KEY.pod, "credit-1", "b" * 64, 0.98),
    "another p0": DetectorKey(KEY.pod, "credit-1", "a" * 64, 0.99),
})  # fmt: skip
def test_evidence_of_another_key_is_no_evidence(other: DetectorKey) -> None:
    stored = after([("a", False)] * 9, Detector(KEY, 1e5))
    assert restore_detector(stored, other, 1e6) == Detector(other, 1e6)
    assert restore_detector(stored, KEY, 1e6) is stored, "its threshold is the one it was born with"
    assert restore_detector(None, KEY, 1e6) == Detector(KEY, 1e6)


def test_a_stored_nan_is_not_read() -> None:
    """No comparison would ever find it above A."""
    text = dumps(Detector(KEY, 1e5, DetectorEvidence((0.0,) * 8))).replace("[0.0,", "[NaN,")
    with pytest.raises(ContractError, match=r"evidence\.logs\[0\]: expected a finite number"):
        loads(Detector, text)


def test_an_alarm_stays() -> None:
    detector = fresh(1e5)
    assert (detector.ratio, detector.alarmed) == (0.0, False)
    asked = 0
    while not detector.alarmed:
        assert detector.ratio < 1
        detector = observe_answer(detector, f"i{asked}", False)
        asked += 1
    assert asked == 6, "tenfold each, on one bet of eight"
    detector = after([(f"i{n}", True) for n in range(500)], detector)
    assert log_mean(detector.evidence.logs) < math.log(detector.alarm_at)
    assert (detector.ratio, detector.alarmed) == (1.0, True)


def test_the_alarm_is_at_its_threshold_and_not_above() -> None:
    logs = observe_answer(fresh(), "a", False).evidence.logs
    exact = math.exp(log_mean(logs))
    assert advance(DetectorEvidence(), logs, exact * (1 - 1e-12)).alarmed
    assert not advance(DetectorEvidence(), logs, exact * (1 + 1e-12)).alarmed


def test_evidence_beyond_every_float_is_still_a_number() -> None:
    detector = after([("a", False)] * 2000, fresh())
    assert math.isfinite(detector.ratio)
    assert evidence_ratio(DetectorEvidence((-1e6,) * 8), 1e5) == 0.0


def test_an_item_that_fails_again_says_more_than_another_that_fails() -> None:
    again = after([("a", False), ("a", False)], fresh())
    other = after([("a", False), ("b", False)], fresh())
    healed = after([("a", False), ("a", True), ("a", False)], fresh())
    assert again.ratio > 3 * other.ratio
    assert again.failed == ("a",)
    assert other.failed == ("a", "b")
    assert healed.ratio < other.ratio


def test_a_flip_that_heals_costs_its_evidence() -> None:
    assert after([("a", False), ("a", True)], fresh()).ratio < after([("a", False), ("b", True)], fresh()).ratio


def test_false_alarms_are_as_rare_as_promised() -> None:
    """A = 200 and 60,000 probes at exactly p0: a mean time of A means at most 300 alarms, and there are about 200."""
    chance, alarms, detector = random.Random(5), 0, fresh(200, 0.95)
    for n in range(60_000):
        detector = observe_answer(detector, f"i{n}", chance.random() < 0.95)
        if detector.alarmed:
            alarms, detector = alarms + 1, fresh(200, 0.95)
    assert 100 < alarms < 300


@for_each("budget, pod, pool", {
    "the default: 2.33e6 and 1.87e7": (Budget(6, 8, 30), 2_332_800, 18_662_400),
    "with one replica the pod is the pool": (Budget(6, 1, 30), 518_400, 518_400),
    "ten times the probes, ten times the evidence": (Budget(60, 8, 30), 23_328_000, 186_624_000),
})  # fmt: skip
def test_thresholds_of_a_budget(budget: Budget, pod: float, pool: float) -> None:
    assert (budget.pod, budget.pool) == (pod, pool)


@given(st.integers(1, 600), st.integers(1, 64), st.integers(1, 365), st.data())
def test_the_alarms_of_all_detectors_stay_within_the_budget(
    rate: int, most: int, days: int, data: st.DataObject
) -> None:
    budget, pods = Budget(rate, most, days), data.draw(st.integers(1, most))
    per_minute = pods * rate / budget.pod + pods * rate / budget.pool
    assert per_minute * days * 24 * 60 <= 1 + 1e-9


@for_each("values, said", {
    "nobody asks": ((0, 8, 30), "probes_per_minute: 0 must be 1 or more"),
    "no pods": ((6, 0, 30), "most_pods: 0"),
    "no days": ((6, 8, 0), "days: 0"),
})  # fmt: skip
def test_what_a_budget_cannot_be(values: tuple[int, int, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Budget(*values)
