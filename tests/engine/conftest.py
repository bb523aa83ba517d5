"""One tritonserver for all tests that only ask, delivered and configured as a pod's is, and a control that is open.

With `--engine vllm` (`make test-long NAME=vllm`) the same tests ask vLLM on CPU, which serves the same model, and with
`--engine torch` (`make test-long NAME=model`) R1+'s own architecture in torch, with all that it adds switched off.
"""

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cache import cache_dir
from r1plus_contract import inference
from r1plus_model_repo.importing.smollm2 import build_engines
from support.edge.whole_bundle import Bundled, make_newer, making_bundle
from support.engine.client import Client
from support.engine.models import WRONG_ADDITIONS, write_scripted_model
from support.engine.server import BATCH, CONTEXT, ENGINES, Server, deliver, laid_out, serving
from support.model import environment as torch_environment
from support.model.engine import describe_for_torch
from support.ports import free_port
from support.vllm import environment
from support.vllm.engine import convert_smollm2, deliver_vllm

ENGINE = "smollm2-edge-q4-1"
"""The smallest: these tests are about serving, not about what it knows."""


OPENVINO, VLLM, TORCH = "openvino", "vllm", "torch"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=(OPENVINO, VLLM, TORCH), default=OPENVINO, help="The engine behind Triton.")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--engine", OPENVINO))  # Unknown where pytest starts from a folder above.


@pytest.fixture(scope="session")
def engine_python(backend: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python whose packages the engine imports."""
    if backend == TORCH:
        return str(torch_environment.write_python(tmp_path_factory.mktemp("python")))
    return str(environment.prepare()) if backend == VLLM else sys.executable


@pytest.fixture(scope="session")
def installed() -> Iterator[Path]:
    with laid_out() as target:
        yield target


@pytest.fixture(scope="session")
def bundled() -> Iterator[Bundled]:
    with making_bundle() as bundle:
        yield bundle


@pytest.fixture(scope="session")
def newer(bundled: Bundled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second bundle, with other software and another engine."""
    return make_newer(bundled, tmp_path_factory.mktemp("newer"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Path:
    root = tmp_path_factory.mktemp("delivery")
    if backend == VLLM:
        return deliver_vllm(root, convert_smollm2(root / "checkpoint"), BATCH, CONTEXT)
    if backend == TORCH:
        checkpoint = convert_smollm2(root / "checkpoint")
        return deliver(root, describe_for_torch(checkpoint).spec, checkpoint, BATCH, CONTEXT)
    folder = build_engines(cache_dir() / "engines", print)[ENGINE].folder
    return deliver(root, ENGINES[ENGINE], folder, BATCH, CONTEXT)


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, installed: Path, models: Path, engine_python: str
) -> Iterator[Server]:
    with serving(Server(tmp_path_factory.mktemp("server"), installed, models, python=engine_python)) as running:
        yield running


@pytest.fixture
def ask(server: Server) -> Iterator[Client]:
    with Client(server.grpc) as client:
        yield client


@pytest.fixture(scope="session")
def vertex_ai_port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def for_vertex_ai(vertex_ai_port: int) -> dict[str, str]:
    """The environment of an image that was made for it."""
    routes = {"AIP_PREDICT_ROUTE": "/predict", "AIP_HEALTH_ROUTE": "/health"}
    return {"AIP_MODE": "PREDICTION", "AIP_HTTP_PORT": str(vertex_ai_port), **routes}


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a model that is loaded in no time."""
    return write_scripted_model(tmp_path_factory.mktemp("scripted"), WRONG_ADDITIONS)


@pytest.fixture(scope="session")
def open_server(
    tmp_path_factory: pytest.TempPathFactory, installed: Path, scripted: Path, for_vertex_ai: dict[str, str]
) -> Iterator[Server]:
    """The control of what is shut: nothing is, models may be loaded, and the image's environment counts."""
    options = ("--model-control-mode=explicit", f"--load-model={inference.MODEL_NAME}", "--allow-http=true")
    root = tmp_path_factory.mktemp("open")
    running = Server(root, installed, scripted, *options, "--allow-grpc=true", guarded=False, environ=for_vertex_ai)
    with serving(running):
        yield running


@pytest.fixture
def scripted_server(open_server: Server) -> Server:
    """The same, for tests that ask the scripted model: loaded, whatever other tests did to it."""
    if open_server.get(f"/v2/models/{inference.MODEL_NAME}/ready") is None:
        url = f"http://{open_server.http}/v2/repository/models/{inference.MODEL_NAME}/load"
        urllib.request.urlopen(urllib.request.Request(url, json.dumps({}).encode(), method="POST")).close()
        open_server.until_ready()
    return open_server
