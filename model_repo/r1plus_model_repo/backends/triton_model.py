"""The Triton model: an engine under Triton's Python backend.

Loaded by /delivery/models/r1plus/1/model.py. Decoupled: `execute` checks, queues and returns; the loop answers. The
parameter `backend` of config.pbtxt selects the engine; only that engine's library is imported.
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
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError, parse_request
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
"""Below Triton's exit timeout, so that running answers finish before the server ends."""


class BackendEngine(Pipeline, Protocol):
    """An engine as the model needs it, in addition to what the loop needs."""

    def prepare(self, ask: GenerationRequest) -> Job:
        """Tokenise and check against the context. Raise RefusedError. Called while the engine steps."""

    def close(self) -> None:
        """Free the engine; no call follows."""


@dataclass(frozen=True, slots=True)
class Library:
    """A backend's library: its module, and its names for users."""

    module: str
    """Module with `EngineSettings` and the engine's class."""
    engine: str
    title: str
    distribution: str
    remedy: str
    """What to do with the engine's files for another version of the library."""


LIBRARIES: Final = {
    "openvino": Library("openvino_engine", "OpenVinoEngine", "OpenVINO GenAI", "openvino-genai", "convert it again"),
    "vllm": Library("vllm_engine", "VllmEngine", "vLLM", "vllm", "export its checkpoint again"),
    "tensorrtllm": Library("trtllm_engine", "TrtllmEngine", "TensorRT-LLM", "tensorrt_llm", "build it again"),
}
"""Value of the parameter `backend` -> its library."""
DEFAULT_BACKEND: Final = "openvino"
"""Backend of a config.pbtxt without that parameter."""


class TritonPythonModel:
    """Triton's interface: initialize, execute, finalize."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine. An exception here fails the model's load, with its message in the log."""
        model_parameters = json.loads(args["model_config"])["parameters"]
        parameters = {name: value["string_value"] for name, value in model_parameters.items()}
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
        """Check and queue the requests. Refusals are sent from here, while the engine steps."""
        for request in requests:
            reply = TritonReply(request.get_response_sender())
            if self._loop.is_full:
                self._loop.reject(reply)  # before tokenising
                continue
            try:
                job = self._engine.prepare(parse_request(_read_inputs(request), self._context))
            except RefusedError as error:
                self._meters.count_request("refused")
                reply.refuse(str(error))
            else:
                self._loop.submit(job, reply)

    def finalize(self) -> None:
        """Finish the accepted requests and free the engine."""
        self._loop.close(CLOSE_SECONDS)
        self._engine.close()
        self._guard.release()


def open_engine(parameters: Mapping[str, str]) -> BackendEngine:
    """Open the engine, or raise with the reason in one line: the operator looks for the first word."""
    name = parameters.get("backend", DEFAULT_BACKEND)
    library = LIBRARIES.get(name)
    if library is None:
        raise pb_utils.TritonModelException(
            f"EngineIncompatible: backend: {name} is not one of {', '.join(LIBRARIES)}; use the image of this version"
        )
    try:
        module = import_module(f"{__package__}.{library.module}")
        return cast(BackendEngine, getattr(module, library.engine)(module.EngineSettings.from_parameters(parameters)))
    except Exception as error:  # libraries may raise anything
        cause = str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"
        raise pb_utils.TritonModelException(
            f"EngineIncompatible: {library.title}{_describe_version(library.distribution)} cannot load"
            f" {parameters.get('engine_path')}: {' '.join(cause.split())[:500]};"
            f" choose an engine of this backend, or {library.remedy} for this version"
        ) from error


def _describe_version(distribution: str) -> str:
    try:
        return f" {version(distribution)}"
    except PackageNotFoundError:
        return ""


class TritonReply:
    """A `Reply` on the response sender of a decoupled request."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._is_lost = False

    def send_piece(self, text: str, completion_tokens: int) -> None:
        """See `Reply`."""
        self._send(_build_response(text, "", 0, completion_tokens), 0)

    def finish(self, text: str, reason: FinishReason, prompt_tokens: int, completion_tokens: int) -> None:
        """See `Reply`."""
        self._send_last(_build_response(text, reason.value, prompt_tokens, completion_tokens))

    def fail(self, message: str) -> None:
        """See `Reply`."""
        self._send_last(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL)))

    def refuse(self, message: str) -> None:
        """Reply that the request is invalid."""
        self._send_last(
            pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        )

    def reject(self, message: str) -> None:
        """See `Reply`."""
        self._send_last(
            pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.UNAVAILABLE))
        )

    def is_cancelled(self) -> bool:
        """See `Reply`. A failed send counts as cancelled."""
        return self._is_lost or bool(self._sender.is_cancelled())

    def _send_last(self, response: Any) -> None:
        self._send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _send(self, response: Any, flags: int) -> None:
        """Send a response. A failure for one client must not end the engine for the others."""
        try:
            self._sender.send(response, flags=flags)
        except pb_utils.TritonModelException as error:
            self._is_lost = True
            print(f"Failed to send a response: {error}", file=sys.stderr, flush=True)


def _read_inputs(request: Any) -> dict[str, Any]:
    values = {}
    for name in INPUTS:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is not None:
            values[name] = tensor.as_numpy().reshape(-1)[0]
    return values


def _build_response(text: str, reason: str, prompt_tokens: int, completion_tokens: int) -> Any:
    return pb_utils.InferenceResponse(
        output_tensors=[
            pb_utils.Tensor(inference.TEXT, numpy.array([text.encode()], dtype=numpy.object_)),
            pb_utils.Tensor(inference.FINISH_REASON, numpy.array([reason.encode()], dtype=numpy.object_)),
            pb_utils.Tensor(inference.PROMPT_TOKENS, numpy.array([prompt_tokens], dtype=numpy.int32)),
            pb_utils.Tensor(inference.COMPLETION_TOKENS, numpy.array([completion_tokens], dtype=numpy.int32)),
        ]
    )
