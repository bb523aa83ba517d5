"""Learn the fault-free trace, then tell the story once more for every point of it.

Faults that only concern one tenant share an operator, many tenants at a time. Those that kill the operator have another
one to themselves: each of their runs also lives through the kills that are meant for the others.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from faults import oracle
from faults.calls import OF_EVENTS, Fault, Json, Point
from faults.lane import Lane, Trace
from faults.rig import Case, Rig
from faults.scenario import BRIEF, Quiet, Story
from r1plus_operator.runtime.errors import ApiError

LEARNERS = 3
TRIES = 3
"""A point that does not come, since two writes fell together this time, is tried so often, and again beside few."""
FEW = 4
"""Stories at once when those are told again that ran out of time, or did not come to their point: beside hundreds of
others, and on a machine that is used otherwise, too, that says little. How many ran out of time is reported."""
_numbers = itertools.count()


@dataclass
class Reference:
    """What a fault-free run does and ends in."""

    end: Json
    created: Counter[str]
    deleted: Counter[str]
    writes: Trace
    events: Trace

    def points(self, faults: Iterable[Fault]) -> list[Point]:
        """Every place of the trace, times every fault that suits it.

        Events that the operator writes are in it too, although which of them come depends on what falls together.
        """
        chosen = list(faults)
        return [
            Point(phase, what, nth, fault)
            for fault in chosen
            for (phase, what), count in (self.events if fault in OF_EVENTS else self.writes).items()
            for nth in range(1, count + 1)
        ]


@dataclass
class Result:
    """How the runs came out. `failed`: a point and what differed."""

    survived: int = 0
    unreached: list[str] = field(default_factory=list)
    failed: list[tuple[str, list[str]]] = field(default_factory=list)
    slowest: float = 0.0
    """Seconds of the slowest run."""
    retold: int = 0
    """Runs that ran out of time, and were told again beside few others: what came of that is what counts."""
    writes: int = 0
    events: int = 0
    """Of the fault-free trace."""
    latest: float = 0.0
    """Most seconds from a heal to rest."""
    late: float = 0.0
    """Most seconds by which the event loop of the campaign itself was late: what ran out of time then tells little."""
    minutes: int = 0
    """Runs that were watched through a whole minute of silence."""

    @property
    def points(self) -> int:
        """How many there were."""
        return self.survived + len(self.unreached) + len(self.failed)

    def add(self, other: "Result") -> None:
        """Take in another one's."""
        self.survived += other.survived
        self.unreached += other.unreached
        self.failed += other.failed
        self.retold += other.retold
        self.minutes += other.minutes
        self.late = max(self.late, other.late)
        self.writes = max(self.writes, other.writes)
        self.events = max(self.events, other.events)
        self.slowest = max(self.slowest, other.slowest)
        self.latest = max(self.latest, other.latest)


class LearningError(Exception):
    """The fault-free runs differ from each other, or are no success."""


async def learn(made: Rig, case: Case | None = None, learners: int = LEARNERS) -> Reference:
    """The trace that so many fault-free runs share; raises LearningError if they end differently.

    The more there are, the fewer Events stay that come only where certain writes fall together.
    """
    runs = await asyncio.gather(*(tell(made, case=case) for _ in range(learners)))
    reference: Reference | None = None
    for lane, end in runs:
        if lane.problems or end is None:
            raise LearningError(f"a run without a fault: {lane.problems}")
        if reference is None:
            reference = Reference(end, lane.created, lane.deleted, lane.writes, lane.events)
            continue
        if differ := oracle.judge(lane, end, reference.end, reference.created, reference.deleted):
            raise LearningError(f"two runs without a fault: {differ}")
        reference.writes &= lane.writes
        reference.events &= lane.events
    assert reference is not None
    return reference


async def run(
    made: Rig,
    points: Sequence[Point],
    reference: Reference,
    at_once: int,
    say: Callable[[str], None],
    tries: int = TRIES,
    quiet: Callable[[Point], Quiet] = lambda _: BRIEF,
) -> Result:
    """All of `points`, so many at once; `say` gets a line for each. `quiet`: how long one is watched at the end."""
    result, again = Result(), list[Point]()

    async def one(gate: asyncio.Semaphore, point: Point, *, last: bool) -> None:
        async with gate:
            for _ in range(tries):
                start = time.monotonic()
                lane, end = await tell(made, point, quiet=quiet(point))
                if not lane.unreached:
                    break
        missed = lane.unreached and not lane.problems
        if (lane.late or missed) and not last:
            again.append(point)
            result.retold += lane.late
            return
        say(_note(result, point, lane, end, reference))
        result.slowest = max(result.slowest, time.monotonic() - start)
        result.latest = max(result.latest, lane.converged or 0.0)

    many, few = asyncio.Semaphore(at_once), asyncio.Semaphore(FEW)
    await asyncio.gather(*(one(many, point, last=False) for point in points))
    await asyncio.gather(*(one(few, point, last=True) for point in again))
    return result


def _note(result: Result, point: Point, lane: Lane, end: Json | None, reference: Reference) -> str:
    """Enter a run's outcome; what to say of it."""
    name = f"{point} ({lane.namespace})"
    if lane.unreached and not lane.problems:
        result.unreached.append(name)
        return f"not reached: {name}"
    counted = (reference.end, reference.created, reference.deleted)
    problems = lane.problems if end is None else oracle.judge(lane, end, *counted)
    if not problems:
        result.survived += 1
        return f"survived: {name}"
    result.failed.append((name, problems))
    return f"NOT survived: {name}: {problems[0][:200]}"


async def tell(
    made: Rig,
    point: Point | None = None,
    interlude: Callable[[Story], Awaitable[None]] | None = None,
    lands_in: str = "",
    quiet: Quiet = BRIEF,
    case: Case | None = None,
) -> tuple[Lane, Json | None]:
    """One story in a namespace of its own; where it does not come to its end, the lane's problems say why."""
    lane = Lane(f"tenant-of-run-{next(_numbers)}", point, lands_in=lands_in)
    made.traffic.lanes[lane.namespace] = lane
    try:
        return lane, await Story(made, lane, quiet, other_case=case).tell(interlude)
    except (TimeoutError, AssertionError, ApiError) as error:
        lane.late = isinstance(error, TimeoutError)
        lane.problems.append(f"{type(error).__name__}: {error}")
        return lane, None


def unexpected_errors(log: str, expected: Sequence[str] = ()) -> list[str]:
    """ERROR lines of the operator that no fault explains."""
    return [
        line for line in log.splitlines()
        if " ERROR " in line and not any(text in line for text in expected)
    ]  # fmt: skip


def log_problems(made: Rig) -> list[tuple[str, list[str]]]:
    """What the operator's log and its ends say against it."""
    errors = unexpected_errors(made.operator.process.log)
    ends = [f"the operator ended by itself with {code}" for code in made.operator.ended]
    return [("the operator's log", errors[:20] + ends)] if errors or ends else []
