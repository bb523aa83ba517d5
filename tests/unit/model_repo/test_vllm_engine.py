"""What is vLLM's own behind the engine's loop; test_gpu_engines.py has what it shares with other backends."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.constraint.constraints import parse_constraint
from support.model_repo.gpu_stage import opened
from support.model_repo.stand_in_vllm import PARAMETERS, EngineArgs, LLMEngine, VllmStage
from support.waiting import wait_until


@pytest.fixture
def vllm_engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    return opened(monkeypatch, VllmStage)


def test_the_settings_become_vllms(vllm_engine: Any) -> None:
    assert VllmStage(vllm_engine).library.args == EngineArgs(
        model="/delivery/engine",
        dtype="float16",
        kv_cache_dtype="auto",
        max_model_len=128,
        max_num_seqs=2,
        tensor_parallel_size=1,
        gpu_memory_utilization=0.9,
        enable_prefix_caching=False,
        trust_remote_code=False,
        disable_log_stats=True,
    )


def test_a_cache_in_8_bits_on_two_gpus(vllm_engine: Any) -> None:
    args = VllmStage(vllm_engine, kv_precision="FP8", gpus="2").library.args
    assert (args.kv_cache_dtype, args.tensor_parallel_size) == ("fp8", 2)


def test_on_cpu_it_computes_in_32_bits_with_a_cache_of_the_size_given(
    vllm_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_NUM_OF_RESERVED_CPU"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "40")
    args = VllmStage(vllm_engine, kv_cache_bytes="4096", threads="2").library.args
    assert (args.dtype, args.kv_cache_dtype, args.kv_cache_memory_bytes, args.enforce_eager) == (
        "float32",
        "auto",
        4096,
        True,
    )
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("2", "PASSIVE")
    assert "VLLM_CPU_KVCACHE_SPACE" not in os.environ, "an image's 40 GiB would replace the cache's size"
    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert os.environ["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"


@pytest.mark.parametrize("name", ["kv_cache_bytes", "threads"])
def test_an_engine_on_cpu_without_cache_or_threads_is_refused(vllm_engine: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: 0 is less than 1"):
        vllm_engine.EngineSettings.from_parameters({**PARAMETERS, "kv_cache_bytes": "1", "threads": "1", name: "0"})


def test_a_precision_that_vllms_cache_has_not_is_refused(vllm_engine: Any) -> None:
    with pytest.raises(ValueError, match="kv_precision: INT8: not supported by vLLM; expected FP16 or FP8"):
        vllm_engine.EngineSettings.from_parameters({**PARAMETERS, "kv_precision": "INT8"})


def test_who_hangs_up_frees_a_slot_and_what_still_comes_for_it_is_nobodys(vllm_engine: Any) -> None:
    stage = VllmStage(vllm_engine, max_batch="1")
    gate = stage.library.gate = threading.Semaphore(3)
    leaving, staying = stage.ask("x" * 100), stage.ask("stay")
    stage.loop.start()
    wait_until(lambda: stage.library.steps == 3, "three steps are done")
    leaving.hung_up.set()
    gate.release(100)
    stage.close()
    assert leaving.end is not None
    assert leaving.end[0] is FinishReason.CANCELLED
    assert stage.library.cancelled == ["1"]
    assert (staying.text, staying.failed) == ("stay", "")
    assert stage.deaths == []


def test_what_vllm_refuses_when_it_is_added_ends_that_request_alone(vllm_engine: Any) -> None:
    stage = VllmStage(vllm_engine)
    stage.library.rejects = "Unsupported guided decoding"
    refused = stage.ask("one")
    stage.run()
    assert refused.refusal == "the engine rejects the request: Unsupported guided decoding"
    assert stage.deaths == []


def test_a_constraint_on_which_vllm_fails_ends_that_request_alone(vllm_engine: Any) -> None:
    stage = VllmStage(vllm_engine)
    stage.library.ends_as = "error"
    refused = stage.ask("one", constraint=parse_constraint({"grammar": 'root ::= "a"'}, []))
    stage.run()
    assert refused.refusal == "grammar: the engine failed on it: error"
    assert stage.deaths == []


def test_the_loss_of_a_process_that_says_nothing_ends_the_engine(
    vllm_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LLMEngine, "has_process", True)
    stage = VllmStage(vllm_engine)
    waiting = stage.ask("one")
    stage.library.process.kill()
    stage.run()
    assert "a process of vLLM ended" in waiting.failed
    assert len(stage.deaths) == 1


def test_its_processes_have_less_time_to_end_than_vllm_gives_them(vllm_engine: Any) -> None:
    stage = VllmStage(vllm_engine)
    stage.engine.close()
    assert stage.library.end_seconds == 1.0


def test_the_settings_path_is_the_checkpoint(vllm_engine: Any) -> None:
    assert vllm_engine.EngineSettings.from_parameters(PARAMETERS).path == Path("/delivery/engine")
