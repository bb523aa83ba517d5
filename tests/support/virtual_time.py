"""A clock for the running event loop: it stands still while there is something to do, and jumps where all wait for it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PAST_SECONDS = 1e-6


@contextmanager
def virtual_time() -> Iterator[None]:
    """Let the running loop's timers fire in their order without waiting for them, however slow the machine is.

    Only for what this process does by itself: what comes from elsewhere may come after a timer that should follow it.
    """
    loop: Any = asyncio.get_running_loop()
    selector, select, now = loop._selector, loop._selector.select, loop.time()

    def jump(timeout: float | None = None) -> Any:
        nonlocal now
        ready = select(timeout if timeout is None else 0)
        if not ready and timeout:
            # A little past the timer: rounded below it, code that waits for that moment would look again for ever.
            now += timeout + PAST_SECONDS
        return ready

    selector.select, loop.time = jump, lambda: now
    try:
        yield
    finally:
        del selector.select, loop.time
