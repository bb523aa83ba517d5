"""What a release consists of: its lock, which is signed, and the predicates of what is signed about each artifact."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from r1plus_cli.bundle.oci import Descriptor
from r1plus_model_repo.engine_fetch.sigstore import STATEMENT_TYPE

LOCK_NAME = "r1plus-release"
LOCK_TYPE = "application/vnd.r1plus.release.lock.v1+json"
LOCK_FORMAT = 1
"""Format of the lock that this version reads and writes."""
SIGNATURE_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
SBOM_PREDICATE = "https://spdx.dev/Document"
PROVENANCE_PREDICATE = "https://slsa.dev/provenance/v1"
CHART_REPOSITORY = "charts/r1plus-operator"


class ArtifactKind(StrEnum):
    """Kinds of artifacts."""

    IMAGE = "image"
    CHART = "chart"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReleaseArtifact(_Entry):
    """One image or chart."""

    name: str = Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=128)
    kind: ArtifactKind
    repository: str = Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$", max_length=200)
    """Repository below the registry and prefix that it is pushed to."""
    tag: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """Digest of its manifest or index."""
    platforms: tuple[str, ...] = ()
    """Platforms such as linux/amd64, for an image."""


class ReleaseFile(_Entry):
    """A file of the bundle beside the OCI layout."""

    name: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)


class ReleaseLock(_Entry):
    """Everything that a release consists of, by digest."""

    format: int = LOCK_FORMAT
    version: str = Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([.+-][0-9A-Za-z.+-]+)?$", max_length=64)
    artifacts: tuple[ReleaseArtifact, ...]
    files: tuple[ReleaseFile, ...] = ()

    @property
    def chart(self) -> ReleaseArtifact:
        """The operator's chart."""
        return next(artifact for artifact in self.artifacts if artifact.kind is ArtifactKind.CHART)


class LockFormat(BaseModel):
    """The only field of a lock that every version can read."""

    model_config = ConfigDict(extra="ignore")
    format: int


class StatementSubject(BaseModel):
    """What a statement is about."""

    digest: dict[str, str]


class Statement(BaseModel):
    """The parts of an in-toto statement that are verified."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate_type: str = Field(alias="predicateType")
    subject: tuple[StatementSubject, ...]


def build_statement(subject: Descriptor, predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    """Return the in-toto statement about an artifact, as cosign writes it."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"digest": {"sha256": subject.digest.removeprefix("sha256:")}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
