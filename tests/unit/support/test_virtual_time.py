"""Virtual time: nothing waits, and a moment that is waited for has come when its timer fires."""

import asyncio
import random

from support.virtual_time import virtual_time


async def test_a_moment_that_is_waited_for_comes_whatever_its_float_is_rounded_to() -> None:
    rand, loop = random.Random(7), asyncio.get_running_loop()
    with virtual_time():
        for _ in range(3000):
            due, looks = loop.time() + rand.uniform(0.01, 100.0), 0
            while loop.time() < due:
                looks += 1
                assert looks <= 2, "the clock stands just before the moment"
                await asyncio.sleep(due - loop.time())
