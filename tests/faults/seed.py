"""The whole campaign with one seed: stations side by side, each an API server with a proxy and an operator of its own.

One for the faults that concern one tenant, many tenants at a time; one where the operator is killed; one for each
chain of faults that concern everybody. What they wait for (a drain, the silence at the end) they wait for together.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster.apiserver_only import ApiServer
from faults import campaign, singles
from faults.calls import OF_EVENTS, OF_WRITES, Fault, Point
from faults.campaign import Reference, Result
from faults.rig import AT_WORK, LEASE_SECONDS, Rig, rig
from faults.scenario import Quiet
from r1plus_operator.health import Pulse
from support.apiserver.server import started

AT_ONCE = 8
"""Stories that are under way, for each that acts: the others wait for a drain or through the silence."""
SILENCE = Quiet(settled=10.0, deleted=10.0)
"""Most runs are watched for so long. It begins when the operator has shown that it rests: it was shown every event, had
every answer, and has answered itself. After that only time can make it write, and nothing is looked at again every so many
seconds: ten hold five rounds of asking the monitors, and the next try of a pass that failed ten times in a row."""
MINUTE = Quiet(settled=60.0, deleted=60.0)
"""One run in `MINUTE_EVERY` shows that no slower clock writes: which, the seed draws."""
MINUTE_EVERY = 10
AFTER_ALL = Quiet(settled=60.0, deleted=10.0)
"""After a fault that concerns everybody."""
KILLS_SHARE = 3
"""So many times fewer stories at once where the operator is killed in each of them."""
LOOK_SECONDS = 0.5
LEARNERS = 12
"""Fault-free runs at once before the others: as busy as those, so that what they write is what those write."""
SINGLES = "singles"
KINDS: dict[str, Fault | None] = {
    fault.name.lower().replace("_", "-"): fault for fault in (*OF_WRITES, *OF_EVENTS)
} | {SINGLES: None}  # fmt: skip
"""By the name that the command line has for it; None for the faults that are no point of a trace."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be run. `sample`: the share of the points, drawn by the seed; `at_work`: stories that act at once."""

    kinds: tuple[str, ...] = tuple(KINDS)
    sample: float = 1.0
    at_work: int = AT_WORK
    lease_seconds: float = LEASE_SECONDS

    def faults(self, *, kill: bool) -> list[Fault]:
        """Those of points, the kill or all others."""
        chosen = [fault for name in self.kinds if (fault := KINDS[name])]
        return [fault for fault in chosen if (fault is Fault.KILL) is kill]

    @property
    def chains(self) -> tuple[tuple[singles.Single, ...], ...]:
        """The faults that concern everybody."""
        return singles.CHAINS if SINGLES in self.kinds else ()

    @property
    def stations(self) -> int:
        """How many API servers that takes."""
        return bool(self.faults(kill=False)) + bool(self.faults(kill=True)) + len(self.chains)


class Progress:
    """Counts what is done, and says when it may be over."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._began = clock()
        self._total = 0
        self._done = 0

    def expect(self, total: int, what: str) -> None:
        """So many will come."""
        self._total = total
        self._say(what)

    def one(self, line: str) -> None:
        """One is done."""
        self._done += 1
        elapsed = self._clock() - self._began
        left = elapsed / self._done * (self._total - self._done)
        self._say(f"{self._done} of {self._total}, {elapsed:.0f} s, about {left:.0f} s left: {line}")


@contextmanager
def servers(count: int) -> Iterator[list[ApiServer]]:
    """So many API servers; all seeds use the same ones."""
    with ExitStack() as stack:
        yield [stack.enter_context(started()) for _ in range(count)]


async def run(stations: Sequence[ApiServer], seed: int, asked: Asked, folder: Path, progress: Progress) -> Result:
    """Every point that was asked for and every single fault, as this seed orders, times and deploys them."""
    async with AsyncExitStack() as stack:
        rigs = [
            await stack.enter_async_context(
                rig(server, seed, folder / f"seed-{seed}-{place}", asked.at_work, lease_seconds=asked.lease_seconds)
            )
            for place, server in enumerate(stations)
        ]
        reference = await campaign.learn(rigs[0], learners=LEARNERS)
        rand = random.Random(seed)
        gentle, kills = (
            _drawn(reference.points(asked.faults(kill=kill)), asked.sample, rand) for kill in (False, True)
        )
        count = len(gentle) + len(kills) + sum(map(len, asked.chains))
        progress.expect(count, f"seed {seed}, tier {rigs[0].case.tier}: {_counted(reference)}; {count} runs")
        free = iter(rigs)
        work = [_points(next(free), points, reference, progress, asked.at_work) for points in (gentle, kills) if points]
        work += [singles.run(next(free), reference, progress.one, chain, AFTER_ALL) for chain in asked.chains]
        total = Result(writes=reference.writes.total(), events=reference.events.total())
        total.minutes = sum(map(len, asked.chains))
        async with _lateness(total):
            for found in await asyncio.gather(*work):
                total.add(found)
        return total


@asynccontextmanager
async def _lateness(result: Result) -> AsyncIterator[None]:
    """Note how late this event loop was at the worst."""
    pulse = Pulse()

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            result.late = max(result.late, pulse.late)

    tasks = [asyncio.create_task(pulse.run()), asyncio.create_task(look())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _points(made: Rig, points: Sequence[Point], reference: Reference, progress: Progress, at_work: int) -> Result:
    kills = points[0].fault is Fault.KILL
    if kills:
        # Each waits through the restarts that the others cause.
        made.busy = asyncio.Semaphore(max(1, at_work // KILLS_SHARE))
    minute = set(points[::MINUTE_EVERY])
    result = await campaign.run(
        made,
        points,
        reference,
        at_work * AT_ONCE,
        progress.one,
        quiet=lambda point: MINUTE if point in minute else SILENCE,
    )
    result.minutes = len(minute)
    result.failed += campaign.log_problems(made)
    return result


def _drawn(points: list[Point], share: float, rand: random.Random) -> list[Point]:
    """In random order, so that the seeds differ in what runs beside what."""
    rand.shuffle(points)
    return points[: max(1, round(len(points) * share))]


def _counted(reference: Reference) -> str:
    return f"{reference.writes.total()} writes and {reference.events.total()} events"
