"""The Triton model: an engine under Triton's Python backend.

Loaded by /delivery/models/r1plus/1/model.py. Decoupled: `execute` checks, queues and returns; the loop answers. Which
engine it is, config.pbtxt says in the parameter `backend`; only that one's library is imported.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Protocol, cast

import numpy
import triton_python_backend_utils as pb_utils

from r1plus_contract import inference
from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import EngineLoop, Job, Pipeline
from r1plus_model_repo.backends.guard import ServerGuard, end_server
from r1plus_model_repo.backends.requests import Ask, RefusedError, parse
from r1plus_model_repo.backends.triton_metrics import TritonMeters

INPUTS = (
    inference.PROMPT,
    inference.SYSTEM,
    inference.RAW_PROMPT,
    inference.MAX_NEW_TOKENS,
    inference.TEMPERATURE,
    inference.TOP_P,
    inference.REPETITION_PENALTY,
    inference.SEED,
    inference.STOP,
)
CLOSE_SECONDS = 25.0
"""Below Triton's exit timeout, so that answers under way are finished before the server goes."""


class Engine(Pipeline, Protocol):
    """What the model needs of an engine beside what the loop needs."""

    def prepare(self, ask: Ask) -> Job:
        """Tokenise and check against the context; RefusedError. Called while the engine steps."""

    def close(self) -> None:
        """Nothing more will be asked."""


@dataclass(frozen=True, slots=True)
class Library:
    """Where an engine is, and what its users call it."""

    module: str
    """Has `EngineSettings` and a class of the engine."""
    engine: str
    title: str
    distribution: str
    again: str
    """What its files may need when the library has changed."""


LIBRARIES: Final = {
    "openvino": Library("openvino_engine", "OpenVinoEngine", "OpenVINO GenAI", "openvino-genai", "convert it again"),
    "vllm": Library("vllm_engine", "VllmEngine", "vLLM", "vllm", "export its checkpoint again"),
    "tensorrtllm": Library("trtllm_engine", "TrtllmEngine", "TensorRT-LLM", "tensorrt_llm", "build it again"),
}
"""By the parameter `backend`."""
DEFAULT_BACKEND: Final = "openvino"
"""Of a config.pbtxt without that parameter."""


class TritonPythonModel:
    """Triton's interface: initialize, execute, finalize."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine; an exception here fails the model's load, with its message in the log."""
        given = json.loads(args["model_config"])["parameters"]
        parameters = {name: value["string_value"] for name, value in given.items()}
        self._context = int(parameters["context"])
        self._meters = TritonMeters()
        self._engine = open_engine(parameters)
        self._loop = EngineLoop(
            self._engine,
            self._meters,
            max_batch=int(parameters["max_batch"]),
            context=self._context,
            clock=time.monotonic,
            on_death=end_server,
        )
        self._loop.start()
        self._guard = ServerGuard(os.getppid())

    def execute(self, requests: list[Any]) -> None:
        """Check and queue; refusals are answered here, while the engine goes on stepping."""
        for request in requests:
            reply = TritonReply(request.get_response_sender())
            if self._loop.is_full:
                self._loop.turn_away(reply)  # before it costs a tokenizer's time
                continue
            try:
                job = self._engine.prepare(parse(_values(request), self._context))
            except RefusedError as error:
                self._meters.request("refused")
                reply.refuse(str(error))
            else:
                self._loop.submit(job, reply)

    def finalize(self) -> None:
        """Finish what was begun."""
        self._loop.close(CLOSE_SECONDS)
        self._engine.close()
        self._guard.release()


def open_engine(parameters: Mapping[str, str]) -> Engine:
    """The engine, or in one line why it is none for this backend: the operator looks for the first word."""
    name = parameters.get("backend", DEFAULT_BACKEND)
    library = LIBRARIES.get(name)
    if library is None:
        raise pb_utils.TritonModelException(
            f"EngineIncompatible: backend: {name} is none of {', '.join(LIBRARIES)}; this image is of another version"
        )
    try:
        module = import_module(f"{__package__}.{library.module}")
        return cast(Engine, getattr(module, library.engine)(module.EngineSettings.from_parameters(parameters)))
    except Exception as error:  # libraries raise what they like
        cause = str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"
        raise pb_utils.TritonModelException(
            f"EngineIncompatible: {library.title}{_version(library.distribution)} cannot load"
            f" {parameters.get('engine_path')}: {' '.join(cause.split())[:500]};"
            f" choose an engine of this backend, or {library.again} for this version"
        ) from error


def _version(distribution: str) -> str:
    try:
        return f" {version(distribution)}"
    except PackageNotFoundError:
        return ""


class TritonReply:
    """The loop's `Reply`: a response sender of a decoupled request."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._lost = False

    def piece(self, text: str, completion_tokens: int) -> None:
        """See `Reply`."""
        self._send(_response(text, "", 0, completion_tokens), 0)

    def done(self, text: str, reason: FinishReason, prompt_tokens: int, completion_tokens: int) -> None:
        """See `Reply`."""
        self._last(_response(text, reason.value, prompt_tokens, completion_tokens))

    def error(self, message: str) -> None:
        """See `Reply`."""
        self._last(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL)))

    def refuse(self, message: str) -> None:
        """The client's own mistake."""
        self._last(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)))

    def turn_away(self, message: str) -> None:
        """See `Reply`."""
        self._last(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.UNAVAILABLE)))

    def cancelled(self) -> bool:
        """See `Reply`. A client that nothing can be sent to has hung up, too."""
        return self._lost or bool(self._sender.is_cancelled())

    def _last(self, response: Any) -> None:
        self._send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _send(self, response: Any, flags: int) -> None:
        """One client's trouble must not end the engine for the others."""
        try:
            self._sender.send(response, flags=flags)
        except pb_utils.TritonModelException as error:
            self._lost = True
            print(f"A response could not be sent: {error}", file=sys.stderr, flush=True)


def _values(request: Any) -> dict[str, Any]:
    values = {}
    for name in INPUTS:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is not None:
            values[name] = tensor.as_numpy().reshape(-1)[0]
    return values


def _response(text: str, reason: str, prompt_tokens: int, completion_tokens: int) -> Any:
    return pb_utils.InferenceResponse(
        output_tensors=[
            pb_utils.Tensor(inference.TEXT, numpy.array([text.encode()], dtype=numpy.object_)),
            pb_utils.Tensor(inference.FINISH_REASON, numpy.array([reason.encode()], dtype=numpy.object_)),
            pb_utils.Tensor(inference.PROMPT_TOKENS, numpy.array([prompt_tokens], dtype=numpy.int32)),
            pb_utils.Tensor(inference.COMPLETION_TOKENS, numpy.array([completion_tokens], dtype=numpy.int32)),
        ]
    )
