"""A process beside the gateway as its container runs it, for a gateway that is a process as well."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.apiserver.process import DIES_WITH_PARENT
from support.waiting import DEADLINE_SECONDS, eventually


@asynccontextmanager
async def running_helper(folder: Path, module: str, socket_variable: str, **variables: str) -> AsyncIterator[Path]:
    """Run `python -m MODULE` for the block; yield the path of its socket once it is healthy."""
    command = (sys.executable, "-m", module)
    path, log = folder / f"{module}.sock", folder / f"{module}.log"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **variables, socket_variable: str(path)}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*DIES_WITH_PARENT, *command, env=environment, stderr=output)

    async def is_healthy() -> bool:
        assert process.returncode is None, log.read_text()
        if not path.exists():
            return False  # To ask it would take another process each time.
        asking = await asyncio.create_subprocess_exec(
            *command, "health", env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        return await asking.wait() == 0

    try:
        await eventually(is_healthy, f"{module} is healthy")
        yield path
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), DEADLINE_SECONDS)
