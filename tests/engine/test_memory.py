"""The fit's sum against what a full server really holds: the same function that sizes the pod, on the real tritonserver."""

from pathlib import Path

import pytest

from devcluster.cache import cache_dir
from engine.asking import Client
from engine.conftest import Server
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.config_pbtxt import render
from r1plus_model_repo.delivery import assemble
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_policies.sizing import MIB, sized

pytestmark = pytest.mark.timeout(1500)

TOLERANCE = 0.15
ENGINES = {e.name: e.spec for e in load_catalog(Path(catalog.__file__).parent) if e.spec.backend == "openvino"}
BATCH, CONTEXT = 32, 256


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.triton if name == "smollm2-edge-q4-1" else pytest.mark.triton_long)
        for name in ENGINES
    ],
)
def test_the_predicted_memory_of_a_full_server_is_within_15_percent_of_the_measured(
    name: str, installed: Path, tmp_path: Path
) -> None:
    spec = ENGINES[name]
    fit = sized(spec.shape, BATCH, CONTEXT)
    folder = build_engines(cache_dir() / "engines", print)[name].folder
    text = render(spec, batch=BATCH, context=CONTEXT, kv_cache_bytes=fit.kv_cache_bytes, engine_path=str(folder))
    assemble(text.encode(), tmp_path)
    running = Server(tmp_path, installed, tmp_path / "models")
    try:
        running.until_ready(600.0)
        with Client(running.grpc) as client:
            questions = [
                {"prompt": "Count them: " + "word " * 150 + str(n), "max_new_tokens": 40} for n in range(BATCH)
            ]
            answers = client.all(questions)  # type: ignore[arg-type]
        used = [answer.prompt_tokens + answer.tokens for answer in answers]
        assert min(used) > 0.7 * CONTEXT, used
        measured = running.peak_bytes()
    finally:
        running.end()
    told = f"predicted {fit.total_bytes / MIB:.0f} MiB ({fit.explain()}), measured {measured / MIB:.0f} MiB"
    print(told)
    assert abs(fit.total_bytes - measured) <= TOLERANCE * measured, told
