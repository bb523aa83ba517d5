"""Waiting with a deadline, and with evidence: who waited in vain is told what was seen, not only that time ran out."""

import time
from collections.abc import Callable
from typing import TypeVar

from e2e.kube import UNREACHABLE

T = TypeVar("T")
PERIOD_S = 1.0


class StoryError(AssertionError):
    """The cluster didn't do what the story says; the message holds what was seen instead."""


def wait_for(
    look: Callable[[], T | None],
    what: str,
    seconds: float,
    evidence: Callable[[], str] | None = None,
    period_s: float = PERIOD_S,
) -> T:
    """Call `look` until it gives something, at most `seconds`; raise StoryError with the evidence otherwise."""
    deadline = time.monotonic() + seconds
    trouble = ""
    while time.monotonic() < deadline:
        try:
            if (found := look()) is not None and found is not False:
                return found
        except UNREACHABLE as error:
            trouble = f"\nThe last look failed: {' '.join(str(error).split())[:300]}"
        time.sleep(period_s)
    seen = f"\n{evidence()}" if evidence is not None else ""
    raise StoryError(f"Waited {seconds:.0f} s in vain for: {what}{trouble}{seen}")
