"""The contract of all backends (`EngineContract`) on the real vLLM, in process.

Not collected with the project's tests: test_contract.py runs it in vLLM's environment, where the project's own packages
are not installed.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.constraints import parse_grammar
from r1plus_model_repo.backends.engine_loop import Job
from r1plus_model_repo.backends.hf_tokens import HfTokens
from r1plus_model_repo.backends.requests import GenerationRequest
from r1plus_model_repo.backends.vllm_engine import CpuSettings, EngineSettings, VllmEngine
from support.model_repo.engine_contract import ContractSubject, EngineContract
from support.model_repo.smollm2_templates import NO_SYSTEM, TEMPLATES

CHECKPOINT = Path(os.environ["R1PLUS_TEST_CHECKPOINT"])
CONTEXT = 1024
KV_CACHE_BYTES = 256 * 2**20


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    opened = VllmEngine(EngineSettings(CHECKPOINT, 2, CONTEXT, CpuSettings(KV_CACHE_BYTES, threads=1)))
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=TEMPLATES)
def tokens(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HfTokens:
    """The checkpoint's tokenizer with another chat template."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((CHECKPOINT / name).read_bytes())
    if template := TEMPLATES[request.param]:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "chat_template": template}), "utf-8")
    return HfTokens(folder, CONTEXT)


@pytest.fixture
def subject(request: pytest.FixtureRequest, engine: VllmEngine, tokens: HfTokens) -> Iterator[ContractSubject]:
    own, engine._tokens = engine._tokens, tokens
    yield ContractSubject(
        engine,
        list,
        {"<|im_start|>": 1, "<|im_end|>": 2},
        lambda ids: str(tokens._tokenizer.decode(ids, skip_special_tokens=False)),
        CONTEXT,
        takes_system=NO_SYSTEM not in request.node.name,
    )
    engine._tokens = own


class TestVllm(EngineContract):
    """vLLM on CPU."""


def generate(engine: VllmEngine, job: Job) -> tuple[str, int, FinishReason | None]:
    """Return the text of one generation, its number of tokens, and why it ended."""
    handle, ids, reason = engine.add(job), list[int](), None
    while reason is None:
        engine.step()
        new, reason = handle.read()
        ids += new
    return engine.decode(ids), len(ids), reason


def test_an_answer_in_process(engine: VllmEngine) -> None:
    text, tokens, reason = generate(engine, engine.prepare(GenerationRequest("What is the capital of France?")))
    assert "Paris" in text
    assert reason is FinishReason.STOP
    assert tokens < 100


def test_a_grammar_bounds_the_answer(engine: VllmEngine) -> None:
    request = GenerationRequest("Is the sky blue?", constraint=parse_grammar('root ::= "yes" | "no"'))
    text, _, reason = generate(engine, engine.prepare(request))
    assert text in ("yes", "no")
    assert reason is FinishReason.STOP
