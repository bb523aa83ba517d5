"""A restore that is killed at any of its steps: the data are new as before, or whole as the backup says."""

import asyncio
import shutil

from support.gateway.killed_restore import kill_restores, prepare
from support.gateway.tenant_data import Volume
from support.scratch import make_scratch_folder


def test_a_restore_that_is_killed_leaves_the_state_before_or_after(volume: Volume) -> None:
    folder = make_scratch_folder("r1plus-tenant-")
    asyncio.run(prepare(volume, folder))
    kill_restores(folder)
    shutil.rmtree(folder)
