"""The count after an alarm: what it asks, what it finds, and what the limits make of it."""

import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.monitor.outcomes import ProbeResult
from r1plus_contract.verdict import WatchStanding
from r1plus_policies.gate.verdict import GateItem
from r1plus_policies.watch.confirmation import (
    WINDOW,
    Confirmation,
    ConfirmationLimits,
    count_answers,
    count_by_stratum,
    has_too_many_errors,
    judge_count,
    next_item,
    record_answer,
)
from support.tables import for_each

RIGHT, WRONG, ERROR = ProbeResult.CORRECT, ProbeResult.INCORRECT, ProbeResult.SERVER_ERROR
ITEMS = [GateItem(f"{stratum}-{n:02}", stratum) for stratum in ("additions", "capitals") for n in range(100)]
Behaviour = Callable[[str, int], ProbeResult]


def run(behaviour: Behaviour, items: list[GateItem] = ITEMS, seed: int = 1) -> tuple[Confirmation, list[str]]:
    """Ask until it is finished; `behaviour`: (item, how often it was asked before) -> result."""
    found, asked = Confirmation(seed), list[str]()
    while (item := next_item(items, found, 0.98)) is not None:
        found = record_answer(found, item, behaviour(item, asked.count(item)))
        asked.append(item)
    return found, asked


def failing(n: int, stratum: str, how: ProbeResult = WRONG, times: int = 9) -> Behaviour:
    bad = {f"{stratum}-{i:02}" for i in range(n)}
    return lambda item, before: how if item in bad and before < times else RIGHT


def sometimes(every: int) -> Behaviour:
    """One first answer in `every` is wrong, no second one."""
    chosen = {item.id for item in ITEMS[::every]}
    return lambda item, before: WRONG if item in chosen and before == 0 else RIGHT


TERMS = ConfirmationLimits(0.98, 0.98)


@for_each("behaviour, terms, standing", {
    "nothing lost: something has changed all the same": (failing(0, "additions"), TERMS, WatchStanding.CHANGED),
    "two of 200, four allowed": (failing(2, "additions"), TERMS, WatchStanding.CHANGED),
    "three of a stratum of 100, three allowed": (failing(3, "additions"), TERMS, WatchStanding.CHANGED),
    "four of one stratum are too many": (failing(4, "additions"), TERMS, WatchStanding.BELOW_THRESHOLD),
    "unless the threshold is lower": (failing(4, "additions"), ConfirmationLimits(0.97, 0.98), WatchStanding.CHANGED),
    "nine flips lose no item": (failing(9, "additions", times=1), TERMS, WatchStanding.CHANGED),
    "one first answer in ten wrong is no flip any more": (sometimes(10), TERMS, WatchStanding.BELOW_THRESHOLD),
    "two items without an answer": (failing(2, "additions", ERROR), TERMS, WatchStanding.CHANGED),
    "five items without an answer": (failing(5, "additions", ERROR), ConfirmationLimits(0.98, 0.9), WatchStanding.ERRORS),
    "half of it errors": (failing(100, "additions", ERROR), TERMS, WatchStanding.ERRORS),
    "errors rang and are over": (failing(0, "additions"), ConfirmationLimits(0.98, 0.98, True), WatchStanding.ERRORS),
    "errors rang and answers are wrong": (failing(9, "capitals"), ConfirmationLimits(0.98, 0.98, True), WatchStanding.BELOW_THRESHOLD),
})  # fmt: skip
def test_standings(behaviour: Behaviour, terms: ConfirmationLimits, standing: WatchStanding) -> None:
    found, _ = run(behaviour)
    assert judge_count(ITEMS, count_answers(ITEMS, found, 0.98), terms) is standing


def test_over_all_strata_the_share_decides() -> None:
    def behaviour(item: str, before: int) -> ProbeResult:
        return WRONG if item in {"additions-01", "additions-02", "capitals-01", "capitals-02", "capitals-03"} else RIGHT

    found = count_answers(ITEMS, run(behaviour)[0], 0.98)
    assert (len(found.lost_items), found.right, found.whole) == (5, 195, True)
    assert judge_count(ITEMS, found, TERMS) is WatchStanding.BELOW_THRESHOLD
    assert judge_count(ITEMS, found, ConfirmationLimits(0.975, 0.98)) is WatchStanding.CHANGED


def test_every_item_is_asked_before_any_is_asked_again() -> None:
    _, asked = run(failing(3, "capitals", times=1))
    assert sorted(asked[:200]) == [item.id for item in ITEMS]
    assert sorted(asked[200:]) == sorted(["capitals-00", "capitals-01", "capitals-02"] * 2)


def test_two_failures_need_no_third() -> None:
    _, asked = run(failing(3, "capitals"))
    assert len(asked) == 203


def test_a_server_that_only_errs_is_not_waited_for() -> None:
    found, asked = run(lambda item, before: ERROR)
    assert len(asked) == 6
    assert has_too_many_errors(found, 0.98)
    counted = count_answers(ITEMS, found, 0.98)
    assert (counted.whole, counted.right, counted.lost_items) == (False, 0, ())
    assert judge_count(ITEMS, counted, TERMS) is WatchStanding.ERRORS


def test_errors_are_a_rate_over_the_newest_probes_and_not_a_row() -> None:
    found = Confirmation(1)
    for n in range(10):
        for result in [ERROR] + [RIGHT] * 9:
            found = record_answer(found, f"i{n}", result)
    assert len(found.recent) == WINDOW
    assert not has_too_many_errors(found, 0.98), "5 of the newest 50"
    assert has_too_many_errors(record_answer(record_answer(found, "a", ERROR), "b", ERROR), 0.98)


@given(st.integers(0, 2**63), st.integers(1, 30), st.randoms(use_true_random=False))
def test_a_count_that_was_cut_off_goes_on_where_it_stood(seed: int, n: int, chance: random.Random) -> None:
    items = [GateItem(f"i{k}", "s") for k in range(n)]
    wrong = {f"i{k}" for k in range(n) if chance.random() < 0.3}
    whole, asked = run(lambda item, before: WRONG if item in wrong else RIGHT, items, seed)
    found = Confirmation(seed)
    for item in asked[: len(asked) // 2]:
        found = record_answer(found, item, WRONG if item in wrong else RIGHT)
    rest = []
    while (item := next_item(list(reversed(items)), found, 0.98)) is not None:
        rest.append(item)
        found = record_answer(found, item, WRONG if item in wrong else RIGHT)
    assert rest == asked[len(asked) // 2 :]
    assert found == whole
    assert set(count_answers(items, found, 0.98).lost_items) == wrong


def test_strata_are_told_with_the_most_first() -> None:
    assert list(count_by_stratum(ITEMS, ["capitals-01", "additions-02", "capitals-02"]).items()) == [
        ("capitals", 2),
        ("additions", 1),
    ]
