"""A sample of what `make faults` does in full: points of every kind, each of which must end as if nothing had happened."""

import random
from pathlib import Path

import pytest

from devcluster.apiserver_only import ApiServer
from faults import campaign, singles
from faults.calls import OF_EVENTS, OF_WRITES, Fault
from faults.rig import rig

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


async def test_single_faults_that_concern_everybody_end_as_without_them(apiserver: ApiServer, tmp_path: Path) -> None:
    async with rig(apiserver, 0, tmp_path) as made:
        reference = await campaign.learn(made)
        result = await singles.run(made, reference, print, singles.QUICK)
    assert result.failed == []
    assert result.survived == len(singles.QUICK)
