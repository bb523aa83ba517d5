"""vLLM behind the loop's Protocol: settings, sampling, tokens.

Checked against the sources of vLLM 0.11.0, 0.24.0 (Triton 26.07) and 0.33.0, all of engine V1: EngineArgs
(engine/arg_utils.py), LLMEngine.from_engine_args, add_request, step and abort_request (v1/engine/llm_engine.py),
SamplingParams and RequestOutputKind (sampling_params.py), CompletionOutput (outputs.py), FINISH_REASON_STRINGS
(v1/engine/__init__.py).
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.sampling_params import RequestOutputKind

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import Handle, Job
from r1plus_model_repo.backends.generations import Generations
from r1plus_model_repo.backends.hf_tokens import HfTokens
from r1plus_model_repo.backends.requests import Ask, RefusedError

KV_PRECISIONS: Final = {"FP16": "auto", "FP8": "fp8"}
"""Of the KV cache, in vLLM's words; `auto` is the model's own, which is float16 here."""
SEEDS: Final = 2**63
"""A client's seed has 64 bits; vLLM keeps it in a signed integer of as many."""
_REASONS: Final = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What config.pbtxt says of the engine."""

    path: Path
    """A Hugging Face checkpoint: weights and tokenizer."""
    max_batch: int
    context: int
    kv_precision: str
    gpus: int
    gpu_memory_fraction: float
    """Of each GPU's memory, for weights, cache and all else."""

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> "EngineSettings":
        """The parameters that `r1plus_model_repo.config_pbtxt` wrote."""
        kv_precision = given["kv_precision"]
        if kv_precision not in KV_PRECISIONS:
            raise ValueError(f"kv_precision: {kv_precision}: vLLM's KV cache is {' or '.join(KV_PRECISIONS)}")
        return cls(
            path=Path(given["engine_path"]),
            max_batch=int(given["max_batch"]),
            context=int(given["context"]),
            kv_precision=kv_precision,
            gpus=int(given["gpus"]),
            gpu_memory_fraction=float(given["gpu_memory_fraction"]),
        )


def engine_args(settings: EngineSettings) -> EngineArgs:
    """vLLM's own settings."""
    return EngineArgs(
        model=str(settings.path),
        # What the fit planned with; a checkpoint in bfloat16 would otherwise decide.
        dtype="float16",
        kv_cache_dtype=KV_PRECISIONS[settings.kv_precision],
        max_model_len=settings.context,
        max_num_seqs=settings.max_batch,
        tensor_parallel_size=settings.gpus,
        gpu_memory_utilization=settings.gpu_memory_fraction,
        # A probe asks the same question again and again. With prefix caching it would be answered from remembered keys
        # and values: a fault in computing them would never be seen again, and the gate would measure the cache.
        enable_prefix_caching=False,
        trust_remote_code=False,
        disable_log_stats=True,
    )


class VllmEngine:
    """The loop's `Pipeline`, and the preparation of its jobs. vLLM runs the model in processes of its own."""

    def __init__(self, settings: EngineSettings) -> None:
        # Read when the engine starts: nothing is told to anybody.
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        self._tokens = HfTokens(settings.path, settings.context)
        self._engine = LLMEngine.from_engine_args(engine_args(settings))
        self._generations = Generations(lambda request_id: self._engine.abort_request([request_id]))
        self._ids = map(str, itertools.count(1))

    def prepare(self, ask: Ask) -> Job:
        """Tokenise and check against the context; RefusedError. Safe from any thread."""
        ids, limit = self._tokens.fit(ask)
        return Job(ids, len(ids), sampling(ask, limit), ask.stop)

    def add(self, job: Job) -> Handle:
        """See `Pipeline`."""
        request_id = next(self._ids)
        # Tokens may be given without their type, too, but newer versions warn that this will end.
        self._engine.add_request(request_id, {"type": "token", "prompt_token_ids": job.prompt}, job.sampling)
        return self._generations.begin(request_id)

    def step(self) -> None:
        """See `Pipeline`. While a long prompt is read in pieces, a step may bring nothing."""
        for answer in self._engine.step():
            if answer.request_id not in self._generations:
                continue
            (output,) = answer.outputs
            reason = _REASONS.get(output.finish_reason)
            if output.finish_reason is not None and reason is None:
                raise RuntimeError(f"vLLM ended a request by itself: {output.finish_reason}")
            self._generations.push(answer.request_id, output.token_ids, reason)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pipeline`."""
        return self._tokens.decode(ids)

    def close(self) -> None:
        """End vLLM's processes."""
        self._engine.engine_core.shutdown()


def sampling(ask: Ask, limit: int) -> SamplingParams:
    """The library's own parameters of one generation. Temperature 0 is greedy: the same answer every time.

    Stop strings are the loop's, and so is text. Which tokens end an answer vLLM reads from the checkpoint.
    """
    drawn: dict[str, Any] = {}
    if ask.temperature > 0:
        drawn = {"top_p": ask.top_p, "seed": None if ask.seed is None else ask.seed % SEEDS}
    try:
        return SamplingParams(
            max_tokens=limit,
            temperature=ask.temperature,
            repetition_penalty=ask.repetition_penalty,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            **drawn,
        )
    except ValueError as error:
        raise RefusedError(f"the engine refuses these sampling parameters: {error}") from error
