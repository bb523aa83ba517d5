"""What the backend torch computes with: the add-on training, which Triton's Python has or lacks.

No other module of the backends imports an add-on.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from r1plus_contract.inference import FinishReason


class StepResult(Protocol):
    """What a step has made for one request."""

    @property
    def request_id(self) -> Hashable:
        """The id that the request was added with."""

    @property
    def token(self) -> int | None:
        """The next token of the answer; None: the request has failed."""

    @property
    def reason(self) -> FinishReason | None:
        """Why the answer ends with this token; None: it goes on."""

    @property
    def failure(self) -> str:
        """Why the request has failed."""


class TokenBatch(Protocol):
    """Requests that a model answers together, step by step."""

    @property
    def cache_bytes(self) -> int:
        """Bytes of the KV cache."""

    def add(self, request_id: Hashable, prompt: Sequence[int], sampling: Any) -> None:
        """Begin a request, whose prompt the next steps read."""

    def remove(self, request_id: Hashable) -> None:
        """Drop a request that has not ended."""

    def step(self) -> Iterable[StepResult]:
        """Write a token of each answer, and read a part of the next prompt."""


@dataclass(frozen=True, slots=True)
class TorchParts:
    """Parts of the add-on training that serve a model."""

    load_model: Callable[[Path], Any]
    """Returns the model of a checkpoint; raises RuntimeError with what is wrong of it."""
    build_batch: Callable[[Any, int, int, Sequence[int]], TokenBatch]
    """Returns a batch of a model, its rows, tokens of context, and ids of tokens that end an answer."""
    build_sampling: Callable[..., Any]
    """Returns how the tokens of a request are chosen: limit, temperature, top_p, repetition_penalty, seed, grammar."""


def load_torch_parts() -> TorchParts:
    """Return the parts of the add-on training.

    Raises:
        ModuleNotFoundError: the add-on, torch or another package that it needs is not installed.
    """
    from r1plus_contract.engine.llama_architecture import ModelError
    from r1plus_model import checkpoint
    from r1plus_model.sampling.continuous_batch import TorchBatch
    from r1plus_model.sampling.token_sampling import TorchSampling

    def load_model(path: Path) -> Any:
        try:
            return checkpoint.load_model(path)
        except ModelError as error:
            raise RuntimeError(str(error)) from error

    return TorchParts(load_model, TorchBatch, TorchSampling)
