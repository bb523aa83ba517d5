"""The words of remedies for the owner of one machine: without kubectl, by files and `r1plus serve`.

A cluster's requests are annotations, which no one can write here. In place of `r1plus ack`, a new gate measures what
serves: it follows when what is recorded of the revisions is removed.
"""

from typing import Final

from r1plus_contract.remedies import LARGEST_NODE, Remedy, Wording
from r1plus_edge.data_folder import DataFolder

_IMPORT: Final = (
    "make them with `r1plus engine import`, and give their folder with --engine and their R1PlusEngine with --catalog"
)


def build_wording(folder: DataFolder) -> Wording:
    """Return the words of each remedy for a machine with this data folder."""
    root, objects, logs = (_escape(path) for path in (folder.root, folder.objects, folder.logs))
    log, resume = f"{logs}/{{container}}.log", _update_without("spec.rollout.paused")
    return {
        Remedy.ACKNOWLEDGE: f"`r1plus serve stop --data {root}; rm {objects}` and a new start",
        Remedy.RESUME: resume,
        Remedy.RESUME_DEPLOYMENT: resume,
        Remedy.UNPIN: _update_without("spec.rollout.pinned"),
        Remedy.ROLL_BACK: "`r1plus serve update` with an earlier engine or file",
        Remedy.ROLL_BACK_TO: "`r1plus serve update` with the engine or file of {target} goes back to it",
        Remedy.ROLL_BACK_FASTER: "",
        Remedy.READ_RUNBOOK: "",
        Remedy.READ_LOG: log,
        Remedy.READ_LOG_OF_POD: log,
        Remedy.READ_LOG_BEFORE: log,
        Remedy.LOWER_LOAD: "lower the batch",
        Remedy.ADD_POD: "see the logs",
        Remedy.ADD_NODE: "",  # Who asks for memory says how much it takes.
        Remedy.PROVIDE_TRAINER: (
            f"is trained by a Job of a cluster; train it here with `r1plus engine distill`, then {_IMPORT}"
        ),
        Remedy.PROVIDE_ENGINE: _IMPORT,
        Remedy.PROVIDE_TORCH: "install r1plus[torch] where this r1plus is",
        Remedy.PROVIDE_RUNTIME: "",
        Remedy.PROVIDE_SUITE: "; give the folder of one with --suite, or name a shipped one",
        LARGEST_NODE: "this machine",
        **_build_data_wording(folder),
    }


def _build_data_wording(folder: DataFolder) -> Wording:
    """Return the words of the remedies for the gateway's data."""
    root, store, secret, tenant = (_escape(path) for path in (folder.root, folder.store, folder.secret, folder.tenant))
    restore = f"Stop it, and put back {root} from a copy"
    renew, copy = f"{restore}; or move {store} away, and begin with new data", "from a copy of the data folder"
    own = f"{{problem}}. Put back {tenant}, {secret} and {store} from one copy of the data folder"
    key, ring = f"Put back {secret} {copy}", f"{{problem}}. Put it back {copy}"
    return {
        Remedy.ENLARGE_VOLUME: f"{{problem}}. Make room on the disk of {store}",
        Remedy.MOUNT_VOLUME: f"{{problem}}. {restore}",
        Remedy.ALLOW_WRITES: f"{{problem}}. Let its owner write {store}",
        Remedy.END_OTHER_GATEWAY: f"{{problem}}, look for another process that uses {store}, and end it",
        Remedy.RESTORE_BACKUP: f"{{problem}}. {renew}",
        Remedy.RESTORE_FILE_AND_RING: f"{{problem}}. {renew}",
        Remedy.RESTORE_DATABASE_AND_RING: f"{{problem}}. {renew}",
        Remedy.RESTORE_RING: ring,
        Remedy.REPLACE_RING: ring,
        Remedy.RESTORE_KEY: f"{{problem}}: {secret} is missing or empty. {key}",
        Remedy.RESTORE_USED_KEY: f"No half in {secret} ({{halves}}) opens the tenant's data: {{problem}}. {key}",
        Remedy.REPLACE_KEY: f"{{problem}}. {key}",
        Remedy.REMOVE_OLD_KEY: f"{{problem}}. Remove the oldest from {secret}",
        Remedy.RESTORE_TENANT: own,
        Remedy.USE_OWN_DATA: own,
        Remedy.RUN_NEWER_GATEWAY: (
            f"{{problem}}. Serve with the newer r1plus, or put back {root} from a copy that is older than its first"
            " start"
        ),
        Remedy.CONFIRM_TIME: (
            f"{{problem}}. Then, or if it is right, run `r1plus serve confirm-time --data {root}`. Without that it is"
            " believed after {hours} more hours of running"
        ),
    }


def _update_without(field: str) -> str:
    return f"`r1plus serve update -f FILE` without {field}"


def _escape(path: object) -> str:
    """Return a path as part of a text whose values are in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")
