"""Our rules and the real tritonserver judge the same configurations, right and wrong, and agree on each.

All of them lie in one repository of one server, each a model of its own; what it loads is READY in its index.
"""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.conftest import Server, until
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.config_pbtxt import render
from r1plus_model_repo.config_rules import problems

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
TENSORS = """
input { name: "a" data_type: TYPE_STRING dims: 1 }
output { name: "b" data_type: TYPE_STRING dims: 1 }
"""
CPU = "instance_group { count: 1 kind: KIND_CPU }"
PYTHON = f'backend: "python" {TENSORS} {CPU}'

RIGHT = {
    "the-least": PYTHON,
    "named-as-its-folder": f'name: "named-as-its-folder" {PYTHON}',
    "batching": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preferred_batch_size: [4, 8] }}",
    "batching-without-a-wish": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ max_queue_delay_microseconds: 100 }}",
    "priorities": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ priority_levels: 3 default_priority_level: 3 }}",
    "order-kept-without-priorities": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preserve_ordering: true }}",
    "order-kept-with-one-priority": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preserve_ordering: true priority_levels: 1 default_priority_level: 1 }}",
    "decoupled": f"{PYTHON} model_transaction_policy {{ decoupled: true }}",
    "cached": f"{PYTHON} response_cache {{ enable: true }}",
    "a-tensor-of-any-length": f'backend: "python" input {{ name: "a" data_type: TYPE_INT32 dims: [-1, 2] }} output {{ name: "b" data_type: TYPE_FP32 dims: -1 }} {CPU}',
    "two-instances": f'backend: "python" {TENSORS} instance_group {{ count: 2 kind: KIND_CPU }}',
    "its-version": f"{PYTHON} version_policy {{ specific {{ versions: 1 }} }}",
}  # fmt: skip
WRONG = {
    "an-unknown-field": f"{PYTHON} max_batch_sise: 3",
    "a-word-for-a-number": f'{PYTHON} max_batch_size: "8"',
    "an-unknown-kind": f'backend: "python" {TENSORS} instance_group {{ count: 1 kind: KIND_TPU }}',
    "a-field-of-a-newer-server": f"{PYTHON} model_metrics {{ }}",
    "another-name": f'name: "something-else" {PYTHON}',
    "preferred-above-the-largest": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preferred_batch_size: 9 }}",
    "preferred-without-batches": f"{PYTHON} dynamic_batching {{ preferred_batch_size: 1 }}",
    "preferred-nothing": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preferred_batch_size: 0 }}",
    "no-default-priority": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ priority_levels: 3 }}",
    "a-default-beyond-the-priorities": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ priority_levels: 3 default_priority_level: 4 }}",
    "order-kept-across-priorities": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preserve_ordering: true priority_levels: 2 default_priority_level: 1 }}",
    "decoupled-and-cached": f"{PYTHON} model_transaction_policy {{ decoupled: true }} response_cache {{ enable: true }}",
    "a-negative-batch": f"{PYTHON} max_batch_size: -1",
    "a-tensor-without-a-type": f'backend: "python" input {{ name: "a" dims: 1 }} output {{ name: "b" data_type: TYPE_FP32 dims: 1 }} {CPU}',
    "a-tensor-without-a-name": f'backend: "python" input {{ data_type: TYPE_FP32 dims: 1 }} output {{ name: "b" data_type: TYPE_FP32 dims: 1 }} {CPU}',
    "a-tensor-without-dims": f'backend: "python" input {{ name: "a" data_type: TYPE_FP32 }} output {{ name: "b" data_type: TYPE_FP32 dims: 1 }} {CPU}',
    "a-dim-of-nothing": f'backend: "python" input {{ name: "a" data_type: TYPE_FP32 dims: 0 }} output {{ name: "b" data_type: TYPE_FP32 dims: 1 }} {CPU}',
    "a-gpu-without-one": f'backend: "python" {TENSORS} instance_group {{ count: 1 kind: KIND_GPU }}',
    "gpus-for-a-cpu": f'backend: "python" {TENSORS} instance_group {{ count: 1 kind: KIND_CPU gpus: 0 }}',
    "a-backend-that-is-not-there": f'backend: "vllm" {TENSORS} {CPU}',
    "no-backend": f"{TENSORS} {CPU}",
}  # fmt: skip
CASES = {**RIGHT, **WRONG}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[dict[str, str]]:
    """Model -> what the server says of it."""
    models = tmp_path_factory.mktemp("rules")
    for name, config in CASES.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "1" / "model.py").write_text(MODEL)
        (models / name / "config.pbtxt").write_text(config)
    options = ("--exit-on-error=false", "--strict-readiness=false", "--cache-config=local,size=1048576")
    running = Server(tmp_path_factory.mktemp("server"), installed, models, *options)
    try:
        until(lambda: running.get("/v2/health/live") is not None or running.process.poll() is not None, 1200.0)
        assert running.process.poll() is None, running.log.read_text()[-4000:]
        request = urllib.request.Request(f"http://{running.http}/v2/repository/index", method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            index = json.loads(answer.read())
        yield {model["name"]: f"{model.get('state', '')} {model.get('reason', '')}".strip() for model in index}
    finally:
        running.end()


@pytest.mark.parametrize("name", CASES)
def test_the_server_and_the_rules_agree(states: dict[str, str], name: str) -> None:
    said = states.get(name, "not polled")
    found = problems(CASES[name], name=name, gpus=False)
    assert (said == "READY") == (name in RIGHT), said
    assert bool(found) == (name in WRONG), found


@pytest.mark.parametrize("name", WRONG)
def test_a_problem_names_its_field(name: str) -> None:
    for problem in problems(WRONG[name], name=name, gpus=False):
        assert ": " in problem


GPU_ENGINES = [engine for engine in load_catalog(Path(catalog.__file__).parent) if engine.spec.requirements.gpu]


@pytest.mark.parametrize("engine", GPU_ENGINES, ids=lambda engine: engine.name)
def test_a_gpu_engine_is_refused_for_its_backend_and_its_gpu_alone_where_there_is_none(engine: object) -> None:
    text = render(engine.spec, batch=8, context=4096, kv_cache_bytes=0)  # type: ignore[attr-defined]
    said = problems(text, name="r1plus", gpus=False)
    assert said[0].startswith("backend: ")
    assert all(problem.startswith(("backend", "instance_group.kind")) for problem in said)
