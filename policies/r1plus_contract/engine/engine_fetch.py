"""The order of a Job that fetches an engine to a volume, and its progress and result.

Written by the operator (`plan.tenancy.volumes`), read by `r1plus_model_repo.engine_fetch` in the Job's pod, and back.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ORDER_FILE: Final = "order.json"
"""In the Job's ConfigMap: a `FillOrder`."""
CA_FILE: Final = "ca.pem"
"""In the same ConfigMap: certificates of the CAs for the archive's server; absent: those that the image trusts."""
PROXY_FILE: Final = "proxy"
"""In the same ConfigMap: `http://HOST:PORT` of the proxy for the archive; absent: straight from its server."""
PROGRESS_PATH: Final = "/progress"
"""Where the Job's pod answers with a `FillProgress`."""
ENGINE_FOLDER: Final = "engine"
"""Folder of the volume, and of the archive, that holds the engine's files."""
SIGNATURE_FILE: Final = "model.sig"
"""Next to `engine/`, where the files are signed: a bundle of the OpenSSF Model Signing format."""
INCOMING_FOLDER: Final = ".incoming"
"""Folder of the volume to which both are copied out of an engine's image before they are verified."""
CHECKPOINT_FOLDER: Final = ".checkpoint"
"""Folder of the volume with the verified files of an engine that is yet to be built, below `engine/`."""
BUILT_PREFIX: Final = ".built-"
"""Prefix of the folder of a build, completed by the name of its pod: two pods never write into the same one."""
CHECKPOINT_PART, TOKENIZER_PART, PLAN_PART = "checkpoint", "tokenizer", "plan"
"""Folders below `engine/`: of an artifact that is to be built the first two, of what was built the last two."""
TEACHER_PART, DATA_PART, STUDENT_PART = "teacher", "data.jsonl", "student"
"""Parts of `engine/` of an artifact from which a student is distilled; the last one is optional."""
TRAINING_FOLDER: Final = ".training"
"""Folder of the volume with an unfinished distillation. It outlives the Job's pods, until there is an engine."""
BUILT_FILE: Final = "built.json"
"""Next to those of a built engine: a `BuildRecord`."""
EXIT_RETRYABLE, EXIT_PERMANENT = 1, 2
"""Exit codes: a retry may help, and it will not."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An engine as one file on an https server: a tar (plain, gzip, bzip2 or xz) with the folder `engine/`."""

    url: str
    sha256: str
    """Of the fetched file, 64 hex digits."""


@dataclass(frozen=True, slots=True)
class DistillationOptions:
    """What decides the student, in addition to the artifact's files. The values are those of `spec.build.distill`."""

    layers: int | None
    """Of the teacher, that the student keeps; None: the artifact has a student of its own."""
    temperature: float
    hard_weight: float
    steps: int
    batch: int
    length: int
    learning_rate: float
    top: int
    training_precision: str
    seed: int
    backend: str
    """That serves the student."""
    precision: str
    """Of the served weights."""


@dataclass(frozen=True, slots=True)
class Build:
    """What to build from the files: an engine for the GPU that will serve it, or a student of a teacher."""

    key: str
    """`gpu_build.Recipe.key` or `distillation_build.compute_key`, 64 hex digits: all that the result depends on."""
    gpu_product: str
    """As the node label `nvidia.com/gpu.product` says; empty: it is distilled, on CPU."""
    distill: DistillationOptions | None = None
    """None: the runtime's own builder builds it."""
    storage: int = 0
    """Bytes for the work of a distillation. The result does not depend on it."""


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """What was built: the contents of `built.json`."""

    key: str
    source: str
    """Digest of the source files, as the R1PlusEngine declares it."""
    gpu_product: str
    files: str
    """`digest_listing` of all other files below `engine/`: no two builds have the same bytes."""


@dataclass(frozen=True, slots=True)
class FillOrder:
    """Which engine belongs on the volume."""

    engine: str
    """Name of the R1PlusEngine."""
    digest: str
    """`r1plus_contract.engine.delivery.digest_folder` its files, 64 hex digits."""
    size: int
    """Most bytes that the files take."""
    archive: Archive | None = None
    """None: an init container has copied them out of the engine's image."""
    keys: tuple[str, ...] | None = None
    """Public keys (PEM) of which one must have signed them; None: no signature needed."""
    build: Build | None = None
    """None: the files are served as they are."""


class FillPhase(StrEnum):
    """State of the Job."""

    WAITING = "Waiting"
    """Another Job fills the same volume."""
    FETCHING = "Fetching"
    VERIFYING = "Verifying"
    BUILDING = "Building"
    """On the GPU, by the runtime's own builder, which reports no progress."""
    PREDICTING = "Predicting"
    """The teacher predicts the data."""
    TRAINING = "Training"
    IMPORTING = "Importing"
    """The student becomes an engine."""
    DONE = "Done"


@dataclass(frozen=True, slots=True)
class FillProgress:
    """Progress of the Job."""

    phase: FillPhase
    done: int = 0
    total: int = 0
    """Bytes, while it trains steps, while the teacher predicts examples; 0: unknown."""
    loss: float | None = None
    """Of the last step; None: it does not train."""
    seconds_left: int | None = None
    """Estimate for the training; None: unknown."""

    @property
    def percent(self) -> int | None:
        """Of the total; None where it is unknown."""
        return min(100, 100 * self.done // self.total) if self.total else None


class FillRefusal(StrEnum):
    """Why a volume holds no engine: the word before the colon of the Job's termination message."""

    STORAGE_FULL = "StorageFull"
    STORAGE_FAILED = "StorageFailed"
    """The volume failed a write for another reason."""
    FETCH_FAILED = "FetchFailed"
    """The server did not send the whole file; a retry may help."""
    FETCH_STALLED = "FetchStalled"
    FETCH_REFUSED = "FetchRefused"
    """A forbidden address."""
    ENGINE_DIGEST_MISMATCH = "EngineDigestMismatch"
    ENGINE_INVALID = "EngineInvalid"
    BUILD_FAILED = "BuildFailed"
    """The builder left no engine."""
    TRAINING_REFUSED = "TrainingRefused"
    """The student cannot be trained as it is asked for, or the training diverged."""
    TRAINING_STOPPED = "TrainingStopped"
    """The training was interrupted; a retry goes on from its last checkpoint."""
    SIGNATURE_INVALID = "SignatureInvalid"
    """No trusted key has signed the files."""
