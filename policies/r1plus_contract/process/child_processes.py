"""Signals to the child processes that asyncio has started."""

import asyncio
import contextlib
import os


def signal_child(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to a child; one that has ended gets none.

    `Process.kill` and its like ask for the child's status first. Of a child that has ended just then they take it away
    from asyncio's watcher, which reports 255 instead (github.com/python/cpython/issues/127049; Python 3.11 has it).
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
