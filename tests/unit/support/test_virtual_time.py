"""Virtual time: nothing waits, a moment that is waited for has come when its timer fires, and what is at work comes first."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from support.virtual_time import skip_seconds, virtual_time
from support.waiting import WaitError, eventually

LONG_SECONDS = 30 * 86_400.0


async def test_a_moment_that_is_waited_for_comes_whatever_its_float_is_rounded_to() -> None:
    loop = asyncio.get_running_loop()

    async def tick(times: int) -> None:
        """Move the clock to just where the other timer fires, by another sum of floats."""
        for _ in range(times):
            await asyncio.sleep(0.05)

    with virtual_time():
        for times in range(1, 200):
            ticking = asyncio.create_task(tick(times))
            due, looks = loop.time() + times * 0.05, 0
            while loop.time() < due:
                looks += 1
                assert looks <= 2, "the clock stops just before the moment"
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), due - loop.time())
            await ticking


async def test_a_test_opts_in_by_a_fixture(virtual_time: None) -> None:
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(LONG_SECONDS)
    assert asyncio.get_running_loop().time() == pytest.approx(began + LONG_SECONDS)


async def test_a_wait_in_vain_ends_by_the_virtual_clock(virtual_time: None) -> None:
    with pytest.raises(WaitError, match="Waited 2592000 s, and still not so: a miracle"):
        await eventually(lambda: False, "a miracle", LONG_SECONDS, period_s=3600.0)


async def test_a_peer_in_the_same_loop_answers_before_a_later_timer(virtual_time: None, tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1):
            await asyncio.sleep(1.0)
            writer.write(data)
        writer.close()

    async with await asyncio.start_unix_server(echo, tmp_path / "s"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        for _ in range(20):
            writer.write(b"x")
            async with asyncio.timeout(1.5):
                assert await reader.readexactly(1) == b"x"
        writer.close()


async def test_the_clock_waits_for_a_thread_of_the_loop(virtual_time: None) -> None:
    numbers = range(3_000_000)
    async with asyncio.timeout(1e-3):
        assert await asyncio.to_thread(sum, numbers) == sum(numbers)


async def test_two_runs_from_one_start_read_the_same() -> None:
    loop, times = asyncio.get_running_loop(), list[list[float]]()
    for _ in range(2):
        with virtual_time(start=1000.0):
            times.append([])
            for seconds in (0.1, 7.0, LONG_SECONDS):
                await asyncio.sleep(seconds)
                times[-1].append(loop.time())
    assert times[0] == times[1]
    assert times[0][0] == pytest.approx(1000.1)


async def test_a_start_is_refused_once_a_timer_was_set_by_another_clock() -> None:
    timer = asyncio.get_running_loop().call_later(60.0, print)
    with pytest.raises(RuntimeError, match="leave out start"), virtual_time(start=0.0):
        pass
    timer.cancel()


@pytest.mark.usefixtures("virtual_time")
async def test_virtual_time_is_entered_once() -> None:
    with pytest.raises(RuntimeError, match="already"), virtual_time():
        pass


async def test_time_is_real_again_afterwards() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    with virtual_time():
        await asyncio.sleep(LONG_SECONDS)
    assert before <= loop.time() < before + LONG_SECONDS


async def test_a_skip_fires_what_ends_within_it_in_order_and_nothing_later() -> None:
    loop, fired = asyncio.get_running_loop(), list[str]()
    for name, seconds in (("third", 3e6), ("later", 9e6), ("first", 1e6), ("second", 2e6)):
        loop.call_later(seconds, fired.append, name)
    skip_seconds(4e6)
    await eventually(lambda: len(fired) == 3, "timers of the seconds that were skipped")
    assert fired == ["first", "second", "third"]


async def test_a_skip_outlasts_virtual_time() -> None:
    loop = asyncio.get_running_loop()
    skip_seconds(LONG_SECONDS)
    skipped = loop.time()
    with virtual_time():
        skip_seconds(1.0)
        assert loop.time() >= skipped + 1.0
    assert skipped <= loop.time() < skipped + LONG_SECONDS
