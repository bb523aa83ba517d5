"""The serving identity: what a score belongs to. Change any part and the score is Unknown again."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1plus_contract.jsonable import dumps, to_jsonable


@dataclass(frozen=True, slots=True)
class ServingIdentity:
    """Everything that can change an answer. Written into the revision's ConfigMap as `identity.json`."""

    engine: str
    """Name of the R1PlusEngine."""
    engine_digest: str
    """sha256 of the delivered engine (`r1plus_contract.engine.delivery.digest_folder`), tokenizer included."""
    config_digest: str
    """sha256 of config.pbtxt."""
    triton_image: str
    batch: int
    """Most requests that run at once."""
    context: int
    """Most tokens of prompt and answer together."""
    gpu_product: str = ""
    """`nvidia.com/gpu.product` of the nodes it may run on; empty on CPU."""

    monitor_image: str = ""
    """Of a revision that a refresh created; empty, and in no document, for any other."""

    def document(self) -> dict[str, Any]:
        """Return the stored form. An older monitor does not know `monitorImage` and rejects unknown fields."""
        document: dict[str, Any] = to_jsonable(self)
        if not self.monitor_image:
            del document["monitorImage"]
        return document

    def digest(self) -> str:
        """Return 64 hex digits; the admission token has it and Triton's readiness probe compares it."""
        return document_digest(self.document())


def document_digest(document: Mapping[str, Any]) -> str:
    """Return the digest of `identity.json` as it is stored, whichever version wrote it."""
    return hashlib.sha256(dumps(dict(document)).encode()).hexdigest()
