"""`python -m r1plus_training.distill_job --order-dir O --volume V --suite S`: the container `build` of an engine's Job.

It distils the engine of O/order.json from V/.checkpoint/engine, turns the student into an engine as `r1plus engine
import` does, and leaves that where the stage `seal` looks for it. V/.training has what is done: the successor of a
killed pod goes on there. Exit code 0: it is made. 1: it was interrupted, and a retry goes on. 2: a retry cannot help.
The reason is on stderr and in the pod's status, with the field of the R1PlusEngine.

With `--worker` it is a container of a TrainJob, one of several that train the student together and make no engine of
it. The pods of the others come and go: after each loss the process replaces itself, and goes on from the checkpoint.
"""

import argparse
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from r1plus_cli.errors import CliError
from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import (
    BUILT_PREFIX,
    CHECKPOINT_FOLDER,
    DATA_PART,
    ENGINE_FOLDER,
    EXIT_PERMANENT,
    EXIT_RETRYABLE,
    ORDER_FILE,
    PLAN_PART,
    STUDENT_PART,
    TEACHER_PART,
    TRAINING_FOLDER,
    DistillationOptions,
    FillOrder,
    FillPhase,
    FillProgress,
    FillRefusal,
)
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.monitor.settings import SUITE_FILE
from r1plus_contract.process.termination import TERMINATION_LOG, write_termination_message
from r1plus_model_repo.distillation_build import GGUF_PRECISIONS
from r1plus_model_repo.engine_fetch.progress import ProgressServer
from r1plus_model_repo.engine_fetch.storage import ReportProgress
from r1plus_training.engine_distil import load_compared_suites, stop_on_signals

if TYPE_CHECKING:
    from r1plus_model.errors import DistillationError
    from r1plus_model.training.distillation import DistillationRequest
    from r1plus_model.training.loop import TrainingProcess, TrainingProgress
    from r1plus_model.training.recipe import DistillationRecipe
    from r1plus_model.training.workers import Workers

_FIELDS: Final = {
    "work": "volume",
    "out": "volume",
    "precision": "spec.build.distill.trainingPrecision",
    "hard_weight": "spec.build.distill.hardWeight",
    "learning_rate": "spec.build.distill.learningRate",
    **{
        name: f"spec.build.distill.{name}"
        for name in ("layers", "temperature", "steps", "batch", "length", "top", "seed")
    },
    "data": f"spec.artifact: {DATA_PART}",
    "teacher": f"spec.artifact: {TEACHER_PART}/",
    "student": f"spec.artifact: {STUDENT_PART}/",
    "runtime": "spec.build.distill.runtimeRef",
    "--suite": "spec.accuracy.suite",
}
"""What the trainer calls a field, and where a user of the R1PlusEngine has it."""
_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REPORT_SECONDS: Final = 30.0
"""Least time between two reports of figures: each change is a write to the API server."""
_SAVE_SECONDS: Final = 300.0
_RESTARTS: Final = "R1PLUS_TRAINING_RESTARTS"
"""Variable of a worker that has begun again, with how often."""
_MOST_RESTARTS: Final = 200


class TrainingError(Exception):
    """There is no student. `reason` is stable, for the operator; the message says what to do."""

    def __init__(self, reason: FillRefusal, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.exit_code = EXIT_RETRYABLE if reason is FillRefusal.TRAINING_STOPPED else EXIT_PERMANENT


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """The Job's folders, and what it has of its process."""

    order: FillOrder
    volume: Path
    suite: Path
    """Folder with a golden suite of the namespace; empty or absent: there is none."""
    host: str
    """Name of the pod, by which `seal` finds what it made."""
    report: ReportProgress
    should_stop: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    save_seconds: float = _SAVE_SECONDS
    """Between two checkpoints."""

    @property
    def options(self) -> DistillationOptions:
        """Options of the distillation."""
        build = self.order.build
        if build is None or build.distill is None:
            raise TrainingError(FillRefusal.TRAINING_REFUSED, f"engine {self.order.engine} is not to be distilled")
        return build.distill

    @property
    def artifact(self) -> Path:
        """Folder with the verified teacher and data."""
        return self.volume / CHECKPOINT_FOLDER / ENGINE_FOLDER

    @property
    def training(self) -> Path:
        """Folder of what outlives the pod."""
        return self.volume / TRAINING_FOLDER


def train_engine(job: TrainingJob) -> bool:
    """Leave the engine for the stage `seal`. Return False if there is nothing to do: it is on the volume already.

    Raises:
        TrainingError: there is no engine; the message has field, value and remedy.
    """
    if not job.artifact.is_dir():
        return False
    with translate_job_errors(), _hold_training(job):
        student = _train_student(job)
        job.report(FillProgress(FillPhase.IMPORTING))
        _place(job, _import_student(job, student))
    return True


def train_together(job: TrainingJob, workers: "Workers") -> None:
    """Train the student as one of several workers. The leader leaves its checkpoint for the Job that comes after.

    Raises:
        TrainingError: this worker cannot go on.
        LostWorkerError: another one is gone. A new process goes on.
    """
    with translate_job_errors():
        if workers.is_leader:
            with _hold_training(job):
                _train_student(job, workers)
        else:
            _assist(job, workers)


@contextmanager
def _hold_training(job: TrainingJob) -> Iterator[None]:
    """Hold the folder of the training. The pod of a Job that was replaced may still have it: it ends within minutes."""
    from r1plus_model_repo.importing.errors import ImportingError
    from r1plus_model_repo.importing.package.folders import lock_folder

    with ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(job.training))
        except ImportingError as error:
            text = "another pod trains on this volume; the next pod goes on when that has ended"
            raise TrainingError(FillRefusal.TRAINING_STOPPED, text) from error
        yield


def _build_request(job: TrainingJob) -> "DistillationRequest":
    from r1plus_model.training.distillation import DistillationRequest

    return DistillationRequest(
        job.artifact / TEACHER_PART,
        job.artifact / DATA_PART,
        job.training / "student",
        job.training / "work",
        _build_recipe(job.options),
        job.artifact / STUDENT_PART if job.options.layers is None else None,
        load_compared_suites([job.suite] if (job.suite / SUITE_FILE).exists() else []),
    )


def _train_student(job: TrainingJob, workers: "Workers | None" = None) -> Path:
    """Return the checkpoint of the student, which an earlier pod may have finished."""
    from r1plus_model.training.distillation import is_trained
    from r1plus_model.training.loop import TrainingProcess
    from r1plus_model.training.workers import ALONE, join_workers

    request = _build_request(job)
    shutil.rmtree(job.training / ".discarded-work", ignore_errors=True)
    _remove_work_of_another_trainer(request)
    if request.out.exists() and not request.work.exists():
        _check_finished(request)
        return request.out
    _check_convertible(job.options, request)
    job.report(FillProgress(FillPhase.PREDICTING))
    with ExitStack() as stack:
        if workers is None or is_trained(request):
            workers = ALONE  # The others have ended, or are not needed any more.
        if workers.count > 1:
            stack.enter_context(join_workers(workers))
        note = _Reporter(job.report, job.clock).note
        process = TrainingProcess(_say, job.clock, job.should_stop, job.save_seconds, note=note, workers=workers)
        _distil(request, process)
    return request.out


def _assist(job: TrainingJob, workers: "Workers") -> None:
    from r1plus_model.training.distillation import assist, is_trained
    from r1plus_model.training.loop import TrainingProcess
    from r1plus_model.training.workers import join_workers

    request = _build_request(job)
    if is_trained(request):
        return
    _check_convertible(job.options, request)
    process = TrainingProcess(_say, job.clock, job.should_stop, workers=workers)
    with join_workers(workers), _remake_damaged():
        assist(request, process)


def _check_convertible(options: DistillationOptions, request: "DistillationRequest") -> None:
    """Refuse a student that would become no engine of its backend, before hours of training instead of after them.

    It has the configuration and the tokenizer of the checkpoint that it begins with.
    """
    from r1plus_model_repo.importing.model import OPENVINO

    if options.backend != OPENVINO:
        return
    from r1plus_model.checkpoints import can_train
    from r1plus_model.errors import DistillationError
    from r1plus_model_repo.importing.huggingface.to_gguf import find_conversion_problems

    role, folder = ("teacher", request.teacher) if request.student is None else ("student", request.student)
    if not can_train(folder):
        return  # The trainer says why.
    if problems := find_conversion_problems(folder):
        advice = "spec.backend: openvino serves the student as a GGUF file; correct what is said above, or set vllm"
        raise DistillationError("\n".join([*(f"{role}: {problem}" for problem in problems), advice]))


@contextmanager
def _remake_damaged() -> Iterator[None]:
    """Remove a file that is damaged, and let all workers begin again: they make it again together."""
    from r1plus_model.errors import DamagedWorkError, LostWorkerError

    try:
        yield
    except DamagedWorkError as error:
        if error.path.exists():  # Another worker may have removed it.
            _remove(error.path)
        raise LostWorkerError(f"{error.problem}; it is made again") from error


def _distil(request: "DistillationRequest", process: "TrainingProcess") -> None:
    """Train. What a power cut has damaged is made again: no user can remove a file of the volume."""
    from r1plus_model.errors import DamagedWorkError
    from r1plus_model.training.distillation import distil

    if process.workers.count > 1:
        with _remake_damaged():
            distil(request, process)
        return
    removed = set[Path]()
    while True:
        try:
            distil(request, process)
        except DamagedWorkError as error:
            if error.path in removed:
                raise
            removed.add(error.path)
            _say(f"{error.problem}; it is made again")
            _remove(error.path)
        else:
            return


def _remove(path: Path) -> None:
    """Remove a file, or a folder as a whole: without its recipe.json a working folder is refused."""
    discarded = path.with_name(f".discarded-{path.name}")
    shutil.rmtree(discarded, ignore_errors=True)
    if path.is_dir():
        path.rename(discarded)
        shutil.rmtree(discarded)
    else:
        path.unlink()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _build_recipe(options: DistillationOptions) -> "DistillationRecipe":
    from r1plus_model.training.recipe import DistillationRecipe

    return DistillationRecipe(
        teacher="",
        data="",
        layers=options.layers,
        temperature=options.temperature,
        hard_weight=options.hard_weight,
        steps=options.steps,
        batch=options.batch,
        length=options.length,
        learning_rate=options.learning_rate,
        top=options.top,
        precision=options.training_precision,
        seed=options.seed,
    )


def _check_finished(request: "DistillationRequest") -> None:
    """Refuse a student of another recipe: nothing but the Job writes to the volume, and each recipe has its own."""
    from r1plus_model.checkpoints import open_checkpoint
    from r1plus_model.errors import ForeignFolderError
    from r1plus_model.training.recipe import RECORD_FILE, DistillationRecord

    record = loads(DistillationRecord, (request.out / RECORD_FILE).read_bytes(), tolerant=True)
    student = open_checkpoint(request.student, "student").digest if request.student else None
    teacher = open_checkpoint(request.teacher, "teacher").digest
    made = record.recipe
    if made != replace(request.recipe, teacher=teacher, student=student, data=made.data, trainer=made.trainer):
        raise ForeignFolderError(f"work: {request.out} is of another recipe")


def _remove_work_of_another_trainer(request: "DistillationRequest") -> None:
    """Begin again where another version of the trainer began: its steps would not be those of this one."""
    from r1plus_model.training.recipe import TRAINER_VERSION, DistillationRecipe
    from r1plus_model.training.work_folder import RECIPE_FILE

    path = request.work / RECIPE_FILE
    if not path.is_file():
        return
    try:
        is_same = loads(DistillationRecipe, path.read_bytes(), tolerant=True).trainer == TRAINER_VERSION
    except ContractError:
        return  # `distil` says that it is damaged.
    if not is_same:
        _say("The checkpoint is of another version of the trainer: the training begins again")
        _remove(request.work)


class _Reporter:
    """Passes on figures, now and then."""

    def __init__(self, report: ReportProgress, clock: Callable[[], float]) -> None:
        self._report, self._clock = report, clock
        self._reported: dict[FillPhase, float] = {}

    def note(self, progress: "TrainingProgress") -> None:
        """Report the first figures of a phase, the last, and those between at most twice a minute."""
        phase, now = FillPhase.PREDICTING if progress.loss is None else FillPhase.TRAINING, self._clock()
        is_due = now - self._reported.get(phase, -_REPORT_SECONDS) >= _REPORT_SECONDS
        if not is_due and progress.done < progress.total:
            return
        self._reported[phase] = now
        left = None if progress.seconds_left is None else round(progress.seconds_left)
        self._report(FillProgress(phase, progress.done, progress.total, progress.loss, left))


def _import_student(job: TrainingJob, student: Path) -> Path:
    """Return the folder with the engine's files, made from the student as its backend needs them."""
    from r1plus_model.training.recipe import RECORD_FILE
    from r1plus_model_repo.importing.engine import import_engine
    from r1plus_model_repo.importing.model import OPENVINO, Claims
    from r1plus_model_repo.importing.options import ImportOptions

    scratch = job.training / "import"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    source, is_openvino = student, job.options.backend == OPENVINO
    if is_openvino:
        source = _convert_student(job.options, student, scratch)
    # The R1PlusEngine stands for the manifest. Its name is not of the key, so the files must not have it.
    options = ImportOptions(
        "student", "edge", "distilled", backend=job.options.backend, gpus=None if is_openvino else 0
    )
    engine = import_engine(source, scratch / "engines", options, Claims(), _say).folder / "engine"
    shutil.copyfile(student / RECORD_FILE, engine / RECORD_FILE)
    (engine / RECORD_FILE).chmod(0o644)
    return engine


def _convert_student(options: DistillationOptions, student: Path, scratch: Path) -> Path:
    """Return a GGUF file of the student in the precision that is served."""
    from r1plus_model_repo.importing.gguf.requantise import Precision, requantise
    from r1plus_model_repo.importing.huggingface.to_gguf import convert_checkpoint_to_gguf

    wanted = GGUF_PRECISIONS[options.precision]
    whole = scratch / "student.gguf"
    convert_checkpoint_to_gguf(student, whole, "F16", _say)
    if wanted == "F16":
        return whole
    target = scratch / f"student-{wanted}.gguf"
    requantise(whole, target, Precision[wanted], _say)
    whole.unlink()
    return target


def _place(job: TrainingJob, engine: Path) -> None:
    """Move the engine to where `seal` looks for it, in one step."""
    built = job.volume / f"{BUILT_PREFIX}{job.host}"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    engine.rename(built / PLAN_PART)


@contextmanager
def translate_job_errors() -> Iterator[None]:
    """Translate errors of trainer and import to TrainingError, with the R1PlusEngine's fields."""
    try:
        from r1plus_model.errors import DistillationError, InterruptedDistillationError, LostWorkerError
        from r1plus_model_repo.importing.errors import ImportingError

        try:
            yield
        except LostWorkerError:
            raise
        except InterruptedDistillationError as error:
            raise TrainingError(FillRefusal.TRAINING_STOPPED, _name_fields(error)) from error
        except (DistillationError, ImportingError) as error:
            raise TrainingError(FillRefusal.TRAINING_REFUSED, _name_fields(error)) from error
    except ModuleNotFoundError as error:
        text = f"images.trainer: {error.name} is not installed in it; use an image with r1plus[cli,engine,distil]"
        raise TrainingError(FillRefusal.TRAINING_REFUSED, text) from error
    except CliError as error:
        raise TrainingError(FillRefusal.TRAINING_REFUSED, _name_fields(error)) from error
    except ContractError as error:
        text = f"the volume has a damaged file: {error}; delete the claim, and it is trained again"
        raise TrainingError(FillRefusal.TRAINING_REFUSED, text) from error
    except OSError as error:
        text = f"{error.filename or 'A file'}: {error.strerror or error}"
        if error.errno in _FULL_ERRNOS:
            raise TrainingError(FillRefusal.TRAINING_REFUSED, f"{text}; raise spec.build.distill.storage") from error
        # A volume may be away for a while.
        raise TrainingError(FillRefusal.TRAINING_STOPPED, f"{text}; the next pod goes on; check the volume") from error


def _name_fields(error: Exception) -> str:
    """Return an error's message with fields of the R1PlusEngine, and with what to do in a cluster."""
    from r1plus_model.errors import DistillationError

    text = str(error)
    if isinstance(error, DistillationError) and (remedy := _find_remedy(error)):
        text = f"{error.problem}; {remedy}"
    lines = (line.partition(": ") for line in text.splitlines())
    return "\n".join(f"{_FIELDS.get(field, field)}{colon}{what}" for field, colon, what in lines)


def _find_remedy(error: "DistillationError") -> str | None:
    """Return what to do; None: what the error says, as on one's own machine."""
    from r1plus_model.errors import (
        DamagedWorkError,
        ForeignFolderError,
        InterruptedDistillationError,
        LostWorkerError,
        StorageError,
    )

    match error:
        case StorageError():
            return "raise spec.build.distill.storage, or lower steps or top"
        case ForeignFolderError() | DamagedWorkError():
            return "delete the claim, and it is trained again"
        case LostWorkerError():
            return None
        case InterruptedDistillationError():
            return "the next pod goes on"
        case _:
            return None


def _read_order(path: Path) -> FillOrder:
    try:
        return loads(FillOrder, path.read_text(encoding="utf-8"))
    except ContractError as error:
        text = (
            f"images.trainer: it has another version of r1plus than the operator: {error}; use an image of its version"
        )
        raise TrainingError(FillRefusal.TRAINING_REFUSED, text) from error


def main() -> int:
    """Train the engine of the order and report the outcome."""
    parser = argparse.ArgumentParser(description="Distil an engine in a Job.")
    parser.add_argument("--order-dir", type=Path, required=True)
    parser.add_argument("--volume", type=Path, required=True)
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--worker", action="store_true", help="train with others, as a TrainJob's runtime describes it")
    parser.add_argument("--port", type=int, default=names.PORT_MONITOR)
    parser.add_argument("--save-seconds", type=float, default=_SAVE_SECONDS)
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG)
    arguments = parser.parse_args()
    try:
        return _run_worker(arguments) if arguments.worker else _run_job(arguments)
    except (TrainingError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        write_termination_message(arguments.termination_log, str(error))
        return error.exit_code if isinstance(error, TrainingError) else EXIT_RETRYABLE


def _run_job(arguments: argparse.Namespace) -> int:
    with _prepare_job(arguments, _serve_progress(arguments.port)) as job:
        is_made = train_engine(job)
    _say(f"Engine {job.order.engine} is {'trained' if is_made else 'on the volume already'}")
    return 0


def _run_worker(arguments: argparse.Namespace) -> int:
    with translate_job_errors():
        from r1plus_model.errors import LostWorkerError
        from r1plus_model.training.workers import read_workers

        workers = read_workers(os.environ)
    report = _serve_progress(arguments.port) if workers.is_leader else _ignore
    with _prepare_job(arguments, report) as job:
        try:
            train_together(job, workers)
        except LostWorkerError as error:
            if job.should_stop():
                raise TrainingError(FillRefusal.TRAINING_STOPPED, _name_fields(error)) from error
            _replace_process(error)
    _say(f"Engine {job.order.engine} is trained: worker {workers.rank + 1} of {workers.count} is done")
    return 0


def _replace_process(error: Exception) -> NoReturn:
    """Begin again without a trace of the connections that are lost. For the pod this is no restart."""
    _say(str(error))
    restarts = int(os.environ.get(_RESTARTS, "0")) + 1
    if restarts > _MOST_RESTARTS:
        text = f"began again {_MOST_RESTARTS} times without the other workers: {error}"
        raise TrainingError(FillRefusal.TRAINING_STOPPED, text) from error
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # The one of the listing itself is closed.
            os.set_inheritable(int(descriptor.name), int(descriptor.name) <= sys.stderr.fileno())
    os.execve(sys.executable, sys.orig_argv, {**os.environ, _RESTARTS: str(restarts)})  # noqa: S606 - this program


@contextmanager
def _prepare_job(arguments: argparse.Namespace, report: ReportProgress) -> Iterator[TrainingJob]:
    host = os.environ.get("HOSTNAME") or os.uname().nodename
    order = _read_order(arguments.order_dir / ORDER_FILE)
    with stop_on_signals() as stopping:
        yield TrainingJob(
            order,
            arguments.volume,
            arguments.suite,
            host,
            report,
            stopping.is_set,
            save_seconds=arguments.save_seconds,
        )


def _serve_progress(port: int) -> ReportProgress:
    progress = ProgressServer()
    progress.serve(port)
    return progress.update


def _ignore(progress: FillProgress) -> None:
    """Report nothing: the leader reports for all workers."""


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # At Python's own end, threads of torch that know other workers may abort the process: exit status -6.
    os._exit(code)
