"""The gate's judgement: tables of scores and the verdicts they deserve."""

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.detector.exact import ITEMS, pass_gate, pass_short_check, pass_short_check_with_lost
from r1plus_contract.verdict import GateReport, StratumFigures, Verdict
from r1plus_policies.bounds import hypergeometric_at_least
from r1plus_policies.gate.first_answers import ALPHA, FirstAnswers
from r1plus_policies.gate.verdict import (
    CHECKS,
    MOST_LOST_ITEMS,
    GateItem,
    GateReason,
    GateStage,
    ItemScores,
    Judgement,
    Rules,
    Score,
    VerdictSubject,
    build_report,
    check_first_answers,
    check_stability,
    check_strata,
    check_total,
    check_unscored,
    judge_gate,
    max_lost_in_stratum,
    max_lost_items,
    rejudge,
    short_check_limit,
)
from support.tables import for_each

RULES = Rules(threshold=0.98, batch=16)
DONE = GateStage(full_sweeps=3, single=True)
C, F, X = Score.CORRECT, Score.FAILED, Score.UNSCORED


def item(number: int, full: str = "111", single: str = "1", stratum: str = "") -> ItemScores:
    """Scores in the characters of the record."""
    row = tuple(None if c == "." else Score(c) for c in full)
    return ItemScores(GateItem(f"i{number:03}", stratum or f"s{number % 4}"), row, tuple(Score(c) for c in single))


def suite(*special: tuple[int, str, str], n: int = 200, strata: int = 4) -> list[ItemScores]:
    """`n` sound items; (number, full, single) replaces one."""
    rows = {i: item(i, stratum=f"s{i % strata}") for i in range(n)}
    rows |= {i: item(i, full, single, f"s{i % strata}") for i, full, single in special}
    return list(rows.values())


@for_each("items, threshold, allowed", {
    "0.02 x 200 is 4, though the float beside it is less": (200, 0.98, 4),
    "4.2 is 4": (210, 0.98, 4),
    "4.98 is 4": (249, 0.98, 4),
    "5 is 5": (250, 0.98, 5),
    "0.1 x 100 is 10": (100, 0.9, 10),
    "0.001 x 1000 is 1": (1000, 0.999, 1),
    "all must be right": (200, 1.0, 0),
    "7.1 is 7": (10, 0.29, 7),
})  # fmt: skip
def test_allowed_is_exact(items: int, threshold: float, allowed: int) -> None:
    assert max_lost_items(items, threshold) == allowed
    assert max_lost_in_stratum(items, threshold) == allowed + 1


@given(st.integers(1, 5000), st.integers(1, 1000))
def test_allowed_is_the_floor_for_every_threshold_of_three_digits(items: int, mille: int) -> None:
    assert max_lost_items(items, mille / 1000) == items * (1000 - mille) // 1000


@for_each("full, single, at_batch, at_batch_1, unscored", {
    "right everywhere": ("111", "1", False, False, False),
    "one flip at the batch": ("101", "1", False, False, False),
    "two of three at the batch": ("100", "1", True, False, False),
    "three of three at the batch": ("000", "1", True, False, False),
    "one failure at batch 1, then right, is not decided": ("111", "01", False, False, False),
    "one of three at batch 1": ("111", "011", False, False, False),
    "two of three at batch 1": ("111", "010", False, True, False),
    "twice in a row at batch 1": ("111", "00", False, True, False),
    "one in each condition is not two in one": ("110", "01", False, False, False),
    "no score at the batch": ("1x1", "1", False, False, True),
    "no score at batch 1": ("111", "x", False, False, True),
    "not asked yet is not unscored": ("1..", "", False, False, False),
})  # fmt: skip
def test_when_an_item_is_lost(full: str, single: str, at_batch: bool, at_batch_1: bool, unscored: bool) -> None:
    found = item(0, full, single)
    assert (found.lost_at_batch, found.lost_at_batch_1, found.unscored) == (at_batch, at_batch_1, unscored)
    assert found.lost == (at_batch or at_batch_1)


def lost(*numbers: int) -> list[tuple[int, str, str]]:
    return [(n, "000", "1") for n in numbers]


@for_each("scores, stage, verdict, reason", {
    "all right passes": (suite(), DONE, Verdict.PASS, GateReason.PASSED),
    "four lost are allowed at 0.98": (suite(*lost(0, 1, 2, 3)), DONE, Verdict.PASS, GateReason.PASSED),
    "a fifth is not": (suite(*lost(0, 1, 2, 3, 4)), DONE, Verdict.FAIL, GateReason.TOO_MANY_LOST),
    "items lost at batch 1 alone count":
        (suite(*lost(0, 1, 2), (3, "111", "00"), (5, "111", "010")), DONE, Verdict.FAIL, GateReason.TOO_MANY_LOST),
    "but not twice": (suite(*[(n, "000", "00") for n in (0, 1, 2, 3)]), DONE, Verdict.PASS, GateReason.PASSED),
    "two lost of a stratum of 50 are allowed": (suite(*lost(0, 4)), DONE, Verdict.PASS, GateReason.PASSED),
    "a third is not": (suite(*lost(0, 4, 8)), DONE, Verdict.FAIL, GateReason.STRATUM_LOST),
    "15 flips of 600 are normal": (suite(*[(n, "011", "1") for n in range(15)]), DONE, Verdict.PASS, GateReason.PASSED),
    "16 are not": (suite(*[(n, "011", "1") for n in range(16)]), DONE, Verdict.FAIL, GateReason.UNSTABLE),
    "the failures of lost items are not flips":
        (suite(*lost(0, 1, 2, 3), *[(n, "101", "1") for n in range(10, 16)]), DONE, Verdict.PASS, GateReason.PASSED),
    "but four lost leave room for fewer flips":
        (suite(*lost(0, 1, 2, 3), *[(n, "101", "1") for n in range(10, 17)]), DONE, Verdict.FAIL, GateReason.TOO_MANY_WRONG),
    "one item unscored": (suite((7, "1x1", "1")), DONE, Verdict.INCONCLUSIVE, GateReason.ITEMS_UNSCORED),
    "a Fail outranks a missing score":
        (suite(*lost(0, 1, 2, 3, 4), (7, "1x1", "1")), DONE, Verdict.FAIL, GateReason.TOO_MANY_LOST),
    "a Fail may come after two sweeps":
        (suite(*[(n, "00.", "") for n in range(5)]), GateStage(2, False), Verdict.FAIL, GateReason.TOO_MANY_LOST),
})  # fmt: skip
def test_verdicts(scores: list[ItemScores], stage: GateStage, verdict: Verdict, reason: GateReason) -> None:
    found = judge_gate(scores, RULES, stage)
    assert (found.verdict, found.reason) == (verdict, reason)


@for_each("scores, stage", {
    "after two sweeps": (suite(), GateStage(2, False)),
    "before the sweep at batch 1": (suite(), GateStage(3, False)),
    "after batch 1, but not the third sweep": (suite(), GateStage(2, True)),
    "of nothing": ([], DONE),
    "flips are judged over all sweeps only": (suite(*[(n, "01.", "") for n in range(20)]), GateStage(2, False)),
})  # fmt: skip
def test_there_is_no_pass_yet(scores: list[ItemScores], stage: GateStage) -> None:
    assert judge_gate(scores, RULES, stage) is None


@given(
    st.lists(st.tuples(st.sampled_from(["111", "110", "100", "000", "1x1", "11.", "..."]), st.sampled_from(["", "1", "00", "011", "x"])), max_size=60),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([0.5, 0.9, 0.98, 1.0]),
)  # fmt: skip
def test_a_pass_means_all_that_it_claims(
    rows: list[tuple[str, str]], sweeps: int, single: bool, threshold: float
) -> None:
    scores = [item(n, full, one) for n, (full, one) in enumerate(rows)]
    found = judge_gate(scores, Rules(threshold, 16), GateStage(sweeps, single))
    if found is None or found.verdict is not Verdict.PASS:
        return
    assert scores
    assert (sweeps, single) == (3, True)
    assert not any(s.unscored for s in scores)
    assert Fraction(sum(s.lost for s in scores), len(scores)) <= 1 - Fraction(repr(threshold))


def test_the_limit_of_flips_counts_the_probes_of_kept_items_only() -> None:
    """120 kept items are 360 probes, so 11 flips at most; 600 probes would allow 15."""
    broken = [(n, "000", "1") for n in range(80)]
    for flips, verdict in ((11, Verdict.PASS), (12, Verdict.FAIL)):
        scores = suite(*broken, *[(n, "011", "1") for n in range(100, 100 + flips)])
        found = judge_gate(scores, Rules(threshold=0.5, batch=16), DONE)
        assert found.verdict is verdict


def test_the_order_of_checks_is_pinned() -> None:
    assert (check_total, check_strata, check_stability, check_first_answers, check_unscored) == CHECKS


@for_each("scores, stage, message", {
    "the whole suite and its strata, worst first": (
        suite(*lost(0, 4, 8, 1, 2)),
        DONE,
        "lost 5 of 200 items, 4 allowed at threshold 0.98; s0 3 of 50, s1 1 of 50, s2 1 of 50; McNemar p = 0.06",
    ),
    "and where it stopped": (
        suite(*[(n, "00.", "") for n in (0, 1, 2, 3, 4)]),
        GateStage(2, False),
        ("lost 5 of 200 items, 4 allowed at threshold 0.98; s0 2 of 50, s1 1 of 50, s2 1 of 50, s3 1 of 50 "
        "(stopped after sweep 2 of 3); McNemar p = 0.06"),
    ),
    "a stratum": (
        suite(*lost(0, 4, 8)),
        DONE,
        "lost 3 of 50 items of stratum s0, 2 allowed at threshold 0.98; over all 3 of 200, 4 allowed",
    ),
    "instability": (
        suite(*[(n, "011", "1") for n in range(16)]),
        DONE,
        ("16 failures that did not repeat in 3 sweeps at batch 16, at most 15 expected at a flip rate of 0.01 "
        "(quantile 0.999); lost 0 of 200 items, 4 allowed"),
    ),
    "wrong answers of both kinds": (
        suite(*lost(0, 1, 2, 3), *[(n, "011", "1") for n in range(10, 17)]),
        DONE,
        ("19 of 600 answers at batch 16 are wrong, 7 of them of items that are not lost; so the share that is right "
        "may be as low as 0.9582, and at least 0.9604 is needed: threshold 0.98 less a margin of 0.0196; lost 4 of "
        "200 items, 4 allowed"),
    ),
    "missing scores": (
        suite((7, "1x1", "1")),
        DONE,
        ("1 of 200 items have no score after 2 retries; lost 0 of the others, 4 allowed; the gate is repeated once "
        "the engine answers"),
    ),
    "a Pass": (
        suite((0, "011", "00")),
        DONE,
        ("lost 1 of 200 items, 4 allowed at threshold 0.98; 1 failures in 600 probes at batch 16, 1 items lost at "
        "batch 1"),
    ),
})  # fmt: skip
def test_messages_carry_the_figures(scores: list[ItemScores], stage: GateStage, message: str) -> None:
    found = judge_gate(scores, RULES, stage)
    assert found.message == message


def decided(scores: list[ItemScores], rules: Rules = RULES) -> Judgement:
    found = judge_gate(scores, rules, DONE)
    assert found is not None
    return found


def test_a_report_says_what_was_counted_and_of_what() -> None:
    subject = VerdictSubject("id", "suite-v1", "hash", "1")
    found = build_report(
        decided(suite(*lost(0, 1), (2, "110", "1"), (3, "111", "00"))), RULES, subject, seconds=61.234, decided_at="now"
    )
    assert (found.identity, found.suite, found.suite_hash, found.scorer_version) == ("id", "suite-v1", "hash", "1")
    assert (found.items, found.lost, found.allowed, found.lost_at_batch_1) == (200, 3, 4, 1)
    assert (found.failures, found.probes, found.sweeps) == (7, 801, 3)
    assert found.lost_items == ("i000", "i001", "i003")
    assert found.strata[0] == StratumFigures("s0", 50, 1, 2)
    assert (found.seconds, found.decided_at, found.threshold) == (61.2, "now", 0.98)


def test_a_report_lists_fifty_lost_items_at_most() -> None:
    found = build_report(
        decided(suite(*lost(*range(90)))), RULES, VerdictSubject("", "", "", ""), seconds=0, decided_at=""
    )
    assert (found.lost, len(found.lost_items)) == (90, MOST_LOST_ITEMS)


PASSED = build_report(decided(suite(*lost(0, 1))), RULES, VerdictSubject("", "", "", ""), seconds=0, decided_at="")
FAILED = build_report(decided(suite(*lost(*range(9)))), RULES, VerdictSubject("", "", "", ""), seconds=0, decided_at="")


@for_each("known, threshold, verdict", {
    "the same threshold, the same verdict": (PASSED, 0.98, Verdict.PASS),
    "a Fail, too": (FAILED, 0.98, Verdict.FAIL),
    "a Pass holds under a lower threshold": (PASSED, 0.9, Verdict.PASS),
    "and under a higher one that allows two lost": (PASSED, 0.99, Verdict.PASS),
    "not where two lost are one too many": (PASSED, 0.995, None),
    "a Fail under a lower threshold must be gated": (FAILED, 0.9, None),
    "strata count, too": (dataclasses.replace(PASSED, strata=(StratumFigures("s0", 50, 2, 2),)), 0.99, None),
    "a stratum that is not listed may have lost both": (dataclasses.replace(PASSED, strata=()), 0.99, None),
    "also where the threshold allows the same": (dataclasses.replace(PASSED, strata=()), 0.9801, None),
    "not under a lower threshold": (dataclasses.replace(PASSED, strata=()), 0.9, Verdict.PASS),
    "one item may be lost anywhere": (dataclasses.replace(PASSED, strata=(), lost=1), 0.99, Verdict.PASS),
    "first answers count, too: more failed than flips explain": (dataclasses.replace(PASSED, failures=16), 0.99, None),
    "as many as flips explain are no reason": (dataclasses.replace(PASSED, failures=15), 0.99, Verdict.PASS),
    "under a lower threshold they were enough already": (dataclasses.replace(PASSED, failures=27), 0.97, Verdict.PASS),
    "a report of no sweeps and no failures": (dataclasses.replace(PASSED, failures=0, sweeps=0), 0.99, Verdict.PASS),
    "more failures than probes are a lie": (dataclasses.replace(PASSED, failures=601), 0.99, None),
    "so are fewer than none": (dataclasses.replace(PASSED, failures=-1), 0.99, None),
    "and more probes than any suite has":
        (dataclasses.replace(PASSED, items=10**15, lost=0, failures=0), 0.99, None),
})  # fmt: skip
def test_a_verdict_under_another_threshold(known: GateReport, threshold: float, verdict: Verdict | None) -> None:
    assert rejudge(known, threshold) is verdict


@for_each("lost, flips", {
    "none lost: the limit is that of flips": (0, 15),
    "one": (1, 14),
    "two": (2, 12),
    "three": (3, 9),
    "as many as are allowed: no more flips than expected": (4, 7),
})  # fmt: skip
def test_the_more_items_are_lost_the_fewer_flips_are_allowed(lost: int, flips: int) -> None:
    """Of 211 items at 0.98: 633 answers."""
    for more, verdict in ((0, Verdict.PASS), (1, Verdict.FAIL)):
        special = [(n, "000", "1") for n in range(lost)] + [(n, "011", "1") for n in range(50, 50 + flips + more)]
        assert decided(suite(*special, n=211)).verdict is verdict


@given(st.integers(5, 600), st.sampled_from([0.5, 0.9, 0.93, 0.95, 0.98, 0.99, 1.0]), st.data())
def test_what_the_threshold_allows_passes_with_as_many_flips_as_are_expected(
    items: int, threshold: float, data: st.DataObject
) -> None:
    asked = 3 * items
    lost = data.draw(st.integers(0, max_lost_items(items, threshold)))
    flips = data.draw(st.integers(0, -(-asked // 100)))
    assert FirstAnswers(asked, 3 * lost + flips, flips).suffice(threshold)


@given(st.integers(5, 300), st.sampled_from([0.9, 0.98, 1.0]), st.integers(0, 30), st.integers(0, 60))
def test_more_wrong_answers_never_pass_where_fewer_do_not(items: int, threshold: float, lost: int, flips: int) -> None:
    lost = min(lost, items)
    flips = min(flips, 3 * (items - lost))
    if not FirstAnswers(3 * items, 3 * lost + flips, flips).suffice(threshold):
        if lost < items and flips <= 3 * (items - lost - 1):
            assert not FirstAnswers(3 * items, 3 * (lost + 1) + flips, flips).suffice(threshold)
        if flips < 3 * (items - lost):
            assert not FirstAnswers(3 * items, 3 * lost + flips + 1, flips + 1).suffice(threshold)


def test_a_healthy_engine_passes() -> None:
    assert pass_gate(lost=0, wrong=0.01) >= 0.999


@for_each("lost", {f"{lost} lost": lost for lost in range(5)})
def test_an_engine_below_the_threshold_less_the_margin_passes_once_in_twenty_at_most(lost: int) -> None:
    """Its share of right first answers is exactly 0.98 less the margin."""
    margin = FirstAnswers(3 * ITEMS, 0, 0).margin
    assert margin == pytest.approx(0.0207, abs=1e-4)
    wrong = ((1 - 0.98 + margin) * ITEMS - lost) / (ITEMS - lost)
    assert 0.02 < wrong < 0.05
    assert pass_gate(lost, wrong) <= ALPHA


def test_a_smaller_suite_has_a_greater_margin() -> None:
    margins = [FirstAnswers(3 * items, 0, 0).margin for items in (400, 211, 106, 30)]
    assert margins == pytest.approx([0.0162, 0.0207, 0.0287, 0.0517], abs=1e-3)


@for_each("wrong, least, most", {
    "a healthy pod": (0.01, 0.999, 1.0),
    "5 % wrong at random: mostly admitted": (0.05, 0.8, 0.85),
    "10 %": (0.10, 0.2, 0.3),
    "20 %: never": (0.20, 0.0, 0.01),
})  # fmt: skip
def test_which_pods_a_short_check_admits(wrong: float, least: float, most: float) -> None:
    assert least <= pass_short_check(wrong) <= most


@for_each("lost, most", {
    "as many as its revision may lose": (4, 1.0),
    "8 of 211": (8, 0.83),
    "20 of 211": (20, 0.23),
    "40 of 211": (40, 0.01),
})  # fmt: skip
def test_a_short_check_sees_items_lost_for_good_by_chance_only(lost: int, most: float) -> None:
    assert 0.8 * most - 0.01 <= pass_short_check_with_lost(lost) <= most


def test_the_rules_of_a_short_check_do_what_the_exact_sums_say() -> None:
    """Two sweeps over 40 items: 3 lost items are judged by the monitor's own limit, 6 flips by the gate's."""
    rules, done = Rules.for_sample(16), GateStage(full_sweeps=2, single=True)
    for flips, verdict in ((5, Verdict.PASS), (6, Verdict.FAIL)):
        scores = [item(n, "01" if n < flips else "11", "") for n in range(38)] + [item(n, "00", "") for n in (38, 39)]
        found = judge_gate(scores, rules, done)
        assert found is not None
        assert (found.verdict, len(found.figures.lost_items)) == (verdict, 2)


@given(st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.95, 0.98, 0.99, 1.0]))
def test_a_short_check_turns_a_sound_pod_away_once_in_twenty_at_most(items: int, threshold: float) -> None:
    drawn = min(40, items)
    limit = short_check_limit(items, threshold, drawn)
    population_lost = max_lost_items(items, threshold)
    assert hypergeometric_at_least(limit + 1, items, population_lost, drawn) <= Fraction(1, 20)
    if limit:
        assert hypergeometric_at_least(limit, items, population_lost, drawn) > Fraction(1, 20)


@for_each("rules, field", {
    "threshold 0": ({"threshold": 0.0, "batch": 1}, "threshold: 0.0"),
    "threshold 1.5": ({"threshold": 1.5, "batch": 1}, "threshold: 1.5"),
    "batch 0": ({"threshold": 0.9, "batch": 0}, "batch: 0"),
    "a single sweep": ({"threshold": 0.9, "batch": 1, "full_sweeps": 1}, "full_sweeps: 1"),
})  # fmt: skip
def test_rules_that_make_no_gate_are_refused(rules: dict[str, float], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Rules(**rules)  # type: ignore[arg-type]


@pytest.mark.parametrize(("threshold", "verdict"), [(0.98, Verdict.FAIL), (0.9799, Verdict.FAIL), (0.97, None)])
def test_a_fail_holds_under_a_threshold_that_allows_the_same_losses(threshold: float, verdict: Verdict | None) -> None:
    report = GateReport(Verdict.FAIL, "TooManyLost", "", "i", "s", "h", "1", 0.98, 211, 5, 4)
    assert rejudge(report, threshold) is verdict
