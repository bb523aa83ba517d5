"""A container's last words: where the kubelet looks for them, and how many it keeps."""

from pathlib import Path
from typing import Final

TERMINATION_LOG: Final = Path("/dev/termination-log")
MAX_MESSAGE: Final = 4000
"""The kubelet keeps 4096 bytes of a termination message."""


def leave_word(log: Path, message: str) -> None:
    """Write it where the pod's status has it from; outside of a pod there is no such file, and nothing is written."""
    if log.exists():
        log.write_text(message[:MAX_MESSAGE], encoding="utf-8")
