"""An engine for GPUs in its loop, on a stand-in for its library: what one test of all backends needs to know of each."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.requests import GenerationRequest
from support.model_repo.fake_engine import FakeClient, LoopStage
from support.model_repo.stand_in_transformers import fresh


class GpuStage(LoopStage):
    """A backend's adapter. `library` is the stand-in's engine, with `asked`, `running`, `largest`, `cancelled`, `closed`."""

    name: ClassVar[str]
    parameters: ClassVar[Mapping[str, str]]
    """Of a small engine: a batch of 2, a context of 128."""
    counted_ends: ClassVar[int]
    """Whether the library gives out the token that ends an answer: 1 or 0."""
    first_id: ClassVar[Any]
    """The library's id of the first request."""
    sampled: ClassVar[Mapping[str, tuple[GenerationRequest, Any]]]
    """What is asked, at most 9 new tokens, and the library's own parameters for it."""
    refusal: ClassVar[str]
    """What is said of parameters that the library refuses."""
    lost: ClassVar[Mapping[str, tuple[Mapping[str, Any], str]]]
    """How the library fails, as fields of the stand-in, and what is said then."""

    def __init__(self, module: Any, **changed: str) -> None:
        """`changed` are parameters of the configuration."""
        parameters = {**self.parameters, **changed}
        self.engine, self.library = self.make(module, module.EngineSettings.from_parameters(parameters))
        super().__init__(self.engine, int(parameters["max_batch"]))

    def ask(self, prompt: str, **given: Any) -> FakeClient:
        """Queue a raw prompt."""
        return self.submit(self.engine.prepare(GenerationRequest(prompt, raw_prompt=True, **given)))

    def answer_all(self) -> None:
        """Ask three questions; check that each is answered whole, with its reason and its counts."""
        texts = ("one", "héllo 🚀", "a")
        clients = [self.ask(text) for text in texts]
        self.run()
        assert [client.text for client in clients] == list(texts)
        assert all("\ufffd" not in piece for client in clients for piece in client.pieces)
        # The token that begins a prompt is counted, and where the library gives it out the one that ends an answer, too.
        ends = [(FinishReason.STOP, tokens + 1, tokens + self.counted_ends) for tokens in (3, 11, 1)]
        assert [client.end for client in clients] == ends
        assert self.meters.counted == {"prompt": 18, "completion": 15 + 3 * self.counted_ends}
        assert self.library.running == {}

    @staticmethod
    def deliver(folder: Path) -> dict[str, str]:
        """Write what an engine's folder must hold; return the parameters that point there."""
        return {}

    @staticmethod
    @abstractmethod
    def modules() -> dict[str, ModuleType]:
        """Return the stand-in's modules by name."""

    @staticmethod
    @abstractmethod
    def make(module: Any, settings: Any) -> tuple[Any, Any]:
        """Return the backend's engine and the library's below it."""

    @staticmethod
    @abstractmethod
    def sampling(module: Any, ask: GenerationRequest) -> Any:
        """Return the library's parameters of one generation of at most 9 tokens."""

    @staticmethod
    @abstractmethod
    def prompt_ids(prompt: Any) -> list[int]:
        """Return the tokens of a prepared job's prompt."""

    @abstractmethod
    def read_constraint(self) -> tuple[str, str] | None:
        """Return the input and the text by which the library constrains the newest request; None if it does not."""


def opened(monkeypatch: pytest.MonkeyPatch, stage: type[GpuStage]) -> Any:
    """Return the backend's module, as it is where its library is installed."""
    return fresh(monkeypatch, f"{stage.name}_engine", stage.modules())
