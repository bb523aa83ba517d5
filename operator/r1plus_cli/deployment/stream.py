"""Client for one question over Triton's gRPC stream, with measurements.

Called by `r1plus ask`, by the demo and by the end-to-end tests. The tensors are those of `r1plus_contract.inference`.
"""

import json
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from r1plus_cli.errors import CliError
from r1plus_contract import inference

DEFAULT_TIMEOUT_S = 60.0


class AskError(CliError):
    """The model rejected the question, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request; fields other than the prompt may be None, which means the model's default."""

    prompt: str
    system: str | None = None
    max_new_tokens: int | None = 64
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer with times measured at the client, network and queueing included."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the answer over the total time, including the wait for the first one."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    def format_figures(self) -> str:
        """Return the measurement in one line."""
        return (
            f"{self.completion_tokens} tokens, {self.tokens_per_second:.0f} tokens/s,"
            f" first token after {self.first_token_seconds:.2f} s"
        )


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """One response of the stream."""

    text: str
    final: bool
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def ask(
    address: str,
    question: Question,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    on_text: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Answer:
    """Ask the model at `address` (host:port of gRPC); `on_text` receives each piece as it arrives. Raise AskError."""
    start_time = clock()
    with _Connection(address) as connection:
        return measure(connection.stream_pieces(question, start_time + timeout_s, clock), start_time, on_text, clock)


def measure(
    pieces: Iterator[StreamPiece],
    start_time: float,
    on_text: Callable[[str], None] | None,
    clock: Callable[[], float],
) -> Answer:
    """Combine a stream of pieces into an Answer. Separate from `ask`, so that it is testable without a server."""
    texts: list[str] = []
    first: float | None = None
    last = StreamPiece("", final=True)
    for piece in pieces:
        if piece.text and first is None:
            first = clock() - start_time
        if piece.text and on_text is not None:
            on_text(piece.text)
        texts.append(piece.text)
        last = _merge(last, piece)
    total = clock() - start_time
    return Answer(
        text="".join(texts),
        finish_reason=last.finish_reason,
        prompt_tokens=last.prompt_tokens,
        completion_tokens=last.completion_tokens,
        first_token_seconds=total if first is None else first,
        seconds=total,
    )


def _merge(before: StreamPiece, piece: StreamPiece) -> StreamPiece:
    """Combine the counts: Triton may close a stream with an empty response after the one that has them."""
    return StreamPiece(
        "",
        piece.final,
        piece.finish_reason or before.finish_reason,
        piece.prompt_tokens or before.prompt_tokens,
        max(piece.completion_tokens, before.completion_tokens),
    )


class _Connection:
    """One gRPC stream. The callback only fills a queue: an exception in it would block the reader forever."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._responses: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

    def __enter__(self) -> "_Connection":
        self._client = triton.InferenceServerClient(self._address)
        self._client.start_stream(callback=lambda result, error: self._responses.put((result, error)))
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_stream(cancel_requests=True)
        self._client.close()

    def stream_pieces(self, question: Question, deadline: float, clock: Callable[[], float]) -> Iterator[StreamPiece]:
        """Send the question and yield responses until the last one."""
        self._send(question)
        while True:
            piece = self._next(deadline - clock())
            yield piece
            if piece.final:
                return

    def _send(self, question: Question) -> None:
        try:
            self._client.async_stream_infer(
                inference.MODEL_NAME, inputs=_build_inputs(question), enable_empty_final_response=True
            )
        except InferenceServerException as error:
            # The stream broke before the question was sent: the cause, if known, is in the queue.
            try:
                _, cause = self._responses.get(timeout=1.0)
            except queue.Empty:
                cause = None
            raise AskError(f"{self._address}: {(cause or error).message()}") from error

    def _next(self, patience_s: float) -> StreamPiece:
        try:
            result, error = self._responses.get(timeout=max(patience_s, 0.0))
        except queue.Empty as empty:
            raise AskError(
                f"{self._address}: no answer in time; check that the deployment is Ready: r1plus status"
            ) from empty
        if error is not None:
            raise AskError(f"{self._address}: {error.message() or error}")
        return _parse_piece(result)


def _parse_piece(result: Any) -> StreamPiece:
    parameters = result.get_response().parameters
    final = "triton_final_response" in parameters and parameters["triton_final_response"].bool_param
    return StreamPiece(
        text=_read_text(result, inference.TEXT),
        final=bool(final),
        finish_reason=_read_text(result, inference.FINISH_REASON),
        prompt_tokens=_read_number(result, inference.PROMPT_TOKENS),
        completion_tokens=_read_number(result, inference.COMPLETION_TOKENS),
    )


def _read_text(result: Any, name: str) -> str:
    values = result.as_numpy(name)
    if values is None or values.size == 0:
        return ""
    value = values.reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_number(result: Any, name: str) -> int:
    values = result.as_numpy(name)
    return 0 if values is None or values.size == 0 else int(values.reshape(-1)[0])


def _build_inputs(question: Question) -> list[Any]:
    stop = json.dumps(list(question.stop)) if question.stop else None
    table = (
        (inference.PROMPT, "BYTES", np.object_, _encode(question.prompt)),
        (inference.SYSTEM, "BYTES", np.object_, _encode(question.system)),
        (inference.MAX_NEW_TOKENS, "INT32", np.int32, question.max_new_tokens),
        (inference.TEMPERATURE, "FP32", np.float32, question.temperature),
        (inference.TOP_P, "FP32", np.float32, question.top_p),
        (inference.REPETITION_PENALTY, "FP32", np.float32, question.repetition_penalty),
        (inference.SEED, "UINT64", np.uint64, question.seed),
        (inference.STOP, "BYTES", np.object_, _encode(stop)),
    )
    return [_build_tensor(name, kind, dtype, value) for name, kind, dtype, value in table if value is not None]


def _encode(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _build_tensor(name: str, kind: str, dtype: Any, value: Any) -> Any:
    tensor = triton.InferInput(name, [1], kind)
    tensor.set_data_from_numpy(np.array([value], dtype=dtype))
    return tensor
