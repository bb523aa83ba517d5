"""Models that `make bench NAME=model` heals, and what each is worth while it is: kept in the working folder, as the training is."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.engine.llama_architecture import LlamaArchitecture
from r1plus_model.model import R1PlusModel
from r1plus_model.training.healing import BatchSource, HealingRecipe, heal, set_active

RANK: Final = 96
"""Of predictors: a sixth of the hidden size, so they read a quarter of what the gate reads."""
WINDOWED: Final = LlamaArchitecture(window=128, sinks=4, global_every=6)
R1PLUS: Final = replace(WINDOWED, relative_bias=True, span_ramp=32, active=0.15)
HEALED: Final[Mapping[str, tuple[LlamaArchitecture, float | None]]] = {
    "r1plus": (R1PLUS, None),
    "r1plus-predictor": (replace(R1PLUS, predictor_rank=RANK), None),
    "r1plus-no-bias": (replace(R1PLUS, relative_bias=False), None),
    "r1plus-bias-at-weights-rate": (R1PLUS, HealingRecipe(1).rate),
}
"""Name -> architecture, and the bias's rate if it is not the recipe's own."""
SPAN_PENALTY: Final = 0.05
REPORT_EVERY: Final = 20
PARTS: Final = 6
"""Of a run's steps, after each of which the model is measured."""
Figures = dict[str, Any]


def choose_recipe(name: str, steps: int) -> HealingRecipe:
    """Return how a model of HEALED is trained."""
    _, bias_rate = HEALED[name]
    recipe = HealingRecipe(steps, span_penalty=SPAN_PENALTY)
    return recipe if bias_rate is None else replace(recipe, bias_rate=bias_rate)


def name_folder(name: str, steps: int, data: str) -> str:
    """Return the folder that has a run's checkpoint, below the working folder: other data is another run."""
    return f"{name}-{steps}-{data}"


@dataclass(slots=True)
class Curve:
    """Figures of a model at the start of its training, after each sixth of the steps, and at the end.

    A line of JSON for each, in a file that a run which continues goes on with.
    """

    file: Path
    steps: int
    points: list[Figures] = field(init=False)

    def __post_init__(self) -> None:
        self.points = []
        if self.file.exists():
            self.points = [json.loads(line) for line in self.file.read_text("utf-8").splitlines()]

    def is_due(self, step: int) -> bool:
        """Whether so many steps have reached a point that has no figures: that one, or one which a kill has cost."""
        last = self.points[-1]["step"] if self.points else -1
        return any(last < self.steps * part // PARTS <= step for part in range(PARTS + 1))

    def add(self, step: int, figures: Figures) -> None:
        """Keep the figures after so many steps."""
        self.points.append({"step": step, **figures})
        self.file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(self.file, "".join(f"{json.dumps(point)}\n" for point in self.points))


def heal_model(
    model: R1PlusModel,
    teacher: R1PlusModel,
    batches: BatchSource,
    recipe: HealingRecipe,
    curve: Curve,
    measure: Callable[[R1PlusModel], Figures],
) -> None:
    """Train a model that was just changed, in the curve's folder. Go on with a run that was killed.

    It is measured as it would be served, with its own share of neurons; the training has the numbers that it has without.
    """
    if curve.is_due(0):
        curve.add(0, measure(model))
    seconds: list[float] = []
    figures: Figures = {}
    began = time.monotonic()
    for report in heal(model, teacher, batches, recipe, curve.file.parent):
        seconds.append(time.monotonic() - began)
        figures = {"tokens": report.tokens, "loss": round(report.loss, 3), "training_share": round(report.active, 3)}
        figures["step_seconds"] = round(statistics.median(seconds), 2)
        if report.step % REPORT_EVERY == 0 or report.step == recipe.steps:
            print(f"step {report.step} of {recipe.steps}: {figures}", flush=True)
        if report.step < recipe.steps and curve.is_due(report.step):
            set_active(model, model.architecture.active)  # The next step has a share of its own again.
            curve.add(report.step, figures | measure(model))
            model.train()
            print(f"step {report.step} of {recipe.steps}: {curve.points[-1]}", flush=True)
            seconds.clear()
        began = time.monotonic()
    if curve.is_due(recipe.steps):
        curve.add(recipe.steps, figures | measure(model))
