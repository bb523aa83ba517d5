"""The arms of `make bench-distillation`: the same data, and the same measurements of each student."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from bench.distillation.__main__ import ARMS
from bench.model.material import SUITES, answer_prompts, list_prompts, read_prose, sample_items
from bench.model.quality import count_right, measure_prose
from r1plus_model.checkpoint import load_model
from r1plus_model.checkpoints import cut_layers
from r1plus_model.distillation import DistillationRequest, distil
from r1plus_model.model import R1PlusModel
from r1plus_model.recipe import RECORD_FILE, DistillationRecipe
from r1plus_model.training import TrainingProcess
from r1plus_model_repo.backends.hf_tokens import HfTokens
from r1plus_model_repo.backends.requests import GenerationRequest
from r1plus_monitoring.curate.record import read_suite
from support.vllm.engine import convert_smollm2

SUITE: Final = "smollm2-full-v1"
WINDOW: Final = 256
"""Tokens of an example of prose."""
WINDOWS, WINDOW_TOKENS = 4, 512
"""Of held-out prose, by which students are measured."""


class Bench:
    """One run: the teacher, its data, and what is measured with."""

    def __init__(self, arguments: argparse.Namespace, work: Path) -> None:
        torch.set_num_threads(arguments.threads)
        self._arguments, self._work = arguments, work
        work.mkdir(parents=True, exist_ok=True)
        self._folder = work / "teacher"
        if not self._folder.is_dir():
            convert_smollm2(self._folder)
        self._teacher = load_model(self._folder).eval().requires_grad_(requires_grad=False)
        self._tokens = HfTokens(self._folder, self._teacher.shape.context)
        self._suite = sample_items(read_suite(SUITES / SUITE), arguments.items)
        held_out = read_prose(self._folder, WINDOWS * WINDOW_TOKENS, is_held_out=True)
        self._windows = held_out.view(WINDOWS, WINDOW_TOKENS)

    def measure(self) -> list[dict[str, Any]]:
        """Return a row for the teacher, for the student before its training, and for each arm and number of steps."""
        data = self._write_data()
        rows = [self._measure_model("teacher", self._teacher)]
        for steps in self._arguments.steps:
            for arm in self._arguments.arm:
                folder, figures = self._distil(data, arm, steps)
                record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
                if len(rows) == 1:
                    student = cut_layers(self._teacher, record["keptLayers"])
                    rows.append(self._measure_model("pruned only", student))
                row = self._measure_model(f"{arm}, {steps} steps", load_model(folder))
                rows.append(row | figures | {"record": record})
        return rows

    def _write_data(self) -> Path:
        """Write the teacher's answers, and windows of prose, as lines of JSON; kept in the working folder."""
        path = self._work / "data.jsonl"
        if path.is_file():
            return path
        prompts = list_prompts(self._arguments.prompts)
        lines = []
        answers = answer_prompts(self._teacher, self._tokens, prompts, self._work / "answers.jsonl")
        by_prompt = {tuple(one.prompt): one.answer for one in answers}
        for prompt in prompts:
            answer = by_prompt.get(tuple(self._encode(prompt)))
            text = self._tokens.decode(answer).strip() if answer is not None else ""
            if text:
                lines.append({"prompt": prompt, "answer": text})
        prose = read_prose(self._folder, self._arguments.prose, is_held_out=False)
        lines += [{"text": self._tokens.decode(one.tolist())} for one in prose.split(WINDOW)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    def _encode(self, prompt: str) -> list[int]:
        return self._tokens.encode_prompt(GenerationRequest(prompt=prompt))

    def _distil(self, data: Path, arm: str, steps: int) -> tuple[Path, dict[str, float]]:
        out = self._work / f"{arm}-{steps}"
        stopwatch = Stopwatch()
        if not out.is_dir():
            recipe = DistillationRecipe(
                teacher="",
                data="",
                layers=self._arguments.layers,
                hard_weight=ARMS[arm],
                steps=steps,
                precision=self._arguments.precision,
                seed=self._arguments.seed,
            )
            request = DistillationRequest(self._folder, data, out, out.with_name(f"{out.name}.work"), recipe)
            distil(request, TrainingProcess(stopwatch.report, time.monotonic))
        return out, stopwatch.figures(steps)

    def _measure_model(self, name: str, model: R1PlusModel) -> dict[str, Any]:
        model.eval().requires_grad_(requires_grad=False)
        prose = measure_prose(model, self._teacher, self._windows)
        right = sum(good for good, _ in count_right(model, self._tokens, self._suite).values())
        print(
            f"{name:20} {right:4} of {len(self._suite.items)}  {prose.perplexity:8.2f}  {prose.divergence:.3f}",
            flush=True,
        )
        return {"name": name, "right": right, "items": len(self._suite.items), **asdict(prose)}


class Stopwatch:
    """Reads the times of a distillation's parts off its reports."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, float] = {}

    def report(self, line: str) -> None:
        """Print a line, and note when its part began."""
        print(line, flush=True)
        for part in ("teacher:", "measuring the student before", "step 1 of", "measuring the student"):
            if line.startswith(part):
                self._seen.setdefault(part, self._clock())
                break

    def figures(self, steps: int) -> dict[str, float]:
        """Return seconds of the teacher's part and of a step; none of an arm that was there or went on."""
        seen = self._seen
        if not {"teacher:", "measuring the student before", "step 1 of", "measuring the student"} <= seen.keys():
            return {}
        teacher = seen["measuring the student before"] - seen["teacher:"]
        step = (seen["measuring the student"] - seen["step 1 of"]) / max(steps - 1, 1)
        return {"teacher_s": round(teacher, 1), "step_s": round(step, 2)}
