"""Waiting: what is found comes back, and a wait in vain says what it waited for and what it saw."""

import itertools

import pytest

from support.waiting import WaitError, eventually, wait_until


def test_what_a_look_finds_comes_back() -> None:
    looks = iter([None, False, "", 0, "pod-1"])
    assert wait_until(lambda: next(looks), "a pod", period_s=0.0) == "pod-1"


@pytest.mark.parametrize("is_coroutine", [False, True], ids=["a plain look", "a coroutine"])
async def test_the_event_loop_goes_on_meanwhile(is_coroutine: bool) -> None:
    looks = itertools.chain([None, None], itertools.repeat(7))

    async def look() -> int | None:
        return next(looks)

    assert await eventually(look if is_coroutine else lambda: next(looks), "a number", period_s=0.0) == 7


def refuse() -> None:
    raise ConnectionError("refused by\n10.0.0.1")


def test_an_error_that_may_pass_is_retried_and_told_at_the_end() -> None:
    with pytest.raises(WaitError) as caught:
        wait_until(refuse, "the server answers", 0.0, retry_on=(ConnectionError,), evidence=lambda: "log: empty")
    assert str(caught.value).splitlines() == [
        "Waited 0 s, and still not so: the server answers",
        "The last look failed: refused by 10.0.0.1",
        "log: empty",
    ]


async def test_another_error_ends_the_wait() -> None:
    with pytest.raises(ConnectionError):
        await eventually(refuse, "the server answers", retry_on=(ValueError,))
