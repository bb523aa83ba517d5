"""A continuous sweep: its figures, its order, and that nothing but a score fills it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_monitoring.probe.probes import ProbePace, Result
from r1plus_monitoring.probe.sweeps import compute_figures, shuffle_items, sweep
from support.tables import for_each
from support.virtual_time import read_loop_time

ITEMS = [f"i{n:03}" for n in range(20)]


def scores(right: int, wrong: int) -> dict[str, bool]:
    return {f"i{n:04}": n < right for n in range(right + wrong)}


def test_a_sweep_in_figures() -> None:
    found = compute_figures(scores(163, 47), "now")
    assert (found.correct, found.total, found.finished_at) == (163, 210, "now")
    assert found.lost_items == tuple(f"i{n:04}" for n in range(163, 210))


@given(st.integers(0, 60), st.integers(1, 60))
def test_bounds_hold_the_ratio_between_them(right: int, wrong: int) -> None:
    found = compute_figures(scores(right, wrong), "")
    assert 0 <= found.lower <= right / (right + wrong) <= found.upper <= 1
    assert len(found.lost_items) == min(wrong, 50)


@given(st.integers(0, 2**63))
def test_an_order_is_a_permutation_that_the_seed_decides(seed: int) -> None:
    assert sorted(shuffle_items(ITEMS, seed)) == ITEMS
    assert shuffle_items(ITEMS, seed) == shuffle_items(list(reversed(ITEMS)), seed)


def test_orders_differ() -> None:
    assert len({tuple(shuffle_items(ITEMS, seed)) for seed in range(20)}) == 20


async def ignore(*_: object) -> None:
    """Neither waits nor listens."""


async def swept(
    items: list[str],
    ask: Callable[[str], Awaitable[Result]],
    found: dict[str, bool],
    until_ready: Callable[[], Awaitable[None]] = ignore,
) -> dict[str, bool]:
    """Sweep as fast as can be, and return all scores."""
    pace = ProbePace(lambda: 60_000_000)
    await sweep(items, 1, found, ask=ask, pace=pace, until_ready=until_ready, on_score=ignore)
    return found


async def test_a_sweep_goes_on_where_it_stood() -> None:
    asked: list[str] = []

    async def ask(item: str) -> Result:
        asked.append(item)
        return Result.CORRECT

    found = await swept(ITEMS, ask, {"i003": False, "i004": True})
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

    assert await swept(["i"], ask, {}) == {"i": right}


async def test_nobody_there_is_no_score() -> None:
    answers = [Result.TRANSPORT, Result.TRANSPORT, Result.CORRECT]
    waited: list[int] = []

    async def ask(item: str) -> Result:
        return answers.pop(0)

    async def until_ready() -> None:
        waited.append(1)

    assert (await swept(["i"], ask, {}, until_ready), len(waited)) == ({"i": True}, 2)


async def test_the_pace_is_kept_and_has_no_burst(virtual_time: None) -> None:
    paced = ProbePace(lambda: 2, clock=read_loop_time)
    await paced.wait()
    await asyncio.sleep(120)  # Four turns are missed; none of them is made up for.
    started = read_loop_time()
    for _ in range(4):
        await paced.wait()
    assert read_loop_time() - started == pytest.approx(3 * 30)


@for_each("look_interval, looks", {"in one wait": (30.0, 5), "with a look every ten seconds": (10.0, 9)})
async def test_a_turn_is_waited_for_without_a_look_each_second(
    virtual_time: None, look_interval: float, looks: int
) -> None:
    seen: list[float] = []

    def read_pace() -> int:
        seen.append(read_loop_time())
        return 2

    paced = ProbePace(read_pace, clock=read_loop_time, look_interval=look_interval)
    for _ in range(3):
        await paced.wait()
    assert len(seen) == looks


async def turns(waiting: list[int | None], probes: int) -> list[int]:
    """How often a busy engine was looked at before each probe went; `waiting` is what it says, look by look."""
    looks = 0
    found = []

    async def busy() -> bool:
        nonlocal looks
        looks += 1
        return bool(waiting.pop(0))

    paced = ProbePace(lambda: 60_000_000, busy)
    for _ in range(probes):
        await paced.wait()
        found.append(looks)
        looks = 0
    return found


@pytest.mark.parametrize(
    ("waiting", "looks"),
    [
        pytest.param([0, 0, None], [1, 1, 1], id="an idle engine is asked at once, after one look a probe"),
        pytest.param([1, 0, 3, 1, 0, 0], [2, 3, 1], id="a busy one is spared until nobody waits"),
        pytest.param([9] * 12, [4, 4, 4], id="but one turn in five goes however busy it is"),
    ],
)
async def test_probes_give_way_to_requests_that_wait(waiting: list[int | None], looks: list[int]) -> None:
    assert await turns(waiting, 3) == looks
