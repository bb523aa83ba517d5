"""A child's status after a signal: its own, also where it ends at the same moment."""

import asyncio
import signal

from r1plus_contract.process.child_processes import signal_child
from support.tables import for_each

CHILDREN = 20
"""Process.kill() loses the status of two thirds of them."""


@for_each(
    "script, status",
    {
        "one that ends by itself": ("exit 7", 7),
        "one that another signal ends": ("kill -TERM $$", -signal.SIGTERM),
    },
)
async def test_a_child_that_ends_before_the_signal_keeps_its_status(script: str, status: int) -> None:
    statuses = set()
    for _ in range(CHILDREN):
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.read()  # It is ending.
        signal_child(process, signal.SIGKILL)
        statuses.add(await process.wait())
    assert statuses == {status}


async def test_a_child_that_runs_is_ended_and_a_second_signal_is_no_error() -> None:
    process = await asyncio.create_subprocess_exec("/bin/sleep", "600")
    signal_child(process, signal.SIGTERM)
    assert await process.wait() == -signal.SIGTERM
    signal_child(process, signal.SIGKILL)
