"""One engine on one volume: all of it or nothing.

Files are written to another folder, verified, and renamed, so that a pod that mounts `engine/` sees all of it or
nothing. A lock makes two Jobs for one volume do the work once. The next Job removes what a killed one left.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from r1plus_contract.atomic_files import sync, sync_all
from r1plus_contract.engine.delivery import build_listing, digest_listing, parse_listing
from r1plus_contract.engine.engine_fetch import (
    ENGINE_FOLDER,
    INCOMING_FOLDER,
    SIGNATURE_FILE,
    FillOrder,
    FillPhase,
    FillProgress,
    FillRefusal,
)
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.signature import MAX_BYTES, verify
from r1plus_model_repo.engine_fetch.storage import PART_FOLDER, ReportProgress, make_room, use_volume

_OLD_ENGINE = ".replaced"
Fetch = Callable[[Path], None]
"""Writes the archive's `engine/` below a folder. Raises FillError if it is not the expected archive."""


def fill_volume(order: FillOrder, volume: Path, fetch: Fetch | None, report: ReportProgress) -> None:
    """Put the engine on the volume, unless it is there. `fetch=None`: an init container copied it into `.incoming`.

    Raises:
        FillError: the engine is not on the volume; no partial files remain.
    """
    if order.build is not None:
        text = f"engine {order.engine} must be built: run the stages fetch and seal, not all"
        raise FillError(FillRefusal.ENGINE_INVALID, text)
    with use_volume(order, volume, report):
        if list_verified(order, volume, report) is None:
            part, _ = fetch_verified(order, volume, fetch, report)
            publish(part, volume)
    report(FillProgress(FillPhase.DONE))


def fetch_verified(order: FillOrder, volume: Path, fetch: Fetch | None, report: ReportProgress) -> tuple[Path, str]:
    """Return the folder that holds the verified files as `engine/`, and their listing."""
    part = volume / PART_FOLDER
    make_room(order, volume, has_files=False)
    if fetch is None:
        _move_incoming(volume / INCOMING_FOLDER, part)
    else:
        part.mkdir()
        fetch(part)
    report(FillProgress(FillPhase.VERIFYING))
    return part, _verify_files(order, part)


def list_verified(order: FillOrder, folder: Path, report: ReportProgress) -> str | None:
    """Return the listing of `folder/engine`, or None if files are missing, changed or not signed as required."""
    if not (folder / ENGINE_FOLDER).is_dir():
        return None
    report(FillProgress(FillPhase.VERIFYING))
    try:
        return _verify_files(order, folder)
    except FillError:
        return None


def _move_incoming(incoming: Path, part: Path) -> None:
    if not (incoming / ENGINE_FOLDER).is_dir() or not any((incoming / ENGINE_FOLDER).iterdir()):
        raise FillError(
            FillRefusal.ENGINE_INVALID, "the engine's image has no files under /engine; build the image again"
        )
    incoming.rename(part)


def _verify_files(order: FillOrder, part: Path) -> str:
    """Verify the files of `part/engine` and return their listing. Reads each file once."""
    try:
        files = build_listing(part / ENGINE_FOLDER)
    except ValueError as error:
        raise FillError(FillRefusal.ENGINE_INVALID, f"engine {order.engine}: {error}; pack it again") from error
    verify_listing(order, files, part / SIGNATURE_FILE)
    return files


def verify_listing(order: FillOrder, files: str, signature: Path) -> None:
    """Check a listing against the order: its digest and, if the order has keys, its signature.

    Raises:
        FillError: it differs.
    """
    if order.keys is not None:
        _verify_signature(signature, files, order.keys)
    digest = digest_listing(files)
    if digest != order.digest:
        raise FillError(
            FillRefusal.ENGINE_DIGEST_MISMATCH,
            f"engine {order.engine}: these are not the files that were measured: sha256 is {digest}, the"
            " R1PlusEngine has"
            f" {order.digest}; deliver the right files, or register these as another engine",
        )


def _verify_signature(signature: Path, files: str, keys: Sequence[str]) -> None:
    if not signature.is_file():
        text = "model.sig is missing next to engine/; sign the engine (r1plus engine sign) and pack both"
        raise FillError(FillRefusal.SIGNATURE_INVALID, f"{text}, or see the chart's delivery.requireSignature")
    with signature.open("rb") as file:
        verify(file.read(MAX_BYTES), parse_listing(files), keys)


def publish(part: Path, volume: Path, extra_files: Sequence[str] = (SIGNATURE_FILE,)) -> None:
    """Flush `engine/` of `part` to disk and rename it into place, with the extra files that exist.

    An old engine is moved away as a whole first.
    """
    sync_all(part)
    if (volume / ENGINE_FOLDER).exists():
        (volume / ENGINE_FOLDER).rename(part / _OLD_ENGINE)
    for name in extra_files:
        if (part / name).exists():
            (part / name).replace(volume / name)
    (part / ENGINE_FOLDER).rename(volume / ENGINE_FOLDER)
    sync(volume)
