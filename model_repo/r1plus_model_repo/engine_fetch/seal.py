"""The two stages around a build: `fetch` verifies and prepares the input, `seal` makes an engine of the output.

Between them the runtime's own builder runs in an image without our code, or the trainer of a distillation. It reads
`.checkpoint/engine` and writes `.built-POD/plan`; its output is trusted, like the runtime that serves it. Only `seal`
makes an `engine/` of it. After a kill at any point the Job starts again with `prepare_checkpoint`.
"""

import shutil
from pathlib import Path

from r1plus_contract.atomic_files import sync, sync_all
from r1plus_contract.engine.delivery import build_listing, digest_listing, parse_listing
from r1plus_contract.engine.engine_fetch import (
    BUILT_PREFIX,
    CHECKPOINT_FOLDER,
    CHECKPOINT_PART,
    DATA_PART,
    ENGINE_FOLDER,
    PLAN_PART,
    SIGNATURE_FILE,
    STUDENT_PART,
    TEACHER_PART,
    TOKENIZER_PART,
    TRAINING_FOLDER,
    Build,
    BuildRecord,
    FillOrder,
    FillPhase,
    FillProgress,
    FillRefusal,
)
from r1plus_model_repo import built_engine
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.storage import (
    PART_FOLDER,
    ReportProgress,
    clear,
    make_room,
    use_volume,
)
from r1plus_model_repo.engine_fetch.volume import Fetch, fetch_verified, list_verified, publish, verify_listing

SOURCE_FILE = ".source"
"""Listing of the checkpoint, next to `engine/`: the signature covers it, and the files themselves are deleted."""


def prepare_checkpoint(order: FillOrder, volume: Path, fetch: Fetch | None, report: ReportProgress) -> bool:
    """Run the stage `fetch`: write verified files to `.checkpoint/engine`. Return False if the engine exists.

    Raises:
        FillError: the files could not be fetched or verified.
    """
    build, checkpoint = _require_build(order), volume / CHECKPOINT_FOLDER
    with use_volume(order, volume, report):
        _clear_builds(volume)
        if _is_sealed(order, build, volume, report):
            clear(checkpoint)
            clear(volume / TRAINING_FOLDER)
        elif list_verified(order, checkpoint, report) is None:
            clear(checkpoint)
            _write_checkpoint(order, volume, fetch, report)
        else:
            make_room(order, volume, has_files=True)
        needs_build = checkpoint.exists()
    report(FillProgress(FillPhase.BUILDING if needs_build else FillPhase.DONE))
    return needs_build


def _write_checkpoint(order: FillOrder, volume: Path, fetch: Fetch | None, report: ReportProgress) -> None:
    part, files = fetch_verified(order, volume, fetch, report)
    build, engine = _require_build(order), part / ENGINE_FOLDER
    missing = [f"{name}/ has no files" for name in _list_needed_folders(build) if not _has_content(engine / name)]
    if build.distill is not None and not _is_filled(engine / DATA_PART):
        missing.append(f"{DATA_PART} is no file, or empty")
    if missing:
        text = f"engine {order.engine}: {', '.join(missing)}, and the build needs them; pack the engine with them"
        raise FillError(FillRefusal.ENGINE_INVALID, text)
    (part / SOURCE_FILE).write_text(files, encoding="utf-8")
    sync_all(part)
    part.rename(volume / CHECKPOINT_FOLDER)
    sync(volume)


def _list_needed_folders(build: Build) -> tuple[str, ...]:
    """Return the names of the folders below `engine/` that a build reads."""
    if build.distill is None:
        return CHECKPOINT_PART, TOKENIZER_PART
    return (TEACHER_PART,) if build.distill.layers is not None else (TEACHER_PART, STUDENT_PART)


def seal(order: FillOrder, volume: Path, host: str, report: ReportProgress) -> None:
    """Run the stage `seal`: make `engine/` of what the pod `host` built. Do nothing if the engine is already there.

    Raises:
        FillError: there is no engine; no partial files remain.
    """
    build, checkpoint = _require_build(order), volume / CHECKPOINT_FOLDER
    with use_volume(order, volume, report):
        if checkpoint.exists():
            report(FillProgress(FillPhase.VERIFYING))
            _assemble_engine(order, build, volume, volume / f"{BUILT_PREFIX}{host}" / PLAN_PART)
        elif not _is_sealed(order, build, volume, report):
            raise _build_error(order, "there is no engine, and no checkpoint to build it from")
        _clear_builds(volume)
        clear(checkpoint)
        clear(volume / TRAINING_FOLDER)
    report(FillProgress(FillPhase.DONE))


def _assemble_engine(order: FillOrder, build: Build, volume: Path, plan: Path) -> None:
    checkpoint, part = volume / CHECKPOINT_FOLDER, volume / PART_FOLDER
    source = (checkpoint / SOURCE_FILE).read_text(encoding="utf-8")
    verify_listing(order, source, checkpoint / SIGNATURE_FILE)
    if not _has_content(plan):
        raise _build_error(order, f"the builder wrote no file to {plan.parent.name}/{plan.name}")
    clear(part)
    engine = part / ENGINE_FOLDER
    if build.distill is None:
        engine.mkdir(parents=True)
        plan.rename(engine / PLAN_PART)
        shutil.copytree(checkpoint / ENGINE_FOLDER / TOKENIZER_PART, engine / TOKENIZER_PART)
    else:  # A student is a whole engine, with its own tokenizer.
        part.mkdir()
        plan.rename(engine)
    try:
        files = build_listing(engine)
    except ValueError as error:
        raise _build_error(order, f"the builder wrote something that an engine may not contain: {error}") from error
    if build.distill is None and _select_tokenizer(files) != _select_tokenizer(source):
        raise _build_error(order, "the tokenizer changed during the build")
    built_engine.write_built(engine, BuildRecord(build.key, order.digest, build.gpu_product, digest_listing(files)))
    for name in (SOURCE_FILE, SIGNATURE_FILE):
        if (checkpoint / name).exists():
            shutil.copyfile(checkpoint / name, part / name)
    publish(part, volume, extra_files=(SOURCE_FILE, SIGNATURE_FILE))


def _is_sealed(order: FillOrder, build: Build, volume: Path, report: ReportProgress) -> bool:
    """Return whether `engine/` is complete, built by this recipe from these files, and still signed as required."""
    engine = volume / ENGINE_FOLDER
    if not engine.is_dir():
        return False
    report(FillProgress(FillPhase.VERIFYING))
    try:
        verify_listing(order, (volume / SOURCE_FILE).read_text(encoding="utf-8"), volume / SIGNATURE_FILE)
        files = built_engine.compute_files_digest(engine)
        return built_engine.read_built(engine) == BuildRecord(build.key, order.digest, build.gpu_product, files)
    except (FillError, ValueError, FileNotFoundError):
        return False


def _select_tokenizer(files: str) -> dict[str, str]:
    """Return the tokenizer files of a listing: the builder can write to them, but must not change them."""
    return {path: digest for path, digest in parse_listing(files).items() if path.startswith(f"{TOKENIZER_PART}/")}


def _has_content(folder: Path) -> bool:
    """Return whether a non-empty file is below the folder. `listing` rejects links."""
    return any(map(_is_filled, folder.rglob("*")))


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _clear_builds(volume: Path) -> None:
    """Remove the build folders of all pods. A pod that is still building fails, and its output is never served."""
    for folder in volume.glob(f"{BUILT_PREFIX}*"):
        clear(folder)


def _require_build(order: FillOrder) -> Build:
    if order.build is None:
        text = f"engine {order.engine} needs no build: run the stage all, not fetch and seal"
        raise FillError(FillRefusal.ENGINE_INVALID, text)
    return order.build


def _build_error(order: FillOrder, reason: str) -> FillError:
    text = f"engine {order.engine}: {reason}; see the log of the container build; the Job retries"
    return FillError(FillRefusal.BUILD_FAILED, text)
