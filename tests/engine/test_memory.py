"""The fit's sum against what a full server really holds: the same function that sizes the pod, on the real tritonserver."""

from pathlib import Path

import pytest

from devcluster.cache import cache_dir
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_policies.engine.memory_fit import MIB, compute_fit
from support.engine.client import Client
from support.engine.server import ENGINES, Server, deliver, serving

pytestmark = pytest.mark.timeout(1500)

TOLERANCE = 0.15
BATCH, CONTEXT = 32, 256


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.triton if name == "smollm2-edge-q4-1" else pytest.mark.triton_long)
        for name, spec in ENGINES.items()
        if spec.backend == "openvino"
    ],
)
def test_the_predicted_memory_of_a_full_server_is_within_15_percent_of_the_measured(
    name: str, installed: Path, tmp_path: Path
) -> None:
    spec = ENGINES[name]
    fit = compute_fit(spec.shape, BATCH, CONTEXT)
    folder = build_engines(cache_dir() / "engines", print)[name].folder
    models = deliver(tmp_path, spec, folder, BATCH, CONTEXT)
    with serving(Server(tmp_path, installed, models)) as running:
        with Client(running.grpc) as client:
            questions = [
                {"prompt": "Count them: " + "word " * 150 + str(n), "max_new_tokens": 40} for n in range(BATCH)
            ]
            answers = client.all(questions)  # type: ignore[arg-type]
        used = [answer.prompt_tokens + answer.tokens for answer in answers]
        assert min(used) > 0.7 * CONTEXT, used
        measured = running.peak_bytes()
    told = f"predicted {fit.total_bytes / MIB:.0f} MiB ({fit.explain()}), measured {measured / MIB:.0f} MiB"
    print(told)
    assert abs(fit.total_bytes - measured) <= TOLERANCE * measured, told
