"""A gateway with all its helpers before the real tritonserver: store, calculator, embedder and reader of documents."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from devcluster.cache import cache_dir
from r1plus_model_repo.importing.embedding import minilm
from r1plus_model_repo.importing.smollm2 import build_engines
from support.calculator.process import running_calculator_process
from support.documents.process import running_reader_process
from support.embedding.process import EmbedderProcess, running_embedder_process
from support.engine.server import BATCH, CONTEXT, ENGINES, Server, deliver, laid_out, serving
from support.gateway.pod_process import Port
from support.gateway.process import GatewayProcess, Listener, running_process

ENGINE: Final = "smollm2-lite-q8-0"
"""The smallest that ends its answers by itself, which cases of llm-comply ask for."""

MODEL: Final[Mapping[str, Any]] = {
    "contextTokens": CONTEXT,
    "batch": BATCH,
    "capabilities": ["messages", "count_only", "response_schema"],
}


STORING: Final = {"data": {"contentDays": 1, "hasKnowledge": True}}
"""Settings of a tenant that stores conversations and documents."""


@contextlib.contextmanager
def serving_engine(folder: Path) -> Iterator[Port]:
    """Run tritonserver with the engine; yield where it speaks gRPC."""
    engine = build_engines(cache_dir() / "engines", lambda line: None)[ENGINE].folder
    models = deliver(folder, ENGINES[ENGINE], engine, BATCH, CONTEXT)
    with laid_out() as installed, serving(Server(folder, installed, models)) as server:
        yield Port(int(server.grpc.rpartition(":")[2]))


@asynccontextmanager
async def running_minilm(folder: Path) -> AsyncIterator[EmbedderProcess]:
    """Run the embedder with the shipped engine."""
    engine = await asyncio.to_thread(minilm.build_minilm, cache_dir() / "engines", lambda line: None)
    async with running_embedder_process(folder, engine, minilm.NAME) as embedder:
        yield embedder


@asynccontextmanager
async def running_gateway(folder: Path, pod: Listener) -> AsyncIterator[GatewayProcess]:
    """Run a gateway with all helpers before a pod."""
    async with (
        running_calculator_process(folder) as calculator,
        running_minilm(folder) as embedder,
        running_reader_process(folder) as documents,
        running_process(
            folder, pod, STORING, calculator=calculator, runs_code=True, documents=documents, embedder=embedder, **MODEL
        ) as gateway,
    ):
        yield gateway
