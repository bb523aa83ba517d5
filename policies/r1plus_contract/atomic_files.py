"""Files that are replaced in one step."""

from __future__ import annotations

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
