"""TensorRT-LLM's executor as a `Pipeline`: settings, sampling, tokens. One GPU.

For 1.2.1, the last version that loads engines of trtllm-build. Its tag was not available: checked against its
repository before and after (mid 2025 to 2026), where the parts used here are the same: cpp/tensorrt_llm/nanobind/
executor/{bindings,executor,executorConfig,request}.cpp, cpp/tensorrt_llm/executor/samplingConfig.cpp, cpp/tensorrt_llm/
batch_manager/{trtGptModel.h,guidedDecoder.cpp}, tensorrt_llm/tokenizer.py (the vocabulary for xgrammar), examples/
bindings/executor/example_advanced.py; issue 2190 (the output lacks the end token), pull request 5974 (a window that is
too large).
"""

import datetime
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tensorrt_llm.bindings import executor as trtllm

from r1plus_contract.engine.engine_fetch import PLAN_PART, TOKENIZER_PART
from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.constraint.constraints import Constraint
from r1plus_model_repo.backends.constraint.xgrammar_check import check_constraint
from r1plus_model_repo.backends.engine_loop import Handle, Job, NeverRenewed
from r1plus_model_repo.backends.generations import Generations
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError
from r1plus_model_repo.backends.text.hf_tokens import HfTokens

PLAN_CONFIG: Final = "config.json"
"""Next to the plan, written by trtllm-build: the build settings."""
WAIT: Final = datetime.timedelta(milliseconds=10)
"""Longest step: arrivals and cancellations are seen after it."""
_REASONS: Final = {
    trtllm.FinishReason.END_ID: FinishReason.STOP,
    trtllm.FinishReason.STOP_WORDS: FinishReason.STOP,
    trtllm.FinishReason.LENGTH: FinishReason.LENGTH,
}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The engine's settings from config.pbtxt."""

    path: Path
    """Folder with two sub-folders: the output of trtllm-build, and the tokenizer."""
    max_batch: int
    context: int
    kv_tokens: int
    """Size of the paged cache, for all requests together."""
    windows: tuple[int, ...]
    """Tokens that attention sees, per layer; repeated if there are more layers."""
    gpu_memory_fraction: float
    """Largest share of the memory left by the weights that the cache may take."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "EngineSettings":
        """Read the parameters that `r1plus_model_repo.config_pbtxt` writes."""
        return cls(
            path=Path(parameters["engine_path"]),
            max_batch=int(parameters["max_batch"]),
            context=int(parameters["context"]),
            kv_tokens=int(parameters["kv_tokens"]),
            windows=tuple(int(window) for window in parameters["windows"].split(",")),
            gpu_memory_fraction=float(parameters["gpu_memory_fraction"]),
        )


def build_executor_config(
    settings: EngineSettings, guidance: trtllm.GuidedDecodingConfig | None
) -> trtllm.ExecutorConfig:
    """Build the executor's settings."""
    return trtllm.ExecutorConfig(
        max_beam_width=1,
        max_batch_size=settings.max_batch,
        batching_type=trtllm.BatchingType.INFLIGHT,
        # An admitted request always has room in the cache: none is evicted and computed again.
        scheduler_config=trtllm.SchedulerConfig(
            capacity_scheduler_policy=trtllm.CapacitySchedulerPolicy.GUARANTEED_NO_EVICT
        ),
        # A long prompt is read in chunks, so that it delays running answers little. Without this, the executor rejects
        # a prompt of more tokens than one step may take.
        enable_chunked_context=True,
        # Otherwise a cache too small for one whole request silently reduces what attention sees.
        fail_fast_on_attention_window_too_large=True,
        kv_cache_config=trtllm.KvCacheConfig(
            # A probe repeats the same question: with reuse the gate would measure the cache.
            enable_block_reuse=False,
            max_tokens=settings.kv_tokens,
            max_attention_window=list(settings.windows),
            free_gpu_memory_fraction=settings.gpu_memory_fraction,
        ),
        guided_decoding_config=guidance,
    )


def build_guided_decoding_config(tokens: HfTokens, end_ids: list[int]) -> trtllm.GuidedDecodingConfig | None:
    """Build the settings by which the executor compiles constraints: the vocabulary, and what may end an answer.

    None if the tokenizer cannot be described: then the engine takes no constraints.
    """
    if (description := tokens.dump_tokenizer()) is None:
        return None
    return trtllm.GuidedDecodingConfig(
        trtllm.GuidedDecodingConfig.GuidedDecodingBackend.XGRAMMAR,
        encoded_vocab=tokens.list_vocabulary(),
        tokenizer_str=description,
        stop_token_ids=end_ids,
    )


class TrtllmEngine(NeverRenewed):
    """A `Pipeline`, and the preparation of its jobs. The executor steps in its own thread."""

    def __init__(self, settings: EngineSettings) -> None:
        plan = settings.path / PLAN_PART
        _check_plan(plan, settings)
        self._tokens = HfTokens(settings.path / TOKENIZER_PART, settings.context)
        self._end_id, *self._further_end_ids = self._tokens.get_end_ids()
        pad = self._tokens.get_pad_id()
        self._pad_id = self._end_id if pad is None else pad
        self._guidance = build_guided_decoding_config(self._tokens, [self._end_id, *self._further_end_ids])
        config = build_executor_config(settings, self._guidance)
        self._executor = trtllm.Executor(str(plan), trtllm.ModelType.DECODER_ONLY, config)
        self._generations = Generations(self._executor.cancel_request)

    def prepare(self, ask: GenerationRequest) -> Job:
        """Tokenise and check against the context. Raise RefusedError. Safe from any thread."""
        ids, limit = self._tokens.prepare_prompt(ask)
        self._check_constraint(ask.constraint)
        request = trtllm.Request(
            input_token_ids=ids,
            max_tokens=limit,
            streaming=True,
            sampling_config=build_sampling_config(ask),
            end_id=self._end_id,
            pad_id=self._pad_id,
            # Only one token can be the end; the others are stop words of one token.
            stop_words=[[token] for token in self._further_end_ids] or None,
            guided_decoding_params=build_guided_decoding_params(ask.constraint),
        )
        return Job(request, len(ids), None, ask.stop)

    def count(self, ask: GenerationRequest) -> int:
        """Return the tokens of the prompt; check a constraint. Raise RefusedError. Safe from any thread."""
        self._check_constraint(ask.constraint)
        return len(self._tokens.encode_prompt(ask))

    def _check_constraint(self, constraint: Constraint | None) -> None:
        if constraint is None:
            return
        if self._guidance is None:
            raise RefusedError(f"{constraint.name}: the engine's tokenizer cannot constrain answers; leave it out")
        check_constraint(constraint)

    def add(self, job: Job) -> Handle:
        """See `Pipeline`."""
        return self._generations.begin(self._executor.enqueue_request(job.prompt))

    def step(self) -> None:
        """See `Pipeline`. The executor steps by itself: wait until it has a result, at most WAIT."""
        for response in self._executor.await_responses(timeout=WAIT):
            if response.request_id not in self._generations:
                continue
            if response.has_error():
                raise RuntimeError(f"TensorRT-LLM failed on a request: {response.error_msg}")
            result = response.result
            ids = [token for beam in result.output_token_ids for token in beam]
            self._generations.push(response.request_id, ids, _translate_reason(result) if result.is_final else None)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pipeline`."""
        return self._tokens.decode(ids)

    def close(self) -> None:
        """End the executor's thread."""
        self._executor.shutdown()


def build_guided_decoding_params(constraint: Constraint | None) -> trtllm.GuidedDecodingParams | None:
    """Return the library's form of a constraint."""
    if constraint is None:
        return None
    kinds = trtllm.GuidedDecodingParams.GuideType
    return trtllm.GuidedDecodingParams(
        kinds.JSON_SCHEMA if constraint.is_schema else kinds.EBNF_GRAMMAR, constraint.text
    )


def build_sampling_config(request: GenerationRequest) -> trtllm.SamplingConfig:
    """Build the library's parameters of one generation. Temperature 0 is greedy: the same answer every time.

    Without a seed the executor would use seed 0 for every request.
    """
    try:
        if request.temperature == 0:
            return trtllm.SamplingConfig(beam_width=1, top_k=1, repetition_penalty=request.repetition_penalty)
        return trtllm.SamplingConfig(
            beam_width=1,
            top_p=request.top_p,
            temperature=request.temperature,
            repetition_penalty=request.repetition_penalty,
            seed=secrets.randbits(63) if request.seed is None else request.seed,
        )
    except (RuntimeError, ValueError) as error:
        raise RefusedError(f"the engine rejects these sampling parameters: {error}") from error


def _check_plan(plan: Path, settings: EngineSettings) -> None:
    """Check the limits of the plan: the executor fails on requests beyond them, which would end the server."""
    build_config = json.loads((plan / PLAN_CONFIG).read_text(encoding="utf-8"))["build_config"]
    for name, limit, minimum in (
        ("max_seq_len", build_config["max_seq_len"], settings.context),
        ("max_batch_size", build_config["max_batch_size"], settings.max_batch),
    ):
        if limit < minimum:
            raise ValueError(f"{plan} was built with {name} {limit}, but {minimum} is needed; build it again")


def _translate_reason(result: trtllm.Result) -> FinishReason:
    reason = _REASONS.get(result.finish_reasons[0])
    if reason is None:
        raise RuntimeError(f"TensorRT-LLM ended a request unexpectedly: {result.finish_reasons[0]}")
    return reason
