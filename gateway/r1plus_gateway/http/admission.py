"""What is refused before anything is read for it: bodies beyond the bounds, callers whose limit is used up."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from r1plus_gateway.access.caller import AccessError, Caller
from r1plus_gateway.serving.errors import QueueFullError
from r1plus_gateway.settings import GatewayLimits

SHARE_OF_CALLER: Final = 4
"""A caller may fill the fourth part of what all bodies may take."""
MOST_HOLDS: Final = 10_000


class BodyBudget:
    """Bytes of all bodies that are read at one time: within a bound, of which one caller takes a share only."""

    def __init__(self) -> None:
        self._all = 0
        self._of: Counter[str] = Counter()

    @contextlib.contextmanager
    def reserve(self, caller: str, length: int | None, limits: GatewayLimits) -> Iterator[None]:
        """Hold the bytes of one body for the block; without a length the most that a body may have.

        Raises:
            QueueFullError: there is no room.
        """
        size = min(limits.body_bytes if length is None else length, limits.body_bytes)
        share = max(limits.body_bytes, limits.bodies_bytes // SHARE_OF_CALLER)
        if self._of[caller] + size > share:
            raise QueueFullError("too many of your large requests arrive at once; try again later")
        if self._all + size > limits.bodies_bytes:
            raise QueueFullError("too many large requests arrive at once; try again later")
        self._all += size
        self._of[caller] += size
        try:
            yield
        finally:
            self._all -= size
            self._of[caller] -= size
            if not self._of[caller]:
                del self._of[caller]


@dataclass(frozen=True, slots=True)
class _Hold:
    until: float
    error: AccessError


class Holds:
    """Refusals that any request of their caller would get for a while: nothing is read or counted for it again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._holds: dict[str, _Hold] = {}

    def check(self, caller: Caller) -> None:
        """Refuse a caller again.

        Raises:
            AccessError: its last refusal still holds.
        """
        hold = self._holds.get(_name(caller))
        if hold is None:
            return
        left = hold.until - self._clock()
        if left <= 0:
            del self._holds[_name(caller)]
            return
        error = hold.error
        retry_after = None if error.retry_after is None else left
        raise AccessError(error.status, error.code, str(error), retry_after=retry_after)

    def remember(self, caller: Caller, error: AccessError) -> None:
        """Hold a refusal for as long as it says."""
        if error.hold_seconds > 0:
            if len(self._holds) >= MOST_HOLDS:
                self._holds.clear()
            self._holds[_name(caller)] = _Hold(self._clock() + error.hold_seconds, error)


def _name(caller: Caller) -> str:
    return f"{caller.kind.value}/{caller.id}"
