"""Placement of an engine's files for GPUs: hard links where possible, since they take tens of GiB."""

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LINKED_SUFFIXES: Final = (".safetensors", ".engine")
"""Weights are hard-linked if the file system allows it; small files are copied, since people edit them."""
_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


def place_files(source: Path, names: Iterable[str], engine: Path, *, may_link: bool = True) -> None:
    """Put the files `names` of `source` into the folder `engine`, readable for the user of any pod.

    `may_link`: weights may be hard links, so what writes to one of them changes both.
    """
    engine.mkdir(parents=True)
    engine.chmod(0o755)
    for name in names:
        target, origin = engine / name, (source / name).resolve()
        if not target.parent.is_dir():
            target.parent.mkdir()
            target.parent.chmod(0o755)
        if not (may_link and name.endswith(LINKED_SUFFIXES) and _try_link(origin, target)):
            shutil.copyfile(origin, target)
            target.chmod(0o644)


def _try_link(origin: Path, target: Path) -> bool:
    """Link the file and return whether it worked. A file that others may not read is copied: its mode stays."""
    if origin.stat().st_mode & _READABLE != _READABLE:
        return False
    try:
        os.link(origin, target)
    except OSError:  # Another file system, one without links, or another owner: the caller copies the file.
        return False
    return True
