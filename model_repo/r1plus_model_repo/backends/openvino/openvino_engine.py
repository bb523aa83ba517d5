"""OpenVINO GenAI's continuous batching as a `Pipeline`: settings, sampling, tokens.

Code that needs the served engine's answers without Triton (a curator, a benchmark) opens it here, with its settings.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy
import openvino
import openvino_genai

from r1plus_contract.engine.openvino import BLOCK_TOKENS, EVICTION_STEPS, SPARSE_BACKEND, STEP_TOKENS
from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.constraint.constraints import Constraint
from r1plus_model_repo.backends.constraint.schema_memory import SchemaMemory
from r1plus_model_repo.backends.engine_loop import Handle, Job
from r1plus_model_repo.backends.openvino.openvino_constraints import ConstraintCompiler, build_structured_output
from r1plus_model_repo.backends.openvino.openvino_control import read_split_strings
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError, check_request_size, limit_new_tokens
from r1plus_model_repo.backends.text.control_tokens import ControlTokens

XATTENTION_BLOCK_TOKENS: Final = 64
XATTENTION_STRIDE: Final = 8
XATTENTION_DENSE_TOKENS: Final = 100
"""The library's defaults; a stride of 8 costs an eighth of the attention that it estimates."""
SCORE_TOKENS: Final = 1
"""Last tokens of a prompt whose attention says what is evicted first. With more, a prompt that has fewer tokens beyond
`Eviction.start` than these ends the engine (2026.4.1, cache_eviction.cpp: `new_scores_size >= num_snapkv_scores`)."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """What stays in the KV cache of a request once its prompt is read, in tokens."""

    start: int
    recent: int
    most: int


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The engine's settings from config.pbtxt."""

    path: Path
    max_batch: int
    context: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    threads: int
    sparse_threshold: float | None = None
    """XAttention's; None: prompts are read densely."""
    eviction: Eviction | None = None

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "EngineSettings":
        """Read the parameters that `r1plus_model_repo.config_pbtxt` writes.

        Raise ValueError for one that is not known here: it may say what a token attends to.
        """
        if unknown := sorted(parameters.keys() - _PARAMETERS - _ATTENTION_PARAMETERS):
            raise ValueError(f"{', '.join(unknown)}: the image is older than the configuration and does not know it")
        has_attention = not _ATTENTION_PARAMETERS.isdisjoint(parameters)
        if has_attention != (parameters.get("backend") == SPARSE_BACKEND):
            raise ValueError(
                f"backend: {SPARSE_BACKEND} goes with sparse_threshold or eviction_max_tokens, and they with it"
            )
        threshold = parameters.get("sparse_threshold")
        return cls(
            sparse_threshold=None if threshold is None else float(threshold),
            eviction=_read_eviction(parameters),
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

        So an admitted request always has room: none is preempted and computed again. With eviction one request at a
        time is at full length, since prompts are read one after the other.
        """
        longest = -(-self.context // BLOCK_TOKENS)
        others = longest
        if self.eviction is not None:
            others = min(longest, max(self.eviction.most, EVICTION_STEPS * self.step_tokens) // BLOCK_TOKENS + 1)
        planned = self.kv_cache_bytes // (BLOCK_TOKENS * self.kv_bytes_per_token)
        return max(planned, longest + (self.max_batch - 1) * others)

    @property
    def step_tokens(self) -> int:
        """Most tokens per step."""
        return max(STEP_TOKENS, self.max_batch)


_PARAMETERS: Final = frozenset(
    {"backend", "built", "engine_path", "max_batch", "context", "kv_cache_bytes", "kv_bytes_per_token", "threads"}
)
_EVICTION_PARAMETERS: Final = ("eviction_start_tokens", "eviction_recent_tokens", "eviction_max_tokens")
_ATTENTION_PARAMETERS: Final = frozenset({"sparse_threshold", *_EVICTION_PARAMETERS})


def _read_eviction(parameters: Mapping[str, str]) -> Eviction | None:
    if parameters.keys().isdisjoint(_EVICTION_PARAMETERS):
        return None
    return Eviction(*(int(parameters[name]) for name in _EVICTION_PARAMETERS))


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
    config.max_num_batched_tokens = settings.step_tokens
    # A probe repeats the same question. With prefix caching its keys and values would come from the cache: a later
    # fault in computing them would stay hidden, and the gate would measure the cache.
    config.enable_prefix_caching = False
    if settings.sparse_threshold is not None:
        config.use_sparse_attention = True
        config.sparse_attention_config = openvino_genai.SparseAttentionConfig(
            mode=openvino_genai.SparseAttentionMode.XATTENTION,
            num_last_dense_tokens_in_prefill=XATTENTION_DENSE_TOKENS,
            xattention_threshold=settings.sparse_threshold,
            xattention_block_size=XATTENTION_BLOCK_TOKENS,
            xattention_stride=XATTENTION_STRIDE,
        )
    if (eviction := settings.eviction) is not None:
        config.use_cache_eviction = True
        config.cache_eviction_config = openvino_genai.CacheEvictionConfig(
            eviction.start,
            eviction.recent,
            eviction.most,
            openvino_genai.AggregationMode.NORM_SUM,
            snapkv_window_size=SCORE_TOKENS,
        )
    return config


class OpenVinoEngine:
    """A `Pipeline`, and the preparation of its jobs."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._pipeline: Any = None
        self._tokenizer = self._open_pipeline()
        self._eos = self._tokenizer.get_eos_token_id()
        self._control = ControlTokens(self._list_control_strings())
        self._memory = SchemaMemory(time.monotonic)
        self._compiler = ConstraintCompiler(settings.path, self._tokenizer, self._eos, self._memory)
        self._next = 0
        self._pieces: dict[int, str] = {}
        """Token -> its text, of those that were decoded alone."""

    def prepare(self, request: GenerationRequest) -> Job:
        """Tokenise, check against the context, compile a constraint. Raise RefusedError. Safe from any thread."""
        tokens = self._encode_prompt(request)
        count = int(tokens.shape[1])
        limit = limit_new_tokens(request, count, self._settings.context)
        config = build_generation_config(request, limit, self._eos)
        if request.constraint is not None:
            self._compiler.compile(request.constraint, request.schema_owner)
        return Job(tokens, count, _Sampling(config, request.constraint, request.schema_owner), request.stop)

    def count(self, request: GenerationRequest) -> int:
        """Return the tokens of the prompt; compile a constraint. Raise RefusedError. Safe from any thread."""
        count = int(self._encode_prompt(request).shape[1])
        if request.constraint is not None:
            self._compiler.compile(request.constraint, request.schema_owner)
        return count

    def add(self, job: Job) -> Handle:
        """See `Pipeline`. A constraint that was compiled before a renewal is compiled again."""
        if job.sampling.constraint is not None:
            self._compiler.compile(job.sampling.constraint, job.sampling.schema_owner)
        self._next += 1
        return _GenerationHandle(self._pipeline.add_request(self._next, job.prompt, job.sampling.config))

    def step(self) -> None:
        """See `Pipeline`."""
        self._pipeline.step()

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pipeline`. An incomplete character at the end is omitted."""
        if len(ids) != 1:
            return str(self._tokenizer.decode(list(ids))) if ids else ""
        # Every piece of an answer decodes the token before it alone: a fifth of a millisecond each time.
        token = ids[0]
        if token not in self._pieces:
            self._pieces[token] = str(self._tokenizer.decode([token]))
        return self._pieces[token]

    def is_renewal_due(self) -> bool:
        """See `Pipeline`: whether compiled constraints fill their memory, or a caller's share of it."""
        return self._memory.is_renewal_due()

    def renew(self) -> None:
        """Load the engine again: only a new pipeline and tokenizer free the memory of compiled constraints.

        The old tokenizer serves those that prepare requests meanwhile; the old pipeline goes first, with its weights.
        """
        self._pipeline = None
        self._compiler.replace_tokenizer(self._open_pipeline)
        self._tokenizer = self._pipeline.get_tokenizer()

    def measure_schemas(self) -> tuple[int, float]:
        """See `Pipeline`."""
        return self._memory.used_bytes, self._memory.used_share

    def close(self) -> None:
        """Do nothing: the engine ends with this process."""

    def _open_pipeline(self) -> Any:
        """Open the engine; return its tokenizer."""
        settings = self._settings
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(settings.path), build_scheduler_config(settings), "CPU", build_plugin_properties(settings.threads)
        )
        return self._pipeline.get_tokenizer()

    def _encode_prompt(self, request: GenerationRequest) -> Any:
        """Return the tokens of the prompt, shape [1, n]."""
        check_request_size(request, self._settings.context)
        if request.raw_prompt:
            return self._tokenizer.encode(request.prompt, add_special_tokens=True).input_ids
        conversation, mark = self._control.mark(request)
        try:
            text = str(self._tokenizer.apply_chat_template(conversation, add_generation_prompt=True))
        except RuntimeError as error:  # a template may reject a role, or the order of roles
            reason = " ".join(str(error).split()).replace(mark or "\0", "")
            raise RefusedError(
                f"{request.prompt_input}: the engine's chat template rejects it: {reason[-300:]}"
            ) from error
        pieces = text.split(mark) if mark else [text]
        tokens = [
            self._tokenizer.encode(piece, add_special_tokens=False).input_ids for piece in pieces if piece or not mark
        ]
        return tokens[0] if len(tokens) == 1 else openvino.Tensor(numpy.concatenate([t.data for t in tokens], axis=1))

    def _list_control_strings(self) -> list[str]:
        """Return the strings of tokens that the tokenizer splits off and that are no text, or the template's own."""
        template = self._tokenizer.get_original_chat_template()
        return [
            string
            for string in read_split_strings(self._settings.path)
            if string in template or not self._tokenizer.decode(self._encode_text(string), skip_special_tokens=True)
        ]

    def _encode_text(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist())


@dataclass(frozen=True, slots=True)
class _Sampling:
    """A job's `sampling`."""

    config: Any
    constraint: Constraint | None
    schema_owner: str


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
    if request.constraint is not None:
        config.structured_output_config = build_structured_output(request.constraint)
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
