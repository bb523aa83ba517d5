"""Documents of the OCI image specification 1.1, as far as a release has them: descriptors, manifests and indexes."""

import hashlib
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r1plus_cli.errors import UsageError

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
"""Annotation of an entry of a layout's index.json: the name of the artifact."""
MAX_DOCUMENT_BYTES = 4 * 2**20
"""Largest manifest or index that registries take."""
_DIGEST = r"^sha256:[0-9a-f]{64}$"
Model = TypeVar("Model", bound=BaseModel)


class _Document(BaseModel):
    """A document of which fields that this version does not know are ignored, as the specification asks."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Platform(_Document):
    """Operating system and processor that an image runs on."""

    os: str
    architecture: str


class Descriptor(_Document):
    """Reference to a blob by digest and size."""

    media_type: str = Field(alias="mediaType")
    digest: str = Field(pattern=_DIGEST)
    size: int = Field(ge=0)
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    artifact_type: str | None = Field(default=None, alias="artifactType")


class Manifest(_Document):
    """An image manifest, or an index (then it has `manifests` in place of `config` and `layers`)."""

    media_type: str = Field(default=INDEX_TYPE, alias="mediaType")
    artifact_type: str | None = Field(default=None, alias="artifactType")
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers."""
        return (*(() if self.config is None else (self.config,)), *self.layers)


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Return a manifest or index. Raise UsageError that names it if it is none."""
    return parse_document(Manifest, data, name)


def parse_document(model: type[Model], data: bytes, name: str) -> Model:
    """Return `data` as a model. Raise UsageError with the first wrong field."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise UsageError(f"{name}: {field}: {first['msg']}; fetch the bundle again") from error


def describe(data: bytes, media_type: str, **fields: Any) -> Descriptor:
    """Return the descriptor of a document."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Descriptor(media_type=media_type, digest=digest, size=len(data), **fields)
