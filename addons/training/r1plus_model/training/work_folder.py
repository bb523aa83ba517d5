"""The working folder of a training: what is done, so that a run that was killed goes on there.

It belongs to one recipe and to one run at a time. The result appears when it is whole; then the folder goes.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeVar

from safetensors import SafetensorError

from r1plus_contract.atomic_files import sync, sync_all
from r1plus_contract.engine.delivery import hash_file
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_model.checkpoint import WEIGHTS
from r1plus_model.checkpoints import Checkpoint, open_checkpoint, write_checkpoint
from r1plus_model.errors import (
    DamagedWorkError,
    DistillationError,
    ForeignFolderError,
    InterruptedDistillationError,
    StorageError,
)
from r1plus_model.model import R1PlusModel
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.package.folders import lock_folder, stage_folder

T = TypeVar("T")
RECIPE_FILE: Final = "recipe.json"


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk that a folder is on."""

    device: int
    free: int
    """Bytes."""


class StudentRecord(Protocol):
    """What says how a student was made."""

    @property
    def key(self) -> str:
        """Of its recipe."""


R = TypeVar("R", bound=StudentRecord)


def check_folders(out: Path, work: Path) -> None:
    """Refuse folders of which one would go with the other, and an `out` that no interrupted run has left."""
    whole_out, whole_work = out.resolve(), work.resolve()
    if whole_out == whole_work or whole_out in whole_work.parents or whole_work in whole_out.parents:
        raise DistillationError(
            f"work: {work} and out, {out}: one is in the other, and the working folder is removed at the end; give"
            " folders beside each other"
        )
    is_dangling = out.is_symlink() and not out.exists()
    if is_dangling or (out.exists() and not work.is_dir()):
        refuse_out(out)
    parent = next(one for one in out.absolute().parents if one.exists() or one.is_symlink())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise DistillationError(f"out: {out}: {parent} is no folder that can be written to; give another folder")


def refuse_out(out: Path) -> NoReturn:
    """Raise ForeignFolderError: `out` is there, and is not this run's."""
    raise ForeignFolderError(f"out: {out} already exists", "remove it, or give another name")


@contextmanager
def lock_work(work: Path) -> Iterator[None]:
    """Hold the working folder, which is made if it is not there; raise InterruptedDistillationError if another does."""
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(work))
        except ImportingError as error:
            remedy = "wait for that, or give another folder"
            raise InterruptedDistillationError(f"work: {work}: another run has it", remedy) from error
        yield


def check_work(work: Path, recipe: Any) -> None:
    """Refuse a working folder of another recipe, a frozen dataclass, and one that has other files."""
    path = work / RECIPE_FILE
    if path.is_file():
        other = read_work(path, type(recipe))
        pairs = [(one.name, getattr(other, one.name), getattr(recipe, one.name)) for one in fields(recipe)]
        differences = [
            f"{name} {'not recorded' if theirs == '' else theirs} (here {ours})"
            for name, theirs, ours in pairs
            if theirs != ours
        ]
        if differences:
            raise ForeignFolderError(
                f"work: {work} is of another recipe: {', '.join(differences)[:400]}",
                "give another folder, or remove this one",
            )
    elif any(one.name != f".{RECIPE_FILE}.part" for one in work.iterdir()):  # That is left by a kill.
        raise ForeignFolderError(f"work: {work} has files and no {RECIPE_FILE}", "give an empty folder, or none")


def read_work(path: Path, kind: type[T], *, is_made_again: bool = False) -> T:
    """Return the content of a file of the working folder; `is_made_again`: if it alone is gone, the run makes it again.

    Raises:
        DamagedWorkError: it cannot be read.
    """
    try:
        return loads(kind, path.read_bytes(), tolerant=True)
    except ContractError as error:
        problem = f"work: {path}: damaged: {error}"
        if is_made_again:
            raise DamagedWorkError(problem, "remove it, and the same command makes it again", path) from error
        raise DamagedWorkError(problem, "remove its folder, and the run begins again", path.parent) from error


def make_student(
    out: Path, work: Path, recipe: Any, name: str, kind: type[R], make: Callable[[], tuple[str, R]]
) -> tuple[str, R]:
    """Make the student in the working folder and remove that; return the sha256 of its weights, and its record.

    `name`, `kind`: of the record in `out`. `make` writes both. A student that an interrupted run has left is returned.

    Raises:
        DistillationError: the folders are another run's.
    """
    with lock_work(work):
        check_work(work, recipe)
        made = _read_finished(out, name, kind, recipe.key) if out.exists() else make()
        remove_work(work)
    return made


def _read_finished(out: Path, name: str, kind: type[R], key: str) -> tuple[str, R]:
    """Return the record of a run that ended before its working folder was gone; refuse anything else."""
    try:
        record = loads(kind, (out / name).read_bytes(), tolerant=True)
    except (OSError, ContractError):
        refuse_out(out)
    if record.key != key:
        refuse_out(out)
    return hash_file(out / WEIGHTS), record


def write_student(out: Path, model: R1PlusModel, source: Checkpoint, name: str, record: StudentRecord) -> str:
    """Write the student and its record, whole or not at all; return the sha256 of its weights."""
    if out.exists():  # It came while the training ran, and is not ours.
        refuse_out(out)
    try:
        with stage_folder(out) as folder:
            sha256 = write_checkpoint(folder, model, source)
            (folder / name).write_text(json.dumps(json.loads(dumps(record)), indent=2) + "\n", encoding="utf-8")
            open_checkpoint(folder, "student")
            sync_all(folder)
        sync(out.parent)
    except (OSError, SafetensorError) as error:
        remedy = "make room and start again: the run goes on after its last step"
        raise StorageError(f"out: {out} cannot be written: {error}", remedy) from error
    return sha256


def remove_work(work: Path) -> None:
    """Remove the working folder. Its recipe goes last: a run that is killed here can still tell that it is its own."""
    for path in work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != RECIPE_FILE:
            path.unlink()
    (work / RECIPE_FILE).unlink(missing_ok=True)
    with suppress(OSError):  # A link and a mount point are the user's, and stay.
        work.rmdir()


def measure_disk(folder: Path) -> Disk:
    """Return the disk that a folder is on, or would be made on."""
    present = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    return Disk(present.stat().st_dev, shutil.disk_usage(present).free)


def check_room(
    out: Path, work: Path, model: int, rest: int, measure: Callable[[Path], Disk], what: str = "", remedy: str = ""
) -> None:
    """Refuse to begin without room for everything: a disk that fills up in the last hour costs all of them.

    `model`: bytes of the trained model, which is written beside `out`; `rest`: bytes in `work`, of which `what` says
    more, and `remedy` what else makes them fewer.

    Raises:
        StorageError: one of the disks has too little.
    """
    others, own = measure(out.parent), measure(work)
    is_shared = others.device == own.device
    needed = rest + (model if is_shared else 0)
    if needed > own.free:
        sizes = f"{format_size(own.free)} free, and {format_size(needed)} are needed{what}"
        raise StorageError(
            f"work: {work} has {sizes} for the training's state{' and the trained model' if is_shared else ''}",
            f"make room, or give a folder on another disk{remedy}",
        )
    if not is_shared and model > others.free:
        sizes = f"{format_size(others.free)} free, and {format_size(model)} are needed"
        raise StorageError(
            f"out: {out.parent} has {sizes} for the trained model", "make room, or give a folder on another disk"
        )


def measure_present(work: Path) -> int:
    """Return the bytes that the working folder has already."""
    return sum(path.stat().st_size for path in work.rglob("*") if path.is_file())


def format_size(size: int) -> str:
    """Return a size in words."""
    return f"{size / 10**9:.1f} GB" if size >= 10**9 else f"{size / 10**6:.1f} MB"
