"""The gateway of one machine with its helpers, as real processes: what is asked starts, and documents need no engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from r1plus_cli import local
from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.gateway import ENV_CODE_INTERPRETER
from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.gateway import EdgeGateway
from r1plus_edge.pods.images import find_images
from r1plus_edge.pods.on_demand import OnDemandContainer
from r1plus_edge.pods.places import short_path
from r1plus_edge.pods.processes import find_processes
from r1plus_edge.start.listening import open_listener, read_listening
from r1plus_edge.start.tenant import TenantRequest
from r1plus_model_repo.catalog.embedding import EmbeddingEngine, EmbeddingEngineSpec
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.plan.observation import Json
from support.calculator.running import CalculatorClient
from support.edge.served import read_command
from support.embedding.tiny_model import SHAPE, make_tiny_engine
from support.ports import free_port
from support.waiting import eventually

HANDBOOK = b"# Archive\n\n## Keys\n\nThe key of the archive hangs in room 214, beside the window.\n"
SPEC = R1PlusTenantSpec.model_validate(
    {
        "gateway": {
            "enabled": True,
            "calculator": True,
            "codeInterpreter": True,
            "knowledge": True,
            "embedding": {"engine": "tiny"},
        }
    }
)
MODULES = ("r1plus_calculator", "r1plus_documents", "r1plus_embedder")


def describe_tiny(folder: Path) -> EmbeddingEngine:
    """Return the R1PlusEngine of a tiny engine."""
    return EmbeddingEngine(
        "tiny",
        EmbeddingEngineSpec.model_validate(
            {
                "kind": "embedding",
                "family": "tiny",
                "version": "1.0.0",
                "precision": "FP16",
                "backend": "openvino",
                "artifact": {"image": "localhost/tiny:1", "sha256": digest_folder(folder)},
                "requirements": {"cpu": "1", "weightsMemory": "64Mi", "runtimeMemory": "512Mi"},
                "embedding": {"dimensions": SHAPE.hidden_size, "mostTokens": SHAPE.most_tokens, "parameters": 1000},
            }
        ),
    )


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[EdgeGateway]:
    """A gateway whose embedding engine is not in the cache yet."""
    made = make_tiny_engine(tmp_path / "made")
    folder = open_data_folder(tmp_path / "data")
    config = local.build_config("smollm2")
    listening = read_listening(f"127.0.0.1:{free_port()}", None, None)
    listener = open_listener(listening)
    gateway = EdgeGateway(
        folder,
        "local",
        listening,
        find_images(tmp_path / "server"),
        config,
        lambda: None,
        TenantRequest(SPEC, describe_tiny(made)),
        tmp_path / "cache",
        lambda line: None,
        listener,
    )
    task = asyncio.create_task(gateway.run())
    try:
        await eventually(lambda: gateway.pod.is_ready, "it is ready")

        async def has_key() -> bool:
            await gateway.ensure_key()
            return gateway.has_key

        await eventually(has_key, "it has a key")
        yield gateway
    finally:
        await gateway.pod.end(3.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gateway.pod.remove()
        listener.close()
    assert find_processes(folder.root) == []


def list_running(folder: Path) -> set[str]:
    """Return the helpers that run."""
    commands = [read_command(pid) for pid in find_processes(folder)]
    return {module for module in MODULES if any(module in command for command in commands)}


@pytest.mark.unit_slow
async def test_helpers_start_when_they_are_asked_and_documents_are_searched_before_and_after_the_engine_comes(
    gateway: EdgeGateway, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    url, key = gateway._listening.local_url, (data / "key").read_text().strip()
    assert list_running(data) == set()
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        await check_documents(gateway, client, tmp_path)
    # Nobody has calculated.
    assert list_running(data) == {"r1plus_documents", "r1plus_embedder"}


@pytest.mark.unit_slow
async def test_the_calculator_finds_and_runs_the_interpreter_within_its_confinement(gateway: EdgeGateway) -> None:
    calculator = gateway.pod.find_container("calculator")
    assert isinstance(calculator, OnDemandContainer)

    async def run(code: str) -> Json | None:
        """Run a program, again if a busy machine did not give it its two seconds."""
        with short_path(calculator._front) as path:
            reply = await CalculatorClient(Path(path)).run(code)
        failure = reply["failure"]
        assert failure is None or failure["code"] in ("time_limit", "busy"), failure
        return reply["run"]

    assert await eventually(lambda: run("print(6 * 7)"), "it has run") == {
        "output": "42\n",
        "value": "None",
        "error": None,
    }
    denied = await eventually(lambda: run("open('/etc/passwd').read()"), "it has run, too")
    assert denied["error"]
    gateway_variables = gateway.pod.find_container("gateway").program.environment
    assert gateway_variables[ENV_CODE_INTERPRETER] == "true"


async def check_documents(gateway: EdgeGateway, client: AsyncOpenAI, tmp_path: Path) -> None:
    """Search a document before and after the engine comes."""
    store = await client.vector_stores.create(name="handbook")
    await client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("handbook.md", HANDBOOK))
    assert list_running(tmp_path / "data") == {"r1plus_documents"}

    async def search() -> tuple[str, str]:
        found = await client.vector_stores.search(store.id, query="Where is the key of the archive?")
        return found.r1plus["search"], found.data[0].content[0].text  # type: ignore[attr-defined]

    method, text = await search()
    assert (method, "room 214" in text) == ("words", True)
    await eventually(lambda: "put them into" in gateway.search, "it says what is missing")
    assert gateway.search.startswith("words alone; engine tiny: its files are not on this machine; put them into")

    engines = tmp_path / "cache" / "engines"
    engines.mkdir(parents=True)
    (tmp_path / "made" / "engine").rename(engines / "tiny")

    async def is_hybrid() -> bool:
        return (await search())[0] == "hybrid"

    await eventually(is_hybrid, "what was read without the engine is searched with it")
    assert gateway.search == "words and meaning"
