"""OpenVINO GenAI's continuous batching behind the loop's Protocol: settings, sampling, tokens.

Whoever wants the served engine's answers without Triton (a curator, a measurement) opens it here, with its settings.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import openvino_genai

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import Handle, Job
from r1plus_model_repo.backends.requests import Ask, RefusedError, check_size, new_tokens

BLOCK_TOKENS: Final = 32
"""Tokens per block of the paged KV cache on CPU."""
STEP_TOKENS: Final = 512
"""Most tokens per step: a long prompt is read in pieces, so that it holds up running answers by little."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What config.pbtxt says of the engine."""

    path: Path
    max_batch: int
    context: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    threads: int

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> "EngineSettings":
        """The parameters that `r1plus_model_repo.config_pbtxt` wrote."""
        return cls(
            path=Path(given["engine_path"]),
            max_batch=int(given["max_batch"]),
            context=int(given["context"]),
            kv_cache_bytes=int(given["kv_cache_bytes"]),
            kv_bytes_per_token=int(given["kv_bytes_per_token"]),
            threads=int(given["threads"]),
        )

    @property
    def kv_blocks(self) -> int:
        """Blocks of the KV cache: what was paid for, and never less than every slot needs at full length.

        So an admitted request always finds room: none is pushed out half-way and computed again.
        """
        per_slot = -(-self.context // BLOCK_TOKENS)
        return max(self.kv_cache_bytes // (BLOCK_TOKENS * self.kv_bytes_per_token), self.max_batch * per_slot)


def plugin_properties(threads: int) -> dict[str, Any]:
    """How the CPU plugin computes. Chosen so that an answer depends on as little as possible of the machine.

    Precision: processors with bfloat16 would use it and answer otherwise than those without, for which a golden suite
    would then fail. The cache in 16 bits is what memory is sized by. Pinning would put every pod on the same cores.
    """
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f16",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }


def scheduler(settings: EngineSettings) -> Any:
    """The scheduler's configuration."""
    config = openvino_genai.SchedulerConfig()
    config.max_num_seqs = settings.max_batch
    config.num_kv_blocks = settings.kv_blocks
    config.max_num_batched_tokens = max(STEP_TOKENS, settings.max_batch)
    # A probe asks the same question again and again. With prefix caching it would be answered from remembered keys and
    # values: a fault in computing them would never be seen again, and the gate would measure the cache.
    config.enable_prefix_caching = False
    return config


class OpenVinoEngine:
    """The loop's `Pipeline`, and the preparation of its jobs."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(settings.path), scheduler(settings), "CPU", plugin_properties(settings.threads)
        )
        self._tokenizer = self._pipeline.get_tokenizer()
        self._eos = self._tokenizer.get_eos_token_id()
        self._next = 0

    def prepare(self, ask: Ask) -> Job:
        """Tokenise and check against the context; RefusedError. Safe from any thread."""
        check_size(ask.prompt, ask.system, self._settings.context)
        text = ask.prompt if ask.raw_prompt else self._chat(ask)
        tokens = self._tokenizer.encode(text, add_special_tokens=ask.raw_prompt).input_ids
        count = int(tokens.shape[1])
        limit = new_tokens(ask, count, self._settings.context)
        return Job(tokens, count, sampling(ask, limit, self._eos), ask.stop)

    def add(self, job: Job) -> Handle:
        """See `Pipeline`."""
        self._next += 1
        return _Generation(self._pipeline.add_request(self._next, job.prompt, job.sampling))

    def step(self) -> None:
        """See `Pipeline`."""
        self._pipeline.step()

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pipeline`. An unfinished character at the end is left out."""
        return str(self._tokenizer.decode(list(ids))) if ids else ""

    def close(self) -> None:
        """It lives in this process and ends with it."""

    def _chat(self, ask: Ask) -> str:
        system = [{"role": "system", "content": ask.system}] if ask.system else []
        messages = [*system, {"role": "user", "content": ask.prompt}]
        return str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def sampling(ask: Ask, limit: int, eos: int) -> Any:
    """The library's own configuration of one generation. Temperature 0 is greedy: the same answer every time."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = limit
    config.set_eos_token_id(eos)
    config.repetition_penalty = ask.repetition_penalty
    config.do_sample = ask.temperature > 0
    if config.do_sample:
        config.temperature = ask.temperature
        config.top_p = ask.top_p
        config.rng_seed = secrets.randbits(63) if ask.seed is None else ask.seed
    try:
        config.validate()
    except RuntimeError as error:
        raise RefusedError(f"the engine refuses these sampling parameters: {error}") from error
    return config


class _Generation:
    """The loop's `Handle`."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def read(self) -> tuple[Sequence[int], FinishReason | None]:
        ids: list[int] = []
        reason: FinishReason | None = None
        while self._handle.can_read():
            (output,) = self._handle.read().values()
            ids.extend(output.generated_ids)
            reason = _REASONS.get(output.finish_reason, reason)
        if reason is None and self._handle.get_status() == openvino_genai.GenerationStatus.IGNORED:
            raise RuntimeError("the scheduler dropped a request for want of cache, which its size should rule out")
        return ids, reason

    def cancel(self) -> None:
        self._handle.cancel()


_REASONS: Final = {
    openvino_genai.GenerationFinishReason.STOP: FinishReason.STOP,
    openvino_genai.GenerationFinishReason.LENGTH: FinishReason.LENGTH,
}
