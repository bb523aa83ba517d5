"""One run of a schedule: the world, what happens to it, and what the judge found."""

import asyncio
import contextlib
import gc
import hashlib
import io
import logging
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from simulation.happenings import happen
from simulation.invariants import Judge, Violation
from simulation.promises import PROMISES
from simulation.schedule import CALM_SECONDS, Schedule
from simulation.table import record
from simulation.world import Row, World, open_world
from support.simulation.world.loop import ProcessLoop, process_loop

TICK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    violation: Violation | None
    rows: tuple[Row, ...]
    tried: dict[str, int]
    seconds: float
    """Virtual."""
    writes: int
    digest: str
    """Of every write, in its order: the same for the same schedule."""


def run_schedule(schedule: Schedule, only: frozenset[str] = frozenset(), until: float = math.inf) -> Outcome:
    """Run a schedule to its end, or to the first violation of an invariant (of those named in `only`, if any).

    `until`: virtual second at which it is cut off, its end not judged.
    """
    with process_loop() as loop, _silence():
        return loop.run_until_complete(_run(schedule, loop, only, until))


def run_schedules(
    schedules: Sequence[Schedule], only: frozenset[str] = frozenset(), jobs: int = 1
) -> Iterator[Outcome]:
    """Run schedules to their ends, `jobs` of them at once; yield their outcomes in the order of the schedules."""
    run = partial(run_schedule, only=only)
    if min(jobs, len(schedules)) == 1:
        yield from map(run, schedules)
        return
    with multiprocessing.Pool(min(jobs, len(schedules))) as pool:
        yield from pool.imap(run, schedules)


async def _run(schedule: Schedule, loop: ProcessLoop, only: frozenset[str], until: float) -> Outcome:
    failures: list[BaseException] = []
    loop.set_exception_handler(
        lambda _, context: failures.append(context.get("exception") or RuntimeError(f"{context}"))
    )
    async with open_world(schedule, loop) as world:
        judge, digest = Judge(world, PROMISES, only), hashlib.sha256()
        world.listeners += [judge.on_change, partial(record, world, digest.update)]
        world.server.on_restart.append(judge.on_set_back)
        timers = _plan(world, schedule)
        while loop.time() < min(schedule.end, until) and judge.found is None:
            await asyncio.sleep(TICK_SECONDS)
            judge.on_tick()
            if failures:
                raise failures[0]
        if judge.found is None and schedule.end <= until:
            judge.on_end()
        for timer in timers:
            timer.cancel()
        return Outcome(judge.found, tuple(world.rows), judge.tried, loop.time(), world.writes, digest.hexdigest())


def _plan(world: World, schedule: Schedule) -> list[asyncio.TimerHandle]:
    loop = world.loop
    timers = [loop.call_at(one.at, happen, world, one) for one in schedule.happenings]
    for one in schedule.happenings:
        if one.do == "set_back" and (at := one.at - float(one.value)) > 0:
            timers.append(loop.call_at(at, world.back_up))
    return [*timers, loop.call_at(schedule.end - CALM_SECONDS, world.set_clocks)]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what the parts log off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    gc.disable()  # One run leaves some 50 MB of cycles, and looking for them all the while is a tenth of its time.
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            yield
        finally:
            logging.disable(before)
            gc.enable()
            gc.collect()
