"""OpenVINO GenAI's continuous batching as a `Pipeline`: settings, sampling, tokens.

Code that needs the served engine's answers without Triton (a curator, a benchmark) opens it here, with its settings.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import openvino_genai

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import Handle, Job
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError, check_size, limit_new_tokens

BLOCK_TOKENS: Final = 32
"""Tokens per block of the paged KV cache on CPU."""
STEP_TOKENS: Final = 512
"""Most tokens per step: a long prompt is read in chunks, so that it delays running answers little."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The engine's settings from config.pbtxt."""

    path: Path
    max_batch: int
    context: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    threads: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "EngineSettings":
        """Read the parameters that `r1plus_model_repo.config_pbtxt` writes."""
        return cls(
            path=Path(parameters["engine_path"]),
            max_batch=int(parameters["max_batch"]),
            context=int(parameters["context"]),
            kv_cache_bytes=int(parameters["kv_cache_bytes"]),
            kv_bytes_per_token=int(parameters["kv_bytes_per_token"]),
            threads=int(parameters["threads"]),
        )

    @property
    def kv_blocks(self) -> int:
        """Blocks of the KV cache: the planned size, and at least what every slot needs at full length.

        So an admitted request always has room: none is evicted and computed again.
        """
        per_slot = -(-self.context // BLOCK_TOKENS)
        return max(self.kv_cache_bytes // (BLOCK_TOKENS * self.kv_bytes_per_token), self.max_batch * per_slot)


def build_plugin_properties(threads: int) -> dict[str, Any]:
    """Return the settings of the CPU plugin, chosen so that answers depend little on the machine.

    Processors with bfloat16 would use it and answer differently from those without: a golden suite would fail. Memory
    is sized for a cache in 16 bits. Pinning would put every pod on the same cores.
    """
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f16",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }


def build_scheduler_config(settings: EngineSettings) -> Any:
    """Build the scheduler's configuration."""
    config = openvino_genai.SchedulerConfig()
    config.max_num_seqs = settings.max_batch
    config.num_kv_blocks = settings.kv_blocks
    config.max_num_batched_tokens = max(STEP_TOKENS, settings.max_batch)
    # A probe repeats the same question. With prefix caching its keys and values would come from the cache: a later
    # fault in computing them would stay hidden, and the gate would measure the cache.
    config.enable_prefix_caching = False
    return config


class OpenVinoEngine:
    """A `Pipeline`, and the preparation of its jobs."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(settings.path), build_scheduler_config(settings), "CPU", build_plugin_properties(settings.threads)
        )
        self._tokenizer = self._pipeline.get_tokenizer()
        self._eos = self._tokenizer.get_eos_token_id()
        self._next = 0

    def prepare(self, request: GenerationRequest) -> Job:
        """Tokenise and check against the context. Raise RefusedError. Safe from any thread."""
        check_size(request.prompt, request.system, self._settings.context)
        text = request.prompt if request.raw_prompt else self._apply_template(request)
        tokens = self._tokenizer.encode(text, add_special_tokens=request.raw_prompt).input_ids
        count = int(tokens.shape[1])
        limit = limit_new_tokens(request, count, self._settings.context)
        return Job(tokens, count, build_generation_config(request, limit, self._eos), request.stop)

    def add(self, job: Job) -> Handle:
        """See `Pipeline`."""
        self._next += 1
        return _GenerationHandle(self._pipeline.add_request(self._next, job.prompt, job.sampling))

    def step(self) -> None:
        """See `Pipeline`."""
        self._pipeline.step()

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pipeline`. An incomplete character at the end is omitted."""
        return str(self._tokenizer.decode(list(ids))) if ids else ""

    def close(self) -> None:
        """Do nothing: the engine ends with this process."""

    def _apply_template(self, request: GenerationRequest) -> str:
        system = [{"role": "system", "content": request.system}] if request.system else []
        messages = [*system, {"role": "user", "content": request.prompt}]
        return str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def build_generation_config(request: GenerationRequest, limit: int, eos: int) -> Any:
    """Build the library's configuration of one generation. Temperature 0 is greedy: the same answer every time."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = limit
    config.set_eos_token_id(eos)
    config.repetition_penalty = request.repetition_penalty
    config.do_sample = request.temperature > 0
    if config.do_sample:
        config.temperature = request.temperature
        config.top_p = request.top_p
        config.rng_seed = secrets.randbits(63) if request.seed is None else request.seed
    try:
        config.validate()
    except RuntimeError as error:
        raise RefusedError(f"the engine rejects these sampling parameters: {error}") from error
    return config


class _GenerationHandle:
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
            raise RuntimeError("the scheduler dropped a request for lack of KV cache; its size should prevent this")
        return ids, reason

    def cancel(self) -> None:
        self._handle.cancel()


_REASONS: Final = {
    openvino_genai.GenerationFinishReason.STOP: FinishReason.STOP,
    openvino_genai.GenerationFinishReason.LENGTH: FinishReason.LENGTH,
}
