"""The socket: requests are handed on as they are, since only the engine's process reads texts."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.embedder import ANSWER_SECONDS, MOST_REQUEST_BYTES, EmbedderReply, EmbeddingFailureCode
from r1plus_contract.frame_server import serve_frames
from r1plus_contract.jsonable import dumps
from r1plus_embedder.child import start_engine
from r1plus_embedder.files import EngineFiles
from r1plus_embedder.host import EngineHost, encode_failure

IDLE_SECONDS: Final = 600.0
_HEALTH_REQUEST_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class EmbedderServer:
    """Serves one socket with one engine."""

    host: EngineHost

    async def answer(self, payload: bytes) -> bytes:
        """Return the reply to a request."""
        if not payload:
            message = f"a request has 1 to {MOST_REQUEST_BYTES} bytes; send fewer texts at once"
            return encode_failure(EmbeddingFailureCode.INVALID_REQUEST, message)
        if _asks_for_health(payload):
            return dumps(EmbedderReply(health=self.host.describe())).encode()
        return await self.host.ask(payload)


def _asks_for_health(payload: bytes) -> bool:
    """Return whether there are no texts. Longer requests are read by the engine's process only."""
    if len(payload) > _HEALTH_REQUEST_BYTES:
        return False
    try:
        request = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return isinstance(request, dict) and request.get("texts", []) == []


@contextlib.asynccontextmanager
async def run_embedder(
    path: Path,
    files: EngineFiles,
    threads: int,
    *,
    answer_seconds: float = ANSWER_SECONDS,
    idle_seconds: float = IDLE_SECONDS,
) -> AsyncIterator[EmbedderServer]:
    """Serve until the block ends; then let running requests end.

    Raises:
        SocketError: the path cannot be used.
    """
    host = EngineHost(files, lambda: start_engine(files, threads), answer_seconds, idle_seconds)
    server = EmbedderServer(host)
    try:
        async with serve_frames(path, server.answer, MOST_REQUEST_BYTES, cancels=True):
            yield server
    finally:
        await host.stop()
