"""vLLM as a `Pipeline`: settings, sampling, tokens.

Runs with vLLM 0.32.0 on CPU in the real Triton (`make test-long NAME=vllm`), with substitutes for it elsewhere. Checked
against the sources of vLLM 0.11.0, 0.24.0 (Triton 26.07) and 0.33.0, all of engine V1: EngineArgs
(engine/arg_utils.py), LLMEngine.from_engine_args, add_request, step and abort_request (v1/engine/llm_engine.py),
SamplingParams, StructuredOutputsParams and RequestOutputKind (sampling_params.py), CompletionOutput (outputs.py),
FINISH_REASON_STRINGS (v1/engine/__init__.py).
"""

import inspect
import itertools
import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.sampling_params import RequestOutputKind

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.constraint.xgrammar_check import check_constraint
from r1plus_model_repo.backends.engine_loop import Handle, Job, NeverRenewed
from r1plus_model_repo.backends.generations import Generations
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError
from r1plus_model_repo.backends.text.hf_tokens import HfTokens

KV_PRECISIONS: Final = {"FP16": "auto", "FP8": "fp8"}
"""KV cache precision -> vLLM's name for it; `auto` is that of the model, float16 here."""
SEEDS: Final = 2**63
"""A client's seed has 64 bits; vLLM stores it in a signed 64-bit integer."""
END_SECONDS: Final = 1.0
"""How long vLLM's processes have to end by themselves. They hold nothing that must be saved, and each takes seconds to
tear its Python down: by itself vLLM waits 5 s, and kills them then."""
_REASONS: Final = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """How vLLM runs on GPUs."""

    kv_precision: str
    count: int
    memory_fraction: float
    """Share of each GPU's memory for weights, cache and everything else."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "GpuSettings":
        """Read the parameters that `r1plus_model_repo.config_gpu` writes."""
        kv_precision = parameters["kv_precision"]
        if kv_precision not in KV_PRECISIONS:
            raise ValueError(
                f"kv_precision: {kv_precision}: not supported by vLLM; expected {' or '.join(KV_PRECISIONS)}"
            )
        return cls(kv_precision, int(parameters["gpus"]), float(parameters["gpu_memory_fraction"]))

    @property
    def engine_args(self) -> dict[str, Any]:
        """vLLM's settings for this device."""
        return {
            # The precision that the fit assumes; otherwise a checkpoint in bfloat16 would choose.
            "dtype": "float16",
            "kv_cache_dtype": KV_PRECISIONS[self.kv_precision],
            "tensor_parallel_size": self.count,
            "gpu_memory_utilization": self.memory_fraction,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for vLLM's processes."""
        return {}


@dataclass(frozen=True, slots=True)
class CpuSettings:
    """How vLLM runs on CPU, in a build for it. The KV cache has the precision of the computation, 32 bits."""

    kv_cache_bytes: int
    threads: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "CpuSettings":
        """Read the parameters, which have the names that OpenVINO's have."""
        values = {name: int(parameters[name]) for name in ("kv_cache_bytes", "threads")}
        for name, value in values.items():
            if value < 1:
                raise ValueError(f"{name}: {value} is less than 1")
        return cls(**values)

    @property
    def engine_args(self) -> dict[str, Any]:
        """vLLM's settings for this device."""
        return {
            # Few processors compute in 16 bits; on others vLLM falls back to slower code.
            "dtype": "float32",
            # torch.compile needs a C++ compiler, and a minute at each start.
            "enforce_eager": True,
            "kv_cache_memory_bytes": self.kv_cache_bytes,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for vLLM's processes; without them it binds threads and leaves a core idle."""
        return {
            "OMP_NUM_THREADS": str(self.threads),
            # Threads wait for each other hundreds of times per token. By default they spin, which takes the core from
            # what they wait for where other pods use it.
            "OMP_WAIT_POLICY": "PASSIVE",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        }


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The engine's settings from config.pbtxt."""

    path: Path
    """A Hugging Face checkpoint: weights and tokenizer."""
    max_batch: int
    context: int
    device: GpuSettings | CpuSettings

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "EngineSettings":
        """Read the parameters; those of an engine on CPU have the size of the KV cache."""
        device = CpuSettings if "kv_cache_bytes" in parameters else GpuSettings
        return cls(
            path=Path(parameters["engine_path"]),
            max_batch=int(parameters["max_batch"]),
            context=int(parameters["context"]),
            device=device.from_parameters(parameters),
        )


def build_engine_args(settings: EngineSettings) -> EngineArgs:
    """Build vLLM's settings."""
    return EngineArgs(
        model=str(settings.path),
        max_model_len=settings.context,
        max_num_seqs=settings.max_batch,
        # A probe repeats the same question. With prefix caching its keys and values would come from the cache: a later
        # fault in computing them would stay hidden, and the gate would measure the cache.
        enable_prefix_caching=False,
        trust_remote_code=False,
        disable_log_stats=True,
        **settings.device.engine_args,
    )


class VllmEngine(NeverRenewed):
    """A `Pipeline`, and the preparation of its jobs. vLLM runs the model in its own processes."""

    def __init__(self, settings: EngineSettings) -> None:
        # Read when the engine starts, also by its processes: no usage statistics are sent.
        os.environ.update({"VLLM_NO_USAGE_STATS": "1", **settings.device.environment})
        # An image may set it: it would replace the size of the KV cache that the pod has memory for.
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
        self._tokens = HfTokens(settings.path, settings.context)
        others = multiprocessing.active_children()
        self._engine = LLMEngine.from_engine_args(build_engine_args(settings))
        self._is_closing = False
        if processes := [one for one in multiprocessing.active_children() if one not in others]:
            threading.Thread(target=self._watch, args=[processes], name="vllm-watch", daemon=True).start()
        self._generations = Generations(lambda request_id: self._engine.abort_request([request_id]))
        self._ids = map(str, itertools.count(1))

    def prepare(self, request: GenerationRequest) -> Job:
        """Tokenise and check against the context. Raise RefusedError. Safe from any thread."""
        ids, limit = self._tokens.prepare_prompt(request)
        if request.constraint is not None:
            check_constraint(request.constraint)
        return Job(ids, len(ids), build_sampling_params(request, limit), request.stop, request.constraint_input)

    def count(self, request: GenerationRequest) -> int:
        """Return the tokens of the prompt; check a constraint. Raise RefusedError. Safe from any thread."""
        if request.constraint is not None:
            check_constraint(request.constraint)
        return len(self._tokens.encode_prompt(request))

    def add(self, job: Job) -> Handle:
        """See `Pipeline`."""
        request_id = next(self._ids)
        try:
            # Newer versions deprecate prompts without a type.
            self._engine.add_request(request_id, {"type": "token", "prompt_token_ids": job.prompt}, job.sampling)
        except ValueError as error:  # vLLM validates what it adds, and raises nothing else for one request.
            raise RefusedError(f"the engine rejects the request: {error}") from error
        return self._generations.begin(request_id, job.constraint)

    def step(self) -> None:
        """See `Pipeline`. A step returns nothing while a long prompt is read in chunks."""
        for answer in self._engine.step():
            if answer.request_id not in self._generations:
                continue
            (output,) = answer.outputs
            reason = _REASONS.get(output.finish_reason)
            if output.finish_reason is not None and reason is None:
                if self._generations.refuse(answer.request_id, output.finish_reason):
                    continue
                raise RuntimeError(f"vLLM ended a request unexpectedly: {output.finish_reason}")
            self._generations.push(answer.request_id, output.token_ids, reason)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pipeline`."""
        return self._tokens.decode(ids)

    def close(self) -> None:
        """End vLLM's processes, by force where they take longer."""
        self._is_closing = True
        shutdown = self._engine.engine_core.shutdown
        has_timeout = "timeout" in inspect.signature(shutdown).parameters  # Not in vLLM 0.11.
        shutdown(**({"timeout": END_SECONDS} if has_timeout else {}))

    def _watch(self, processes: Sequence[BaseProcess]) -> None:
        """Wait until one of vLLM's processes ends, and let `step` fail.

        One that is killed, say for want of memory, says nothing: vLLM itself notices, but its `step` waits on for
        outputs (vLLM 0.32, SyncMPClient.get_output). This queue is how its own threads let `step` fail.
        """
        connection.wait([process.sentinel for process in processes])
        if not self._is_closing:
            self._engine.engine_core.outputs_queue.put(RuntimeError("a process of vLLM ended; see the log above"))


def build_sampling_params(request: GenerationRequest, limit: int) -> SamplingParams:
    """Build the library's parameters of one generation. Temperature 0 is greedy: the same answer every time.

    The loop handles text and stop strings. vLLM reads the tokens that end an answer from the checkpoint.
    """
    further_fields: dict[str, Any] = {}
    if request.temperature > 0:
        further_fields = {"top_p": request.top_p, "seed": None if request.seed is None else request.seed % SEEDS}
    if request.constraint is not None:
        form = "json" if request.constraint.is_schema else "grammar"
        # Imported here: a version that has it by another name serves all other requests.
        from vllm.sampling_params import StructuredOutputsParams

        further_fields["structured_outputs"] = StructuredOutputsParams(**{form: request.constraint.text})
    try:
        return SamplingParams(
            max_tokens=limit,
            temperature=request.temperature,
            repetition_penalty=request.repetition_penalty,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            **further_fields,
        )
    except ValueError as error:
        raise RefusedError(f"the engine rejects these sampling parameters: {error}") from error
