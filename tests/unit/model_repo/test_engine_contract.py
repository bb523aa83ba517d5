"""The contract of all backends (`EngineContract`) on those for GPUs, each with the chat templates of the stand-in."""

from pathlib import Path
from typing import Any

import pytest

from support.model_repo.engine_contract import ContractSubject, EngineContract
from support.model_repo.gpu_stage import GpuStage, opened
from support.model_repo.stand_in_tensorrt_llm import TrtllmStage
from support.model_repo.stand_in_transformers import ADDED, BEGIN, TEMPLATES, StandInTokenizer
from support.model_repo.stand_in_vllm import VllmStage

CONTEXT = 512


def write(ids: list[int]) -> str:
    parts = (ADDED[token][0].encode() if token in ADDED else bytes([token] if token < BEGIN else []) for token in ids)
    return b"".join(parts).decode()


@pytest.fixture(params=[VllmStage, TrtllmStage], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[GpuStage]:
    chosen: type[GpuStage] = request.param
    return chosen


@pytest.fixture(params=TEMPLATES)
def subject(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: type[GpuStage], tmp_path: Path
) -> ContractSubject:
    monkeypatch.setattr(StandInTokenizer, "chat_template", request.param)
    module: Any = opened(monkeypatch, kind)
    if kind is TrtllmStage:
        delivered = TrtllmStage.deliver(tmp_path, CONTEXT)
    else:
        delivered = kind.deliver(tmp_path)
    stage = kind(module, context=str(CONTEXT), **delivered)
    # What is neither special nor in the template is a word like others.
    control = {text: token for token, (text, special) in ADDED.items() if special or text in request.param}
    takes_system = request.param != TEMPLATES[2]
    return ContractSubject(stage.engine, kind.prompt_ids, control, write, CONTEXT, takes_system)


class TestGpuEngines(EngineContract):
    """vLLM and TensorRT-LLM."""
