"""One engine on one volume: whole or not at all.

Everything is written beside its place and renamed when it has proved to be what was promised, so that whoever mounts
`engine/` finds all of it or nothing. A lock lets two Jobs for one volume do the work once; what a killed one left
behind is cleared by the next.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from r1plus_contract.delivery import build_listing, digest_listing, parse_listing
from r1plus_contract.engine_fetch import (
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
from r1plus_model_repo.engine_fetch.storage import PART_FOLDER, Tell, make_room, sync, sync_all, working

_REPLACED = ".replaced"
Fetch = Callable[[Path], None]
"""Writes the archive's `engine/` below a folder; FillError where it is not the archive that was promised."""


def fill(order: FillOrder, volume: Path, fetch: Fetch | None, tell: Tell) -> None:
    """Bring the engine onto the volume, unless it is there. `fetch=None`: an init container put it into `.incoming`.

    Raises:
        FillError: it is not there, and nothing half-written is either.
    """
    if order.build is not None:
        text = f"engine {order.engine} has to be built: its Job runs the stages fetch and seal, not all"
        raise FillError(FillRefusal.ENGINE_INVALID, text)
    with working(order, volume, tell):
        if whole(order, volume, tell) is None:
            part, _ = bring(order, volume, fetch, tell)
            publish(part, volume)
    tell(FillProgress(FillPhase.DONE))


def bring(order: FillOrder, volume: Path, fetch: Fetch | None, tell: Tell) -> tuple[Path, str]:
    """The folder below which the promised files lie as `engine/`, and their listing."""
    part = volume / PART_FOLDER
    make_room(order, volume, there=False)
    if fetch is None:
        _take_incoming(volume / INCOMING_FOLDER, part)
    else:
        part.mkdir()
        fetch(part)
    tell(FillProgress(FillPhase.VERIFYING))
    return part, _promised(order, part)


def whole(order: FillOrder, folder: Path, tell: Tell) -> str | None:
    """Listing of the files below `folder` as `engine/`, every byte as promised and signed by whom that is asked of now.

    None where they are not there.
    """
    if not (folder / ENGINE_FOLDER).is_dir():
        return None
    tell(FillProgress(FillPhase.VERIFYING))
    try:
        return _promised(order, folder)
    except FillError:
        return None


def _take_incoming(incoming: Path, part: Path) -> None:
    if not (incoming / ENGINE_FOLDER).is_dir() or not any((incoming / ENGINE_FOLDER).iterdir()):
        raise FillError(FillRefusal.ENGINE_INVALID, "the engine's image holds no files under /engine; build it again")
    incoming.rename(part)


def _promised(order: FillOrder, part: Path) -> str:
    """Each file is read once."""
    try:
        files = build_listing(part / ENGINE_FOLDER)
    except ValueError as error:
        raise FillError(FillRefusal.ENGINE_INVALID, f"engine {order.engine}: {error}; pack it again") from error
    prove(order, files, part / SIGNATURE_FILE)
    return files


def prove(order: FillOrder, files: str, signature: Path) -> None:
    """Files of that listing are those that somebody has signed and the R1PlusEngine names; FillError where not."""
    if order.keys is not None:
        _vouched(signature, files, order.keys)
    found = digest_listing(files)
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
        verify(file.read(MAX_BYTES), parse_listing(files), keys)


def publish(part: Path, volume: Path, beside: Sequence[str] = (SIGNATURE_FILE,)) -> None:
    """`engine/` of `part` in its place, with those of the files beside it that there are; on the disk first.

    What was there goes as a whole, too: half of an old engine is no better than half of a new one.
    """
    sync_all(part)
    if (volume / ENGINE_FOLDER).exists():
        (volume / ENGINE_FOLDER).rename(part / _REPLACED)
    for name in beside:
        if (part / name).exists():
            (part / name).replace(volume / name)
    (part / ENGINE_FOLDER).rename(volume / ENGINE_FOLDER)
    sync(volume)
