"""Where this project's own sources lie, and the small file operations that build contexts are made with."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The repository."""

_READABLE = 0o444
_READABLE_BY_ALL = 0o644


def link_tree(source: Path, target: Path) -> None:
    """Bring a folder into a context without copying its bytes: hard links where one file system has both."""
    shutil.copytree(source, target, symlinks=True, copy_function=link_file, dirs_exist_ok=True)


def link_file(source: str | Path, target: str | Path) -> None:
    """One file; copied when it can't be linked, or when the image's numeric user could not read the original."""
    if Path(source).lstat().st_mode & _READABLE == _READABLE:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            shutil.copy2(source, target, follow_symlinks=False)
        return
    shutil.copyfile(source, target)
    Path(target).chmod(_READABLE_BY_ALL)
