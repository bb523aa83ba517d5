"""What a Job that fills a volume with an engine is told, and what it says while it works.

Written by the operator (`plan.volumes`), read by `r1plus_model_repo.filling` in the Job's pod, and back.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ORDER_FILE: Final = "order.json"
"""In the Job's ConfigMap: a `FillOrder`."""
CA_FILE: Final = "ca.pem"
"""Beside it: certificates of the CAs that may vouch for the archive's server; absent: those that the image trusts."""
PROGRESS_PATH: Final = "/progress"
"""Where the Job's pod answers with a `FillProgress`."""
ENGINE_FOLDER: Final = "engine"
"""Folder of the volume, and of the archive, that holds the engine's files."""
SIGNATURE_FILE: Final = "model.sig"
"""Beside it, where somebody vouches for the files: a bundle of the OpenSSF Model Signing format."""
INCOMING_FOLDER: Final = ".incoming"
"""Folder of the volume to which both are copied out of an engine's image before they are looked at."""
AGAIN, FOR_GOOD = 1, 2
"""Exit codes: trying again may help, and it will not."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An engine as one file on an https server: a tar (plain, gzip, bzip2 or xz) with the folder `engine/`."""

    url: str
    sha256: str
    """Of the file as it is fetched, 64 hex digits."""


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


class FillPhase(StrEnum):
    """What the Job is at."""

    WAITING = "Waiting"
    """Another one fills the same volume."""
    FETCHING = "Fetching"
    VERIFYING = "Verifying"
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
    SIGNATURE_INVALID = "SignatureInvalid"
    """Nobody who is trusted vouches for the files."""
