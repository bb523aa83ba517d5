"""The single faults of `make faults`, once each and briefly."""

from pathlib import Path

import pytest

from devcluster.apiserver_only import ApiServer
from faults import campaign, singles
from faults.rig import rig

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


async def test_single_faults_that_concern_everybody_end_as_without_them(apiserver: ApiServer, tmp_path: Path) -> None:
    async with rig(apiserver, 0, tmp_path) as made:
        reference = await campaign.learn(made)
        result = await singles.run(made, reference, print, singles.QUICK)
    assert result.failed == []
    assert result.survived == len(singles.QUICK)
