"""Processes of a simulation's loop: one is stopped while the others go on, or for ever."""

import asyncio

import pytest

from support.simulation.loop import RanDryError
from support.simulation.world.loop import ProcessLoop, process_loop


def test_a_stopped_process_goes_on_where_it_was_with_its_timers_late() -> None:
    seen: list[tuple[str, float]] = []

    async def tick(name: str) -> None:
        while True:
            await asyncio.sleep(10)
            seen.append((name, round(asyncio.get_running_loop().time())))

    async def main(loop: ProcessLoop) -> None:
        loop.start("a", tick("a"))
        loop.start("b", tick("b"))
        await asyncio.sleep(15)
        loop.freeze("a")
        await asyncio.sleep(20)
        loop.thaw("a")
        await asyncio.sleep(6)

    with process_loop() as loop:
        loop.run_until_complete(main(loop))
    assert seen == [("a", 10), ("b", 10), ("b", 20), ("b", 30), ("a", 35), ("b", 40)]


def test_a_killed_process_does_not_even_clean_up() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            cleaned.append(asyncio.get_running_loop().time())

    async def main(loop: ProcessLoop) -> None:
        task = loop.start("a", work())
        await asyncio.sleep(1)
        loop.freeze("a")
        task.cancel()
        await asyncio.sleep(10)
        assert cleaned == []

    with process_loop() as loop:
        loop.run_until_complete(main(loop))


def test_what_a_stopped_process_has_sent_arrives() -> None:
    arrived = []

    async def main(loop: ProcessLoop) -> None:
        async def deliver() -> None:
            await asyncio.sleep(1)
            arrived.append("request")

        async def send() -> None:
            await asyncio.shield(loop.start_outside(deliver()))
            arrived.append("answer")

        loop.start("a", send())
        await asyncio.sleep(0.5)
        loop.freeze("a")
        await asyncio.sleep(5)
        assert arrived == ["request"]
        loop.thaw("a")
        await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        assert arrived == ["request", "answer"]

    with process_loop() as loop:
        loop.run_until_complete(main(loop))


def test_a_world_that_runs_dry_says_so() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with process_loop() as loop, pytest.raises(RanDryError, match="ran dry"):
        loop.run_until_complete(main())
