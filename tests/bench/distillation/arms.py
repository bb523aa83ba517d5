"""The arms of `make bench NAME=distillation`: the same data, and the same measurements of each student."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from bench.distillation.__main__ import ARMS
from bench.distillation.pace import Pace, Part, Stopwatch, match_steps
from bench.distillation.questions import split_questions
from bench.distillation.served import serve_student
from bench.model.material import SUITES, list_answered, read_prose, sample_items
from bench.model.quality import Prose, count_right
from r1plus_contract.atomic_files import replace_text
from r1plus_contract.engine.llama_architecture import read_shape
from r1plus_model.checkpoint import load_model, read_fields
from r1plus_model.checkpoints import cut_layers
from r1plus_model.encoder import read_encoder
from r1plus_model.model import R1PlusModel
from r1plus_model.training.distillation import DistillationRequest, distil
from r1plus_model.training.examples import build_examples, read_records
from r1plus_model.training.loop import TrainingProcess, TrainingProgress, choose_batch
from r1plus_model.training.recipe import RECORD_FILE, DistillationRecipe
from r1plus_model.training.suite_overlap import SuiteIndex
from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from r1plus_monitoring.curate.record import read_suite
from r1plus_training.engine_distil import load_compared_suites
from support.vllm.engine import convert_smollm2

SUITE: Final = "smollm2-full-v1"
WINDOW: Final = 256
"""Tokens of an example of prose."""
WINDOWS, WINDOW_TOKENS = 4, 512
"""Of held-out prose, by which students are measured."""
SETTINGS: Final = ("layers", "prompts", "prose", "items", "seed", "precision", "threads")
"""Arguments that a working folder is of."""


@dataclass(frozen=True, slots=True)
class Student:
    """A trained student, and what its training took."""

    arm: str
    steps: int
    folder: Path
    record: dict[str, Any]
    """`distilled.json`."""
    teacher: Pace
    """The teacher's predictions of all examples that were trained on; nothing if only text counts."""
    training: Pace
    tokens: int
    """That were read in training, with prompts; repeated examples count each time."""

    @property
    def name(self) -> str:
        """In tables."""
        return f"{self.arm}, {self.steps} steps"

    @property
    def total(self) -> Pace:
        """Both parts together."""
        return self.teacher + self.training

    def describe(self) -> dict[str, Any]:
        """Return the fields of its row, beyond its quality."""
        return {
            "arm": self.arm,
            "steps": self.steps,
            "seconds": round(self.total.seconds, 1),
            "processor_seconds": round(self.total.processor_seconds, 1),
            "teacher_seconds": round(self.teacher.seconds, 1),
            "teacher_processor_seconds": round(self.teacher.processor_seconds, 1),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / self.training.seconds, 1) if self.training.seconds else None,
            "record": self.record,
        }


class Bench:
    """One run: the teacher, its data, and what is measured with."""

    def __init__(self, arguments: argparse.Namespace, work: Path) -> None:
        torch.set_num_threads(arguments.threads)
        self._arguments, self._work = arguments, work
        work.mkdir(parents=True, exist_ok=True)
        check_settings(work, {name: getattr(arguments, name) for name in SETTINGS})
        self._folder = work / "teacher"
        if not self._folder.is_dir():
            convert_smollm2(self._folder)
        self._teacher = load_model(self._folder).eval().requires_grad_(requires_grad=False)
        self._tokens = HfTokens(self._folder, self._teacher.shape.context)
        self._suite = sample_items(read_suite(SUITES / SUITE), arguments.items)
        held_out = read_prose(self._folder, WINDOWS * WINDOW_TOKENS, is_held_out=True)
        self._prose = Prose(self._teacher, held_out.view(WINDOWS, WINDOW_TOKENS))
        self._candidates = work / "candidates.jsonl"
        self._prompts = split_questions(self._candidates)[: arguments.prompts]
        self._suites = load_compared_suites([self._candidates])

    def measure(self) -> list[dict[str, Any]]:
        """Return a row for the teacher, for the student before its training, and for each arm and number of steps.

        Last is text alone for as many processor seconds as the longest training with the teacher took.
        """
        print(
            f"{'':20} {'right':>11}  {'perplexity':>10}  {'KL':>6}  seconds (processor)  tokens/s",
            flush=True,
        )
        rows = [self._keep("teacher", lambda: self._judge(self._teacher))]
        students: dict[tuple[str, int], Student] = {}
        for steps in sorted(self._arguments.steps):
            for arm in self._arguments.arm:
                student = students[arm, steps] = self.train(arm, steps)
                if len(rows) == 1:
                    kept = student.record["keptLayers"]
                    rows.append(self._keep("pruned only", lambda: self._judge(cut_layers(self._teacher, kept))))  # noqa: B023
                rows.append(self._judge_student(student))
        most = max(self._arguments.steps)
        if ("KD", most) in students and ("CE", most) in students:
            steps = match_steps(students["CE", most].training, students["KD", most].total.processor_seconds)
            print(f"CE as long as {students['KD', most].name}: {steps} steps", flush=True)
            if ("CE", steps) not in students:
                rows.append(self._judge_student(self.train("CE", steps)))
        return rows

    def serve(self) -> dict[str, Any]:
        """Take the student of the longest KD to traffic; return the figures."""
        student = self.train("KD", max(self._arguments.steps))
        work = self._work / f"served-{student.folder.name}"
        items = self._arguments.items
        return serve_student(student.folder, self._write_data(), self._candidates, SUITE, work, items)

    def train(self, arm: str, steps: int) -> Student:
        """Return the student of an arm after so many steps, which is in the working folder or is trained now."""
        out = self._work / f"{arm}-{steps}"
        stopwatch = Stopwatch(self._work / f"{out.name}.pace.json")

        def note(progress: TrainingProgress) -> None:
            stopwatch.note(Part.TEACHER if progress.loss is None else Part.TRAINING, progress.done)

        recipe = DistillationRecipe(
            teacher="",
            data="",
            layers=self._arguments.layers,
            hard_weight=ARMS[arm],
            steps=steps,
            precision=self._arguments.precision,
            seed=self._arguments.seed,
        )
        data = self._write_data()
        if not out.is_dir():
            work = out.with_name(f"{out.name}.work")
            request = DistillationRequest(self._folder, data, out, work, recipe, suites=self._suites)
            process = TrainingProcess(lambda line: print(f"{out.name}: {line}", flush=True), stopwatch.clock, note=note)
            distil(request, process)
        examples, tokens = self._count(data, recipe)
        predicted = examples if ARMS[arm] < 1 else 0
        return Student(
            arm,
            steps,
            out,
            json.loads((out / RECORD_FILE).read_text(encoding="utf-8")),
            stopwatch.get_pace(Part.TEACHER).scale(predicted),
            stopwatch.get_pace(Part.TRAINING).scale(steps),
            tokens,
        )

    def _count(self, data: Path, recipe: DistillationRecipe) -> tuple[int, int]:
        """Return how many examples are trained on, and how many tokens all steps read."""
        records = read_records(data, ())
        wanted = recipe.steps * recipe.batch
        encoder = read_encoder(self._folder, read_shape(read_fields(self._folder)).vocabulary)
        training = build_examples(records, encoder, recipe.length, wanted, recipe.seed, lambda _: None).training
        batches = (choose_batch(len(training), recipe, step) for step in range(recipe.steps))
        return len(training), sum(len(training[number].tokens) for batch in batches for number in batch)

    def _write_data(self) -> Path:
        """Write the teacher's answers, and windows of prose, as lines of JSON; kept in the working folder."""
        path = self._work / "data.jsonl"
        if path.is_file():
            return path
        index, file = SuiteIndex(self._suites), self._work / "answers.jsonl"
        answered = list_answered(self._teacher, self._tokens, self._prompts, index, file)
        lines: list[dict[str, str]] = [{"prompt": one.prompt, "answer": one.answer} for one in answered if one.answer]
        prose = read_prose(self._folder, self._arguments.prose, is_held_out=False)
        lines += [{"text": self._tokens.decode(one.tolist())} for one in prose.split(WINDOW)]
        print(f"data: {len(lines)} lines, without questions of {len(self._suites)} suites", flush=True)
        replace_text(path, "".join(json.dumps(line) + "\n" for line in lines))
        return path

    def _judge_student(self, student: Student) -> dict[str, Any]:
        figures = student.describe()
        return self._keep(student.name, lambda: self._judge(load_model(student.folder)), figures)

    def _judge(self, model: R1PlusModel) -> dict[str, Any]:
        model.eval().requires_grad_(requires_grad=False)
        prose = asdict(self._prose.measure(model))
        strata = count_right(model, self._tokens, self._suite)
        return {
            "right": sum(good for good, _ in strata.values()),
            "items": len(self._suite.items),
            "strata": {name: f"{good} of {count}" for name, (good, count) in strata.items()},
            **prose,
        }

    def _keep(
        self, name: str, judge: Callable[[], dict[str, Any]], figures: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Print and return a row. Its quality is in the working folder, or is measured now."""
        path = self._work / "quality" / f"{name.replace(', ', '-').replace(' ', '-')}.json"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            replace_text(path, json.dumps(judge()))
        row = {"name": name, **json.loads(path.read_text("utf-8")), **(figures or {})}
        print(format_row(row), flush=True)
        return row


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the table; the times are those of a training."""
    text = f"{row['name']:20} {row['right']:4} of {row['items']:3}  {row['perplexity']:10.2f}  {row['divergence']:6.3f}"
    if "seconds" in row:
        text += f"  {row['seconds']:7.0f} ({row['processor_seconds']:9.0f})  {row['tokens_per_second'] or 0:8.0f}"
    return text


def check_settings(work: Path, settings: dict[str, Any]) -> None:
    """Refuse a working folder of other settings: its data and students are of those."""
    path = work / "settings.json"
    if path.is_file():
        before = json.loads(path.read_text("utf-8"))
        if changed := [f"--{name} {before.get(name)}" for name, value in settings.items() if before.get(name) != value]:
            raise SystemExit(f"--work {work} is of other settings: {', '.join(changed)}; give these, or another folder")
    replace_text(path, json.dumps(settings))
