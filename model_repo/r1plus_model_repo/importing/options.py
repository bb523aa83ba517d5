"""Options of an import, and the combinations that are not allowed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_model_repo.catalog.types import VLLM_ON_CPU
from r1plus_model_repo.importing.model import BACKENDS, OPENVINO, TENSORRT_LLM, TORCH, VLLM

GPUS: Final = "spec.requirements.gpu.count"
PRODUCTS: Final = "spec.requirements.gpu.products"
STEP: Final = "spec.build.maxNumTokens"
_UNSUPPORTED_FIELDS: Final = {
    OPENVINO: (GPUS, PRODUCTS, STEP),
    VLLM: (STEP,),
    TORCH: (GPUS, PRODUCTS, STEP),
}
"""Backend -> fields that it does not support."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the options say of the engine; None: the default of its backend."""

    name: str
    tier: str
    family: str
    version: str = "1.0.0"
    image: str | None = None
    suite: str | None = None
    inherited_from: str | None = None
    cpu: str = "2"
    best_batch: int | None = None
    max_batch: int | None = None
    weights_memory: str | None = None
    runtime_memory: str | None = None
    backend: str = OPENVINO
    gpus: int | None = None
    """0: vllm runs on CPU."""
    gpu_products: tuple[str, ...] = ()
    max_num_tokens: int | None = None
    sparse_threshold: float | None = None
    """XAttention's; None: prompts are read densely."""
    eviction: tuple[int, int, int] | None = None
    """Tokens of a request that stay in the KV cache: the first, the newest, and in all. None: all."""

    @property
    def runtime(self) -> str:
        """Name of the runtime, as `EngineSpec.runtime` has it: vLLM without GPUs runs on CPU."""
        return VLLM_ON_CPU if self.backend == VLLM and self.gpus == 0 else self.backend

    @property
    def attention(self) -> dict[str, object] | None:
        """`spec.attention`; None: every token attends to all before it."""
        fields: dict[str, object] = {}
        if self.sparse_threshold is not None:
            fields["sparse"] = {"threshold": self.sparse_threshold}
        if self.eviction is not None:
            fields["eviction"] = dict(zip(("startTokens", "recentTokens", "maxTokens"), self.eviction, strict=True))
        return fields or None


class ImportOptionsError(ValueError):
    """Options that do not make a valid R1PlusEngine; one problem a line."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def check_backend(options: ImportOptions) -> None:
    """Raise ImportOptionsError for an unknown backend or for options that it does not support."""
    if options.backend not in BACKENDS:
        raise ImportOptionsError((f"spec.backend: {options.backend!r:.40} is not one of {', '.join(BACKENDS)}",))
    values: Mapping[str, object] = {
        GPUS: options.gpus,
        PRODUCTS: options.gpu_products or None,
        STEP: options.max_num_tokens,
    }
    problems = [
        f"{name}: {values[name]}: the backend {options.backend} does not support it; omit it"
        for name in _UNSUPPORTED_FIELDS.get(options.backend, ())
        if values[name] is not None
    ]
    if options.backend == TENSORRT_LLM and options.gpus not in (None, 1):
        problems.append(f"{GPUS}: {options.gpus}: {options.backend} is served on one GPU; omit it, or use vllm")
    if options.runtime == VLLM_ON_CPU and options.gpu_products:
        problems.append(f"{PRODUCTS}: {', '.join(options.gpu_products)}: without GPUs it runs on CPU; omit one of both")
    if problems:
        raise ImportOptionsError(tuple(problems))
