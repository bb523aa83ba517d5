"""The files of an engine for GPUs, put where they are published from: tens of GiB, which need not be there twice."""

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LINKED: Final = (".safetensors", ".engine")
"""Weights get a second name where the file system allows; small files are copied, since people edit them."""
_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


def place(source: Path, names: Iterable[str], engine: Path) -> None:
    """Make the files `names` of `source` those of the folder `engine`, readable for the user of any pod."""
    engine.mkdir(parents=True)
    engine.chmod(0o755)
    for name in names:
        target, origin = engine / name, (source / name).resolve()
        if not target.parent.is_dir():
            target.parent.mkdir()
            target.parent.chmod(0o755)
        if not (name.endswith(LINKED) and _linked(origin, target)):
            shutil.copyfile(origin, target)
            target.chmod(0o644)


def _linked(origin: Path, target: Path) -> bool:
    """A mode belongs to the file, not to its name: one that others may not read is copied, and stays as it is."""
    if origin.stat().st_mode & _READABLE != _READABLE:
        return False
    try:
        os.link(origin, target)
    except OSError:  # Another file system, one without links, a file of somebody else's: it is copied.
        return False
    return True
