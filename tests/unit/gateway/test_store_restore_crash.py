"""A restore that is killed at any of its steps: the data are new as before, or whole as the backup says."""

import asyncio
import shutil

import pytest

from support.gateway.killed_restore import kill_restores, prepare
from support.gateway.tenant_data import Volume
from support.scratch import make_scratch_folder
from support.tables import for_each

pytestmark = pytest.mark.first_run_counts

LONG = (pytest.mark.unit_long, pytest.mark.timeout(3000))


@pytest.mark.unit_slow
@for_each("stride", {"at each second step": 2, "at each step": pytest.param(1, marks=LONG)})
def test_a_restore_that_is_killed_leaves_the_state_before_or_after(volume: Volume, stride: int) -> None:
    folder = make_scratch_folder("r1plus-tenant-")
    asyncio.run(prepare(volume, folder))
    kill_restores(folder, stride=stride)
    shutil.rmtree(folder)
