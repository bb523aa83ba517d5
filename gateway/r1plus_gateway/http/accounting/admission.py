"""What a request may cost before it is admitted: a search, and a pod that counts its prompt.

Callers whose limit is used up are refused before anything is read.
"""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from r1plus_gateway.access.caller import AccessError, Caller, Limits
from r1plus_gateway.access.turns import Line, Turns
from r1plus_gateway.serving.errors import QueueFullError
from r1plus_gateway.store.ledger.admission import leak

MOST_HOLDS: Final = 10_000
MOST_REFUSED: Final = 600
"""Requests of a key that are refused in a minute, before the next ones are refused unread."""
REFUSED_BYTES: Final = 64 * 1024
"""Of a refused body, that count as one more refused request: reading it takes time from others."""
MOST_SEARCHES: Final = 3
"""Of one caller at one time. With its requests for embeddings they leave room for others at the embedder."""


class SearchTurns:
    """Searches of each caller in its vector stores: a few run at one time, and the others wait for those.

    A request that is answered from what it finds has its turn until it is admitted. So one that nobody admits costs at
    most a few searches before its refusal holds.
    """

    def __init__(self) -> None:
        self._turns = Turns()

    def wait(self, caller: Caller, most_waiting: int) -> AbstractAsyncContextManager[None]:
        """Wait until fewer than `MOST_SEARCHES` requests of this caller are within such a block.

        Raises:
            QueueFullError: so many of its requests wait already.
        """
        return self._turns.wait(caller.group_id, MOST_SEARCHES, Line(most_waiting, _refuse_waiting))


@dataclass(frozen=True, slots=True)
class _Hold:
    until: float
    limits: Limits
    error: AccessError


class Holds:
    """Refusals that any request of their caller would get for a while: nothing is read or counted for it again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._holds: dict[str, _Hold] = {}

    def check(self, caller: Caller) -> None:
        """Refuse a caller again, as long as its limits are those that it was refused by.

        Raises:
            AccessError: its last refusal still holds.
        """
        hold = self._holds.get(_name(caller))
        if hold is None:
            return
        left = hold.until - self._clock()
        if left <= 0 or hold.limits != caller.limits:
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
            self._holds[_name(caller)] = _Hold(self._clock() + error.hold_seconds, caller.limits, error)


class Allowance:
    """What callers may take in a minute, within one gateway: it leaks as limits per minute do."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}
        """Caller -> what it has taken, and when that was computed."""

    def has_room(self, caller: str, most: int) -> bool:
        """Return whether a caller may take one more."""
        return self._read(caller, most) + 1 <= most

    def charge(self, caller: str, most: int, cost: float = 1.0) -> None:
        """Take so much, also where there is no room."""
        self._write(caller, self._read(caller, most) + cost)

    def give_back(self, caller: str) -> None:
        """Return one that was taken."""
        level, at = self._levels.get(caller, (0.0, 0.0))
        if level > 1:
            self._levels[caller] = (level - 1, at)
        else:
            self._levels.pop(caller, None)

    def compute_wait(self, caller: str, most: int) -> float:
        """Return the seconds until a caller may take one more."""
        return max(0.0, self._read(caller, most) + 1 - most) * 60 / most

    def _read(self, caller: str, most: int) -> float:
        level, at = self._levels.get(caller, (0.0, 0.0))
        return leak(level, most, self._clock() - at)

    def _write(self, caller: str, level: float) -> None:
        if len(self._levels) >= MOST_HOLDS and caller not in self._levels:
            self._levels.clear()
        self._levels[caller] = (level, self._clock())


class CountAllowance(Allowance):
    """Prompts that pods count for a caller: each costs one of an allowance, until its request is admitted.

    So at most `most` prompts in a minute are counted for requests that are refused, or end without a bill.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._turns = Turns()

    def wait_for_turn(self, line: str, most: int, most_waiting: int) -> AbstractAsyncContextManager[None]:
        """Wait until fewer than `most` requests of this line, a caller's for one model, are within such a block.

        Raises:
            QueueFullError: so many wait already.
        """
        return self._turns.wait(line, most, Line(most_waiting, _refuse_waiting))

    def take(self, caller: str, most: int) -> bool:
        """Return whether a prompt may be counted now; if so, it has cost one."""
        has_room = self.has_room(caller, most)
        if has_room:
            self.charge(caller, most)
        return has_room


class RefusalAllowance:
    """Requests that are refused and cost no budget: what reading them takes is bounded for each key in a minute.

    An end user that a key names takes at most half of its key's, so the key's other end users go on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = Allowance(clock)

    def check(self, caller: Caller) -> None:
        """Raise AccessError 429 for a caller of which too much was refused: nothing of it is read."""
        for line, most in _name_lines(caller):
            if not self._allowance.has_room(line, most):
                raise AccessError(
                    429,
                    "rate_limit_exceeded",
                    f"too many of your requests were refused within a minute: {most}, where each {REFUSED_BYTES >> 10}"
                    " KiB of a body count as one more. Correct what their errors name, and wait",
                    retry_after=self._allowance.compute_wait(line, most),
                )

    def charge(self, caller: Caller, status: int, body_bytes: int) -> None:
        """Count a refusal with this status of a request with so many bytes."""
        is_fault = 400 <= status < 500 and status != 429
        cost = int(is_fault) + body_bytes // REFUSED_BYTES
        if cost:
            for line, most in _name_lines(caller):
                self._allowance.charge(line, most, cost)


def _name_lines(caller: Caller) -> list[tuple[str, int]]:
    lines = [(f"key {caller.group_id}", MOST_REFUSED)]
    return [(f"end user {_name(caller)} {caller.end_user}", MOST_REFUSED // 2), *lines] if caller.end_user else lines


def _refuse_waiting(waiting: int) -> QueueFullError:
    return QueueFullError(f"{waiting} of your requests wait to be read already, which is the most; wait for answers")


def _name(caller: Caller) -> str:
    return f"{caller.kind.value}/{caller.id}"
