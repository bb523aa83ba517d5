"""The two stages around a build: what it is made of is proved and laid out, and what came of it is sealed.

Between them the runtime's own builder runs in an image that has nothing of ours. It reads `.checkpoint/engine` and
writes `.built-POD/plan`; it is believed, as what serves later is. Only `seal` makes an `engine/` of that, and a Job
that was killed anywhere begins again with `lay_out`.
"""

import shutil
from pathlib import Path

from r1plus_contract.delivery import build_listing, digest_listing, parse_listing
from r1plus_contract.engine_fetch import (
    BUILT_PREFIX,
    CHECKPOINT_FOLDER,
    CHECKPOINT_PART,
    ENGINE_FOLDER,
    PLAN_PART,
    SIGNATURE_FILE,
    TOKENIZER_PART,
    Build,
    BuildRecord,
    FillOrder,
    FillPhase,
    FillProgress,
    FillRefusal,
)
from r1plus_model_repo import built_engine
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.storage import PART_FOLDER, Tell, clear, make_room, sync, sync_all, working
from r1plus_model_repo.engine_fetch.volume import Fetch, bring, prove, publish, whole

SOURCE_FILE = ".source"
"""Listing of the checkpoint, beside `engine/`: what its signature is of, when the files themselves are gone."""


def lay_out(order: FillOrder, volume: Path, fetch: Fetch | None, tell: Tell) -> bool:
    """Stage `fetch`: the proved files as `.checkpoint/engine`; False where the engine is built already.

    Raises:
        FillError: neither is so.
    """
    build, checkpoint = _wanted(order), volume / CHECKPOINT_FOLDER
    with working(order, volume, tell):
        _clear_builds(volume)
        if _sealed(order, build, volume, tell):
            clear(checkpoint)
        elif whole(order, checkpoint, tell) is None:
            clear(checkpoint)
            _lay_out(order, volume, fetch, tell)
        else:
            make_room(order, volume, there=True)
        there = checkpoint.exists()
    tell(FillProgress(FillPhase.BUILDING if there else FillPhase.DONE))
    return there


def _lay_out(order: FillOrder, volume: Path, fetch: Fetch | None, tell: Tell) -> None:
    part, files = bring(order, volume, fetch, tell)
    for name in (CHECKPOINT_PART, TOKENIZER_PART):
        if not _holds_something(part / ENGINE_FOLDER / name):
            text = f"engine {order.engine} is to be built, and has no files in {name}/; pack it with them"
            raise FillError(FillRefusal.ENGINE_INVALID, text)
    (part / SOURCE_FILE).write_text(files, encoding="utf-8")
    sync_all(part)
    part.rename(volume / CHECKPOINT_FOLDER)
    sync(volume)


def seal(order: FillOrder, volume: Path, host: str, tell: Tell) -> None:
    """Stage `seal`: what the pod `host` has built becomes `engine/`; where there was nothing to build, it is there.

    Raises:
        FillError: there is no engine; nothing half-written is, either.
    """
    build, checkpoint = _wanted(order), volume / CHECKPOINT_FOLDER
    with working(order, volume, tell):
        if checkpoint.exists():
            tell(FillProgress(FillPhase.VERIFYING))
            _seal(order, build, volume, volume / f"{BUILT_PREFIX}{host}" / PLAN_PART)
        elif not _sealed(order, build, volume, tell):
            raise _failed(order, "there is neither an engine nor a checkpoint to build it of")
        _clear_builds(volume)
        clear(checkpoint)
    tell(FillProgress(FillPhase.DONE))


def _seal(order: FillOrder, build: Build, volume: Path, plan: Path) -> None:
    checkpoint, part = volume / CHECKPOINT_FOLDER, volume / PART_FOLDER
    source = (checkpoint / SOURCE_FILE).read_text(encoding="utf-8")
    prove(order, source, checkpoint / SIGNATURE_FILE)
    if not _holds_something(plan):
        raise _failed(order, f"the builder left no file in {plan.parent.name}/{plan.name}")
    clear(part)
    engine = part / ENGINE_FOLDER
    engine.mkdir(parents=True)
    plan.rename(engine / PLAN_PART)
    shutil.copytree(checkpoint / ENGINE_FOLDER / TOKENIZER_PART, engine / TOKENIZER_PART)
    try:
        files = build_listing(engine)
    except ValueError as error:
        raise _failed(order, f"the builder left what no engine may hold: {error}") from error
    if _tokenizer(files) != _tokenizer(source):
        raise _failed(order, "the tokenizer is not the one that was proved before the build")
    built_engine.tell(engine, BuildRecord(build.key, order.digest, build.gpu_product, digest_listing(files)))
    for name in (SOURCE_FILE, SIGNATURE_FILE):
        if (checkpoint / name).exists():
            shutil.copyfile(checkpoint / name, part / name)
    publish(part, volume, beside=(SOURCE_FILE, SIGNATURE_FILE))


def _sealed(order: FillOrder, build: Build, volume: Path, tell: Tell) -> bool:
    """Whether `engine/` is what this recipe made of these files, all of it, and they are still vouched for."""
    engine = volume / ENGINE_FOLDER
    if not engine.is_dir():
        return False
    tell(FillProgress(FillPhase.VERIFYING))
    try:
        prove(order, (volume / SOURCE_FILE).read_text(encoding="utf-8"), volume / SIGNATURE_FILE)
        files = built_engine.rest_digest(engine)
        return built_engine.told(engine) == BuildRecord(build.key, order.digest, build.gpu_product, files)
    except (FillError, ValueError, FileNotFoundError):
        return False


def _tokenizer(files: str) -> dict[str, str]:
    """Of a listing, what the builder has had under its hands and does not make."""
    return {path: digest for path, digest in parse_listing(files).items() if path.startswith(f"{TOKENIZER_PART}/")}


def _holds_something(folder: Path) -> bool:
    """Whether there is a file below it that is not empty; links are for `listing` to refuse."""
    return any(path.is_file() and path.stat().st_size for path in folder.rglob("*"))


def _clear_builds(volume: Path) -> None:
    """Of every pod: what another may be building is lost, and it will say so; nothing that it makes is ever served."""
    for folder in volume.glob(f"{BUILT_PREFIX}*"):
        clear(folder)


def _wanted(order: FillOrder) -> Build:
    if order.build is None:
        text = f"engine {order.engine} is served as it is: its Job runs the stage all, not fetch and seal"
        raise FillError(FillRefusal.ENGINE_INVALID, text)
    return order.build


def _failed(order: FillOrder, why: str) -> FillError:
    text = f"engine {order.engine}: {why}; it is tried again; see the log of the Job's container build"
    return FillError(FillRefusal.BUILD_FAILED, text)
