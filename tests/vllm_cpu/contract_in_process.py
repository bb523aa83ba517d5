"""The contract of all backends (`EngineContract`) on the real vLLM, in process.

Not collected with the project's tests: test_contract.py runs it in vLLM's environment, where the project's own packages
are not installed.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.constraint.constraints import parse_grammar
from r1plus_model_repo.backends.engine_loop import Job
from r1plus_model_repo.backends.requests import GenerationRequest
from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from r1plus_model_repo.backends.vllm_engine import CpuSettings, EngineSettings, VllmEngine
from support.model_repo.engine_contract import ContractSubject, EngineContract
from support.model_repo.hf_contract import exchange_tokens, open_tokens
from support.model_repo.smollm2_templates import TEMPLATES

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
    return open_tokens(CHECKPOINT, request.param, tmp_path_factory.mktemp("tokenizer"), CONTEXT)


@pytest.fixture
def subject(request: pytest.FixtureRequest, engine: VllmEngine, tokens: HfTokens) -> Iterator[ContractSubject]:
    with exchange_tokens(engine, tokens, CONTEXT, request.node.name) as exchanged_subject:
        yield exchanged_subject


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
