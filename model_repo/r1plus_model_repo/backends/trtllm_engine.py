"""TensorRT-LLM's executor behind the loop's Protocol: settings, sampling, tokens. One GPU.

For 1.2.1, the last version that loads what trtllm-build made. Its own tag could not be had: checked against the sources
around it (mid 2025 to 2026) of its repository, where what is used here is the same: cpp/tensorrt_llm/nanobind/executor/
{bindings,executor,executorConfig,request}.cpp, cpp/tensorrt_llm/executor/samplingConfig.cpp, cpp/tensorrt_llm/
batch_manager/trtGptModel.h, examples/bindings/executor/example_advanced.py; issue 2190 (the end token is left out of
what is given out), pull request 5974 (a window that is too large).
"""

import datetime
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tensorrt_llm.bindings import executor as trtllm

from r1plus_contract.engine_fetch import PLAN_PART, TOKENIZER_PART
from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import Handle, Job
from r1plus_model_repo.backends.generations import Generations
from r1plus_model_repo.backends.hf_tokens import HfTokens
from r1plus_model_repo.backends.requests import Ask, RefusedError

PLAN_CONFIG: Final = "config.json"
"""Beside the plan, by trtllm-build: how it was built."""
WAIT: Final = datetime.timedelta(milliseconds=10)
"""Longest step: who arrives or hangs up meanwhile is seen after it."""
_REASONS: Final = {
    trtllm.FinishReason.END_ID: FinishReason.STOP,
    trtllm.FinishReason.STOP_WORDS: FinishReason.STOP,
    trtllm.FinishReason.LENGTH: FinishReason.LENGTH,
}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What config.pbtxt says of the engine."""

    path: Path
    """Holds what trtllm-build wrote, and the tokenizer, in folders of their own."""
    max_batch: int
    context: int
    kv_tokens: int
    """Of the paged cache, for all requests together."""
    windows: tuple[int, ...]
    """Tokens that attention sees, per layer; repeated where there are more layers."""
    gpu_memory_fraction: float
    """Of what is free beside the weights, the most that the cache may take."""

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> "EngineSettings":
        """The parameters that `r1plus_model_repo.config_pbtxt` wrote."""
        return cls(
            path=Path(given["engine_path"]),
            max_batch=int(given["max_batch"]),
            context=int(given["context"]),
            kv_tokens=int(given["kv_tokens"]),
            windows=tuple(int(window) for window in given["windows"].split(",")),
            gpu_memory_fraction=float(given["gpu_memory_fraction"]),
        )


def executor_config(settings: EngineSettings) -> trtllm.ExecutorConfig:
    """The executor's own settings."""
    return trtllm.ExecutorConfig(
        max_beam_width=1,
        max_batch_size=settings.max_batch,
        batching_type=trtllm.BatchingType.INFLIGHT,
        # An admitted request always finds room: none is pushed out half-way and computed again.
        scheduler_config=trtllm.SchedulerConfig(
            capacity_scheduler_policy=trtllm.CapacitySchedulerPolicy.GUARANTEED_NO_EVICT
        ),
        # A long prompt is read in pieces, so that it holds up running answers by little. Without, a prompt of more
        # tokens than a step may take would be refused by the executor.
        enable_chunked_context=True,
        # A cache too small for one whole request would otherwise silently narrow what attention sees.
        fail_fast_on_attention_window_too_large=True,
        kv_cache_config=trtllm.KvCacheConfig(
            # A probe asks the same question again and again: with reuse the gate would measure the cache.
            enable_block_reuse=False,
            max_tokens=settings.kv_tokens,
            max_attention_window=list(settings.windows),
            free_gpu_memory_fraction=settings.gpu_memory_fraction,
        ),
    )


class TrtllmEngine:
    """The loop's `Pipeline`, and the preparation of its jobs. The executor steps in a thread of its own."""

    def __init__(self, settings: EngineSettings) -> None:
        plan = settings.path / PLAN_PART
        _check_plan(plan, settings)
        self._tokens = HfTokens(settings.path / TOKENIZER_PART, settings.context)
        self._end, *self._more_ends = self._tokens.end_ids()
        pad = self._tokens.pad_id()
        self._pad = self._end if pad is None else pad
        self._executor = trtllm.Executor(str(plan), trtllm.ModelType.DECODER_ONLY, executor_config(settings))
        self._generations = Generations(self._executor.cancel_request)

    def prepare(self, ask: Ask) -> Job:
        """Tokenise and check against the context; RefusedError. Safe from any thread."""
        ids, limit = self._tokens.fit(ask)
        request = trtllm.Request(
            input_token_ids=ids,
            max_tokens=limit,
            streaming=True,
            sampling_config=sampling(ask),
            end_id=self._end,
            pad_id=self._pad,
            # Only one token can be the end; what else ends an answer is a stop word of one token.
            stop_words=[[token] for token in self._more_ends] or None,
        )
        return Job(request, len(ids), None, ask.stop)

    def add(self, job: Job) -> Handle:
        """See `Pipeline`."""
        return self._generations.begin(self._executor.enqueue_request(job.prompt))

    def step(self) -> None:
        """See `Pipeline`. The executor goes on by itself: wait until it has something, or for a moment."""
        for response in self._executor.await_responses(timeout=WAIT):
            if response.request_id not in self._generations:
                continue
            if response.has_error():
                raise RuntimeError(f"TensorRT-LLM failed on a request: {response.error_msg}")
            result = response.result
            ids = [token for beam in result.output_token_ids for token in beam]
            self._generations.push(response.request_id, ids, _reason(result) if result.is_final else None)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pipeline`."""
        return self._tokens.decode(ids)

    def close(self) -> None:
        """End the executor's thread."""
        self._executor.shutdown()


def sampling(ask: Ask) -> trtllm.SamplingConfig:
    """The library's own parameters of one generation. Temperature 0 is greedy: the same answer every time.

    Without a seed the executor would draw as with seed 0, the same for everybody.
    """
    try:
        if ask.temperature == 0:
            return trtllm.SamplingConfig(beam_width=1, top_k=1, repetition_penalty=ask.repetition_penalty)
        return trtllm.SamplingConfig(
            beam_width=1,
            top_p=ask.top_p,
            temperature=ask.temperature,
            repetition_penalty=ask.repetition_penalty,
            seed=secrets.randbits(63) if ask.seed is None else ask.seed,
        )
    except (RuntimeError, ValueError) as error:
        raise RefusedError(f"the engine refuses these sampling parameters: {error}") from error


def _check_plan(plan: Path, settings: EngineSettings) -> None:
    """The executor answers what does not fit its plan with an error, which would end the server for all."""
    built = json.loads((plan / PLAN_CONFIG).read_text(encoding="utf-8"))["build_config"]
    for name, limit, wanted in (
        ("max_seq_len", built["max_seq_len"], settings.context),
        ("max_batch_size", built["max_batch_size"], settings.max_batch),
    ):
        if limit < wanted:
            raise ValueError(f"{plan} was built with {name} {limit}, less than the {wanted} that are to be served")


def _reason(result: trtllm.Result) -> FinishReason:
    reason = _REASONS.get(result.finish_reasons[0])
    if reason is None:
        raise RuntimeError(f"TensorRT-LLM ended a request by itself: {result.finish_reasons[0]}")
    return reason
