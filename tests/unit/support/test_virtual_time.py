"""Virtual time: nothing waits, and a moment that is waited for has come when its timer fires."""

import asyncio
from contextlib import suppress

from support.virtual_time import virtual_time


async def tick(times: int) -> None:
    """Move the clock to just where the other timer fires, by another sum of floats."""
    for _ in range(times):
        await asyncio.sleep(0.05)


async def test_a_moment_that_is_waited_for_comes_whatever_its_float_is_rounded_to() -> None:
    loop = asyncio.get_running_loop()
    with virtual_time():
        for times in range(1, 200):
            ticking = asyncio.create_task(tick(times))
            due, looks = loop.time() + times * 0.05, 0
            while loop.time() < due:
                looks += 1
                assert looks <= 2, "the clock stands just before the moment"
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), due - loop.time())
            await ticking
