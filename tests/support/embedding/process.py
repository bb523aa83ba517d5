"""The embedder as the container runs it, for a gateway that is a process as well."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1plus_contract.embedder import ENV_ENGINE, ENV_ENGINE_DIR, ENV_SOCKET
from r1plus_contract.jsonable import to_jsonable
from r1plus_embedder.files import read_engine_files
from r1plus_gateway.settings import EmbeddingSettings
from support.apiserver.process import DIES_WITH_PARENT
from support.waiting import DEADLINE_SECONDS, eventually

_COMMAND = (sys.executable, "-m", "r1plus_embedder")


@dataclass(frozen=True, slots=True)
class EmbedderProcess:
    """A running embedder."""

    socket: Path
    settings: dict[str, Any]
    """What a gateway's settings say of it: `embedding`."""


@asynccontextmanager
async def running_embedder_process(folder: Path, engine: Path, name: str) -> AsyncIterator[EmbedderProcess]:
    """Run `python -m r1plus_embedder` for the block, with the engine in a folder, once it is healthy."""
    path, files = folder / "embedder.sock", read_engine_files(engine, name)
    about = EmbeddingSettings(name, files.identity.rpartition(":")[2], files.dimensions, files.most_tokens)
    variables = {ENV_SOCKET: str(path), ENV_ENGINE: name, ENV_ENGINE_DIR: str(engine)}
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **variables}
    log = folder / "embedder.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*DIES_WITH_PARENT, *_COMMAND, env=environment, stderr=output)

    async def is_healthy() -> bool:
        assert process.returncode is None, log.read_text()
        asking = await asyncio.create_subprocess_exec(
            *_COMMAND, "health", env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        return await asking.wait() == 0

    try:
        await eventually(is_healthy, "the embedder is healthy")
        yield EmbedderProcess(path, to_jsonable(about))
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), DEADLINE_SECONDS)
