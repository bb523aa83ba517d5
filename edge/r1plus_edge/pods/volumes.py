"""Volumes as folders, filled as the kubelet fills them: all files of a ConfigMap change in one step."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_DATA: Final = "..data"
_FILE_MODE: Final = 0o600


def write_config(folder: Path, files: Mapping[str, str]) -> bool:
    """Let a folder have exactly these files; return whether anything has changed.

    A reader sees all old files or all new ones: `NAME -> ..data/NAME`, and `..data` is a link that is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / _DATA
    if read_config(folder) == dict(files):
        return False
    previous = data.resolve() if data.is_symlink() else None
    version = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    for name, text in files.items():
        (version / name).touch(mode=_FILE_MODE)
        (version / name).write_text(text, encoding="utf-8")
    link = folder / f"{_DATA}_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(version.name)
    link.replace(data)
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in files:
            entry.unlink()
    if previous is not None:
        shutil.rmtree(previous, ignore_errors=True)
    return True


def read_config(folder: Path) -> dict[str, str] | None:
    """Return the files that a folder has; None: it has none yet."""
    data = folder / _DATA
    if not data.is_dir():
        return None
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(data.iterdir())}
