"""The calculator as the container runs it, for a gateway that is a process as well."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from r1plus_contract.calculator import ENV_SOCKET
from support.apiserver.process import DIES_WITH_PARENT
from support.waiting import DEADLINE_SECONDS, eventually

_COMMAND = (sys.executable, "-m", "r1plus_calculator")


@asynccontextmanager
async def running_calculator_process(folder: Path) -> AsyncIterator[Path]:
    """Run `python -m r1plus_calculator` for the block; yield the path of its socket once it is healthy."""
    path = folder / "calculator.sock"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", ENV_SOCKET: str(path)}
    log = folder / "calculator.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*DIES_WITH_PARENT, *_COMMAND, env=environment, stderr=output)

    async def is_healthy() -> bool:
        assert process.returncode is None, log.read_text()
        asking = await asyncio.create_subprocess_exec(
            *_COMMAND, "health", env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        return await asking.wait() == 0

    try:
        await eventually(is_healthy, "the calculator is healthy")
        yield path
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), DEADLINE_SECONDS)
