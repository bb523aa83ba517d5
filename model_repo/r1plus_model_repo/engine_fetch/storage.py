"""Use of the volume by all stages: exclusive access, a check for free space, fsync before rename, cleanup."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from r1plus_contract.engine.engine_fetch import INCOMING_FOLDER, FillOrder, FillPhase, FillProgress, FillRefusal
from r1plus_model_repo.engine_fetch.errors import FillError

PART_FOLDER = ".part"
"""Folder for files that are renamed together."""
LOCK_FILE = ".lock"
SPARE_BYTES = 16 * 2**20
"""Extra space for folders and for the file system's own data."""
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
ReportProgress = Callable[[FillProgress], None]


@contextmanager
def use_volume(order: FillOrder, volume: Path, report: ReportProgress) -> Iterator[None]:
    """Lock the volume, and remove unfinished files at the end.

    Raises:
        FillError: a write to the volume fails; the message says why.
    """
    try:
        with _hold_lock(volume, report):
            try:
                yield
            finally:
                clear(volume / PART_FOLDER)
                clear(volume / INCOMING_FOLDER)
    except OSError as error:
        raise _storage_error(order, volume, error) from error


@contextmanager
def _hold_lock(volume: Path, report: ReportProgress) -> Iterator[None]:
    """Hold an exclusive lock. The kernel releases it when the process dies."""
    with (volume / LOCK_FILE).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(FillProgress(FillPhase.WAITING))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_room(order: FillOrder, volume: Path, *, has_files: bool) -> None:
    """Remove what another attempt left, and check for free space.

    With `has_files` the files themselves already use theirs.
    """
    clear(volume / PART_FOLDER)
    if order.archive is not None or has_files:
        clear(volume / INCOMING_FOLDER)
    bytes_needed = _count_needed_bytes(order, has_files=has_files or order.archive is None)
    bytes_free = _count_free_bytes(volume)
    if bytes_free < bytes_needed:
        raise _full_error(order, bytes_needed, bytes_free)


def _count_needed_bytes(order: FillOrder, *, has_files: bool) -> int:
    """Return the bytes to write: the files unless they are there, and as many again for what is built from them.

    The trainer of a distillation checks its own room: it knows what is done already.
    """
    copies = (not has_files) + (order.build is not None and order.build.distill is None)
    return copies * order.size + SPARE_BYTES if copies else 0


def clear(folder: Path) -> None:
    """Remove a folder. Of a link, remove the link and not its target."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _count_free_bytes(volume: Path) -> int:
    """Return the bytes that a process without privileges may still write."""
    stats = os.statvfs(volume)
    return stats.f_bavail * stats.f_frsize


def _storage_error(order: FillOrder, volume: Path, error: OSError) -> FillError:
    if error.errno in _FULL_ERRNOS:
        return _full_error(order, _count_needed_bytes(order, has_files=False), _count_free_bytes(volume))
    return FillError(
        FillRefusal.STORAGE_FAILED, f"engine {order.engine}: a write to the volume failed: {error}; check its storage"
    )


def _full_error(order: FillOrder, bytes_needed: int, bytes_free: int) -> FillError:
    text = (
        f"engine {order.engine}: the volume is too small: needs {bytes_needed} bytes, has {bytes_free}"
        " free; give it more storage"
    )
    return FillError(FillRefusal.STORAGE_FULL, text)
