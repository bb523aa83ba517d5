"""A client of the served model for tests: many questions at once over one gRPC connection, answers with their pieces."""

import json
import queue
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from r1plus_contract import inference

SECONDS = 600.0
"""Longest wait for a response: 32 answers at once on a slow machine."""
LONG_STORY = "Tell me a long story about {} lighthouses."
"""A question for each number from 0 to 31: the demo's engines answer with at least 400 tokens, which a test can cut."""
_TYPES: dict[str, tuple[str, Any]] = {
    inference.PROMPT: ("BYTES", np.object_),
    inference.SYSTEM: ("BYTES", np.object_),
    inference.RAW_PROMPT: ("BOOL", np.bool_),
    inference.MAX_NEW_TOKENS: ("INT32", np.int32),
    inference.TEMPERATURE: ("FP32", np.float32),
    inference.TOP_P: ("FP32", np.float32),
    inference.REPETITION_PENALTY: ("FP32", np.float32),
    inference.SEED: ("UINT64", np.uint64),
    inference.STOP: ("BYTES", np.object_),
    inference.MESSAGES: ("BYTES", np.object_),
    inference.COUNT_ONLY: ("BOOL", np.bool_),
    inference.RESPONSE_SCHEMA: ("BYTES", np.object_),
    inference.GRAMMAR: ("BYTES", np.object_),
}


@dataclass
class Answer:
    """What came back for one question."""

    pieces: list[str] = field(default_factory=list)
    reason: str = ""
    prompt_tokens: int = 0
    first_prompt_tokens: int | None = None
    """As the first response has it."""
    tokens: int = 0
    error: str = ""
    begun_at: float = field(default_factory=time.monotonic)
    ended_at: float = 0.0
    came_at: list[float] = field(default_factory=list)
    """When each piece came, monotonic seconds."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Client:
    """One stream; questions are told apart by their ids."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = triton.InferenceServerClient(address)
        self._results: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._open: dict[str, Answer] = {}
        self._next = 0

    def __enter__(self) -> "Client":
        self._client.start_stream(callback=lambda result, error: self._results.put((result, error)))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._client.stop_stream(cancel_requests=True)
        self._client.close()

    def __call__(self, prompt: str | bytes | None = None, **given: Any) -> Answer:
        """Ask one question and wait for the whole answer."""
        (answer,) = self.all([{"prompt": prompt, **given}])
        return answer

    def all(self, questions: list[dict[str, Any]]) -> list[Answer]:
        """Ask all at once; answers in order."""
        answers = [self.begin(**question) for question in questions]
        while self._open:
            self.take()
        return answers

    def begin(self, prompt: str | bytes | None = None, request_id: str = "", **given: Any) -> Answer:
        """Ask; the answer fills while `take` runs. Lists and objects are sent as JSON."""
        self._next += 1
        request_id = request_id or str(self._next)
        answer = self._open[request_id] = Answer()
        values = given if prompt is None else {inference.PROMPT: prompt, **given}
        inputs = [
            _tensor(name, json.dumps(value) if isinstance(value, list | dict) else value)
            for name, value in values.items()
        ]
        self._client.async_stream_infer(
            inference.MODEL_NAME, inputs, request_id=request_id, enable_empty_final_response=True
        )
        return answer

    def take(self) -> None:
        """Take one response."""
        result, error = self._results.get(timeout=SECONDS)
        if error is not None:
            # The client library tells errors without a request id: in these tests only one question is then open.
            (number,) = self._open
            answer = self._open.pop(number)
            answer.error, answer.ended_at = str(error), time.monotonic()
            return
        response = result.get_response()
        answer = self._open[response.id]
        if response.outputs:
            answer.came_at.append(time.monotonic())
            answer.pieces.append(result.as_numpy(inference.TEXT)[0].decode())
            answer.reason = result.as_numpy(inference.FINISH_REASON)[0].decode()
            answer.prompt_tokens = int(result.as_numpy(inference.PROMPT_TOKENS)[0])
            if answer.first_prompt_tokens is None:
                answer.first_prompt_tokens = answer.prompt_tokens
            answer.tokens = int(result.as_numpy(inference.COMPLETION_TOKENS)[0])
        if response.parameters["triton_final_response"].bool_param:
            answer.ended_at = time.monotonic()
            del self._open[response.id]

    def take_refusal(self) -> str:
        """Wait for an error, and return it, whichever of the open questions it ends; answers on the way are dropped."""
        error = None
        while error is None:
            _, error = self._results.get(timeout=SECONDS)
        return str(error)

    @property
    def waiting(self) -> int:
        """Questions that have not been answered whole."""
        return len(self._open)

    def take_until_ended(self, answer: Answer) -> Answer:
        """Take responses until this answer is whole or has failed; return it."""
        while not answer.ended_at:
            self.take()
        return answer

    def hang_up(self) -> None:
        """Cancel all that is open and start afresh."""
        self._client.stop_stream(cancel_requests=True)
        self._open.clear()
        self._results = queue.Queue()
        self._client.start_stream(callback=lambda result, error: self._results.put((result, error)))


def _tensor(name: str, value: Any) -> Any:
    kind, dtype = _TYPES[name]
    if kind == "BYTES" and isinstance(value, str):
        value = value.encode()
    tensor = triton.InferInput(name, [1], kind)
    tensor.set_data_from_numpy(np.array([value], dtype=dtype))
    return tensor
