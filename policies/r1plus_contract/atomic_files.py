"""Files and links that are replaced in one step."""

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


def replace_link(link: Path, target: Path | str) -> None:
    """Let a link to a folder name another one by rename: a reader follows the old one or the new one."""
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target, target_is_directory=True)
    part.replace(link)
