"""One test, repeated until its result is stable or the time is up.

Network policies take a moment to apply to a new pod, also those that allow. So no first result is final: a forbidden
connection that succeeds is tried again, and so is a blocked one, to see that it stays blocked.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from r1plus_contract.isolation import AttemptFinding, AttemptOutcome

PAUSE_SECONDS: Final = 0.5
ROUNDS_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """Outcome of one attempt, with details."""

    outcome: AttemptOutcome
    detail: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """What ends a test: one of these outcomes, so many times in a row."""

    outcomes: frozenset[AttemptOutcome]
    times: int = 1


EXPECT_SHUT: Final = Expectation(frozenset({AttemptOutcome.SHUT}), 3)
"""It must be shut, and stay shut."""
EXPECT_OPEN: Final = Expectation(frozenset({AttemptOutcome.OPEN}))
EXPECT_ANSWER: Final = Expectation(frozenset({AttemptOutcome.SHUT, AttemptOutcome.OPEN}))
"""Any answer is final: RBAC needs no time to apply."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """For how long attempts are repeated, and by which clock."""

    seconds: float = ROUNDS_SECONDS
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    say: Callable[[str], None] = print
    """Prints each attempt, for people."""


async def attempt_until_settled(
    name: str, expectation: Expectation, attempt: Callable[[], Awaitable[Attempt]], rounds: Rounds, start: float
) -> AttemptFinding:
    """Repeat the attempt until the expectation is met, or until `rounds.seconds` after `start`, the start of the
    process.

    An expectation that is partly met by then is still completed.
    """
    in_a_row, late = 0, 0
    while True:
        attempt_result = await attempt()
        elapsed = rounds.now() - start
        rounds.say(f"{elapsed:6.1f} s  {name}: {attempt_result.outcome.value}, {attempt_result.detail}")
        in_a_row = in_a_row + 1 if attempt_result.outcome in expectation.outcomes else 0
        if attempt_result.outcome is AttemptOutcome.OPEN and AttemptOutcome.OPEN not in expectation.outcomes:
            late = max(1, round(elapsed * 1000))
        if in_a_row == expectation.times or (in_a_row == 0 and elapsed >= rounds.seconds):
            return AttemptFinding(name, attempt_result.outcome, late, attempt_result.detail)
        await rounds.pause(PAUSE_SECONDS)
