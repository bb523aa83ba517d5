"""What plan and gateway tell a cluster's users to do, as an owner of one machine can do it: without kubectl."""

import re
from collections.abc import Callable
from typing import Final

from r1plus_contract.gateway import GATEWAY, GATEWAY_KEY
from r1plus_contract.requests import Verb
from r1plus_edge.data_folder import DataFolder

_ROLLBACK: Final = (
    rf"`r1plus {Verb.ROLLBACK} [^`]*` goes back to (\S+?) by hand(\. It first repeats .* again)?(?=\.|;|$)"
)
_LOGS: Final = r"`kubectl logs [^`]*?-c ([a-z0-9-]+)[^`]*`"
_IMPORT: Final = (
    "make them with `r1plus engine import`, and give their folder with --engine and their R1PlusEngine with --catalog"
)
_TRAINER: Final = r"is trained by a Job, but this installation names no image with torch; set [^;]*"
_DISTIL: Final = "is trained by a Job of a cluster; train it here with `r1plus engine distill`, then"
_SUITES: Final = "give the folder of one with --suite, or name a shipped one"
_EXPORT: Final = r"Restore [^.]* from the recovery export: r1plus tenant init --from FILE"
_BACKUP: Final = (
    r"Restore the tenant's last backup(, file and key ring together)?"
    r"|Restore database and key ring together, or the last backup into a new volume or database"
)
_COPY: Final = r"Restore (?:the file|it) from a backup of the volume"
_OTHER_TENANT: Final = (
    r"Mount the volume, or name the database, of this tenant; another tenant's data cannot be taken over"
    r"|Use the volume or the database of this tenant"
)
_NEWER: Final = r"Run the newer gateway, or restore a backup that is older than its first start"
_SECOND_GATEWAY: Final = r"look for a second pod that mounts this volume\. Several replicas need PostgreSQL \(\S+\)"
_Replace = Callable[[DataFolder, "re.Match[str]"], str]
_REPLACEMENTS: Final[tuple[tuple[re.Pattern[str], _Replace], ...]] = tuple(
    (re.compile(pattern), replace)
    for pattern, replace in (
        (r"; runbook: \S+", lambda folder, match: ""),
        (r" \(`r1plus history[^`]*` [^)]*\)", lambda folder, match: ""),
        (
            _ROLLBACK,
            lambda folder, match: f"`r1plus serve update` with the engine or file of {match[1]} goes back to it",
        ),
        (
            rf"`r1plus {Verb.ACK} [^`]*`",
            lambda folder, match: f"`r1plus serve stop --data {folder.root}; rm {folder.objects}` and a new start",
        ),
        (rf"`r1plus {Verb.RESUME} [^`]*`", lambda folder, match: _update_without("spec.rollout.paused")),
        (rf"`r1plus {Verb.UNPIN} [^`]*`", lambda folder, match: _update_without("spec.rollout.pinned")),
        (_LOGS, lambda folder, match: f"{folder.logs}/{match[1]}.log"),
        (_TRAINER, lambda folder, match: f"{_DISTIL} {_IMPORT}"),
        (r"; add a larger node", lambda folder, match: ""),  # Who asks for memory says how much it takes.
        (r"the largest matching node", lambda folder, match: "this machine"),
        (r"raise spec\.replicas or lower ", lambda folder, match: "lower "),
        (r"`r1plus tenant confirm-time`", lambda folder, match: f"`r1plus serve confirm-time --data {folder.root}`"),
        (
            rf"Enlarge the volume \(PersistentVolumeClaim {GATEWAY}\), or PostgreSQL's",
            lambda folder, match: f"Make room on the disk of {folder.store}",
        ),
        (_EXPORT, lambda folder, match: f"Put back {folder.secret} from a copy of the data folder"),
        (rf"Secret {GATEWAY_KEY}", lambda folder, match: str(folder.secret)),
        (
            _BACKUP,
            lambda folder, match: (
                f"Stop it, and put back {folder.root} from a copy; or move {folder.store} away, and begin with new data"
            ),
        ),
        (_COPY, lambda folder, match: "Put it back from a copy of the data folder"),
        (
            _OTHER_TENANT,
            lambda folder, match: (
                f"Put back {folder.tenant}, {folder.secret} and {folder.store} from one copy of the data folder"
            ),
        ),
        (
            _NEWER,
            lambda folder, match: (
                f"Serve with the newer r1plus, or put back {folder.root} from a copy that is older than its first start"
            ),
        ),
        (_SECOND_GATEWAY, lambda folder, match: f"look for another process that uses {folder.store}, and end it"),
        (
            r"The operator mounts the tenant's volume there",
            lambda folder, match: f"Stop it, and put back {folder.root} from a copy",
        ),
        (
            r"Mount the volume so that the gateway's user can write it",
            lambda folder, match: f"Let its owner write {folder.store}",
        ),
        (r"raise spec\.replicas, or check why the others are not Ready", lambda folder, match: "see the logs"),
        (
            r"name its image and digest in the chart's .* an R1PlusEngine with spec\.artifact",
            lambda folder, match: _IMPORT,
        ),
        (
            r", or name a Triton image with torch in the chart's images\.cpu\.torch",
            lambda folder, match: ", or install r1plus[torch] where this r1plus is",
        ),
        (
            r", or name a Triton image with \S+( for CPU)? in the chart's images\.(gpu|cpu\.\w+)",
            lambda folder, match: "",
        ),
        (r", and this namespace has no ConfigMap .*; available suites: ", lambda folder, match: f"; {_SUITES}: "),
    )
)


def localize(text: str, folder: DataFolder) -> str:
    """Return a condition's message with remedies that exist on this machine.

    A cluster's requests are annotations, which no one can write here. In place of `r1plus ack`, a new gate measures
    what serves: it follows when what is recorded of the revisions is removed.
    """
    for pattern, replace in _REPLACEMENTS:
        text = pattern.sub(lambda match, replace=replace: replace(folder, match), text)  # type: ignore[misc]
    return text


def _update_without(field: str) -> str:
    return f"`r1plus serve update -f FILE` without {field}"
