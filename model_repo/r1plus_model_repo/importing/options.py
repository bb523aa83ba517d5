"""What whoever imports an engine says of it, and what cannot be said together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_model_repo.importing.model import BACKENDS, OPENVINO, TENSORRT_LLM, VLLM

GPUS: Final = "spec.requirements.gpu.count"
PRODUCTS: Final = "spec.requirements.gpu.products"
STEP: Final = "spec.build.maxNumTokens"
_UNKNOWN_TO: Final = {OPENVINO: (GPUS, PRODUCTS, STEP), VLLM: (STEP,)}
"""Backend -> fields that it has not."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options say of the engine; None: what suits its backend."""

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
    gpu_products: tuple[str, ...] = ()
    max_num_tokens: int | None = None


class WishError(ValueError):
    """Options that make no R1PlusEngine; one problem a line."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def check_backend(wish: Wish) -> None:
    """WishError where there is no such backend, or it knows no such options; asked before anything is read."""
    if wish.backend not in BACKENDS:
        raise WishError((f"spec.backend: {wish.backend!r:.40} is not one of {', '.join(BACKENDS)}",))
    said: Mapping[str, object] = {
        GPUS: wish.gpus,
        PRODUCTS: wish.gpu_products or None,
        STEP: wish.max_num_tokens,
    }
    problems = [
        f"{name}: {said[name]}: the backend {wish.backend} has none; leave it out"
        for name in _UNKNOWN_TO.get(wish.backend, ())
        if said[name] is not None
    ]
    if wish.backend == TENSORRT_LLM and wish.gpus not in (None, 1):
        problems.append(f"{GPUS}: {wish.gpus}: {wish.backend} is served on one GPU; leave it out, or take vllm")
    if problems:
        raise WishError(tuple(problems))
