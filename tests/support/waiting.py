"""Waiting on a condition with a deadline: everything below tests/ waits through these two functions, and sleeps nowhere else.

A deadline only says when a test gives up, so a generous one costs nothing. It is at least ten times what a quiet machine needs.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

DEADLINE_SECONDS = 120.0
"""Enough for anything that a process on this machine does by itself; a cluster's pods need more."""
PERIOD_SECONDS = 0.05


class WaitError(AssertionError):
    """The condition did not come true before the deadline; the message says what was waited for and what was seen."""


def wait_until(
    look: Callable[[], T | None],
    what: str,
    seconds: float = DEADLINE_SECONDS,
    *,
    period_s: float = PERIOD_SECONDS,
    evidence: Callable[[], str] | None = None,
    retry_on: tuple[type[BaseException], ...] = (),
) -> T:
    """Call `look` every `period_s` seconds until it returns something true, and return that.

    `what` names the condition. Errors in `retry_on` count as "not yet"; the last one is part of the message.
    `evidence` is called once, after the deadline. Raises WaitError.
    """
    deadline = time.monotonic() + seconds
    trouble: BaseException | None = None
    while True:
        try:
            if found := look():
                return found
        except retry_on as error:
            trouble = error
        if time.monotonic() > deadline:
            raise WaitError(_describe(what, seconds, trouble, evidence))
        time.sleep(period_s)


@overload
async def eventually(
    look: Callable[[], Awaitable[T | None]],
    what: str,
    seconds: float = ...,
    *,
    period_s: float = ...,
    evidence: Callable[[], str] | None = ...,
    retry_on: tuple[type[BaseException], ...] = ...,
) -> T: ...


@overload
async def eventually(
    look: Callable[[], T | None],
    what: str,
    seconds: float = ...,
    *,
    period_s: float = ...,
    evidence: Callable[[], str] | None = ...,
    retry_on: tuple[type[BaseException], ...] = ...,
) -> T: ...


async def eventually(
    look: Callable[[], T | None] | Callable[[], Awaitable[T | None]],
    what: str,
    seconds: float = DEADLINE_SECONDS,
    *,
    period_s: float = PERIOD_SECONDS,
    evidence: Callable[[], str] | None = None,
    retry_on: tuple[type[BaseException], ...] = (),
) -> T:
    """Do the same as `wait_until` by the time of the event loop, which it does not block; `look` may be a coroutine function."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    trouble: BaseException | None = None
    while True:
        try:
            answer = look()
            found = await answer if inspect.isawaitable(answer) else answer
            if found:
                return found
        except retry_on as error:
            trouble = error
        if loop.time() > deadline:
            raise WaitError(_describe(what, seconds, trouble, evidence))
        await asyncio.sleep(period_s)


def _describe(what: str, seconds: float, trouble: BaseException | None, evidence: Callable[[], str] | None) -> str:
    lines = [f"Waited {seconds:.0f} s, and still not so: {what}"]
    if trouble is not None:
        lines.append(f"The last look failed: {' '.join(str(trouble).split())[:300]}")
    if evidence is not None:
        lines.append(evidence())
    return "\n".join(lines)
