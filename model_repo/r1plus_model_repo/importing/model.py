"""A model to import, whatever form it comes in, and what an engine's catalog entry says of it.

Everything that can be read is read; nothing is written here. What the files do not tell is asked for by an option.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_model_repo.catalog.types import Backend
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.kv_shape import KvShape

OPENVINO, VLLM, TENSORRT_LLM = (b.value for b in (Backend.OPENVINO, Backend.VLLM, Backend.TENSORRT_LLM))
BACKENDS: Final = (OPENVINO, VLLM, TENSORRT_LLM)
"""Whose engines are made."""
STEP_TOKENS: Final = 8192
"""Tokens of all requests in one step: trtllm-build's own default, and what activations are estimated for."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What the options say of the model: needed where it does not say it itself, refused where it says otherwise."""

    context_length: int | None = None
    """May be less than the model's."""
    parameters: int | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class OnGpu:
    """What else is known of a model for GPUs."""

    backend: str
    heads: int
    """Of queries; those of keys and values are in the shape."""
    hidden: int
    intermediate: int
    """Widths of the residual and of what the feed-forward layers make of it; activations are estimated of them."""
    window: int | None = None
    global_layers: int | None = None
    kv_precision: str | None = None
    """None: FP16."""
    built: bool = False
    """A plan of TensorRT-LLM instead of a checkpoint."""
    step_tokens: int | None = None
    most_batch: int | None = None
    """Of a plan: what it was built for."""


@dataclass(frozen=True, slots=True)
class Model:
    """What an engine's catalog entry says of the model, and the files that it is made from."""

    source: Path
    files: tuple[str, ...]
    """Of a folder; empty for a GGUF file."""
    shape: KvShape
    context_length: int
    parameters: int
    precision: str
    weights_bytes: int
    notes: tuple[str, ...] = ()
    gpu: OnGpu | None = None
    """None: it is for openvino."""


@dataclass(slots=True)
class Findings:
    """What goes wrong, and what should be known, while one model is read."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def stop(self, source: Path) -> None:
        """WeightsError with every problem so far, if there is one."""
        if self.problems:
            raise WeightsError(str(source), tuple(dict.fromkeys(self.problems)))

    def context(self, said: int | None, known: int | None, why: str = "what the model was trained for") -> int:
        """`--context` where the model allows it, else the model's own; `why` it is that."""
        if said is None and known is None:
            self.problems.append(
                "--context: no config.json says it (max_position_embeddings); give the model's context length"
            )
        if said is not None and known is not None and said > known:
            self.problems.append(f"--context: {said} exceeds {known}, {why}; give at most that")
        return said or known or 0

    def agrees(self, claims: Claims, parameters: int | None, precision: str | None) -> None:
        """Options that say again what was read must say the same."""
        for option, said, found in (
            ("--parameters", claims.parameters, parameters),
            ("--precision", claims.precision, precision),
        ):
            if said is not None and found is not None and said != found:
                self.problems.append(f"{option}: {said} is not what the file holds, {found}; leave the option out")
