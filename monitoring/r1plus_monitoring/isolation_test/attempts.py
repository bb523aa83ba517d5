"""One try, made again until it has settled or the time is up.

A new pod's walls take a moment to stand, and a door that was opened for it may, too. So nothing is believed at once: an
open door that must be shut gets another chance, and a shut one is tried again to see that it stays shut.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from r1plus_contract.isolation import Outcome, Try

PAUSE_SECONDS: Final = 0.5
ROUNDS_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """How one attempt ended, and what was said."""

    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What settles a try: one of these outcomes, so many times in a row."""

    outcomes: frozenset[Outcome]
    times: int = 1


WALL: Final = Wish(frozenset({Outcome.SHUT}), 3)
"""It must be shut, and stay so."""
DOOR: Final = Wish(frozenset({Outcome.OPEN}))
ANSWER: Final = Wish(frozenset({Outcome.SHUT, Outcome.OPEN}))
"""Whoever answers has said it: rights do not settle as walls do."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """For how long tries are made again, and by which clock."""

    seconds: float = ROUNDS_SECONDS
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    say: Callable[[str], None] = print
    """Hears of each attempt, for people."""


async def settled(name: str, wish: Wish, attempt: Callable[[], Awaitable[Seen]], rounds: Rounds, began: float) -> Try:
    """Attempt until the wish is fulfilled, or as it stands `rounds.seconds` after `began`, when the process did.

    A wish that is half fulfilled by then is seen through.
    """
    in_a_row, late = 0, 0
    while True:
        seen = await attempt()
        passed = rounds.now() - began
        rounds.say(f"{passed:6.1f} s  {name}: {seen.outcome.value}, {seen.detail}")
        in_a_row = in_a_row + 1 if seen.outcome in wish.outcomes else 0
        if seen.outcome is Outcome.OPEN and Outcome.OPEN not in wish.outcomes:
            late = max(1, round(passed * 1000))
        if in_a_row == wish.times or (in_a_row == 0 and passed >= rounds.seconds):
            return Try(name, seen.outcome, late, seen.detail)
        await rounds.pause(PAUSE_SECONDS)
