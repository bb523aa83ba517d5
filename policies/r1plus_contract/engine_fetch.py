"""What a Job that fills a volume with an engine is told, and what it says while it works.

Written by the operator (`plan.volumes`), read by `r1plus_model_repo.engine_fetch` in the Job's pod, and back.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ORDER_FILE: Final = "order.json"
"""In the Job's ConfigMap: a `FillOrder`."""
CA_FILE: Final = "ca.pem"
"""Beside it: certificates of the CAs that may vouch for the archive's server; absent: those that the image trusts."""
PROXY_FILE: Final = "proxy"
"""Beside it: `http://HOST:PORT` of the proxy that the archive is fetched through; absent: straight from its server."""
PROGRESS_PATH: Final = "/progress"
"""Where the Job's pod answers with a `FillProgress`."""
ENGINE_FOLDER: Final = "engine"
"""Folder of the volume, and of the archive, that holds the engine's files."""
SIGNATURE_FILE: Final = "model.sig"
"""Beside it, where somebody vouches for the files: a bundle of the OpenSSF Model Signing format."""
INCOMING_FOLDER: Final = ".incoming"
"""Folder of the volume to which both are copied out of an engine's image before they are looked at."""
CHECKPOINT_FOLDER: Final = ".checkpoint"
"""Folder of the volume that holds the proved files of an engine that is yet to be built, below `engine/`."""
BUILT_PREFIX: Final = ".built-"
"""What one pod builds is in a folder of this name and the pod's: two never write into each other's."""
CHECKPOINT_PART, TOKENIZER_PART, PLAN_PART = "checkpoint", "tokenizer", "plan"
"""Folders below `engine/`: of an artifact that is to be built the first two, of what was built the last two."""
BUILT_FILE: Final = "built.json"
"""Beside those of a built engine: a `Built`."""
AGAIN, FOR_GOOD = 1, 2
"""Exit codes: trying again may help, and it will not."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An engine as one file on an https server: a tar (plain, gzip, bzip2 or xz) with the folder `engine/`."""

    url: str
    sha256: str
    """Of the file as it is fetched, 64 hex digits."""


@dataclass(frozen=True, slots=True)
class Build:
    """What is to be made of the files on the GPU that will serve them."""

    key: str
    """`r1plus_model_repo.gpu_build.Recipe.key`, 64 hex digits: of all that the outcome depends on."""
    gpu_product: str
    """As the node label `nvidia.com/gpu.product` says."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was made: the contents of `built.json`."""

    key: str
    source: str
    """Digest of the files that it was made of, as the R1PlusEngine promises it."""
    gpu_product: str
    files: str
    """`digest_of_listing` of all other files below `engine/`: no two builds have the same bytes."""


@dataclass(frozen=True, slots=True)
class FillOrder:
    """Which engine belongs on the volume."""

    engine: str
    """Name of the R1PlusEngine."""
    digest: str
    """`r1plus_contract.delivery.digest_of` its files, 64 hex digits."""
    size: int
    """What the files take at most, bytes."""
    archive: Archive | None = None
    """None: an init container has copied them out of the engine's image."""
    keys: tuple[str, ...] | None = None
    """Public keys (PEM) of which one must have signed them; None: nobody need have."""
    build: Build | None = None
    """None: the files are served as they are."""


class FillPhase(StrEnum):
    """What the Job is at."""

    WAITING = "Waiting"
    """Another one fills the same volume."""
    FETCHING = "Fetching"
    VERIFYING = "Verifying"
    BUILDING = "Building"
    """On the GPU, by the runtime's own builder; it says nothing of how far it is."""
    DONE = "Done"


@dataclass(frozen=True, slots=True)
class FillProgress:
    """How far it is."""

    phase: FillPhase
    done: int = 0
    total: int = 0
    """Bytes; 0: not known."""

    @property
    def percent(self) -> int | None:
        """Of the bytes to fetch; None where their number is not known."""
        return min(100, 100 * self.done // self.total) if self.total else None


class FillRefusal(StrEnum):
    """Why a volume holds no engine: the word before the colon of the Job's termination message."""

    STORAGE_FULL = "StorageFull"
    STORAGE_FAILED = "StorageFailed"
    """The volume took no write, for another reason."""
    FETCH_FAILED = "FetchFailed"
    """The server did not give the whole file; trying again may help."""
    FETCH_STALLED = "FetchStalled"
    FETCH_REFUSED = "FetchRefused"
    """An address that nothing is fetched from."""
    ENGINE_DIGEST_MISMATCH = "EngineDigestMismatch"
    ENGINE_INVALID = "EngineInvalid"
    BUILD_FAILED = "BuildFailed"
    """The builder left no engine."""
    SIGNATURE_INVALID = "SignatureInvalid"
    """Nobody who is trusted vouches for the files."""
