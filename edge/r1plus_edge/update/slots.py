"""Slots of software: environments beside each other, one for each bundle. `current` names the one that starts serve."""

import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

from r1plus_edge.bundle.install import COMPLETE, CURRENT, switch_current
from r1plus_edge.errors import EdgeError

_PROC: Final = Path("/proc")


def find_program(software: Path) -> Path:
    """Return the `r1plus` of an environment."""
    return software / "bin" / "r1plus"


def is_own(software: Path) -> bool:
    """Whether this process runs out of it."""
    return software.resolve() == Path(sys.prefix).resolve()


def is_slot(software: Path) -> bool:
    """Whether an environment came of a bundle, whole."""
    return (software / COMPLETE).exists() and find_program(software).exists()


def check_slot(software: Path, own: Path | None = None) -> Path:
    """Return the folder of software that what serves can turn into, without links.

    `own`: the environment of what serves.

    Raises:
        EdgeError: it is no slot, or what serves is in none, so that the next start would not be of the new one.
    """
    software, own = software.resolve(), (own or Path(sys.prefix)).resolve()
    if not is_slot(software):
        raise EdgeError(f"software {software}: no bundle was installed there to its end; give the bundle again")
    if not is_slot(own) or software.parent != own.parent:
        raise EdgeError(
            f"software {software}: what serves runs out of {own}, so its next start would run that again; start it with"
            f" {find_program(software.parent / CURRENT)}, and update that"
        )
    return software


def make_current(software: Path) -> bool:
    """Let the next start run this software; return whether this user may say so."""
    link = software.parent / CURRENT
    try:
        if not (link.is_symlink() and link.resolve() == software.resolve()):
            switch_current(software.parent, software)
    except OSError:
        return False
    return True


def remove_other_slots(root: Path, kept: Collection[Path]) -> list[Path]:
    """Remove the slots but these, the current one, and those that a process runs out of; return them."""
    stay = {path.resolve() for path in (*kept, root / CURRENT)}
    removed = []
    for marker in root.glob(f"*/{COMPLETE}"):
        slot = marker.parent.resolve()
        if marker.parent.is_symlink() or slot in stay or _is_used(slot):
            continue
        marker.unlink()  # First: what is removed in part is no slot.
        shutil.rmtree(slot, ignore_errors=True)
        removed.append(slot)
    return removed


def _is_used(slot: Path) -> bool:
    """Whether a process runs out of it, as far as this user sees."""
    words = f"{slot}/".encode()
    for process in _PROC.iterdir():
        try:
            if process.name.isdigit() and words in (process / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False
