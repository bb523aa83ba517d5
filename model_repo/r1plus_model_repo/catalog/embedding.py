"""Engines of kind embedding: R1PlusEngines that turn texts into vectors, in the pod of a tenant's gateway.

Triton does not load them, and no golden suite judges them: they have no tier, batch and reference. Which of the two
kinds a spec is, its field `kind` says; `read_spec` is the only place that asks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter, model_validator

from r1plus_model_repo.catalog.types import (
    GENERATION_ONLY,
    Artifact,
    Backend,
    EngineKind,
    EngineSpec,
    Family,
    Precision,
    Requirements,
    Version,
)
from r1plus_model_repo.catalog.wire import WHOLE, ApiModel

MOST_DIMENSIONS = 4096
MOST_TOKENS = 8192


class EmbeddingShape(ApiModel):
    """What an embedding engine gives, and what of a text it reads."""

    dimensions: Annotated[int, Field(ge=1, le=MOST_DIMENSIONS), WHOLE] = Field(description="Numbers of a vector.")
    most_tokens: Annotated[int, Field(ge=16, le=MOST_TOKENS), WHOLE] = Field(
        description="Tokens of the longest text that is read whole."
    )
    parameters: Annotated[int, Field(ge=1, le=10**13), WHOLE] = Field(description="Number of weights.")


class EmbeddingEngineSpec(ApiModel):
    """R1PlusEngine.spec of kind embedding."""

    kind: Literal[EngineKind.EMBEDDING] = Field(description="What it does.")
    family: Family
    version: Version
    precision: Precision
    backend: Literal[Backend.OPENVINO] = Field(description="Runtime of the engine.")
    artifact: Artifact = Field(description="Image with the files, and their digest.")
    requirements: Requirements = Field(description="Memory and CPU of the container that runs it.")
    embedding: EmbeddingShape = Field(description="What an engine of kind embedding gives.")

    @property
    def files(self) -> Artifact:
        """The artifact, as of an engine of the other kind."""
        return self.artifact

    @model_validator(mode="before")
    @classmethod
    def _refuse_generation(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if foreign := [name for name in GENERATION_ONLY if value.get(name) is not None]:
            raise ValueError(f"{', '.join(foreign)}: must be absent with kind embedding; leave them out")
        return {key: item for key, item in value.items() if key not in GENERATION_ONLY}

    @model_validator(mode="after")
    def _check(self) -> "EmbeddingEngineSpec":
        if self.artifact.image is None:
            raise ValueError("artifact.image is required with kind embedding: the gateway's pod copies it from there")
        if self.requirements.gpu is not None:
            raise ValueError("requirements.gpu must be absent with backend openvino, which runs on CPU")
        return self


@dataclass(frozen=True, slots=True)
class EmbeddingEngine:
    """Name and spec of an R1PlusEngine of kind embedding."""

    name: str
    spec: EmbeddingEngineSpec

    @property
    def identity(self) -> str:
        """NAME@sha256:DIGEST: vectors of two engines are not comparable."""
        return f"{self.name}@sha256:{self.spec.artifact.sha256}"


def _read_kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return EngineKind.EMBEDDING if kind == EngineKind.EMBEDDING else EngineKind.GENERATION


AnyEngineSpec = Annotated[
    Annotated[EngineSpec, Tag(EngineKind.GENERATION)] | Annotated[EmbeddingEngineSpec, Tag(EngineKind.EMBEDDING)],
    Discriminator(_read_kind),
]
SPEC: TypeAdapter[EngineSpec | EmbeddingEngineSpec] = TypeAdapter(AnyEngineSpec)


def read_spec(value: Any) -> EngineSpec | EmbeddingEngineSpec:
    """Read a spec of either kind.

    Raises:
        ValidationError: of pydantic, for the kind that the spec says it is.
    """
    return select_model(value).model_validate(value)


def select_model(value: Any) -> type[EngineSpec] | type[EmbeddingEngineSpec]:
    """Return the model of the kind that a spec says it is."""
    return EmbeddingEngineSpec if _read_kind(value) == EngineKind.EMBEDDING else EngineSpec
