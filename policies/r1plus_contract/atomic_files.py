"""Files and links that are replaced in one step, and names that a power cut does not undo."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str, *, mode: int | None = None) -> None:
    """Replace a file by rename: a reader sees the old text or the new one, never a part.

    `mode` holds from the first moment on; None leaves it to the umask. Not synced: a power cut may lose the new text.
    """
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    if mode is not None:
        part.chmod(mode)
    part.replace(path)


def replace_link(link: Path, target: Path | str) -> None:
    """Let a link to a folder name another one by rename: a reader follows the old one or the new one."""
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target, target_is_directory=True)
    part.replace(link)


def sync(path: Path) -> None:
    """Flush a file or folder to disk, so that after a power cut no name refers to missing data. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Flush a folder and everything below it to disk. Raises OSError."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)
