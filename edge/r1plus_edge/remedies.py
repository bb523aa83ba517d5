"""What the gateway tells a cluster's users to do about their data, as an owner of one machine can do it."""

import re
from collections.abc import Callable
from typing import Final

from r1plus_contract.gateway import GATEWAY, GATEWAY_KEY
from r1plus_edge.data_folder import DataFolder

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
    )
)


def localize(text: str, folder: DataFolder) -> str:
    """Return the message of the gateway's data with remedies that exist on this machine."""
    for pattern, replace in _REPLACEMENTS:
        text = pattern.sub(lambda match, replace=replace: replace(folder, match), text)  # type: ignore[misc]
    return text
