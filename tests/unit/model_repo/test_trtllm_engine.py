"""What is TensorRT-LLM's own behind the engine's loop; test_gpu_engines.py has what it shares with other backends."""

import threading
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.constraint.constraints import parse_constraint
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError
from support.model_repo.fake_engine import SECONDS
from support.model_repo.gpu_stage import opened
from support.model_repo.stand_in_tensorrt_llm import (
    MORE,
    ExecutorConfig,
    GuidedDecodingBackend,
    GuidedDecodingConfig,
    KvCacheConfig,
    ModelType,
    TrtllmStage,
)
from support.model_repo.stand_in_transformers import ADDED, END, StandInTokenizer


@pytest.fixture
def trtllm_engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    return opened(monkeypatch, TrtllmStage)


@pytest.fixture
def delivered(tmp_path: Path) -> dict[str, str]:
    return TrtllmStage.deliver(tmp_path)


@pytest.fixture
def stage(trtllm_engine: Any, delivered: dict[str, str]) -> TrtllmStage:
    return TrtllmStage(trtllm_engine, **delivered)


def test_the_settings_become_the_executors(stage: TrtllmStage, tmp_path: Path) -> None:
    assert stage.library.model_path == str(tmp_path / "plan")
    assert stage.library.model_type is ModelType.DECODER_ONLY
    assert stage.library.executor_config == ExecutorConfig(
        max_batch_size=2,
        enable_chunked_context=True,
        fail_fast_on_attention_window_too_large=True,
        kv_cache_config=KvCacheConfig(
            enable_block_reuse=False, max_tokens=256, max_attention_window=[32, 32, 128], free_gpu_memory_fraction=0.9
        ),
        guided_decoding_config=GuidedDecodingConfig(
            GuidedDecodingBackend.XGRAMMAR,
            encoded_vocab=[*(f"byte {n}" for n in range(256)), "<begin>", "<end>", *(t for t, _ in ADDED.values())],
            tokenizer_str="the tokenizer, serialised",
            stop_token_ids=[END, MORE],
        ),
    )


def test_the_tokenizer_lies_in_a_folder_of_its_own(stage: TrtllmStage, tmp_path: Path) -> None:
    assert StandInTokenizer.opened[-1][0] == str(tmp_path / "tokenizer")


TOO_SMALL = {
    "a longer context than the plan has": ({"context": "129"}, "max_seq_len 128, but 129 is needed"),
    "a larger batch than the plan has": ({"max_batch": "5"}, "max_batch_size 4, but 5 is needed"),
}


@pytest.mark.parametrize(("changed", "named"), TOO_SMALL.values(), ids=TOO_SMALL.keys())
def test_a_plan_that_is_too_small_is_refused_before_it_is_loaded(
    trtllm_engine: Any, delivered: dict[str, str], changed: dict[str, str], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        TrtllmStage(trtllm_engine, **{**delivered, **changed})


def test_without_a_seed_each_answer_is_drawn_anew(trtllm_engine: Any) -> None:
    seeds = {trtllm_engine.build_sampling_config(GenerationRequest("x", temperature=1.0)).seed for _ in range(3)}
    assert len(seeds) == 3
    assert None not in seeds


@pytest.mark.parametrize("pace", [3], ids="{} tokens a response".format)
def test_all_are_answered_with_reason_and_counts(stage: TrtllmStage, pace: int) -> None:
    stage.library.pace = pace
    stage.answer_all()


def test_a_tokenizer_that_cannot_be_described_takes_no_constraints(
    monkeypatch: pytest.MonkeyPatch, trtllm_engine: Any, delivered: dict[str, str]
) -> None:
    monkeypatch.setattr(StandInTokenizer, "backend_tokenizer", None)
    stage = TrtllmStage(trtllm_engine, **delivered)
    assert stage.library.executor_config.guided_decoding_config is None
    with pytest.raises(RefusedError, match=r"^grammar: the engine's tokenizer cannot constrain answers; leave it out"):
        stage.ask("one", constraint=parse_constraint({"grammar": 'root ::= "a"'}, []))


def test_every_token_that_ends_an_answer_ends_it(stage: TrtllmStage) -> None:
    client = stage.ask("one$two")
    stage.run()
    assert client.end == (FinishReason.STOP, 8, 4)
    (request,) = stage.library.asked
    assert (request.end_id, request.pad_id, request.stop_words) == (END, END, [[MORE]])


def test_who_hangs_up_frees_a_slot_though_the_executor_is_silent(trtllm_engine: Any, delivered: dict[str, str]) -> None:
    stage = TrtllmStage(trtllm_engine, max_batch="1", **delivered)
    gate = stage.library.gate = threading.Semaphore(0)
    leaving, staying = stage.ask("x" * 100), stage.ask("stay")
    stage.loop.start()
    leaving.hung_up.set()
    assert leaving.over.wait(SECONDS)
    gate.release(100)
    stage.close()
    assert leaving.end == (FinishReason.CANCELLED, 101, 0)
    assert stage.library.cancelled in ([], [7]), "it may have hung up before it ran"
    assert (staying.text, staying.failed) == ("stay", "")
    assert not stage.died.is_set()
