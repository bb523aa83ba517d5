"""`r1plus engine reinforce`: a model that learns from its own answers, which the calculator has found right.

It parses options and calls `r1plus_model`, which needs torch: it is imported when the verb runs.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from r1plus_cli.engine.output import report_progress, say
from r1plus_training.engine_distil import (
    PrecisionOption,
    SuiteOption,
    WorkOption,
    choose_work_folder,
    load_compared_suites,
    print_import,
    stop_on_signals,
    translate_training_errors,
)

if TYPE_CHECKING:
    from r1plus_model.training.reinforcement import Reinforcement

_EXTRAS: Final = "engine,distil,torch,gateway,calculator"
_OPTIONS: Final = (
    "data",
    "held_out",
    "out",
    "work",
    "rounds",
    "samples",
    "temperature",
    "steps",
    "batch",
    "learning_rate",
    "precision",
    "seed",
)
"""Fields that an error names, and that have an option of the same name."""


def reinforce_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder with a Hugging Face checkpoint of a Llama.")],
    data: Annotated[
        Path, typer.Option("--data", help='Lines of JSON: {"prompt": "a question in prose", "answer": "12"}.')
    ],
    held_out: Annotated[
        Path, typer.Option("--held-out", help="The same, with other questions: to measure before and after.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder that receives the trained checkpoint.")],
    rounds: Annotated[int, typer.Option("--rounds", help="Of drawing answers and training on the right ones.")] = 3,
    samples: Annotated[int, typer.Option("--samples", help="Answers to each question in a round.")] = 8,
    temperature: Annotated[float, typer.Option("--temperature", help="Of the answers: higher, more various.")] = 1.0,
    steps: Annotated[int, typer.Option("--steps", help="Training steps of a round.")] = 60,
    batch: Annotated[int, typer.Option("--batch", help="Answers of one step.")] = 16,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="The highest one.")] = 5e-5,
    precision: PrecisionOption = "float32",
    seed: Annotated[int, typer.Option("--seed", help="Decides which answers are drawn, and their order.")] = 0,
    suite: SuiteOption = None,
    work: WorkOption = None,
) -> None:
    """Train a model to translate questions in prose into expressions, by the calculator's verdict on its own attempts.

    The task is that of math_mode: the same prompt, the same grammar, the same calculator. Each round draws answers to
    the questions, keeps those with exactly the known value, and trains on all that was kept so far. No model judges,
    and no answer is shown. Held-out questions are asked before and after, and the record reinforced.json says how many
    were right, with an interval of the difference.

    A run that was stopped or killed goes on when the same command is repeated, and gives the same model. Data with
    questions of a golden suite is refused, and held-out questions that are in the data with other numbers, too.

    The result is an engine like any other: convert it, import it, and it has to pass its gate. Needs torch and xgrammar
    (the extras `distil` and `torch`). See docs/distillation/own-answers.md.

    Example: `r1plus engine reinforce model-hf --data questions.jsonl --held-out others.jsonl --out model-math`
    """
    with translate_training_errors("reinforcing", _EXTRAS, _OPTIONS), stop_on_signals() as stopping:
        from r1plus_assistant.calculation.translation import MOST_NEW_TOKENS
        from r1plus_model.training.loop import TrainingProcess
        from r1plus_model.training.reinforcement import ReinforcementRequest, reinforce
        from r1plus_model.training.reinforcement_recipe import ReinforcementRecipe
        from r1plus_training.translation_reward import build_translation_task

        recipe = ReinforcementRecipe(
            rounds=rounds,
            samples=samples,
            temperature=temperature,
            steps=steps,
            batch=batch,
            learning_rate=learning_rate,
            precision=precision,
            seed=seed,
        )
        work = work or choose_work_folder(out)
        suites = load_compared_suites(suite or [])
        request = ReinforcementRequest(
            model, data, held_out, out, work, recipe, build_translation_task, MOST_NEW_TOKENS, suites
        )
        result = reinforce(request, TrainingProcess(report_progress, time.monotonic, stopping.is_set))
    _report(result)


def _report(result: "Reinforcement") -> None:
    record = result.record
    for number, one in enumerate(record.rounds, 1):
        share = one.right / one.drawn
        say(f"round {number}: {share:.0%} of {one.drawn} answers right, {one.kept} different ones trained on")
    change = record.change
    say(
        f"held out: {change.before} of {change.questions} right before, {change.after} after; the difference is from"
        f" {change.lower:+.3f} to {change.upper:+.3f} (95 %)"
    )
    if change.lower <= 0:
        say("The difference may be chance: measure more held-out questions, or train longer", style="yellow")
    say(f"{result.folder}: sha256 of the weights {result.sha256}", style="green")
    print_import(result.folder)
