"""Triton's gRPC messages, built and read without NumPy.

A BYTES tensor of one element is 4 bytes of length, little endian, and the bytes.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2

from r1plus_contract import inference
from r1plus_gateway.serving.errors import (
    AnswerFailedError,
    ModelUnavailableError,
    QueueFullError,
    RefusedByEngineError,
    SchemaMemoryFullError,
    ServingError,
)

METHOD: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
MOST_MESSAGE_BYTES: Final = 1024 * 1024
"""Of one response: pieces of answers are far smaller."""

_UNKNOWN_INPUT: Final = "unexpected inference input"
"""What Triton says of an input that is not in the configuration of the pod's revision."""
_MOST_MESSAGE_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. None: the engine's default."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: bytes | None = None
    """A JSON array of strings."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to answer: a text with a system message, or `messages` as JSON."""

    text: str = ""
    system: str = ""
    is_raw: bool = False
    messages: bytes | None = None
    response_schema: bytes | None = None
    grammar: bytes | None = None
    """In EBNF; excludes a schema."""

    @property
    def size(self) -> int:
        """Bytes of all texts."""
        return len(self.messages) if self.messages is not None else len(self.text.encode()) + len(self.system.encode())


def build_request(request_id: str, prompt: Prompt, sampling: Sampling | None, schema_owner: str = "") -> Any:
    """Build a `ModelInferRequest`; without `sampling` one that only counts the prompt's tokens.

    `schema_owner`: whose share of the engine's memory a schema or grammar takes; empty: none in particular.
    """
    request = service_pb2.ModelInferRequest(model_name=inference.MODEL_NAME, id=request_id)
    if prompt.messages is not None:
        _add_bytes(request, inference.MESSAGES, prompt.messages)
    else:
        _add_bytes(request, inference.PROMPT, prompt.text.encode())
        if prompt.system:
            _add_bytes(request, inference.SYSTEM, prompt.system.encode())
        if prompt.is_raw:
            _add(request, inference.RAW_PROMPT, "BOOL", b"\x01")
    if sampling is None:
        _add(request, inference.COUNT_ONLY, "BOOL", b"\x01")
        return request
    _add_constraint(request, prompt, schema_owner)
    numbers = (
        (inference.MAX_NEW_TOKENS, "INT32", "<i", sampling.max_new_tokens),
        (inference.TEMPERATURE, "FP32", "<f", sampling.temperature),
        (inference.TOP_P, "FP32", "<f", sampling.top_p),
        (inference.REPETITION_PENALTY, "FP32", "<f", sampling.repetition_penalty),
        (inference.SEED, "UINT64", "<Q", sampling.seed),
    )
    for name, datatype, form, value in numbers:
        if value is not None:
            _add(request, name, datatype, struct.pack(form, value))
    if sampling.stop is not None:
        _add_bytes(request, inference.STOP, sampling.stop)
    return request


def _add_constraint(request: Any, prompt: Prompt, schema_owner: str) -> None:
    texts = {inference.RESPONSE_SCHEMA: prompt.response_schema, inference.GRAMMAR: prompt.grammar}
    for name, text in texts.items():
        if text is not None:
            _add_bytes(request, name, text)
            request.parameters[inference.SCHEMA_OWNER].string_param = schema_owner


def name_round(request_id: str, number: int) -> str:
    """Return the id of a request's generation after so many programs."""
    return f"{request_id}-{number}" if number else request_id


def name_translation(request_id: str) -> str:
    """Return the id of the generation that translates a request's question for the calculator."""
    return f"{request_id}-math"


def build_usage_request(request_id: str) -> Any:
    """Build a `ModelInferRequest` that asks what the request of this id has used."""
    request = service_pb2.ModelInferRequest(model_name=inference.MODEL_NAME)
    request.parameters[inference.USAGE_OF].string_param = request_id
    _add(request, inference.COUNT_ONLY, "BOOL", b"\x01")
    return request


def _add_bytes(request: Any, name: str, value: bytes) -> None:
    _add(request, name, "BYTES", len(value).to_bytes(4, "little") + value)


def _add(request: Any, name: str, datatype: str, content: bytes) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=(1,))
    request.raw_input_contents.append(content)


@dataclass(slots=True)
class Progress:
    """What the responses of one request have said so far."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""
    pieces: list[bytes] = field(default_factory=list)
    """Text that the reader has not taken yet."""
    waiting_bytes: int = 0
    text_bytes: int = 0
    """Of all text, taken or not."""
    responses: int = 0
    has_begun: bool = False
    _layout: "_Layout | None" = None

    def update(self, response: Any) -> None:
        """Read one `ModelStreamInferResponse`.

        Raises:
            ServingError: it is an error, or cannot be read.
        """
        if response.error_message:
            raise classify_message(response.error_message)
        inner = response.infer_response
        try:
            if self._layout is None or self._layout.size != len(inner.raw_output_contents):
                self._layout = _read_layout(inner)
            self._update_from(inner.raw_output_contents, self._layout)
        except ValueError as error:
            raise AnswerFailedError("the engine's response cannot be read; report it to the platform team") from error
        self.responses += 1
        self.has_begun = True

    def _update_from(self, contents: Sequence[bytes], layout: "_Layout") -> None:
        """Read the tensors' contents. This runs for each token, so it touches no tensor without news."""
        if layout.text is not None and (text := _read_bytes(contents[layout.text])):
            self.pieces.append(text)
            self.waiting_bytes += len(text)
            self.text_bytes += len(text)
        if layout.completion_tokens is not None:
            tokens = _read_int32(contents[layout.completion_tokens])
            if tokens > self.completion_tokens:
                self.completion_tokens = tokens
        if layout.prompt_tokens is not None and not self.prompt_tokens:
            self.prompt_tokens = _read_int32(contents[layout.prompt_tokens])
        if layout.finish_reason is not None and len(content := contents[layout.finish_reason]) > 4:
            self.finish_reason = _read_bytes(content).decode("ascii")

    def take(self) -> bytes:
        """Return the text that has arrived since the last call."""
        text = b"".join(self.pieces)
        self.pieces.clear()
        self.waiting_bytes = 0
        return text


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a response has which tensor; None: nowhere. A model sends its tensors in one order, so it is read once."""

    size: int
    text: int | None
    completion_tokens: int | None
    prompt_tokens: int | None
    finish_reason: int | None


def _read_layout(response: Any) -> _Layout:
    """Return the layout of a `ModelInferResponse`. Raises ValueError: tensors and contents differ in number."""
    size = len(response.raw_output_contents)
    if len(response.outputs) != size:
        raise ValueError("tensors and contents differ in number")
    positions = {tensor.name: position for position, tensor in enumerate(response.outputs)}
    fields = (inference.TEXT, inference.COMPLETION_TOKENS, inference.PROMPT_TOKENS, inference.FINISH_REASON)
    return _Layout(size, *(positions.get(name) for name in fields))


def _read_bytes(content: bytes) -> bytes:
    if int.from_bytes(content[:4], "little") != len(content) - 4:
        raise ValueError("not one element")
    return content[4:]


def _read_int32(content: bytes) -> int:
    if len(content) != 4:
        raise ValueError("not one element")
    number = int.from_bytes(content, "little", signed=True)
    if number < 0:
        raise ValueError("a negative number of tokens")
    return number


def classify_status(code: grpc.StatusCode, details: str) -> ServingError:
    """Return the error of a gRPC status."""
    if code is grpc.StatusCode.UNAVAILABLE or code is grpc.StatusCode.NOT_FOUND:
        return _unavailable()
    if code is grpc.StatusCode.CANCELLED:
        return AnswerFailedError("the pod cancelled the request; try again")
    return classify_message(details)


def classify_message(message: str) -> ServingError:
    """Return the error of a response.

    Triton could send errors as gRPC statuses instead (`triton_grpc_error`). But 2.51 dies of it within a second where
    some requests are refused side by side.
    """
    if message.startswith(inference.QUEUE_FULL):
        return QueueFullError("the engine's queue is full; nothing was computed, try again later")
    if message.startswith(inference.SCHEMA_MEMORY_FULL):
        return SchemaMemoryFullError(
            "the engine has no memory for further schemas or grammars of yours now; nothing was computed. Send a schema"
            " that you have sent before, with other data, or try again later"
        )
    if inference.is_refusal(message):
        return RefusedByEngineError(_shorten(message))
    is_of_older_pod = _UNKNOWN_INPUT in message  # which leaves soon
    if is_of_older_pod or inference.is_not_loaded(message) or inference.is_engine_hanging(message):
        return _unavailable()
    return AnswerFailedError(f"the engine failed: {_shorten(message)}")


def _unavailable() -> ModelUnavailableError:
    return ModelUnavailableError("no pod of the model takes requests now; try again later")


def _shorten(message: str) -> str:
    return " ".join(message.split())[:_MOST_MESSAGE_CHARACTERS]
