"""Distillation: from a teacher's checkpoint and a file of text to a student's checkpoint.

The steps: check everything that can be wrong; cut the student out of the teacher; compute what the teacher predicts,
once; train; measure; write. The working folder has what is done, so a run that was killed goes on there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.engine.delivery import hash_file
from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import Suite
from r1plus_model.checkpoints import (
    Checkpoint,
    check_same_tokenizer,
    cut_layers,
    load,
    open_checkpoint,
)
from r1plus_model.encoder import read_encoder
from r1plus_model.errors import DistillationError, InterruptedDistillationError
from r1plus_model.model import R1PlusModel
from r1plus_model.training import training_state
from r1plus_model.training.examples import (
    Example,
    ExampleSet,
    build_examples,
    check_same_dialogue,
    read_records,
)
from r1plus_model.training.loop import (
    GOES_ON,
    Material,
    TrainingProcess,
    TrainingProgress,
    measure_quality,
    measure_teacher,
    train,
)
from r1plus_model.training.pruning import choose_layers, measure_influence
from r1plus_model.training.recipe import RECORD_FILE, DistillationRecipe, DistillationRecord, Quality, check_recipe
from r1plus_model.training.teacher_cache import TeacherCache
from r1plus_model.training.training_state import Position
from r1plus_model.training.work_folder import (
    RECIPE_FILE,
    check_folders,
    check_room,
    format_size,
    make_student,
    measure_present,
    read_work,
    write_student,
)

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
    check_folders(request.out, request.work)
    inputs = _read_inputs(request, process)

    def make() -> tuple[str, DistillationRecord]:
        material = _prepare_material(request, inputs)
        _check_room(request, inputs, material, process)
        replace_text(request.work / RECIPE_FILE, dumps(inputs.recipe))
        process.workers.wait()
        return _distil(request, inputs, material, process)

    made = make_student(request.out, request.work, inputs.recipe, RECORD_FILE, DistillationRecord, make)
    return Distillation(request.out, *made)


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


def _read_inputs(request: DistillationRequest, process: TrainingProcess) -> _Inputs:
    process.report(f"reading {request.teacher}")
    teacher = open_checkpoint(request.teacher, "teacher")
    student = open_checkpoint(request.student, "student") if request.student is not None else None
    digest = student.digest if student is not None else None
    recipe = replace(request.recipe, teacher=teacher.digest, student=digest)
    check_recipe(recipe, teacher.shape.layers, teacher.shape.vocabulary)
    encoder = read_encoder(teacher.folder, teacher.shape.vocabulary)
    student_encoder = read_encoder(student.folder, student.shape.vocabulary, "student") if student else None
    if student is not None:
        check_same_tokenizer(teacher, student)
    if recipe.length > min(one.shape.context for one in (teacher, student or teacher)):
        raise DistillationError(f"length: {recipe.length} is more than the context of the models; give less")
    records = read_records(request.data, request.suites)
    recipe = replace(recipe, data=hash_file(request.data))
    if student_encoder is not None and any(record.prompt is not None for record in records):
        check_same_dialogue(encoder, student_encoder)
    wanted = recipe.steps * recipe.batch
    examples = build_examples(records, encoder, recipe.length, wanted, recipe.seed, process.report)
    return _Inputs(teacher, student, recipe, examples)


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
    parameters = (inputs.student or inputs.teacher).parameters  # At most: of a student that is cut they are fewer.
    examples = _list_predicted(inputs, material).values()
    predictions = material.teacher.estimate_bytes(examples)
    # The state is replaced by a whole new one, and the student is written while both are there.
    rest = max(0, predictions + 2 * training_state.BYTES_PER_PARAMETER * parameters - measure_present(request.work))
    what = f": {format_size(predictions)} for what the teacher predicts of {len(examples)} examples, the rest"
    check_room(
        request.out, request.work, 4 * parameters, rest, process.measure_disk, what, ", or fewer steps or a smaller top"
    )


def _train(
    request: DistillationRequest, inputs: _Inputs, material: Material, process: TrainingProcess
) -> tuple[Start, R1PlusModel, Position]:
    """Take all steps; return where they began, the student, and how far it is."""
    workers = process.workers

    def check_stop() -> None:
        if process.should_stop():
            raise InterruptedDistillationError("stopped while the teacher predicted", GOES_ON)

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
) -> tuple[str, DistillationRecord]:
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
    return write_student(request.out, model, inputs.student or inputs.teacher, RECORD_FILE, record), record


def _start(
    request: DistillationRequest,
    inputs: _Inputs,
    material: Material,
    process: TrainingProcess,
    load_teacher: Callable[[], R1PlusModel],
) -> tuple[Start, R1PlusModel]:
    """Return the student before its training; measured once."""
    path = request.work / START_FILE
    start = read_work(path, Start, is_made_again=True) if path.is_file() else None
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
