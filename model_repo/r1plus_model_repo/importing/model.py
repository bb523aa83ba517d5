"""A model to import, in any format, and what its catalog entry says of it.

The readers read everything they can and write nothing. Options supply what the files do not say.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_model_repo.catalog.types import Backend
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.kv_shape import KvShape

OPENVINO, VLLM, TENSORRT_LLM, TORCH = (
    b.value for b in (Backend.OPENVINO, Backend.VLLM, Backend.TENSORRT_LLM, Backend.TORCH)
)
BACKENDS: Final = (OPENVINO, VLLM, TENSORRT_LLM, TORCH)
"""Backends for which engines are made."""
STEP_TOKENS: Final = 8192
"""Tokens of all requests in one step: the default of trtllm-build, and the basis of the activation estimate."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What the options say of the model: needed where the files do not say it, rejected where they differ."""

    context_length: int | None = None
    """May be below the model's limit."""
    parameters: int | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class GpuDetails:
    """Further properties of a model whose files are served as they are: for GPUs, or by vLLM or torch on CPU."""

    backend: str
    heads: int
    """Query heads; `Model.shape` has the key/value heads."""
    hidden_size: int
    intermediate: int
    """Widths of the residual stream and of the feed-forward layers, for the activation estimate."""
    window: int | None = None
    global_layers: int | None = None
    kv_precision: str | None = None
    """None: FP16."""
    built: bool = False
    """A TensorRT-LLM plan instead of a checkpoint."""
    step_tokens: int | None = None
    most_batch: int | None = None
    """Limits that a plan was built for."""
    is_sparse: bool = False
    """Only some of the MLP's neurons are active for a token."""


@dataclass(frozen=True, slots=True)
class SourceModel:
    """What a catalog entry says of a model, and the files of which an engine is made."""

    source: Path
    files: tuple[str, ...]
    """Names in the folder; empty for a GGUF file."""
    shape: KvShape
    context_length: int
    parameters: int
    precision: str
    weights_bytes: int
    notes: tuple[str, ...] = ()
    gpu: GpuDetails | None = None
    """None: a model for openvino."""


@dataclass(slots=True)
class ImportFindings:
    """Problems and notes collected while one model is read."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def raise_problems(self, source: Path) -> None:
        """Raise WeightsError with every problem so far, if there is one."""
        if self.problems:
            raise WeightsError(str(source), tuple(dict.fromkeys(self.problems)))

    def choose_context(
        self, requested: int | None, limit: int | None, reason: str = "what the model was trained for"
    ) -> int:
        """Return `--context` if it is within the limit, else the limit. `reason` says where the limit comes from."""
        if requested is None and limit is None:
            self.problems.append(
                "--context: missing, and no config.json has it (max_position_embeddings); give the model's"
                " context length"
            )
        if requested is not None and limit is not None and requested > limit:
            self.problems.append(f"--context: {requested} exceeds {limit}, {reason}; give at most that")
        return requested if requested is not None else limit or 0

    def check_claims(self, claims: Claims, parameters: int | None, precision: str | None) -> None:
        """Check that options that repeat what was read say the same."""
        for option, claim, actual in (
            ("--parameters", claims.parameters, parameters),
            ("--precision", claims.precision, precision),
        ):
            if claim is not None and actual is not None and claim != actual:
                self.problems.append(f"{option}: {claim} differs from the file, which has {actual}; omit the option")
