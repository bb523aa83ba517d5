"""A continuous sweep: its figures, its order, and that nothing but a score fills it."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_monitoring.probing import Pace, Result
from r1plus_monitoring.sweeping import below, figures_of, order, sweep

ITEMS = [f"i{n:03}" for n in range(20)]


def scores(right: int, wrong: int) -> dict[str, bool]:
    return {f"i{n:04}": n < right for n in range(right + wrong)}


@pytest.mark.parametrize(
    ("right", "wrong", "threshold", "fallen"),
    [
        pytest.param(210, 0, 0.98, False, id="all right"),
        pytest.param(202, 8, 0.98, False, id="eight of 210 wrong may be flips"),
        pytest.param(190, 20, 0.98, True, id="twenty may not"),
        pytest.param(163, 47, 0.98, True, id="forty-seven are a broken engine"),
        pytest.param(163, 47, 0.7, False, id="unless so many may be wrong"),
        pytest.param(0, 210, 0.05, True, id="none right is far below"),
    ],
)
def test_a_sweep_below_the_threshold(right: int, wrong: int, threshold: float, fallen: bool) -> None:
    found = figures_of(scores(right, wrong), "now")
    assert (found.correct, found.total, found.finished_at) == (right, right + wrong, "now")
    assert below(found, threshold) is fallen


@given(st.integers(0, 60), st.integers(1, 60))
def test_bounds_hold_the_ratio_between_them(right: int, wrong: int) -> None:
    found = figures_of(scores(right, wrong), "")
    assert 0 <= found.lower <= right / (right + wrong) <= found.upper <= 1
    assert len(found.lost_items) == min(wrong, 50)


@given(st.integers(0, 2**63))
def test_an_order_is_a_permutation_that_the_seed_decides(seed: int) -> None:
    assert sorted(order(ITEMS, seed)) == ITEMS
    assert order(ITEMS, seed) == order(list(reversed(ITEMS)), seed)


def test_orders_differ() -> None:
    assert len({tuple(order(ITEMS, seed)) for seed in range(20)}) == 20


def pace() -> Pace:
    return Pace(lambda: 60_000_000)


async def test_a_sweep_goes_on_where_it_stood() -> None:
    asked: list[str] = []

    async def ask(item: str) -> Result:
        asked.append(item)
        return Result.CORRECT

    found = {"i003": False, "i004": True}
    await sweep(ITEMS, 1, found, ask=ask, pace=pace(), until_ready=lambda: asyncio.sleep(0), scored=lambda: None)
    assert sorted([*asked, "i003", "i004"]) == ITEMS
    assert not found["i003"]


@pytest.mark.parametrize(
    ("result", "right"),
    [
        pytest.param(Result.CORRECT, True, id="right"),
        pytest.param(Result.INCORRECT, False, id="wrong"),
        pytest.param(Result.SERVER_ERROR, False, id="a server error is wrong"),
        pytest.param(Result.TIMEOUT, False, id="a time-out is wrong"),
        pytest.param(Result.UNSCORABLE, False, id="what cannot be scored is not shown to be right"),
    ],
)
async def test_what_counts(result: Result, right: bool) -> None:
    async def ask(item: str) -> Result:
        return result

    found: dict[str, bool] = {}
    await sweep(["i"], 1, found, ask=ask, pace=pace(), until_ready=lambda: asyncio.sleep(0), scored=lambda: None)
    assert found == {"i": right}


async def test_nobody_there_is_no_score() -> None:
    answers = [Result.TRANSPORT, Result.TRANSPORT, Result.CORRECT]
    waited: list[int] = []

    async def ask(item: str) -> Result:
        return answers.pop(0)

    async def until_ready() -> None:
        waited.append(1)

    found: dict[str, bool] = {}
    await sweep(["i"], 1, found, ask=ask, pace=pace(), until_ready=until_ready, scored=lambda: None)
    assert (found, len(waited)) == ({"i": True}, 2)


async def test_the_pace_is_kept_and_has_no_burst() -> None:
    paced = Pace(lambda: 1200)
    await paced.wait()
    await asyncio.sleep(0.2)
    started = time.monotonic()
    for _ in range(4):
        await paced.wait()
    assert time.monotonic() - started >= 3 * 0.05 - 0.001
