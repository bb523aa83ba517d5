"""What to do about a problem, as values: plan and gateway name a remedy, and each front words it.

Conditions of a cluster name `kubectl` and `r1plus`, those of one machine its files and `r1plus serve`. A text is worded
where it is made, by the wording of the front that reads it; nobody rewrites a text.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from r1plus_contract.gateway import GATEWAY, GATEWAY_KEY, DataState
from r1plus_contract.requests import Verb, format_command


class Remedy(StrEnum):
    """A step that ends a problem, or shows its cause. A comment names the values that its words have."""

    ACKNOWLEDGE = "Acknowledge"
    RESUME = "Resume"
    RESUME_DEPLOYMENT = "ResumeDeployment"  # name, namespace
    UNPIN = "Unpin"
    ROLL_BACK = "RollBack"
    ROLL_BACK_TO = "RollBackTo"  # target
    ROLL_BACK_FASTER = "RollBackFaster"  # target
    READ_RUNBOOK = "ReadRunbook"  # url
    READ_LOG = "ReadLog"  # container
    READ_LOG_OF_POD = "ReadLogOfPod"  # namespace, pod, container
    READ_LOG_BEFORE = "ReadLogBefore"  # pod, container
    LOWER_LOAD = "LowerLoad"
    ADD_POD = "AddPod"
    ADD_NODE = "AddNode"
    PROVIDE_TRAINER = "ProvideTrainer"
    PROVIDE_ENGINE = "ProvideEngine"
    PROVIDE_TORCH = "ProvideTorch"
    PROVIDE_RUNTIME = "ProvideRuntime"  # backend, setting
    PROVIDE_SUITE = "ProvideSuite"  # name, label
    # Of a tenant's data; each has the value `problem`.
    ENLARGE_VOLUME = "EnlargeVolume"
    MOUNT_VOLUME = "MountVolume"
    ALLOW_WRITES = "AllowWrites"
    END_OTHER_GATEWAY = "EndOtherGateway"
    RESTORE_BACKUP = "RestoreBackup"
    RESTORE_FILE_AND_RING = "RestoreFileAndRing"
    RESTORE_DATABASE_AND_RING = "RestoreDatabaseAndRing"
    RESTORE_RING = "RestoreRing"
    REPLACE_RING = "ReplaceRing"
    RESTORE_KEY = "RestoreKey"
    RESTORE_USED_KEY = "RestoreUsedKey"  # halves
    REPLACE_KEY = "ReplaceKey"
    REMOVE_OLD_KEY = "RemoveOldKey"
    RESTORE_TENANT = "RestoreTenant"
    USE_OWN_DATA = "UseOwnData"
    RUN_NEWER_GATEWAY = "RunNewerGateway"
    CONFIRM_TIME = "ConfirmTime"  # hours


LARGEST_NODE: Final = "LargestNode"
"""Not a remedy, but worded like one: the owner of the memory that an engine is fitted into."""
Wording = Mapping[str, str]
"""A front's words: remedy -> text with its values in braces; empty text: the front has no such remedy."""

_FROM_EXPORT: Final = "from the recovery export: r1plus tenant init --from FILE"

CLUSTER: Final[Wording] = {
    Remedy.ACKNOWLEDGE: format_command(Verb.ACK),
    Remedy.RESUME: format_command(Verb.RESUME),
    Remedy.RESUME_DEPLOYMENT: format_command(Verb.RESUME, "{name} -n {namespace}"),
    Remedy.UNPIN: format_command(Verb.UNPIN),
    Remedy.ROLL_BACK: format_command(Verb.ROLLBACK),
    Remedy.ROLL_BACK_TO: f"{format_command(Verb.ROLLBACK)} goes back to {{target}} by hand",
    Remedy.ROLL_BACK_FASTER: (
        "It first repeats the suite on {target}, which takes minutes; to go back in seconds, apply the spec of {target}"
        " again (`r1plus history NAME -n NAMESPACE` shows whether its Pass still counts)"
    ),
    Remedy.READ_RUNBOOK: "runbook: {url}",
    Remedy.READ_LOG: "`kubectl logs -c {container}`",
    Remedy.READ_LOG_OF_POD: "`kubectl logs -n {namespace} {pod} -c {container}`",
    Remedy.READ_LOG_BEFORE: "`kubectl logs {pod} -c {container} --previous`",
    Remedy.LOWER_LOAD: "raise spec.replicas or lower the batch",
    Remedy.ADD_POD: "raise spec.replicas, or check why the others are not Ready",
    Remedy.ADD_NODE: "add a larger node",
    Remedy.PROVIDE_TRAINER: (
        "is trained by a Job, but this installation names no image with torch; set the chart's images.trainer to an"
        " image with r1plus[cli,engine,distil]"
    ),
    Remedy.PROVIDE_ENGINE: (
        "name its image and digest in the chart's images.engines and engineDigests, or register an R1PlusEngine with"
        " spec.artifact"
    ),
    Remedy.PROVIDE_TORCH: "name a Triton image with torch in the chart's images.cpu.torch",
    Remedy.PROVIDE_RUNTIME: "name a Triton image with {backend} in the chart's {setting}",
    Remedy.PROVIDE_SUITE: ", and this namespace has no ConfigMap {name} with the label {label}; available suites",
    LARGEST_NODE: "the largest matching node",
    Remedy.ENLARGE_VOLUME: f"{{problem}}. Enlarge the volume (PersistentVolumeClaim {GATEWAY}), or PostgreSQL's",
    Remedy.MOUNT_VOLUME: "{problem}. The operator mounts the tenant's volume there",
    Remedy.ALLOW_WRITES: "{problem}. Mount the volume so that the gateway's user can write it",
    Remedy.END_OTHER_GATEWAY: (
        "{problem}, look for a second pod that mounts this volume. Several replicas need PostgreSQL"
        " (spec.gateway.database)"
    ),
    Remedy.RESTORE_BACKUP: "{problem}. Restore the tenant's last backup",
    Remedy.RESTORE_FILE_AND_RING: "{problem}. Restore the tenant's last backup, file and key ring together",
    Remedy.RESTORE_DATABASE_AND_RING: (
        "{problem}. Restore database and key ring together, or the last backup into a new volume or database"
    ),
    Remedy.RESTORE_RING: "{problem}. Restore the file from a backup of the volume",
    Remedy.REPLACE_RING: "{problem}. Restore it from a backup of the volume",
    Remedy.RESTORE_KEY: f"{{problem}}: Secret {GATEWAY_KEY} is missing or empty. Restore it {_FROM_EXPORT}",
    Remedy.RESTORE_USED_KEY: (
        f"No half in Secret {GATEWAY_KEY} ({{halves}}) opens the tenant's data: {{problem}}. Restore the half that was"
        f" last in use {_FROM_EXPORT}"
    ),
    Remedy.REPLACE_KEY: f"{{problem}}. Restore Secret {GATEWAY_KEY} {_FROM_EXPORT}",
    Remedy.REMOVE_OLD_KEY: f"{{problem}}. Remove the oldest from Secret {GATEWAY_KEY}",
    Remedy.RESTORE_TENANT: (
        "{problem}. Mount the volume, or name the database, of this tenant; another tenant's data cannot be taken over"
    ),
    Remedy.USE_OWN_DATA: "{problem}. Use the volume or the database of this tenant",
    Remedy.RUN_NEWER_GATEWAY: (
        "{problem}. Run the newer gateway, or restore a backup that is older than its first start"
    ),
    Remedy.CONFIRM_TIME: (
        "{problem}. Then, or if it is right, run `r1plus tenant confirm-time`. Without that it is believed after"
        " {hours} more hours of running"
    ),
}
"""The words of conditions that `kubectl` shows."""
_WORDING: Final[ContextVar[Wording]] = ContextVar("wording", default=CLUSTER)


@contextmanager
def use_wording(wording: Wording) -> Iterator[None]:
    """Word remedies for a front while the context is open."""
    token = _WORDING.set(wording)
    try:
        yield
    finally:
        _WORDING.reset(token)


def word(remedy: str, **values: str) -> str:
    """Return the words of a remedy for the front that reads; empty: that front has none."""
    return _WORDING.get()[remedy].format(**values)


def append_remedy(text: str, remedy: str, separator: str = "; ", **values: str) -> str:
    """Return the text with a remedy after it, if the front that reads has words for it."""
    words = word(remedy, **values)
    return f"{text}{separator}{words}" if words else text


@dataclass(frozen=True, slots=True)
class DataProblem:
    """A problem of a tenant's data and its remedy, which travel as values to the front that words them."""

    remedy: Remedy
    values: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return CLUSTER[self.remedy].format(**self.values)


def word_data_state(state: DataState, wording: Wording) -> str:
    """Return what a gateway says of its data, in the words of a front."""
    if state.remedy not in wording:
        return state.message
    text = wording[state.remedy].format(**state.values)
    return f"{text}. {state.consequence}" if state.consequence else text
