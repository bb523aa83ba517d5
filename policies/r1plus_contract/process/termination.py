"""The termination message of a container: where the kubelet reads it, and its size limit."""

from pathlib import Path
from typing import Final

TERMINATION_LOG: Final = Path("/dev/termination-log")
MAX_MESSAGE: Final = 4000
"""The kubelet keeps 4096 bytes of a termination message."""


def write_termination_message(log: Path, message: str) -> None:
    """Write a message for the pod's status; outside of a pod the file does not exist, and nothing is written."""
    if log.exists():
        log.write_text(message[:MAX_MESSAGE], encoding="utf-8", errors="backslashreplace")
