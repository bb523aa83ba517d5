"""Scratch folders for databases, in memory where there is room: other programs' writes to the disk delay nothing."""

import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 2**30
"""More than all databases of a test run take."""


def make_scratch_folder(prefix: str) -> Path:
    """Return a new folder, which its maker removes. What it holds survives no reboot, and every killed process."""
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if has_room else None))
