"""One engine on one volume: whole or not at all.

Everything is written beside its place and renamed when it has proved to be what was promised, so that whoever mounts
`engine/` finds all of it or nothing. A lock lets two Jobs for one volume do the work once; what a killed one left
behind is cleared by the next.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from r1plus_contract.delivery import digest_of_listing, listed, listing
from r1plus_contract.filling import (
    ENGINE_FOLDER,
    INCOMING_FOLDER,
    SIGNATURE_FILE,
    FillOrder,
    FillPhase,
    FillProgress,
    FillRefusal,
)
from r1plus_model_repo.filling.errors import FillError
from r1plus_model_repo.filling.signature import MAX_BYTES, verify

PART_FOLDER = ".part"
LOCK_FILE = ".lock"
SPARE_BYTES = 16 * 2**20
"""Beyond the files: folders, and what a file system keeps to itself."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
Tell = Callable[[FillProgress], None]
Fetch = Callable[[Path], None]
"""Writes the archive's `engine/` below a folder; FillError where it is not the archive that was promised."""


def fill(order: FillOrder, volume: Path, fetch: Fetch | None, tell: Tell) -> None:
    """Bring the engine onto the volume, unless it is there. `fetch=None`: an init container put it into `.incoming`.

    Raises:
        FillError: it is not there, and nothing half-written is either.
    """
    try:
        with _locked(volume, tell):
            try:
                if not _whole(order, volume, tell):
                    _bring(order, volume, fetch, tell)
            finally:
                _clear(volume / PART_FOLDER)
                _clear(volume / INCOMING_FOLDER)
    except OSError as error:
        raise _storage(order, volume, error) from error
    tell(FillProgress(FillPhase.DONE))


def _bring(order: FillOrder, volume: Path, fetch: Fetch | None, tell: Tell) -> None:
    part = volume / PART_FOLDER
    _make_room(order, volume, part)
    if fetch is None:
        _take_incoming(volume / INCOMING_FOLDER, part)
    else:
        part.mkdir()
        fetch(part)
    tell(FillProgress(FillPhase.VERIFYING))
    _promised(order, part)
    _publish(part, volume)


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


def _whole(order: FillOrder, volume: Path, tell: Tell) -> bool:
    """Whether the engine is there already, every byte of it, and signed by whom that is asked of now."""
    if not (volume / ENGINE_FOLDER).is_dir():
        return False
    tell(FillProgress(FillPhase.VERIFYING))
    try:
        _promised(order, volume)
    except FillError:
        return False
    return True


def _make_room(order: FillOrder, volume: Path, part: Path) -> None:
    """Nothing of another attempt, and the certainty that there is enough."""
    _clear(part)
    if order.archive is not None:
        _clear(volume / INCOMING_FOLDER)
        free = _free(volume)
        if free < order.size + SPARE_BYTES:
            raise _full(order, free)


def _take_incoming(incoming: Path, part: Path) -> None:
    if not (incoming / ENGINE_FOLDER).is_dir() or not any((incoming / ENGINE_FOLDER).iterdir()):
        raise FillError(FillRefusal.ENGINE_INVALID, "the engine's image holds no files under /engine; build it again")
    incoming.rename(part)


def _promised(order: FillOrder, part: Path) -> None:
    """The files are those that somebody has signed and the R1PlusEngine names; each is read once."""
    try:
        files = listing(part / ENGINE_FOLDER)
    except ValueError as error:
        raise FillError(FillRefusal.ENGINE_INVALID, f"engine {order.engine}: {error}; pack it again") from error
    if order.keys is not None:
        _vouched(part / SIGNATURE_FILE, files, order.keys)
    found = digest_of_listing(files)
    if found != order.digest:
        raise FillError(
            FillRefusal.ENGINE_DIGEST_MISMATCH,
            f"engine {order.engine}: sha256 is {found}, the R1PlusEngine promises {order.digest}; these are other files"
            " than were measured: deliver the right ones, or register them as an engine of their own",
        )


def _vouched(signature: Path, files: str, keys: Sequence[str]) -> None:
    if not signature.is_file():
        text = "there is no model.sig beside engine/; sign the engine (r1plus engine sign) and pack it with it"
        raise FillError(FillRefusal.SIGNATURE_INVALID, f"{text}, or see the chart's delivery.requireSignature")
    with signature.open("rb") as file:
        verify(file.read(MAX_BYTES), listed(files), keys)


def _publish(part: Path, volume: Path) -> None:
    """On the disk first, then in its place: after a power cut a name must not lead to files that never got there."""
    for path in [*part.rglob("*"), part]:
        _sync(path)
    _clear(volume / ENGINE_FOLDER)
    if (part / SIGNATURE_FILE).exists():
        (part / SIGNATURE_FILE).replace(volume / SIGNATURE_FILE)
    (part / ENGINE_FOLDER).rename(volume / ENGINE_FOLDER)
    _sync(volume)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _free(volume: Path) -> int:
    """Bytes that one without privileges may still write."""
    found = os.statvfs(volume)
    return found.f_bavail * found.f_frsize


def _storage(order: FillOrder, volume: Path, error: OSError) -> FillError:
    if error.errno in _FULL:
        return _full(order, _free(volume))
    return FillError(FillRefusal.STORAGE_FAILED, f"engine {order.engine}: the volume: {error}; look at its storage")


def _full(order: FillOrder, free: int) -> FillError:
    needed = order.size + SPARE_BYTES
    text = f"engine {order.engine} needs {needed} bytes, and the volume has {free} free; give it more storage"
    return FillError(FillRefusal.STORAGE_FULL, text)
