"""The Triton model: an engine under Triton's Python backend.

Loaded by /delivery/models/r1plus/1/model.py. Decoupled: `execute` checks, queues and returns; the loop answers. The
parameter `backend` of config.pbtxt selects the engine; only that engine's library is imported.
"""

import json
import locale
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from threading import BoundedSemaphore
from typing import Any, Final, Protocol, cast

import numpy
import triton_python_backend_utils as pb_utils

from r1plus_contract import inference, names
from r1plus_contract.engine.openvino import SPARSE_BACKEND
from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import EngineLoop, Job, Pipeline
from r1plus_model_repo.backends.failures import answer_failures
from r1plus_model_repo.backends.guard import ServerGuard
from r1plus_model_repo.backends.heartbeat import open_heartbeat
from r1plus_model_repo.backends.requests import GenerationRequest, parse_request
from r1plus_model_repo.backends.triton_metrics import TritonMeters
from r1plus_model_repo.backends.usage_records import UsageRecords

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
    inference.MESSAGES,
    inference.COUNT_ONLY,
    inference.RESPONSE_SCHEMA,
    inference.GRAMMAR,
)
CLOSE_SECONDS = 25.0
"""Below Triton's exit timeout, so that running answers finish before the server ends."""
MOST_COMPILING: Final = 16
"""Requests whose response_schema or grammar waits to be compiled, or is; further ones get QueueFull."""

MOST_OWNER_CHARACTERS: Final = 256
"""Of the parameter `schema_owner`: what is longer shares a part with what begins the same."""


class BackendEngine(Pipeline, Protocol):
    """An engine as the model needs it, in addition to what the loop needs."""

    def prepare(self, ask: GenerationRequest) -> Job:
        """Tokenise, check against the context, compile a constraint. Raise RefusedError. Called while it steps."""

    def count(self, ask: GenerationRequest) -> int:
        """Return the tokens of the prompt, also if they exceed the context, and compile a constraint.

        Raise RefusedError. Called while it steps.
        """

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


_OPENVINO: Final = Library(
    "openvino.openvino_engine", "OpenVinoEngine", "OpenVINO GenAI", "openvino-genai", "convert it again"
)
LIBRARIES: Final = {
    "openvino": _OPENVINO,
    SPARSE_BACKEND: _OPENVINO,
    "vllm": Library("vllm_engine", "VllmEngine", "vLLM", "vllm", "export its checkpoint again"),
    "tensorrtllm": Library("trtllm_engine", "TrtllmEngine", "TensorRT-LLM", "tensorrt_llm", "build it again"),
    "torch": Library("torch_engine", "TorchEngine", "PyTorch", "torch", "import its checkpoint again"),
}
"""Value of the parameter `backend` -> its library."""
DEFAULT_BACKEND: Final = "openvino"
"""Backend of a config.pbtxt without that parameter."""


class TritonPythonModel:
    """Triton's interface: initialize, execute, finalize."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine. An exception here fails the model's load, with its message in the log."""
        self._heartbeat = open_heartbeat()
        config = json.loads(args["model_config"])
        _check_inputs(config["input"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        # The configuration is part of the serving identity, so a folder of this machine is not in it.
        parameters["engine_path"] = os.environ.get(names.ENV_ENGINE_DIR) or parameters["engine_path"]
        self._context = int(parameters["context"])
        self._meters = TritonMeters()
        self._engine = open_engine(parameters)
        self._guard = ServerGuard(os.getppid())
        self._loop = EngineLoop(
            self._engine,
            self._meters,
            max_batch=int(parameters["max_batch"]),
            context=self._context,
            clock=time.monotonic,
            on_death=self._guard.end_server,
            heartbeat=self._heartbeat,
        )
        self._loop.start()
        # One thread: a constraint may take seconds, in which other requests are accepted.
        self._compiler = ThreadPoolExecutor(1, "constraints")
        self._compiling = BoundedSemaphore(MOST_COMPILING)
        self._usage = UsageRecords()

    def execute(self, requests: list[Any]) -> None:
        """Check and queue the requests. Refusals are sent from here, while the engine steps."""
        for request in requests:
            self._heartbeat.begin_request()
            try:
                self._take(request)
            finally:
                self._heartbeat.end_request()

    def _take(self, request: Any) -> None:
        parameters = _read_parameters(request)
        if named := parameters.get(inference.USAGE_OF):
            self._answer_usage(named, TritonReply(request.get_response_sender()))
            return
        reply = TritonReply(request.get_response_sender(), clean_request_id(request.request_id()), self._usage)
        with answer_failures(reply, self._meters):
            if self._loop.is_full and not _read_input(request, inference.COUNT_ONLY):
                self._loop.reject(reply)  # before tokenising
            else:
                owner = parameters.get(inference.SCHEMA_OWNER, "")[:MOST_OWNER_CHARACTERS]
                self._accept(parse_request(_read_inputs(request), self._context, owner), reply)

    def _answer_usage(self, request_id: str, reply: "TritonReply") -> None:
        """Send what was counted for a request once it has ended, at once if it has."""

        def send(prompt_tokens: int, completion_tokens: int) -> None:
            reply.finish("", FinishReason.CANCELLED, prompt_tokens, completion_tokens)

        if not self._usage.call_when_ended(clean_request_id(request_id), send):
            reply.refuse(f"{inference.USAGE_OF}: no request of this id has run here lately, or too many wait")

    def finalize(self) -> None:
        """Finish the accepted requests and free the engine."""
        self._compiler.shutdown()
        self._loop.close(CLOSE_SECONDS)
        self._engine.close()
        self._guard.release()

    def _accept(self, ask: GenerationRequest, reply: "TritonReply") -> None:
        if ask.constraint is None:
            self._prepare(ask, reply)
        elif self._compiling.acquire(blocking=False):
            self._compiler.submit(self._compile, ask, reply)
        else:
            self._loop.reject(reply)

    def _compile(self, ask: GenerationRequest, reply: "TritonReply") -> None:
        try:
            if reply.is_cancelled():
                self._meters.count_request("cancelled")
                reply.finish("", FinishReason.CANCELLED, 0, 0)
            else:
                self._prepare(ask, reply)
        finally:
            self._compiling.release()

    def _prepare(self, ask: GenerationRequest, reply: "TritonReply") -> None:
        """Count or queue a request."""
        with answer_failures(reply, self._meters):
            if ask.count_only:
                prompt_tokens = self._engine.count(ask)
                self._meters.count_request("counted")
                reply.finish("", FinishReason.STOP, prompt_tokens, 0)
            else:
                self._loop.submit(self._engine.prepare(ask), reply)


def _check_inputs(inputs: list[dict[str, Any]]) -> None:
    """Raise if the configuration has inputs that this image would ignore, such as a constraint on answers."""
    unknown = sorted({one["name"] for one in inputs} - set(INPUTS))
    if unknown:
        raise pb_utils.TritonModelException(
            f"EngineIncompatible: input: {', '.join(unknown)}: the image is older than the configuration and does not"
            " know it; use the image of the operator's version"
        )


def open_engine(parameters: Mapping[str, str]) -> BackendEngine:
    """Open the engine, or raise with the reason in one line: the operator looks for the first word."""
    name = parameters.get("backend", DEFAULT_BACKEND)
    library = LIBRARIES.get(name)
    if library is None:
        raise pb_utils.TritonModelException(
            f"EngineIncompatible: backend: {name} is not one of {', '.join(LIBRARIES)}; use the image of this version"
        )
    try:
        set_utf8_locale()
        module = import_module(f"{__package__}.{library.module}")
        return cast(BackendEngine, getattr(module, library.engine)(module.EngineSettings.from_parameters(parameters)))
    except Exception as error:  # libraries may raise anything
        cause = str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"
        raise pb_utils.TritonModelException(
            f"EngineIncompatible: {library.title}{_describe_version(library.distribution)} cannot load"
            f" {parameters.get('engine_path')}: {' '.join(cause.split())[:500]};"
            f" choose an engine of this backend, or {library.remedy} for this version"
        ) from error


def set_utf8_locale() -> None:
    """Let libraries read text files as UTF-8.

    The Python that Triton embeds has the locale C, whatever its environment says. So `open` without an encoding reads
    ASCII, and vLLM fails on the first of its own files that has other characters.
    """
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")


def _describe_version(distribution: str) -> str:
    try:
        return f" {version(distribution)}"
    except PackageNotFoundError:
        return ""


class TritonReply:
    """A `Reply` on the response sender of a decoupled request. `request_id` is empty or printable."""

    def __init__(self, sender: Any, request_id: str = "", usage: UsageRecords | None = None) -> None:
        """`usage`: remembers what a request with an id has used."""
        self._sender = sender
        self._request_id = request_id
        self._usage = usage if request_id else None
        self._counted = (0, 0)
        self._is_lost = False
        if self._usage is not None:
            self._usage.begin(request_id)

    def send_piece(self, text: str, prompt_tokens: int, completion_tokens: int) -> None:
        """See `Reply`."""
        self._send(_build_response(text, "", prompt_tokens, completion_tokens), 0)

    def finish(self, text: str, reason: FinishReason, prompt_tokens: int, completion_tokens: int) -> None:
        """See `Reply`."""
        if reason is FinishReason.CANCELLED:
            self._log(f"was cancelled after {prompt_tokens} prompt and {completion_tokens} completion tokens")
        self._send_last(_build_response(text, reason.value, prompt_tokens, completion_tokens))

    def fail(self, message: str) -> None:
        """See `Reply`."""
        self._log("failed")
        self._send_error(message, pb_utils.TritonError.INTERNAL)

    def refuse(self, message: str) -> None:
        """See `Reply`."""
        self._log("was refused")
        self._send_error(message, pb_utils.TritonError.INVALID_ARG)

    def reject(self, message: str) -> None:
        """See `Reply`."""
        self._log("found no room")
        self._send_error(message, pb_utils.TritonError.UNAVAILABLE)

    def is_cancelled(self) -> bool:
        """See `Reply`. A failed send counts as cancelled."""
        return self._is_lost or bool(self._sender.is_cancelled())

    def record_usage(self, prompt_tokens: int, completion_tokens: int) -> None:
        """See `Reply`."""
        self._counted = (prompt_tokens, completion_tokens)

    def _log(self, outcome: str) -> None:
        """Log how a request with an id ended. The error's message may quote the client's text, so it is left out."""
        if self._request_id:
            print(f"Request {self._request_id} {outcome}", file=sys.stderr, flush=True)

    def _send_error(self, message: str, code: Any) -> None:
        # At the end: clients recognise some errors by their first word.
        suffix = f" (request {self._request_id})" if self._request_id else ""
        self._send_last(pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{message}{suffix}", code)))

    def _send_last(self, response: Any) -> None:
        try:
            self._send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        finally:
            if self._usage is not None:
                self._usage.end(self._request_id, *self._counted)

    def _send(self, response: Any, flags: int) -> None:
        """Send a response. A failure for one client must not end the engine for the others."""
        try:
            self._sender.send(response, flags=flags)
        except pb_utils.TritonModelException as error:
            self._is_lost = True
            request = f" of request {self._request_id}" if self._request_id else ""
            print(f"Failed to send a response{request}: {error}", file=sys.stderr, flush=True)


def clean_request_id(request_id: str) -> str:
    """Return a client's request id as errors and the log repeat it: bounded, and without control characters."""
    characters = request_id[: inference.MOST_REQUEST_ID_CHARACTERS]
    return "".join(character if character.isprintable() else "?" for character in characters)


def _read_inputs(request: Any) -> dict[str, Any]:
    values = {name: _read_input(request, name) for name in INPUTS}
    return {name: value for name, value in values.items() if value is not None}


def _read_input(request: Any, name: str) -> Any:
    """Return the value of an input, or None if the request does not have it."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy().reshape(-1)[0]


def _read_parameters(request: Any) -> dict[str, str]:
    """Return the parameters of the request that are texts."""
    text = request.parameters()
    return {name: value for name, value in json.loads(text).items() if isinstance(value, str)} if text else {}


def _build_response(text: str, reason: str, prompt_tokens: int, completion_tokens: int) -> Any:
    return pb_utils.InferenceResponse(
        output_tensors=[
            pb_utils.Tensor(inference.TEXT, numpy.array([text.encode()], dtype=numpy.object_)),
            pb_utils.Tensor(inference.FINISH_REASON, numpy.array([reason.encode()], dtype=numpy.object_)),
            pb_utils.Tensor(inference.PROMPT_TOKENS, numpy.array([prompt_tokens], dtype=numpy.int32)),
            pb_utils.Tensor(inference.COMPLETION_TOKENS, numpy.array([completion_tokens], dtype=numpy.int32)),
        ]
    )
