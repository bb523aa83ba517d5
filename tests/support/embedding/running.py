"""An embedder within a test, and a client that sends what no gateway would."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1plus_assistant.embedding.client import SocketEmbedder
from r1plus_contract.embedder import EmbeddingRequest
from r1plus_contract.frames import LENGTH_BYTES, pack
from r1plus_contract.jsonable import dumps
from r1plus_embedder.files import read_engine_files
from r1plus_embedder.server import EmbedderServer, run_embedder

PATIENT_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class RunningEmbedder:
    """A server, the gateway's client of it, and its socket for others."""

    server: EmbedderServer
    client: SocketEmbedder
    path: Path

    async def send(self, data: bytes) -> bytes:
        """Send these bytes, and return all that comes until the connection is closed."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.read(), PATIENT_SECONDS)
        finally:
            writer.close()

    async def ask(self, payload: bytes) -> Any:
        """Send a request, and return its reply."""
        data = await self.send(pack(payload))
        assert int.from_bytes(data[:LENGTH_BYTES], "big") == len(data) - LENGTH_BYTES
        return json.loads(data[LENGTH_BYTES:])

    async def embed(self, *texts: str, truncate: bool = False) -> Any:
        """Send texts, and return the reply."""
        return await self.ask(dumps(EmbeddingRequest(texts, truncate)).encode())


@asynccontextmanager
async def running_embedder(
    folder: Path,
    engine: Path,
    *,
    name: str = "tiny",
    answer_seconds: float = PATIENT_SECONDS,
    idle_seconds: float = PATIENT_SECONDS,
) -> AsyncIterator[RunningEmbedder]:
    """Run an embedder with the engine in this folder."""
    path, files = folder / "embedder.sock", read_engine_files(engine, name)
    async with run_embedder(path, files, 1, answer_seconds=answer_seconds, idle_seconds=idle_seconds) as server:
        yield RunningEmbedder(server, SocketEmbedder(str(path), answer_seconds), path)
