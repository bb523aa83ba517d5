"""Our rules and the real tritonserver judge the same configurations, right and wrong, and agree on each.

All of them lie in one repository of one server, each a model of its own; what it loads is READY in its index.
"""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1plus_model_repo.catalog.types import Backend
from r1plus_model_repo.config_pbtxt import render_config
from r1plus_model_repo.config_rules import find_config_problems
from support.engine.configurations import CASES, RIGHT, WRONG
from support.engine.server import ENGINES, Server, ending

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

MODEL = """
import numpy
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        answer = utils.Tensor("b", numpy.array([b"yes"], dtype=object))
        return [utils.InferenceResponse(output_tensors=[answer]) for _ in requests]
"""


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[dict[str, str]]:
    """Model -> what the server says of it."""
    models = tmp_path_factory.mktemp("rules")
    for name, config in CASES.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "1" / "model.py").write_text(MODEL)
        (models / name / "config.pbtxt").write_text(config)
    options = ("--exit-on-error=false", "--strict-readiness=false")
    with ending(Server(tmp_path_factory.mktemp("server"), installed, models, *options, guarded=False)) as running:
        running.until_answers("/v2/health/live")
        request = urllib.request.Request(f"http://{running.http}/v2/repository/index", method="POST")
        with urllib.request.urlopen(request, timeout=600) as answer:
            index = json.loads(answer.read())
        yield {model["name"]: f"{model.get('state', '')} {model.get('reason', '')}".strip() for model in index}


@pytest.mark.parametrize("name", CASES)
def test_the_server_and_the_rules_agree(states: dict[str, str], name: str) -> None:
    said = states.get(name, "not polled")
    found = find_config_problems(CASES[name], name=name, gpus=False)
    assert (said == "READY") == (name in RIGHT), said
    assert bool(found) == (name in WRONG), found


@pytest.mark.parametrize("name", WRONG)
def test_a_problem_names_its_field(name: str) -> None:
    problems = find_config_problems(WRONG[name], name=name, gpus=False)
    assert problems
    assert [problem for problem in problems if ": " not in problem] == []


@pytest.mark.parametrize("name", [name for name, spec in ENGINES.items() if spec.requirements.gpu])
def test_a_gpu_engine_is_refused_for_its_backend_and_its_gpu_alone_where_there_is_none(name: str) -> None:
    said = find_config_problems(
        render_config(ENGINES[name], batch=8, context=4096, kv_cache_bytes=0), name="r1plus", gpus=False
    )
    if ENGINES[name].backend is Backend.TENSORRT:
        assert said[0].startswith("backend: ")
        assert all(problem.startswith(("backend", "instance_group.kind")) for problem in said)
    else:
        assert said == (), "in Triton's Python backend; what the engine has against the machine it says itself"
