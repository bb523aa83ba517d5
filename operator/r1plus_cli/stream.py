"""Asks a served model one question over Triton's gRPC stream and measures the answer.

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
    """The model refused the question, or no answer came in time."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request; every field but the prompt may be left to the model's defaults (None)."""

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
    """What came back, measured where the caller sits: network and queueing included."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the answer over the whole time from question to end, the wait for the first one included."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    def figures(self) -> str:
        """The measurement in one line."""
        return (
            f"{self.completion_tokens} tokens, {self.tokens_per_second:.0f} tokens/s,"
            f" first token after {self.first_token_seconds:.2f} s"
        )


@dataclass(frozen=True, slots=True)
class Piece:
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
    """Ask the model at `address` (host:port of gRPC); `on_text` sees each piece as it arrives. Raises AskError."""
    began = clock()
    with _Connection(address) as connection:
        return measure(connection.pieces(question, began + timeout_s, clock), began, on_text, clock)


def measure(
    pieces: Iterator[Piece],
    began: float,
    on_text: Callable[[str], None] | None,
    clock: Callable[[], float],
) -> Answer:
    """Fold a stream of pieces into an Answer. Apart from `ask` so that it can be tested without a server."""
    texts: list[str] = []
    first: float | None = None
    last = Piece("", final=True)
    for piece in pieces:
        if piece.text and first is None:
            first = clock() - began
        if piece.text and on_text is not None:
            on_text(piece.text)
        texts.append(piece.text)
        last = _merged(last, piece)
    total = clock() - began
    return Answer(
        text="".join(texts),
        finish_reason=last.finish_reason,
        prompt_tokens=last.prompt_tokens,
        completion_tokens=last.completion_tokens,
        first_token_seconds=total if first is None else first,
        seconds=total,
    )


def _merged(before: Piece, piece: Piece) -> Piece:
    """Triton may close a stream with an empty response after the one that carries the counts: keep what was told."""
    return Piece(
        "",
        piece.final,
        piece.finish_reason or before.finish_reason,
        piece.prompt_tokens or before.prompt_tokens,
        max(piece.completion_tokens, before.completion_tokens),
    )


class _Connection:
    """One gRPC stream. The callback only fills a queue: a callback that raises would hang the reader for ever."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._arrived: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

    def __enter__(self) -> "_Connection":
        self._client = triton.InferenceServerClient(self._address)
        self._client.start_stream(callback=lambda result, error: self._arrived.put((result, error)))
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_stream(cancel_requests=True)
        self._client.close()

    def pieces(self, question: Question, deadline: float, clock: Callable[[], float]) -> Iterator[Piece]:
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
                inference.MODEL_NAME, inputs=_inputs(question), enable_empty_final_response=True
            )
        except InferenceServerException as error:
            # The stream broke before the question was sent: the cause, if it is known, lies in the queue.
            try:
                _, cause = self._arrived.get(timeout=1.0)
            except queue.Empty:
                cause = None
            raise AskError(f"{self._address}: {(cause or error).message()}") from error

    def _next(self, patience_s: float) -> Piece:
        try:
            result, error = self._arrived.get(timeout=max(patience_s, 0.0))
        except queue.Empty as empty:
            raise AskError(
                f"{self._address}: no answer in time; is the deployment Ready? See: r1plus status"
            ) from empty
        if error is not None:
            raise AskError(f"{self._address}: {error.message() or error}")
        return _piece(result)


def _piece(result: Any) -> Piece:
    parameters = result.get_response().parameters
    final = "triton_final_response" in parameters and parameters["triton_final_response"].bool_param
    return Piece(
        text=_text(result, inference.TEXT),
        final=bool(final),
        finish_reason=_text(result, inference.FINISH_REASON),
        prompt_tokens=_number(result, inference.PROMPT_TOKENS),
        completion_tokens=_number(result, inference.COMPLETION_TOKENS),
    )


def _text(result: Any, name: str) -> str:
    values = result.as_numpy(name)
    if values is None or values.size == 0:
        return ""
    value = values.reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _number(result: Any, name: str) -> int:
    values = result.as_numpy(name)
    return 0 if values is None or values.size == 0 else int(values.reshape(-1)[0])


def _inputs(question: Question) -> list[Any]:
    stop = json.dumps(list(question.stop)) if question.stop else None
    table = (
        (inference.PROMPT, "BYTES", np.object_, _encoded(question.prompt)),
        (inference.SYSTEM, "BYTES", np.object_, _encoded(question.system)),
        (inference.MAX_NEW_TOKENS, "INT32", np.int32, question.max_new_tokens),
        (inference.TEMPERATURE, "FP32", np.float32, question.temperature),
        (inference.TOP_P, "FP32", np.float32, question.top_p),
        (inference.REPETITION_PENALTY, "FP32", np.float32, question.repetition_penalty),
        (inference.SEED, "UINT64", np.uint64, question.seed),
        (inference.STOP, "BYTES", np.object_, _encoded(stop)),
    )
    return [_tensor(name, kind, dtype, value) for name, kind, dtype, value in table if value is not None]


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _tensor(name: str, kind: str, dtype: Any, value: Any) -> Any:
    tensor = triton.InferInput(name, [1], kind)
    tensor.set_data_from_numpy(np.array([value], dtype=dtype))
    return tensor
