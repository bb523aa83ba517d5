"""One run of `make bench NAME=reward`: questions, training, and what is measured with."""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from bench.math.prose import REPORTED, generate_questions
from bench.model.material import SUITES, sample_items
from bench.model.quality import count_right
from bench.reward.questions import HELD_OUT, Question, split_questions
from r1plus_assistant.calculation.translation import MOST_NEW_TOKENS
from r1plus_model.checkpoint import load_model
from r1plus_model.model import R1PlusModel
from r1plus_model.sampling.constrained_sampling import PromptEncoder, open_sampler
from r1plus_model.training.loop import TrainingProcess
from r1plus_model.training.reinforcement import ReinforcementRequest, ask_greedily, compare, reinforce
from r1plus_model.training.reinforcement_recipe import RECORD_FILE, ReinforcementRecipe
from r1plus_model.training.reward_tasks import RewardTask
from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from r1plus_monitoring.curate.record import read_suite
from r1plus_policies.bounds import mcnemar_exact
from r1plus_training.translation_reward import build_translation_task
from support.vllm.engine import convert_smollm2

SUITE: Final = "smollm2-full-v1"


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return the figures of the record."""
    torch.set_num_threads(arguments.threads)
    work.mkdir(parents=True, exist_ok=True)
    base, trained = work / "base", work / "trained"
    if not base.is_dir():
        convert_smollm2(base)
    training, held_out = split_questions(arguments.questions, arguments.held_out, arguments.seed)
    began = time.monotonic()
    if not trained.is_dir():
        _train(arguments, work, training, held_out)
    seconds = time.monotonic() - began
    record = json.loads((trained / RECORD_FILE).read_text(encoding="utf-8"))
    models = {"before": (base, load_model(base)), "after": (trained, load_model(trained))}
    return {
        "model": "SmolLM2-135M-Instruct",
        "processor": describe_processor(),
        "seconds": round(seconds),
        "rounds": record["rounds"],
        "held_out": record["change"],
        "held_out_templates": _compare_templates(held_out, record["rightBefore"], record["rightAfter"]),
        "reported": _compare(models, _list_reported(arguments.reported)),
        "suite": {name: _ask_suite(*pair, arguments.items) for name, pair in models.items()}
        if arguments.items
        else None,
        "recipe": record["recipe"],
    }


def _train(
    arguments: argparse.Namespace, work: Path, training: Sequence[Question], held_out: Sequence[Question]
) -> None:
    names = ("rounds", "samples", "temperature", "steps", "batch", "learning_rate", "precision", "seed")
    recipe = ReinforcementRecipe(**{name: getattr(arguments, name) for name in names})
    request = ReinforcementRequest(
        work / "base",
        _write(work / "training.jsonl", training),
        _write(work / "held-out.jsonl", held_out),
        work / "trained",
        work / "trained.work",
        recipe,
        build_translation_task,
        MOST_NEW_TOKENS,
        tuple(read_suite(file.parent) for file in sorted(SUITES.glob("*/suite.json"))),
    )
    began = time.monotonic()
    reinforce(
        request,
        TrainingProcess(lambda line: print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True), time.monotonic),
    )


def _write(path: Path, questions: Sequence[Question]) -> Path:
    lines = [json.dumps({"prompt": one.text, "answer": str(one.answer)}) for one in questions]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


Models = dict[str, tuple[Path, R1PlusModel]]


def _compare(models: Models, tasks: Sequence[RewardTask]) -> dict[str, Any]:
    """Return how the tasks go before and after."""
    results = {}
    for name, (folder, model) in models.items():
        encoder = PromptEncoder(folder, model.shape.context, model.shape.vocabulary)
        prompts = [encoder.encode(one.prompt, one.grammar, "data") for one in tasks]
        results[name] = ask_greedily(open_sampler(model, prompts, encoder.end, MOST_NEW_TOKENS), tasks)
    return asdict(compare(**results))


def _compare_templates(questions: Sequence[Question], before: Sequence[bool], after: Sequence[bool]) -> dict[str, Any]:
    """Return how many templates have more right questions than before, and fewer: questions of one are alike."""
    rows: list[dict[str, Any]] = [{"form": form, "before": 0, "after": 0} for form, _ in HELD_OUT.templates]
    for question, was_right, is_right in zip(questions, before, after, strict=True):
        rows[question.template]["before"] += was_right
        rows[question.template]["after"] += is_right
    better, worse = (sum(sign * (one["after"] - one["before"]) > 0 for one in rows) for sign in (1, -1))
    return {"better": better, "worse": worse, "p": mcnemar_exact(worse, better), "rows": rows}


def _list_reported(count: int) -> list[RewardTask]:
    """Return questions of `make bench NAME=math` that are meant for a translation."""
    makers = tuple(one for one in REPORTED if one[0] == "translation")
    questions = generate_questions(makers, count, 1)
    return [build_translation_task(one.text, one.answer) for one in questions if one.answer is not None]


def _ask_suite(folder: Path, model: R1PlusModel, items: int) -> dict[str, int]:
    """Return how many items of the golden suite are right."""
    model.eval().requires_grad_(requires_grad=False)
    suite = sample_items(read_suite(SUITES / SUITE), items)
    counts = count_right(model, HfTokens(folder, model.shape.context), suite)
    return {"right": sum(good for good, _ in counts.values()), "items": len(suite.items)}


def describe_processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0] if names else platform.machine()}"
