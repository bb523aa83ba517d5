"""One test, repeated until its result is stable or the time is up.

Network policies take a moment to apply to a new pod, also those that allow. So no first result is final: a forbidden
connection that succeeds is tried again, and so is a blocked one, to see that it stays blocked. What is blocked before
the pod's own connection has succeeded is tried again as well: a pod without a network is blocked everywhere.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Self

from r1plus_contract.monitor.isolation import AttemptFinding, AttemptOutcome

PAUSE_SECONDS: Final = 0.5
ROUNDS_SECONDS: Final = 30.0
REQUIRED_FACTOR: Final = 3.0
"""What must succeed is tried for so many times as long, since a run without it proves nothing."""


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

    def extend(self) -> Self:
        """Return the rounds of what must succeed."""
        return replace(self, seconds=self.seconds * REQUIRED_FACTOR)


@dataclass(slots=True)
class Network:
    """Since when a pod is known to have a network, by the clock of `Rounds`."""

    start: float
    """Of the process."""
    open_since: float | None
    """None: its own connection has not succeeded yet."""

    @property
    def is_open(self) -> bool:
        """Return whether a blocked connection says something."""
        return self.open_since is not None

    def deadline(self, rounds: Rounds) -> float:
        """Return when attempts end that are still not as expected."""
        if self.open_since is None:
            return self.start + rounds.extend().seconds
        return max(self.start, self.open_since) + rounds.seconds


async def attempt_until_settled(
    name: str, expectation: Expectation, attempt: Callable[[], Awaitable[Attempt]], rounds: Rounds, network: Network
) -> AttemptFinding:
    """Repeat the attempt until the expectation is met, or until the network's deadline.

    An attempt counts if the network was open before it. An expectation that is partly met by the deadline is completed.
    """
    in_a_row, late = 0, 0
    while True:
        counts = network.is_open
        attempt_result = await attempt()
        now = rounds.now()
        elapsed = now - network.start
        rounds.say(f"{elapsed:6.1f} s  {name}: {attempt_result.outcome.value}, {attempt_result.detail}")
        in_a_row = in_a_row + 1 if counts and attempt_result.outcome in expectation.outcomes else 0
        if attempt_result.outcome is AttemptOutcome.OPEN and AttemptOutcome.OPEN not in expectation.outcomes:
            late = max(1, round(elapsed * 1000))
        is_over = in_a_row == 0 and counts == network.is_open and now >= network.deadline(rounds)
        if in_a_row == expectation.times or is_over:
            return AttemptFinding(name, attempt_result.outcome, late, attempt_result.detail)
        await rounds.pause(PAUSE_SECONDS)
