"""A stand-in for TensorRT-LLM's executor, in the image that stands for NVIDIA's: it says every prompt again.

It computes nothing and needs no GPU. It has the names and keywords that `trtllm_engine` uses, as that module's sources
tell them, and loads only what the stand-in for trtllm-build made. What it leaves unshown is all that a GPU does.
"""

import datetime
import enum
import itertools
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FinishReason = enum.Enum("FinishReason", "NOT_FINISHED END_ID STOP_WORDS LENGTH TIMED_OUT CANCELLED")
ModelType = enum.Enum("ModelType", "DECODER_ONLY ENCODER_ONLY ENCODER_DECODER")
BatchingType = enum.Enum("BatchingType", "STATIC INFLIGHT")
CapacitySchedulerPolicy = enum.Enum("CapacitySchedulerPolicy", "MAX_UTILIZATION GUARANTEED_NO_EVICT STATIC_BATCH")
Result = SimpleNamespace
TOKENS_A_STEP = 16
FIRST_WORD = "--checkpoint_dir"


@dataclass(kw_only=True)
class SchedulerConfig:
    """See ExecutorConfig."""

    capacity_scheduler_policy: CapacitySchedulerPolicy


@dataclass(kw_only=True)
class KvCacheConfig:
    """See ExecutorConfig."""

    enable_block_reuse: bool
    max_tokens: int
    max_attention_window: list[int]
    free_gpu_memory_fraction: float


@dataclass
class GuidedDecodingConfig:
    """See ExecutorConfig. The stand-in for the tokenizer cannot be described, so none is made."""

    backend: enum.Enum
    encoded_vocab: list[str]
    tokenizer_str: str
    stop_token_ids: list[int]


@dataclass
class GuidedDecodingParams:
    """Of one request that is held to a schema or a grammar; none is."""

    guide_type: enum.Enum
    guide: str


@dataclass(kw_only=True)
class ExecutorConfig:
    """The keywords that are used, and no others."""

    max_beam_width: int
    max_batch_size: int
    batching_type: BatchingType
    scheduler_config: SchedulerConfig
    kv_cache_config: KvCacheConfig
    enable_chunked_context: bool
    fail_fast_on_attention_window_too_large: bool
    guided_decoding_config: GuidedDecodingConfig | None


@dataclass(kw_only=True)
class SamplingConfig:
    """Of one request; an echo has no use for it."""

    beam_width: int = 1
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None


@dataclass(kw_only=True)
class Request:
    """One prompt."""

    input_token_ids: list[int]
    max_tokens: int
    streaming: bool
    sampling_config: SamplingConfig
    end_id: int
    pad_id: int
    stop_words: list[list[int]] | None
    guided_decoding_params: GuidedDecodingParams | None


@dataclass(slots=True)
class _Running:
    left: list[int]
    cut: bool


@dataclass
class Executor:
    """Each look at it gives out the next tokens of all requests; none runs, and it waits as long as it is told to."""

    model_path: str
    model_type: ModelType
    executor_config: ExecutorConfig
    _running: dict[int, _Running] = field(default_factory=dict)
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        if os.environ.get("STAND_IN_CUDA") != "prepared":
            raise RuntimeError("the image's entry point was passed over")
        if not (Path(self.model_path) / "rank0.engine").read_text().startswith(f"{FIRST_WORD}\n"):
            raise RuntimeError(f"{self.model_path}/rank0.engine was not made by the stand-in for trtllm-build")

    def enqueue_request(self, request: Request) -> int:
        """Its number."""
        assert request.streaming
        number = next(self._ids)
        left = request.input_token_ids[: request.max_tokens]
        self._running[number] = _Running(left, len(left) < len(request.input_token_ids))
        return int(number)

    def cancel_request(self, number: int) -> None:
        """Nothing more is said of it."""
        self._running.pop(number, None)

    def await_responses(self, timeout: datetime.timedelta) -> list[Any]:
        """What is new, of each request."""
        if not self._running:
            time.sleep(timeout.total_seconds())
        return [self._next(number) for number in list(self._running)]

    def shutdown(self) -> None:
        """Nothing runs beside."""

    def _next(self, number: int) -> Any:
        one = self._running[number]
        ids, one.left = one.left[:TOKENS_A_STEP], one.left[TOKENS_A_STEP:]
        reason = FinishReason.NOT_FINISHED
        if not one.left:
            del self._running[number]
            reason = FinishReason.LENGTH if one.cut else FinishReason.END_ID
        final = reason is not FinishReason.NOT_FINISHED
        result = Result(is_final=final, output_token_ids=[ids], finish_reasons=[reason])
        return SimpleNamespace(request_id=number, has_error=lambda: False, error_msg="", result=result)
