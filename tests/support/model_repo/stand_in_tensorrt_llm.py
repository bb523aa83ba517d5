"""A stand-in for TensorRT-LLM's executor, which steps by itself and says prompts again, and what its backend promises."""

import datetime
import enum
import itertools
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

from r1plus_model_repo.backends.requests import GenerationRequest
from support.model_repo.gpu_stage import GpuStage
from support.model_repo.stand_in_transformers import END

MORE = ord("$")
"""Another token that ends an answer, as the checkpoint says."""
PARAMETERS = {
    "backend": "tensorrtllm",
    "max_batch": "2",
    "context": "128",
    "kv_tokens": "256",
    "windows": "32,32,128",
    "gpu_memory_fraction": "0.9",
}
End = enum.Enum("End", "NOT_FINISHED END_ID STOP_WORDS LENGTH TIMED_OUT CANCELLED")
ModelType = enum.Enum("ModelType", "DECODER_ONLY ENCODER_ONLY ENCODER_DECODER")
BatchingType = enum.Enum("BatchingType", "STATIC INFLIGHT")
CapacitySchedulerPolicy = enum.Enum("CapacitySchedulerPolicy", "MAX_UTILIZATION GUARANTEED_NO_EVICT STATIC_BATCH")


@dataclass(kw_only=True)
class SchedulerConfig:
    capacity_scheduler_policy: CapacitySchedulerPolicy = CapacitySchedulerPolicy.GUARANTEED_NO_EVICT


@dataclass(kw_only=True)
class KvCacheConfig:
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    max_attention_window: list[int] | None = None
    free_gpu_memory_fraction: float | None = None


GuidedDecodingBackend = enum.Enum("GuidedDecodingBackend", "XGRAMMAR LLGUIDANCE")
GuideType = enum.Enum("GuideType", "JSON JSON_SCHEMA REGEX EBNF_GRAMMAR STRUCTURAL_TAG")


@dataclass
class GuidedDecodingConfig:
    backend: GuidedDecodingBackend
    encoded_vocab: list[str] | None = None
    tokenizer_str: str | None = None
    stop_token_ids: list[int] | None = None
    GuidedDecodingBackend: ClassVar = GuidedDecodingBackend


@dataclass
class GuidedDecodingParams:
    guide_type: GuideType
    guide: str | None = None
    GuideType: ClassVar = GuideType


@dataclass(kw_only=True)
class ExecutorConfig:
    max_beam_width: int = 1
    scheduler_config: SchedulerConfig = field(default_factory=SchedulerConfig)
    kv_cache_config: KvCacheConfig = field(default_factory=KvCacheConfig)
    enable_chunked_context: bool = False
    batching_type: BatchingType = BatchingType.INFLIGHT
    max_batch_size: int | None = None
    fail_fast_on_attention_window_too_large: bool = False
    guided_decoding_config: GuidedDecodingConfig | None = None


@dataclass(kw_only=True)
class SamplingConfig:
    """The fields that are used, with the executor's own check."""

    beam_width: int = 1
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RuntimeError("[TensorRT-LLM][ERROR] Assertion failed: topP.value() <= 1.f")


@dataclass(kw_only=True)
class Request:
    input_token_ids: list[int]
    max_tokens: int
    streaming: bool = False
    sampling_config: SamplingConfig = field(default_factory=SamplingConfig)
    end_id: int | None = None
    pad_id: int | None = None
    stop_words: list[list[int]] | None = None
    guided_decoding_params: GuidedDecodingParams | None = None


@dataclass
class Executor:
    """Says what follows the first token of a prompt: `pace` tokens between two looks at it.

    As the real one it ends at the end token and leaves that out (NVIDIA/TensorRT-LLM issue 2190).
    """

    model_path: str
    model_type: ModelType
    executor_config: ExecutorConfig
    running: dict[int, tuple[Request, int]] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    late: list[Any] = field(default_factory=list)
    largest: int = 0
    pace: int = 1
    fails: str = ""
    ends_as: Any = None
    gate: threading.Semaphore | None = None
    closed: bool = False
    ids: Any = field(default_factory=lambda: itertools.count(7))

    def enqueue_request(self, request: Request) -> int:
        assert request.streaming
        self.asked.append(request)
        number = next(self.ids)
        self.running[number] = (request, 0)
        self.largest = max(self.largest, len(self.running))
        return int(number)

    def cancel_request(self, id: int) -> None:
        self.cancelled.append(id)
        del self.running[id]
        self.late.append(_response(id, [], End.CANCELLED))

    def await_responses(self, timeout: datetime.timedelta | None = None) -> list[Any]:
        assert timeout is not None
        assert datetime.timedelta() < timeout < datetime.timedelta(seconds=1)
        if self.gate is not None and not self.gate.acquire(timeout=timeout.total_seconds()):
            return []
        responses, self.late = self.late, []
        for number in list(self.running):
            responses.append(self._next(number))
        return responses

    def shutdown(self) -> None:
        self.closed = True

    def _next(self, number: int) -> Any:
        request, said = self.running[number]
        if self.fails:
            return _response(number, [], None, self.fails)
        ids = [*request.input_token_ids[1:], END][said : said + self.pace]
        reason = next((why for why in (_why(request, token) for token in ids) if why), None)
        ids = [token for token in ids if token != request.end_id]
        if said + len(ids) >= request.max_tokens:
            ids, reason = ids[: request.max_tokens - said], reason or End.LENGTH
        reason = self.ends_as or reason
        self.running[number] = (request, said + len(ids))
        if reason:
            del self.running[number]
        return _response(number, ids, reason)


def _why(request: Request, token: int) -> Any:
    if token == request.end_id:
        return End.END_ID
    return End.STOP_WORDS if [token] in (request.stop_words or []) else None


def _response(number: int, ids: Sequence[int], reason: Any, error: str = "") -> Any:
    result = SimpleNamespace(
        is_final=reason is not None, output_token_ids=[list(ids)], finish_reasons=[reason or End.NOT_FINISHED]
    )
    return SimpleNamespace(request_id=number, has_error=lambda: bool(error), error_msg=error, result=result)


SAMPLED = {
    "greedy, whatever else is asked": (
        GenerationRequest("x", top_p=0.5, seed=3, repetition_penalty=1.2),
        SamplingConfig(top_k=1, repetition_penalty=1.2),
    ),
    "sampled": (
        GenerationRequest("x", temperature=0.7, top_p=0.5, seed=2**64 - 1),
        SamplingConfig(temperature=0.7, top_p=0.5, seed=2**64 - 1, repetition_penalty=1.0),
    ),
}
LOST: dict[str, tuple[dict[str, Any], str]] = {
    "a failed step": ({"fails": "CUDA error: an illegal memory access"}, "illegal memory access"),
    "a time limit that nobody set": ({"ends_as": End.TIMED_OUT}, "ended a request unexpectedly"),
    "a cancelling that nobody asked for": ({"ends_as": End.CANCELLED}, "ended a request unexpectedly"),
}


class TrtllmStage(GpuStage):
    """TensorRT-LLM's executor in its loop."""

    name = "trtllm"
    parameters = PARAMETERS
    counted_ends = 0
    first_id = 7
    sampled = SAMPLED
    refusal = "rejects these sampling parameters"
    lost = LOST

    @staticmethod
    def modules() -> dict[str, ModuleType]:
        package, bindings, executor = (
            ModuleType(name) for name in ("tensorrt_llm", "tensorrt_llm.bindings", "tensorrt_llm.bindings.executor")
        )
        configs = (ExecutorConfig, KvCacheConfig, SchedulerConfig, SamplingConfig, Request)
        guidance = (GuidedDecodingConfig, GuidedDecodingParams)
        for given in (Executor, *configs, *guidance, ModelType, BatchingType, CapacitySchedulerPolicy):
            setattr(executor, given.__name__, given)
        executor.FinishReason = End  # type: ignore[attr-defined]
        executor.Result = SimpleNamespace  # type: ignore[attr-defined]
        bindings.executor = executor  # type: ignore[attr-defined]
        package.bindings = bindings  # type: ignore[attr-defined]
        return {module.__name__: module for module in (package, bindings, executor)}

    @staticmethod
    def deliver(folder: Path, context: int = 128) -> dict[str, str]:
        """Write a plan that was built for 4 requests of so many tokens, and a tokenizer."""
        for part in ("plan", "tokenizer"):
            (folder / part).mkdir()
        built = {"max_batch_size": 4, "max_seq_len": context, "max_num_tokens": 8192}
        (folder / "plan" / "config.json").write_text(json.dumps({"version": "1.2.1", "build_config": built}))
        (folder / "tokenizer" / "generation_config.json").write_text(json.dumps({"eos_token_id": [END, MORE]}))
        return {"engine_path": str(folder)}

    @staticmethod
    def make(module: Any, settings: Any) -> tuple[Any, Any]:
        engine = module.TrtllmEngine(settings)
        return engine, engine._executor

    @staticmethod
    def sampling(module: Any, ask: GenerationRequest) -> Any:
        return module.build_sampling_config(ask)

    @staticmethod
    def prompt_ids(prompt: Any) -> list[int]:
        return list(prompt.input_token_ids)

    def read_constraint(self) -> tuple[str, str] | None:
        guide = self.library.asked[-1].guided_decoding_params
        if guide is None:
            return None
        return {GuideType.JSON_SCHEMA: "response_schema", GuideType.EBNF_GRAMMAR: "grammar"}[
            guide.guide_type
        ], guide.guide
