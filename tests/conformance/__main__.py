"""`make test-conformance`: what programs written for OpenAI's API find at a gateway; a JSON line last.

llm-comply, the real `openai` client in three major versions, and schemathesis, each in an environment of its own. The
gateway is a process with a real store, a real calculator, embedder and reader of documents; behind it the real tritonserver serves a test engine, for
schemathesis a stand-in.
"""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from conformance.clients import CLIENTS, run_client
from conformance.comply import CHAT, RESPONSES, run_comply
from conformance.environments import name_version
from conformance.fuzz import run_fuzz
from conformance.results import Result, Tally
from devcluster.cache import cache_dir
from r1plus_model_repo.importing.embedding import minilm
from r1plus_model_repo.importing.smollm2 import build_engines
from support.calculator.process import running_calculator_process
from support.documents.process import running_reader_process
from support.embedding.process import EmbedderProcess, running_embedder_process
from support.engine.server import BATCH, CONTEXT, ENGINES, Server, deliver, laid_out, serving
from support.gateway.fake_triton import FakeTriton, answer
from support.gateway.fake_triton import serving as serving_stand_in
from support.gateway.process import GatewayProcess, running_process

ENGINE: Final = "smollm2-lite-q8-0"
"""The smallest that ends its answers by itself, which cases of llm-comply ask for."""

MODEL: Final = {
    "contextTokens": CONTEXT,
    "batch": BATCH,
    "capabilities": ["messages", "count_only", "response_schema"],
}


STORING: Final = {"data": {"contentDays": 1, "hasKnowledge": True}}
"""Settings of a tenant that stores conversations and documents."""


@contextlib.contextmanager
def serving_engine(folder: Path) -> Iterator[Server]:
    """Run tritonserver with the engine."""
    engine = build_engines(cache_dir() / "engines", lambda line: None)[ENGINE].folder
    models = deliver(folder, ENGINES[ENGINE], engine, BATCH, CONTEXT)
    with laid_out() as installed, serving(Server(folder, installed, models)) as server:
        yield server


@asynccontextmanager
async def running_minilm(folder: Path) -> AsyncIterator[EmbedderProcess]:
    """Run the embedder with the shipped engine."""
    engine = await asyncio.to_thread(minilm.build_minilm, cache_dir() / "engines", lambda line: None)
    async with running_embedder_process(folder, engine, minilm.NAME) as embedder:
        yield embedder


@asynccontextmanager
async def running_gateway(folder: Path, server: Server) -> AsyncIterator[GatewayProcess]:
    """Run a gateway before this server."""
    pod = FakeTriton(answer())
    pod.port = int(server.grpc.rpartition(":")[2])
    async with (
        running_calculator_process(folder) as calculator,
        running_minilm(folder) as embedder,
        running_reader_process(folder) as documents,
        running_process(
            folder, pod, STORING, calculator=calculator, documents=documents, embedder=embedder, **MODEL
        ) as gateway,
    ):
        yield gateway


async def run_before_engine(tally: Tally) -> None:
    """Run what needs real answers."""

    async def add(part: str, run: Callable[[], Iterable[Result]]) -> None:
        tally.add(part, await asyncio.to_thread(lambda: list(run())))

    with tempfile.TemporaryDirectory(prefix="r1plus-conformance-") as name:
        folder = Path(name)
        (folder / "gateway").mkdir()
        with serving_engine(folder) as server:
            async with running_gateway(folder / "gateway", server) as gateway:
                key = await gateway.create_key()
                for kind in (CHAT, RESPONSES):
                    part = f"{name_version('llm-comply')}, {kind}"
                    await add(part, lambda kind=kind: run_comply(kind, gateway.url, key))
                for client in CLIENTS:
                    keys = {
                        "valid": key,
                        "exhausted": await gateway.create_key(limits={"budget_tokens": 1}),
                        "slow": await gateway.create_key(limits={"requests_per_minute": 1}),
                    }
                    await add(
                        name_version(client), lambda client=client, keys=keys: run_client(client, gateway.url, keys)
                    )


async def run_before_stand_in(tally: Tally) -> None:
    """Run what sends thousands of requests: a stand-in for the engine answers them."""
    with tempfile.TemporaryDirectory(prefix="r1plus-conformance-") as name:
        script = answer("Stock", "holm")
        async with (
            serving_stand_in(FakeTriton(script)) as pod,
            running_calculator_process(Path(name)) as calculator,
            running_minilm(Path(name)) as embedder,
            running_reader_process(Path(name)) as documents,
            running_process(
                Path(name), pod, STORING, calculator=calculator, documents=documents, embedder=embedder, **MODEL
            ) as gateway,
        ):
            admin = gateway.make_token("team-credit", "r1plus-gateway-admin")
            credentials = {"caller": await gateway.create_key(), "admin": admin}
            results = await asyncio.to_thread(
                lambda: list(run_fuzz(gateway.url, CONTEXT, embedder.settings, credentials))
            )
            if gateway.returncode is not None:
                results.append(Result("the gateway runs", problem=gateway.log[-800:]))
            tally.add(name_version("schemathesis"), results)


async def main() -> int:
    """Run all parts; return the exit status."""
    tally = Tally()
    print(f"Backend: tritonserver with {ENGINE}", flush=True)
    await run_before_engine(tally)
    print("Backend: a stand-in for tritonserver", flush=True)
    await run_before_stand_in(tally)
    print(tally.encode(backend=f"tritonserver with {ENGINE}; a stand-in for schemathesis"))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
