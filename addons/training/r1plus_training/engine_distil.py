"""`r1plus engine distill`: a smaller model that learns from a larger one.

It parses options and calls `r1plus_model`, which needs torch: it is imported when the verb runs.
"""

import shlex
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from r1plus_cli.engine.output import report_progress, say
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.hints import runnable_hint
from r1plus_cli.library_errors import translate_errors
from r1plus_cli.local import SHIPPED_SUITES
from r1plus_cli.options import takes_arguments
from r1plus_contract.suites.suite import Suite, SuiteError, SuiteSampling, load_suite

if TYPE_CHECKING:
    from r1plus_model.training.distillation import Distillation
    from r1plus_model.training.recipe import DistillationRecipe

_OPTIONS: Final = (
    "data",
    "out",
    "work",
    "layers",
    "student",
    "temperature",
    "hard_weight",
    "steps",
    "batch",
    "length",
    "learning_rate",
    "top",
    "precision",
    "seed",
)
"""Fields that an error names, and that have an option of the same name."""
_MOST_PROBLEMS: Final = 20
"""Of a file of candidates, that are shown."""

PrecisionOption = Annotated[
    str, typer.Option("--precision", help="float32, or bfloat16: faster where the CPU computes in it.")
]
SuiteOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--suite",
        help="Folder of a golden suite, or file of candidates for one, whose questions must not be in the data;"
        " repeatable.",
    ),
]
WorkOption = Annotated[
    Path | None, typer.Option("--work", help="Folder for what is done; a run goes on there. Default: OUT.work.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationArguments:
    """The options of `r1plus engine distill`."""

    teacher: Annotated[
        Path, typer.Argument(metavar="TEACHER", help="Folder with a Hugging Face checkpoint of a Llama.")
    ]
    data: Annotated[
        Path, typer.Option("--data", help='Lines of JSON: {"text": ...}, or {"prompt": ..., "answer": ...}.')
    ]
    out: Annotated[Path, typer.Option("--out", help="Folder that receives the student's checkpoint.")]
    layers: Annotated[
        int | None, typer.Option("--layers", help="Layers of the teacher that the student keeps: the most influential.")
    ] = None
    student: Annotated[
        Path | None, typer.Option("--student", help="A checkpoint to train instead, with the teacher's tokenizer.")
    ] = None
    temperature: Annotated[float, typer.Option("--temperature", help="Softens both distributions.")] = 3.0
    hard_weight: Annotated[
        float, typer.Option("--hard-weight", help="Share of the text's own tokens in the loss, from 0 to 1.")
    ] = 0.0
    steps: Annotated[int, typer.Option("--steps", help="Training steps.")] = 2000
    batch: Annotated[int, typer.Option("--batch", help="Examples of one step.")] = 8
    length: Annotated[int, typer.Option("--length", help="Most tokens of one example.")] = 256
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="The highest one.")] = 2e-4
    top: Annotated[int, typer.Option("--top", help="Tokens of the teacher that are kept for each position.")] = 64
    precision: PrecisionOption = "float32"
    seed: Annotated[int, typer.Option("--seed", help="Decides which lines are used, and in which order.")] = 0
    suite: SuiteOption = None
    work: WorkOption = None

    def build_recipe(self) -> "DistillationRecipe":
        """Return the recipe; the run itself names teacher and data in it."""
        from r1plus_model.training.recipe import DistillationRecipe

        return DistillationRecipe(
            teacher="",
            data="",
            layers=self.layers,
            temperature=self.temperature,
            hard_weight=self.hard_weight,
            steps=self.steps,
            batch=self.batch,
            length=self.length,
            learning_rate=self.learning_rate,
            top=self.top,
            precision=self.precision,
            seed=self.seed,
        )


@takes_arguments(DistillationArguments)
def distil_command(arguments: DistillationArguments) -> None:
    """Train a student to answer as its teacher does, and write its checkpoint with the record distilled.json.

    The student is cut out of the teacher, or a checkpoint of its own. What the teacher predicts is computed once. A run
    that was stopped or killed goes on when the same command is repeated, and gives the same student. Data with
    questions of a golden suite is refused: a gate that was trained on measures nothing. The shipped suites are always
    compared; add your own by **--suite**, or the candidates of one that the student is to be asked when it is trained.

    The result is an engine like any other: convert it, import it, and it has to pass its gate. Needs torch (the extra
    `distil`). See docs/distillation.md.

    Example: `r1plus engine distill model-hf --data prompts.jsonl --layers 24 --out student`
    """
    with translate_training_errors("distilling", "distil", _OPTIONS), stop_on_signals() as stopping:
        from r1plus_model.training.distillation import DistillationRequest, distil
        from r1plus_model.training.loop import TrainingProcess

        recipe = arguments.build_recipe()
        work = arguments.work or choose_work_folder(arguments.out)
        suites = load_compared_suites(arguments.suite or [])
        request = DistillationRequest(
            arguments.teacher, arguments.data, arguments.out, work, recipe, arguments.student, suites
        )
        result = distil(request, TrainingProcess(report_progress, time.monotonic, stopping.is_set))
    _report(result)


def choose_work_folder(out: Path) -> Path:
    """Return the working folder of a training into `out`: beside it. Raise UsageError for an `out` without a name."""
    if not out.name:
        raise UsageError(f"--out: {str(out)!r} names no folder; give the name of a new one")
    return out.with_name(f"{out.name}.work")


def load_compared_suites(given: list[Path], shipped_suites: Path = SHIPPED_SUITES) -> tuple[Suite, ...]:
    """Return the shipped suites and the given ones, a folder or a file of candidates each.

    Raises:
        CliError: the shipped suites are missing.
        UsageError: a given one is missing or broken.
    """
    shipped = [file.parent for file in sorted(shipped_suites.glob("*/suite.json"))]
    if not shipped:  # As after pip install --user or --target, which put them elsewhere.
        raise CliError(
            f"{shipped_suites}: no shipped suite is there to compare the data with; install r1plus into"
            " a virtual environment, or run it in a clone"
        )
    return tuple(_load_candidates(path) if path.is_file() else _load_suite(path) for path in (*shipped, *given))


def _load_suite(folder: Path) -> Suite:
    try:
        header, items = ((folder / name).read_text(encoding="utf-8") for name in ("suite.json", "items.jsonl"))
        return load_suite(header, items)
    except (OSError, SuiteError, UnicodeDecodeError) as error:
        remedy = "give a folder with suite.json and items.jsonl, or a file of candidates"
        raise UsageError(f"--suite: {folder}: {error}; {remedy}") from error


def _load_candidates(file: Path) -> Suite:
    """Return candidates as a suite named after their file; of its header nothing else counts."""
    from r1plus_cli.suite.build import read_candidates
    from r1plus_monitoring.curate.record import build_header

    items, problems = read_candidates(file)
    if problems:
        raise UsageError("\n".join(f"--suite: {problem}" for problem in problems[:_MOST_PROBLEMS]))
    return Suite(build_header(file.name, "", "", "", SuiteSampling(), items, ""), items)


def _report(result: "Distillation") -> None:
    record = result.record
    for name, quality in (("before", record.before), ("after", record.after)):
        say(f"{name}: perplexity {quality.perplexity:.2f}, KL from the teacher {quality.divergence:.4f}")
    say(f"teacher: perplexity {record.teacher_perplexity:.2f}, on {record.held_out_tokens} tokens that were held out")
    say(f"{result.folder}: sha256 of the weights {result.sha256}", style="green")
    print_import(result.folder)


def print_import(student: Path) -> None:
    """Print the commands that make an engine of a trained checkpoint."""
    say("Next:")
    for line in (
        f"r1plus engine convert {shlex.quote(str(student))} --out {shlex.quote(f'{student}.gguf')}",
        f"r1plus engine import {shlex.quote(f'{student}.gguf')} --name NAME --tier TIER --out engines",
    ):
        sys.stdout.write(runnable_hint(line) + "\n")


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Let SIGTERM and the first Ctrl-C stop the run after its step; a second Ctrl-C stops at once."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def translate_training_errors(purpose: str, extra: str, options: Collection[str]) -> Iterator[None]:
    """Translate errors of the trainer to CliError; `options` are the fields that have one of the same name."""

    def explain(error: RuntimeError) -> str | None:
        from r1plus_model.errors import DistillationError

        if not isinstance(error, DistillationError):
            return None
        return "\n".join(_name_option(line, options) for line in str(error).splitlines())

    with translate_errors(purpose, extra, "what is done is kept, and the same command goes on", explain):
        yield


def _name_option(line: str, options: Collection[str]) -> str:
    """Let an error name the option instead of the field."""
    field, colon, what = line.partition(": ")
    return f"--{field.replace('_', '-')}{colon}{what}" if field in options else line
