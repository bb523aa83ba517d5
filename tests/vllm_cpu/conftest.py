"""vLLM's environment, SmolLM2 as a checkpoint, and a Triton that serves it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.engine.server import Server, laid_out, serving
from support.vllm import environment
from support.vllm.engine import convert_smollm2, deliver_vllm

BATCH, CONTEXT = 8, 1024
StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def python() -> Path:
    return environment.prepare()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_smollm2(tmp_path_factory.mktemp("smollm2") / "checkpoint")


@pytest.fixture
def start(tmp_path: Path, python: Path, checkpoint: Path) -> Iterator[StartServer]:
    """Start a Triton with vLLM, with these options; it is ready."""
    with ExitStack() as stack:
        installed = stack.enter_context(laid_out())

        def begin(*options: str) -> Server:
            models = deliver_vllm(tmp_path / "delivery", checkpoint, BATCH, CONTEXT)
            return stack.enter_context(serving(Server(tmp_path, installed, models, *options, python=str(python))))

        yield begin
