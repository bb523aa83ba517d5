"""A distillation in a process of its own, which kills itself: `python -m support.model.distil_process ORDER`.

ORDER is a JSON object: paths, values of the recipe, and when to die: at a line that begins with `kill_line`, or when it
is asked for the `kill_call`-th time whether to stop. Its clock runs 20 s a look, so that each step is reported.
"""

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from r1plus_model.training.distillation import Distillation, DistillationRequest, distil
from r1plus_model.training.loop import TrainingProcess
from r1plus_model.training.recipe import DistillationRecipe

SMALL: dict[str, Any] = {"steps": 6, "batch": 4, "length": 48, "learning_rate": 3e-4, "top": 16, "layers": 3}


def make_request(folder: Path, **values: Any) -> DistillationRequest:
    """Return a request for the tiny teacher in `folder`, whose results lie there, too."""
    recipe = DistillationRecipe("", "", **(SMALL | values))
    return DistillationRequest(folder / "teacher", folder / "data.jsonl", folder / "student", folder / "work", recipe)


def run(request: DistillationRequest, *, save_seconds: float = 0.0) -> tuple[Distillation, list[str]]:
    """Distil here; return the result and the lines that were reported."""
    lines: list[str] = []
    return distil(request, TrainingProcess(lines.append, tick(), save_seconds=save_seconds)), lines


def tick() -> Any:
    """Return a clock that runs 20 s a look."""
    ticks = itertools.count()
    return lambda: 20.0 * next(ticks)


def main(text: str) -> None:
    """Distil, and die where the order says so."""
    torch.set_num_threads(1)  # As the tests' own process: another number rounds differently.
    order = json.loads(text)
    calls = itertools.count(1)

    def report(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if order.get("kill_line") and line.startswith(order["kill_line"]):
            os.kill(os.getpid(), signal.SIGKILL)

    def should_stop() -> bool:
        if next(calls) == order.get("kill_call"):
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    process = TrainingProcess(report, tick(), should_stop, save_seconds=order.get("save_seconds", 0.0))
    distil(make_request(Path(order["folder"]), **order.get("values", {})), process)


if __name__ == "__main__":
    main(sys.argv[1])
