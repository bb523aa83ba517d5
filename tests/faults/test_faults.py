"""A sample of what `make faults` does in full: points of every kind, each of which must end as if nothing had happened."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from devcluster.apiserver_only import ApiServer
from faults import campaign, oracle
from faults.calls import OF_EVENTS, OF_WRITES, Fault, Json
from faults.lane import Lane
from faults.rig import rig
from faults.scenario import CALM_SECONDS, Story

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]
PER_FAULT = 3


async def test_every_kind_of_fault_at_some_of_its_points_ends_as_without_it(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    seed = 7
    async with rig(apiserver, seed, tmp_path) as made:
        reference = await campaign.learn(made)
        assert reference.writes.total() > 25
        rand = random.Random(seed)
        points = [
            point
            for fault in (*OF_WRITES, *OF_EVENTS)
            if fault is not Fault.KILL
            for point in rand.sample([p for p in reference.points([fault]) if " events " not in p.what], PER_FAULT)
        ]
        result = await campaign.run(made, points, reference, len(points), print, tries=1)
        assert result.failed == []
        assert result.survived >= 0.9 * len(points)
        assert campaign.unexpected_errors(made.operator.process.log) == []
        assert made.operator.ended == []


async def test_a_verdict_that_lands_after_the_promotion_and_a_new_candidate_undoes_neither(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    async with rig(apiserver, 0, tmp_path) as made:
        reference = await campaign.learn(made)
        found = [p for p in reference.points([Fault.OVERTAKEN]) if p.phase == "first passes"]
        point = next(p for p in found if "controllerrevisions" in p.what)
        lane, end = await campaign.tell(made, point, lands_in="second starts")
    assert end is not None, lane.problems
    assert lane.landed.is_set()
    assert oracle.judge(lane, end, reference.end, reference.created, reference.deleted) == []


class Held(Story):
    """A deployment that goes while the operator is held up for longer than any calm lasts."""

    async def _phases(self, interlude: Callable[[Story], Awaitable[None]] | None) -> Json:
        await self.bring_up(self.rig.case.first)
        await self.calm()
        operator = self.rig.operator.process
        operator.signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(4 * CALM_SECONDS, operator.signal, signal.SIGCONT)
        await self.remove()
        return {}


async def test_what_a_slow_operator_does_about_a_deletion_is_no_write_in_the_silence_after(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    async with rig(apiserver, 0, tmp_path) as made:
        lane = made.traffic.lanes["tenant-of-slow"] = Lane("tenant-of-slow")
        await Held(made, lane).tell()
    proofs = [what for phase, what in lane.writes if phase == "deleted"]
    assert proofs == ["apply r1plusdeployments/status credit"]  # refused: so a pass learns that the owner is gone
    assert lane.problems == []
