"""A stand-in for vLLM that says the prompt again, a byte a step, and what its backend promises with it."""

import enum
import multiprocessing
import os
import queue
import threading
import time
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

from r1plus_model_repo.backends.requests import GenerationRequest
from support.model_repo.gpu_stage import GpuStage
from support.model_repo.stand_in_transformers import END

PARAMETERS = {
    "backend": "vllm",
    "engine_path": "/delivery/engine",
    "max_batch": "2",
    "context": "128",
    "kv_precision": "FP16",
    "gpus": "1",
    "gpu_memory_fraction": "0.9",
}


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class StructuredOutputsParams:
    json: str | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        assert (self.json is None) != (self.grammar is None)


@dataclass(kw_only=True)
class SamplingParams:
    """The fields that are used, with vLLM's defaults and checks."""

    temperature: float = 1.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}.")


@dataclass(kw_only=True)
class EngineArgs:
    model: str = ""
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    enforce_eager: bool = False
    enable_prefix_caching: bool | None = None
    trust_remote_code: bool = False
    disable_log_stats: bool = False


@dataclass
class Request:
    prompt: list[int]
    params: SamplingParams
    said: int = 0
    read: bool = False


@dataclass
class LLMEngine:
    """Says what follows the first token of a prompt, then the end. Reading a prompt takes a step that brings nothing."""

    args: EngineArgs
    running: dict[str, Request] = field(default_factory=dict)
    asked: list[SamplingParams] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    largest: int = 0
    steps: int = 0
    ends_as: str = ""
    rejects: str = ""
    """Why it takes no request."""
    late: list[Any] = field(default_factory=list)
    gate: threading.Semaphore | None = None
    closed: bool = False
    end_seconds: float | None = None
    """How long its processes had to end."""
    outputs_queue: queue.SimpleQueue[Exception] = field(default_factory=queue.SimpleQueue)
    has_process: ClassVar[bool] = False
    """Whether a process computes; this one computes nothing."""
    process: Any = None

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> "LLMEngine":
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
        engine = cls(engine_args)
        if cls.has_process:
            engine.process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
            engine.process.start()
        return engine

    @property
    def engine_core(self) -> Any:
        return SimpleNamespace(shutdown=self._shut_down, outputs_queue=self.outputs_queue)

    def _shut_down(self, timeout: float | None = None) -> None:
        self.closed, self.end_seconds = True, timeout

    def add_request(self, request_id: str, prompt: dict[str, Any], params: SamplingParams) -> str:
        assert isinstance(request_id, str)
        assert prompt.keys() == {"type", "prompt_token_ids"}
        assert prompt["type"] == "token"
        assert not params.detokenize
        if self.rejects:
            raise ValueError(self.rejects)
        self.asked.append(params)
        self.running[request_id] = Request(prompt["prompt_token_ids"], params)
        return request_id

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        for request_id in request_ids:
            self.cancelled.append(request_id)
            del self.running[request_id]
            # What was under way still comes.
            self.late.append(_output(request_id, [ord("!")], "abort"))

    def step(self) -> list[Any]:
        if self.process is not None:
            raise self.outputs_queue.get()
        if self.gate is not None:
            self.gate.acquire()
        self.steps += 1
        self.largest = max(self.largest, len(self.running))
        outputs, self.late = self.late, []
        for request_id, request in list(self.running.items()):
            if not request.read:
                request.read = True
                continue
            outputs.append(self._next(request_id, request))
        return outputs

    def _next(self, request_id: str, request: Request) -> Any:
        said = [*request.prompt[1:], END]
        token = said[request.said]
        request.said += 1
        reason = "stop" if token == END else "length" if request.said == request.params.max_tokens else None
        reason = self.ends_as or reason
        if reason:
            del self.running[request_id]
        return _output(request_id, [token], reason)


def _output(request_id: str, ids: list[int], reason: str | None) -> Any:
    return SimpleNamespace(request_id=request_id, outputs=[SimpleNamespace(token_ids=ids, finish_reason=reason)])


def _params(**given: Any) -> SamplingParams:
    return SamplingParams(detokenize=False, output_kind=RequestOutputKind.DELTA, **given)


SAMPLED = {
    "greedy, whatever else is asked": (
        GenerationRequest("x", top_p=0.5, seed=3, repetition_penalty=1.2),
        _params(temperature=0.0, max_tokens=9, repetition_penalty=1.2),
    ),
    "sampled": (
        GenerationRequest("x", temperature=0.7, top_p=0.5, seed=3),
        _params(temperature=0.7, top_p=0.5, seed=3, max_tokens=9),
    ),
    "sampled without a seed": (GenerationRequest("x", temperature=0.7), _params(temperature=0.7, max_tokens=9)),
    "a seed of 64 bits": (
        GenerationRequest("x", temperature=0.7, seed=2**64 - 1),
        _params(temperature=0.7, seed=2**63 - 1, max_tokens=9),
    ),
}


class VllmStage(GpuStage):
    """vLLM's engine in its loop."""

    name = "vllm"
    parameters = PARAMETERS
    counted_ends = 1
    first_id = "1"
    sampled = SAMPLED
    refusal = "rejects these sampling parameters: top_p must be in"
    lost: ClassVar = {
        reason: ({"ends_as": reason}, f"vLLM ended a request unexpectedly: {reason}") for reason in ("abort", "error")
    }

    @staticmethod
    def modules() -> dict[str, ModuleType]:
        vllm, params = ModuleType("vllm"), ModuleType("vllm.sampling_params")
        for given in (EngineArgs, LLMEngine, SamplingParams):
            setattr(vllm, given.__name__, given)
        params.RequestOutputKind = RequestOutputKind  # type: ignore[attr-defined]
        params.StructuredOutputsParams = StructuredOutputsParams  # type: ignore[attr-defined]
        return {"vllm": vllm, "vllm.sampling_params": params}

    @staticmethod
    def make(module: Any, settings: Any) -> tuple[Any, Any]:
        engine = module.VllmEngine(settings)
        return engine, engine._engine

    @staticmethod
    def sampling(module: Any, ask: GenerationRequest) -> Any:
        return module.build_sampling_params(ask, 9)

    @staticmethod
    def prompt_ids(prompt: Any) -> list[int]:
        return list(prompt)

    def read_constraint(self) -> tuple[str, str] | None:
        params = self.library.asked[-1].structured_outputs
        if params is None:
            return None
        return ("response_schema", params.json) if params.json is not None else ("grammar", params.grammar)
