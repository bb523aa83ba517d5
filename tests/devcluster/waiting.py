"""Waiting on a condition with a deadline: the one place of this tool that sleeps."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], timeout_s: float, period_s: float = 0.1) -> bool:
    """Ask `condition` until it holds or `timeout_s` has passed; returns whether it held."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(period_s)
    return True


def require(condition: Callable[[], bool], timeout_s: float, what: str, period_s: float = 0.1) -> None:
    """Like `wait_until`, but raises TimeoutError that says what was waited for and for how long."""
    if not wait_until(condition, timeout_s, period_s):
        raise TimeoutError(f"waited {timeout_s:.0f} s, but still not so: {what}")
