"""A training by verifiable reward in a process of its own, which kills itself: `python -m support.model.reinforce_process ORDER`.

ORDER is a JSON object, as that of `distil_process`. Questions are short, so that the tiny model's context holds them;
their grammar is `math_mode`'s, and they are evaluated in Python's own fractions.
"""

import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from r1plus_assistant.calculation.translation import build_grammar
from r1plus_model.training.loop import TrainingProcess
from r1plus_model.training.reinforcement import Reinforcement, ReinforcementRequest, reinforce
from r1plus_model.training.reinforcement_recipe import ReinforcementRecipe
from r1plus_model.training.reward_tasks import RewardTask
from support.model.distil_process import tick

SMALL: dict[str, Any] = {"rounds": 2, "samples": 8, "steps": 6, "batch": 4, "learning_rate": 3e-3}
MOST_NEW_TOKENS = 24


def list_questions(words: tuple[str, ...]) -> Iterator[Mapping[str, str]]:
    """Yield a question for each word: two numbers, whose sum is asked for."""
    for number, word in enumerate(words):
        first, second = 11 + number, 40 + 3 * number
        yield {"prompt": f"{first} {word} and {second}", "answer": str(first + second)}


TRAINING = tuple(list_questions(("apples", "books", "coins", "doors", "eggs", "figs", "goats", "hats", "inks", "jars")))
HELD_OUT = tuple(list_questions(("kites", "lamps", "mats", "nuts", "oars", "pans")))


def build_task(question: str, answer: Fraction) -> RewardTask:
    """Return the task of a question with two numbers."""
    numbers = re.findall(r"\d+", question)
    if len(numbers) != 2:
        raise ValueError("prompt: has not two numbers; give such a question")
    return RewardTask(f"Q: {question}\nE:", build_grammar(sorted(numbers)), answer, evaluate)


def evaluate(text: str) -> Fraction | None:
    """Return the value of two numbers with a sign between them."""
    match text.split():
        case [first, "+", second]:
            return Fraction(first) + Fraction(second)
        case [first, "-", second]:
            return Fraction(first) - Fraction(second)
        case [first, "*", second]:
            return Fraction(first) * Fraction(second)
        case [first, "/", second]:
            return Fraction(first) / Fraction(second)
    return None


def make_request(inputs: Path, folder: Path, **values: Any) -> ReinforcementRequest:
    """Return a request for the tiny model and the questions in `inputs`, whose results lie in `folder`."""
    return ReinforcementRequest(
        inputs / "teacher",
        inputs / "training.jsonl",
        inputs / "held-out.jsonl",
        folder / "trained",
        folder / "work",
        ReinforcementRecipe(**(SMALL | values)),
        build_task,
        MOST_NEW_TOKENS,
    )


def run(request: ReinforcementRequest) -> tuple[Reinforcement, list[str]]:
    """Train here; return the result and the lines that were reported."""
    lines: list[str] = []
    return reinforce(request, TrainingProcess(lines.append, tick(), save_seconds=0.0)), lines


def main(text: str) -> None:
    """Train, and die where the order says so."""
    torch.set_num_threads(1)  # As the tests' own process: another number rounds differently.
    order = json.loads(text)
    calls = itertools.count(1)

    def report(line: str) -> None:
        if order.get("kill_line") and line.startswith(order["kill_line"]):
            os.kill(os.getpid(), signal.SIGKILL)

    def should_stop() -> bool:
        if next(calls) == order.get("kill_call"):
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    process = TrainingProcess(report, tick(), should_stop, save_seconds=order.get("save_seconds", 0.0))
    reinforce(make_request(Path(order["inputs"]), Path(order["folder"])), process)


if __name__ == "__main__":
    main(sys.argv[1])
