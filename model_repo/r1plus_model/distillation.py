"""Distillation: from a teacher's checkpoint and a file of text to a student's checkpoint.

The steps: check everything that can be wrong; cut the student out of the teacher; compute what the teacher predicts,
once; train; measure; write. The working folder has what is done, so a run that was killed goes on there.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from safetensors import SafetensorError

from r1plus_contract.atomic_files import replace_text, sync, sync_all
from r1plus_contract.delivery import hash_file
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.suite import Suite
from r1plus_model import training_state
from r1plus_model.checkpoint import WEIGHTS
from r1plus_model.checkpoints import (
    Checkpoint,
    check_same_tokenizer,
    cut_layers,
    load,
    open_checkpoint,
    write_checkpoint,
)
from r1plus_model.encoder import read_encoder
from r1plus_model.errors import DamagedWorkError, DistillationError, InterruptedDistillationError
from r1plus_model.examples import (
    Example,
    ExampleSet,
    build_examples,
    check_same_dialogue,
    read_records,
)
from r1plus_model.model import R1PlusModel
from r1plus_model.pruning import choose_layers, measure_influence
from r1plus_model.recipe import RECORD_FILE, DistillationRecipe, DistillationRecord, Quality, check_recipe
from r1plus_model.teacher_cache import TeacherCache
from r1plus_model.training import (
    Material,
    TrainingProcess,
    TrainingProgress,
    measure_quality,
    measure_teacher,
    train,
)
from r1plus_model.training_state import Position
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.package.folders import lock_folder, stage_folder

T = TypeVar("T")
RECIPE_FILE: Final = "recipe.json"
START_FILE: Final = "start.json"
_CALIBRATION: Final = 8
"""Examples by which the influence of layers is measured."""


@dataclass(frozen=True, slots=True)
class DistillationRequest:
    """What to distil, and where to."""

    teacher: Path
    data: Path
    out: Path
    """Appears when it is complete."""
    work: Path
    """Has what is done; removed at the end."""
    recipe: DistillationRecipe
    """Its digests are filled in from the files."""
    student: Path | None = None
    """A checkpoint to train, instead of layers of the teacher."""
    suites: tuple[Suite, ...] = ()
    """Golden suites whose questions must not be in the data."""


@dataclass(frozen=True, slots=True)
class Distillation:
    """A finished student."""

    folder: Path
    sha256: str
    """Of its weights."""
    record: DistillationRecord


@dataclass(frozen=True, slots=True)
class Start:
    """The student before its training: the contents of `start.json`."""

    kept_layers: tuple[int, ...]
    before: Quality


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What was read and checked."""

    teacher: Checkpoint
    student: Checkpoint | None
    recipe: DistillationRecipe
    examples: ExampleSet


def distil(request: DistillationRequest, process: TrainingProcess) -> Distillation:
    """Train the student and write its checkpoint.

    Raises:
        DistillationError: the request cannot be trained, or the training had to stop. `out` is not there then.
    """
    _check_folders(request)
    inputs = _read_inputs(request, process)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(request.work))
        except ImportingError as error:
            raise InterruptedDistillationError(
                f"work: {request.work}: another run has it; wait for that, or give another --work"
            ) from error
        _check_work(request, inputs.recipe)
        if request.out.exists():
            return _finish(request, _read_finished(request, inputs.recipe))
        material = _prepare_material(request, inputs)
        _check_room(request, inputs, material, process)
        replace_text(request.work / RECIPE_FILE, dumps(inputs.recipe))
        process.workers.wait()
        return _finish(request, _distil(request, inputs, material, process))


def assist(request: DistillationRequest, process: TrainingProcess) -> None:
    """Train with a leader that runs `distil`, and leave all but the teacher's predictions to it.

    Raises:
        DistillationError: as for `distil`.
    """
    inputs = _read_inputs(request, process)
    process.workers.wait()  # Until the leader has checked the folders.
    _train(request, inputs, _prepare_material(request, inputs), process)


def is_trained(request: DistillationRequest) -> bool:
    """Return whether every step is done, so that the leader needs no other worker for the rest."""
    return request.out.exists() or training_state.read_step(request.work) == request.recipe.steps


def _check_folders(request: DistillationRequest) -> None:
    """Refuse folders of which one would go with the other, and an `out` that no interrupted run has left."""
    out, work = request.out.resolve(), request.work.resolve()
    if out == work or out in work.parents or work in out.parents:
        raise DistillationError(
            f"work: {request.work} and --out {request.out}: one is in the other, and the working folder is removed at"
            " the end; give folders beside each other"
        )
    if request.out.exists() and not request.work.is_dir():
        _refuse_out(request)


def _refuse_out(request: DistillationRequest) -> NoReturn:
    raise DistillationError(f"out: {request.out} already exists; remove it, or give another name")


def _read_finished(request: DistillationRequest, recipe: DistillationRecipe) -> Distillation:
    """Return the student of a run that ended before its working folder was gone; refuse anything else."""
    try:
        record = loads(DistillationRecord, (request.out / RECORD_FILE).read_bytes(), tolerant=True)
    except (OSError, ContractError):
        _refuse_out(request)
    if record.key != recipe.key:
        _refuse_out(request)
    return Distillation(request.out, hash_file(request.out / WEIGHTS), record)


def _finish(request: DistillationRequest, result: Distillation) -> Distillation:
    """Remove the working folder. Its recipe goes last: a run that is killed here can still tell that it is its own."""
    for path in request.work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != RECIPE_FILE:
            path.unlink()
    shutil.rmtree(request.work)
    return result


def _read_inputs(request: DistillationRequest, process: TrainingProcess) -> _Inputs:
    process.report(f"reading {request.teacher}")
    teacher = open_checkpoint(request.teacher, "teacher")
    student = open_checkpoint(request.student, "student") if request.student is not None else None
    digest = student.digest if student is not None else None
    recipe = replace(request.recipe, teacher=teacher.digest, student=digest)
    check_recipe(recipe, teacher.shape.layers, teacher.shape.vocabulary)
    if student is not None:
        check_same_tokenizer(teacher, student)
    if recipe.length > min(one.shape.context for one in (teacher, student or teacher)):
        raise DistillationError(f"length: {recipe.length} is more than the context of the models; give less")
    records = read_records(request.data, request.suites)
    recipe = replace(recipe, data=hash_file(request.data))
    encoder = read_encoder(teacher.folder)
    if student is not None and any(record.prompt is not None for record in records):
        check_same_dialogue(encoder, read_encoder(student.folder, "student"))
    wanted = recipe.steps * recipe.batch
    examples = build_examples(records, encoder, recipe.length, wanted, recipe.seed, process.report)
    return _Inputs(teacher, student, recipe, examples)


def _check_work(request: DistillationRequest, recipe: DistillationRecipe) -> None:
    """Refuse a working folder of another recipe, and one that has other files."""
    path = request.work / RECIPE_FILE
    if path.is_file():
        other = _read_work(path, DistillationRecipe)
        pairs = [(one.name, getattr(other, one.name), getattr(recipe, one.name)) for one in fields(DistillationRecipe)]
        differences = [f"{name} {theirs}, here {ours}" for name, theirs, ours in pairs if theirs != ours]
        if differences:
            raise DistillationError(
                f"work: {request.work} is of another recipe: {'; '.join(differences)[:400]}. Give another --work, or"
                " remove the folder"
            )
    elif any(one.name != f".{RECIPE_FILE}.part" for one in request.work.iterdir()):  # That is left by a kill.
        raise DistillationError(f"work: {request.work} has files and no {RECIPE_FILE}; give an empty folder, or none")


def _read_work(path: Path, kind: type[T]) -> T:
    """Return the content of a file of the working folder."""
    try:
        return loads(kind, path.read_bytes(), tolerant=True)
    except ContractError as error:
        raise DamagedWorkError(
            f"work: {path}: damaged: {error}; remove its folder, and the run begins again", path.parent
        ) from error


def _prepare_material(request: DistillationRequest, inputs: _Inputs) -> Material:
    cache = TeacherCache(request.work / "teacher", inputs.recipe.top, inputs.recipe.temperature)
    return Material(inputs.examples.training, inputs.examples.held_out, cache)


def _list_predicted(inputs: _Inputs, material: Material) -> dict[int, Example]:
    """Return the examples that the teacher predicts, by number. Of text alone they are those that are held out."""
    numbered = dict(enumerate([*material.training, *material.held_out]))
    if inputs.recipe.hard_weight < 1:
        return numbered
    return {number: one for number, one in numbered.items() if number >= len(material.training)}


def _check_room(request: DistillationRequest, inputs: _Inputs, material: Material, process: TrainingProcess) -> None:
    """Refuse to begin without room for everything: a disk that fills up in the last hour costs all of them."""
    parameters = (inputs.student or inputs.teacher).parameters  # At most: of a student that is cut they are fewer.
    examples = _list_predicted(inputs, material).values()
    predictions = material.teacher.estimate_bytes(examples)
    present = sum(path.stat().st_size for path in request.work.rglob("*") if path.is_file())
    # The state is replaced by a whole new one, and the student is written while both are there.
    needed = max(0, predictions + 2 * training_state.BYTES_PER_PARAMETER * parameters - present) + 4 * parameters
    free = process.measure_free(request.work)
    if needed > free:
        sizes = [_format_size(size) for size in (free, needed, predictions)]
        raise DistillationError(
            f"work: {request.work} has {sizes[0]} free, and {sizes[1]} are needed: {sizes[2]} for what the teacher"
            f" predicts of {len(examples)} examples, the rest for the training's state and the student. Make room, give"
            " --work on another disk, or fewer --steps or a smaller --top"
        )


def _format_size(size: int) -> str:
    return f"{size / 10**9:.1f} GB" if size >= 10**9 else f"{size / 10**6:.1f} MB"


def _train(
    request: DistillationRequest, inputs: _Inputs, material: Material, process: TrainingProcess
) -> tuple[Start, R1PlusModel, Position]:
    """Take all steps; return where they began, the student, and how far it is."""
    workers = process.workers

    def check_stop() -> None:
        if process.should_stop():
            raise InterruptedDistillationError("stopped while the teacher predicted; the same command goes on")

    def report_example(number: int, _: int) -> None:
        number, total = min(number * workers.count, len(predicted)), len(predicted)
        process.note(TrainingProgress(number, total))
        process.report(f"teacher: example {number} of {total}")

    def load_teacher() -> R1PlusModel:
        return load(inputs.teacher, "teacher")

    predicted = _list_predicted(inputs, material)
    share = {number: predicted[number] for number in workers.select_share(list(predicted))}
    material.teacher.fill(load_teacher, share, report_example, check_stop)
    workers.wait()  # The leader measures by all predictions.
    if not workers.is_leader:
        workers.wait()
    start, model = _start(request, inputs, material, process, load_teacher)
    if workers.is_leader:
        workers.wait()
    return start, model, train(model, material, inputs.recipe, request.work, process)


def _distil(
    request: DistillationRequest, inputs: _Inputs, material: Material, process: TrainingProcess
) -> Distillation:
    start, model, position = _train(request, inputs, material, process)
    process.report("measuring the student")
    record = DistillationRecord(
        inputs.recipe.key,
        inputs.recipe,
        start.kept_layers,
        len(material.training),
        position.tokens,
        sum(one.targets for one in material.held_out),
        measure_teacher(material),
        start.before,
        measure_quality(model, material, inputs.recipe),
    )
    if request.out.exists():  # It came while the training ran, and is not ours.
        _refuse_out(request)
    try:
        with stage_folder(request.out) as folder:
            sha256 = write_checkpoint(folder, model, inputs.student or inputs.teacher)
            (folder / RECORD_FILE).write_text(json.dumps(json.loads(dumps(record)), indent=2) + "\n", encoding="utf-8")
            open_checkpoint(folder, "student")
            sync_all(folder)
        sync(request.out.parent)
    except (OSError, SafetensorError) as error:
        remedy = "make room and start again: the run goes on after its last step"
        raise DistillationError(f"out: {request.out} cannot be written: {error}; {remedy}") from error
    return Distillation(request.out, sha256, record)


def _start(
    request: DistillationRequest,
    inputs: _Inputs,
    material: Material,
    process: TrainingProcess,
    load_teacher: Callable[[], R1PlusModel],
) -> tuple[Start, R1PlusModel]:
    """Return the student before its training; measured once."""
    path = request.work / START_FILE
    start = _read_work(path, Start) if path.is_file() else None
    if inputs.student is not None:
        kept: tuple[int, ...] = ()
        model = load(inputs.student, "student")
    else:
        teacher = load_teacher()
        kept = start.kept_layers if start is not None else _choose_layers(inputs, teacher)
        model = cut_layers(teacher, kept)
    if start is None:
        process.report("measuring the student before its training")
        start = Start(kept, measure_quality(model, material, inputs.recipe))
        replace_text(path, dumps(start))
    return start, model


def _choose_layers(inputs: _Inputs, teacher: R1PlusModel) -> tuple[int, ...]:
    assert inputs.recipe.layers is not None
    texts = [one.tokens for one in inputs.examples.training[:_CALIBRATION]]
    return choose_layers(measure_influence(teacher, texts), inputs.recipe.layers)
