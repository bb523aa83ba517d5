"""What all stages do to the volume: one at a time, with room, on the disk before it has a name, and nothing left."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from r1plus_contract.engine_fetch import INCOMING_FOLDER, FillOrder, FillPhase, FillProgress, FillRefusal
from r1plus_model_repo.engine_fetch.errors import FillError

PART_FOLDER = ".part"
"""Where all is written that is to have a name at once."""
LOCK_FILE = ".lock"
SPARE_BYTES = 16 * 2**20
"""Beyond the files: folders, and what a file system keeps to itself."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
Tell = Callable[[FillProgress], None]


@contextmanager
def working(order: FillOrder, volume: Path, tell: Tell) -> Iterator[None]:
    """Alone on the volume; what was begun and not finished is cleared in the end.

    Raises:
        FillError: the volume does not take what is written, and why.
    """
    try:
        with _locked(volume, tell):
            try:
                yield
            finally:
                clear(volume / PART_FOLDER)
                clear(volume / INCOMING_FOLDER)
    except OSError as error:
        raise _storage(order, volume, error) from error


@contextmanager
def _locked(volume: Path, tell: Tell) -> Iterator[None]:
    """One at a time. The kernel lets go of it when its holder dies."""
    with (volume / LOCK_FILE).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(FillProgress(FillPhase.WAITING))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_room(order: FillOrder, volume: Path, *, there: bool) -> None:
    """Nothing of another attempt, and the certainty that there is enough; `there`: the files themselves have theirs."""
    clear(volume / PART_FOLDER)
    if order.archive is not None or there:
        clear(volume / INCOMING_FOLDER)
    needed = _needed(order, there=there or order.archive is None)
    free = _free(volume)
    if free < needed:
        raise _full(order, needed, free)


def _needed(order: FillOrder, *, there: bool) -> int:
    """Bytes for the files unless they are there, and for what is built of them: that is taken to be no larger."""
    copies = (not there) + (order.build is not None)
    return copies * order.size + SPARE_BYTES if copies else 0


def sync(path: Path) -> None:
    """After a power cut a name must not lead to what never got there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """The folder with all below it."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def clear(folder: Path) -> None:
    """Without it from now on; a link goes, not what it leads to."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _free(volume: Path) -> int:
    """Bytes that one without privileges may still write."""
    found = os.statvfs(volume)
    return found.f_bavail * found.f_frsize


def _storage(order: FillOrder, volume: Path, error: OSError) -> FillError:
    if error.errno in _FULL:
        return _full(order, _needed(order, there=False), _free(volume))
    return FillError(FillRefusal.STORAGE_FAILED, f"engine {order.engine}: the volume: {error}; look at its storage")


def _full(order: FillOrder, needed: int, free: int) -> FillError:
    text = f"engine {order.engine} needs {needed} bytes, and the volume has {free} free; give it more storage"
    return FillError(FillRefusal.STORAGE_FULL, text)
