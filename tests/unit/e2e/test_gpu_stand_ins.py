"""The stand-ins for TensorRT-LLM and transformers have all that the backend uses: `make e2e STORY=gpus` counts on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from support.paths import TESTS
from support.waiting import DEADLINE_SECONDS

STAND_INS = TESTS / "e2e/gpus/stand_ins/python"
ANSWER = """
import sys
from pathlib import Path
from r1plus_model_repo.backends.requests import GenerationRequest
from r1plus_model_repo.backends.trtllm_engine import EngineSettings, TrtllmEngine

settings = EngineSettings(Path(sys.argv[1]), 4, 256, 1024, (256,), 0.9)
engine = TrtllmEngine(settings)
handle = engine.add(engine.prepare(GenerationRequest("Say this again", raw_prompt=True, max_new_tokens=100)))
ids, reason = [], None
while reason is None:
    engine.step()
    new, reason = handle.read()
    ids += new
print(engine.decode(ids), reason.name)
engine.close()
"""


def test_the_backend_answers_with_them(tmp_path: Path) -> None:
    for part in ("plan", "tokenizer"):
        (tmp_path / part).mkdir()
    built = {"build_config": {"max_batch_size": 4, "max_seq_len": 256}}
    (tmp_path / "plan" / "config.json").write_text(json.dumps(built))
    (tmp_path / "plan" / "rank0.engine").write_text("--checkpoint_dir\n")
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    paths = os.pathsep.join((str(STAND_INS), str(TESTS.parent / "model_repo"), str(TESTS.parent / "policies")))
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "STAND_IN_CUDA": "prepared"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.stdout == "Say this again STOP\n", done.stderr
