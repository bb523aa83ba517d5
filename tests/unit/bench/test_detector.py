"""What `make bench NAME=detector` reckons with, on sizes small enough for a unit test."""

import math

import pytest

from bench.detector import at_random, exact, gates, interval, oracle, per_item, pure
from bench.detector.__main__ import Line, lower_bound_of_mean
from r1plus_policies.bounds import binomial_at_most


@pytest.mark.parametrize(
    ("alarms", "bound"),
    [
        pytest.param(0, 1000 / -math.log(0.05), id="no alarm: the bound has a closed form"),
        pytest.param(1, 1000 / 4.7439, id="one, by the table of Poisson limits"),
        pytest.param(10, 1000 / 16.9622, id="ten, likewise"),
    ],
)
def test_the_lower_bound_of_a_mean_time(alarms: int, bound: float) -> None:
    assert lower_bound_of_mean(1000, alarms) == pytest.approx(bound, rel=1e-4)


def test_the_bound_holds_for_as_many_alarms_as_a_full_run_has() -> None:
    upper = 32_000_000 / lower_bound_of_mean(32_000_000, 220)
    assert binomial_at_most(220, 32_000_000, upper / 32_000_000) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        pytest.param(Line("", 3, 3), True, id="at most"),
        pytest.param(Line("", 3.1, 3), False, id="more than that"),
        pytest.param(Line("", 3, 3, least=True), True, id="at least"),
        pytest.param(Line("", 2.9, 3, least=True), False, id="less than that"),
        pytest.param(Line("", math.nan, 3), False, id="no number reaches nothing"),
        pytest.param(Line("", 9), True, id="only told"),
    ],
)
def test_what_misses(line: Line, holds: bool) -> None:
    assert line.holds is holds


def test_the_same_seed_gives_the_same_figures() -> None:
    assert pure.in_control(5, 2_000) == pure.in_control(5, 2_000)
    assert pure.delays(5, 3) == pure.delays(5, 3)
    assert pure.delays(5, 3) != pure.delays(6, 3)
    assert per_item.broken(5, 3) == per_item.broken(5, 3)
    assert at_random.in_control(5, 2_000) == at_random.in_control(5, 2_000)


def test_a_cusum_rings_more_rarely_and_later_with_a_higher_limit() -> None:
    low, high = (oracle.arl(0.8, limit, 1, streams=300) for limit in (3.0, 5.0))
    assert 3 * low < high
    assert oracle.delay(0.8, 5.0, 300, 1) < oracle.delay(0.8, 7.0, 300, 1)


def test_simulated_engines_are_told_apart() -> None:
    assert gates.passes(1, 5, 0.0) == 5
    assert gates.passes(1, 5, 0.05) == 0
    assert interval.missed(1, 20) <= 4
    assert per_item.mix_shift(1, 5) <= 1
    found = per_item.broken(1, 5)
    assert all(len(found.delays[share]) + found.early == 5 for share in per_item.BROKEN)


def test_bets_without_memory_find_in_an_hour_or_two_what_those_with_memory_take_a_day_for() -> None:
    found = at_random.delays(3, 4)
    assert found.early == 0
    assert max(found.now["random_5"]) < at_random.MOST_PROBES / 4
    assert max(found.five["random_5"]) > 2 * max(found.now["random_5"])
    assert all(now <= 1.2 * five for now, five in zip(found.now["lost_20"], found.five["lost_20"], strict=True))
    assert found.now["random_2"] == [at_random.MOST_PROBES] * 4, "as p0 allows: no alarm in a day"


def test_the_exact_sums_agree_with_the_run_that_a_prober_drives() -> None:
    runs = 200
    for wrong in (0.05, 0.1):
        share, expected = gates.admits(1, runs, wrong) / runs, exact.pass_short_check(wrong, items=len(gates.ITEMS))
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / runs))
    assert gates.passes(1, 60, 0.0, flips=0.03) / 60 == pytest.approx(exact.pass_gate(0, 0.03, items=200), abs=0.25)


def test_a_count_sees_an_accuracy_far_below_the_threshold_at_once_and_one_just_below_it_rarely() -> None:
    assert [round(exact.count_below(wrong), 2) for wrong in (0.02, 0.04, 0.05, 0.10)] == [0.0, 0.08, 0.26, 0.98]
