"""A sample of what `make faults` does in full: points of every kind, each of which must end as if nothing had happened.

One rig tells all stories, and as many at a time as do not disturb each other: most of a story is waiting for a drain.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from devcluster.apiserver_only import ApiServer
from faults import campaign, oracle, singles
from faults.calls import OF_EVENTS, OF_WRITES, Fault, Json, Point
from faults.campaign import Reference, Result
from faults.lane import Lane
from faults.rig import CASES, Rig, rig
from faults.scenario import CALM_SECONDS, Story

pytestmark = [
    pytest.mark.apiserver,
    pytest.mark.timeout(1800),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.first_run_counts,
]
SEED = 7
SINGLES_CASE = next(case for case in CASES if case.tier == "edge")
"""Another tier than the one that the seed chooses."""
PER_FAULT = 1
"""The simulation draws orders of faults; this shows that it and the API server agree about each kind of them."""
LEASE_SECONDS = 150.0
"""No other operator waits for it here, and on a busy machine this one is to go on."""
VERDICT_SECONDS = 0.5
"""Few stories, so that monitors may be asked more often than in the full campaign."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    folder = tmp_path_factory.mktemp("faults")
    async with rig(apiserver, SEED, folder, verdict_seconds=VERDICT_SECONDS, lease_seconds=LEASE_SECONDS) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reference(made: Rig) -> Reference:
    """What stories of the seed's case do and end in without a fault."""
    return await campaign.learn(made)


@dataclass(frozen=True, slots=True)
class Told:
    """How the stories with a fault at a point ended."""

    sample: Result
    points: int
    late_verdict: tuple[Lane, Json | None]
    ended: tuple[int, ...]
    """With which codes the operator ended by itself."""
    errors: tuple[str, ...]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(made: Rig, reference: Reference) -> Told:
    """Some points of every kind of fault, and beside them a verdict that is held up for long."""
    points = sampled(reference)
    found = [p for p in reference.points([Fault.OVERTAKEN]) if p.phase == "first passes"]
    verdict = next(p for p in found if "controllerrevisions" in p.what)
    sample, late_verdict = await asyncio.gather(
        campaign.run(made, points, reference, len(points), print, tries=1),
        campaign.tell(made, verdict, lands_in="second starts"),
    )
    errors = campaign.unexpected_errors(made.operator.process.log)
    return Told(sample, len(points), late_verdict, tuple(made.operator.ended), tuple(errors))


def sampled(reference: Reference) -> list[Point]:
    """Points of every kind of fault but the kill, the same in every run."""
    rand = random.Random(SEED)
    return [
        point
        for fault in (*OF_WRITES, *OF_EVENTS)
        if fault is not Fault.KILL
        for point in rand.sample(
            sorted((p for p in reference.points([fault]) if " events " not in p.what), key=str), PER_FAULT
        )
    ]


async def test_every_kind_of_fault_at_some_of_its_points_ends_as_without_it(reference: Reference, told: Told) -> None:
    assert reference.writes.total() > 25
    assert told.sample.failed == []
    assert told.sample.survived >= 0.9 * told.points
    assert told.errors == ()
    assert told.ended == ()


async def test_a_verdict_that_lands_after_the_promotion_and_a_new_candidate_undoes_neither(
    reference: Reference, told: Told
) -> None:
    lane, end = told.late_verdict
    assert end is not None, lane.problems
    assert lane.landed.is_set()
    assert oracle.judge(lane, end, reference.end, reference.created, reference.deleted) == []


class Held(Story):
    """A deployment that goes while the operator is held up until long after all of it is gone."""

    async def _phases(self, interlude: Callable[[Story], Awaitable[None]] | None) -> Json:
        await self.bring_up(self.case.first)
        await self.calm()
        operator = self.rig.operator.process
        operator.signal(signal.SIGSTOP)
        going_on = asyncio.create_task(self._go_on())
        try:
            await self.remove()
            await going_on
        finally:
            going_on.cancel()
            operator.signal(signal.SIGCONT)
        return {}

    async def _go_on(self) -> None:
        """Let the operator go on after a calm that is longer than those that a story waits for."""
        await self.reached(lambda: not self._left(), "all of it is gone")
        await asyncio.sleep(2 * CALM_SECONDS)
        self.rig.operator.process.signal(signal.SIGCONT)


async def test_what_a_slow_operator_does_about_a_deletion_is_no_write_in_the_silence_after(made: Rig) -> None:
    lane = made.traffic.lanes["tenant-of-slow"] = Lane("tenant-of-slow")
    await Held(made, lane).tell()
    proofs = [what for phase, what in lane.writes if phase == "deleted"]
    # At most one, which is refused: so a pass learns that the owner is gone, unless its deletion was seen before.
    assert proofs in ([], ["apply r1plusdeployments/status credit"])
    assert lane.problems == []


@pytest.mark.apiserver_long
async def test_single_faults_that_concern_everybody_end_as_without_them(made: Rig) -> None:
    """As `make faults` with the same faults and more, one after the other; here their stories wait for each other."""
    assert made.case != SINGLES_CASE
    reference = await campaign.learn(made, SINGLES_CASE)
    result = await singles.run_together(made, reference, case=SINGLES_CASE)
    assert result.failed == []
    assert result.survived == len(singles.QUICK)
