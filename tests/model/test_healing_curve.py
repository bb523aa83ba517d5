"""The curve of `make bench NAME=model PART=healing`: measured meanwhile, without a change of the training, and kept."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.model.healed import Curve, heal_model
from r1plus_contract.engine.llama_architecture import LlamaArchitecture
from r1plus_model.checkpoint import load_model
from r1plus_model.model import R1PlusModel
from r1plus_model.sampling.decoding import decode_greedily
from r1plus_model.training.healing import HealingRecipe, TrainingBatch, heal
from support.model.llamas import draw_ids, mask_padding, write_tiny

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
R1PLUS = LlamaArchitecture(
    window=8, sinks=2, global_every=3, relative_bias=True, span_ramp=4, active=0.2, predictor_rank=8
)
OWN_COUNT = R1PLUS.count_active(80)
RECIPE = HealingRecipe(steps=24, rate=2e-3, checkpoint_every=4)
DUE = [0, 4, 8, 12, 16, 20, 24]


class KilledError(Exception):
    """The process ends here."""


@dataclass
class Measurement:
    """What measures a model as the bench does: passes and answers; `dies_at` is the call that a kill interrupts."""

    dies_at: int = 0
    counts: list[int] = field(default_factory=list)
    """Neurons that were active in each call."""

    def __call__(self, model: R1PlusModel) -> dict[str, Any]:
        self.counts.append(model.layers[0].mlp.count)
        if len(self.counts) == self.dies_at:
            raise KilledError
        decode_greedily(model, draw_ids(3, 6).tolist(), 4, lambda answer: False)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return {"mean": float(model.eval()(draw_ids(2, 20)).float().mean())}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def draw_batch(step: int) -> TrainingBatch:
    return TrainingBatch(draw_ids(4, 24, seed=step % 10), mask_padding([0, 0, 5, 10], 24))


def run(
    tiny: Path, file: Path, measurement: Measurement, recipe: HealingRecipe = RECIPE
) -> tuple[R1PlusModel, list[int]]:
    """Heal with a curve in the file; return the model, and the steps that have figures."""
    model, curve = load_model(tiny, R1PLUS), Curve(file, recipe.steps)
    heal_model(model, load_model(tiny), draw_batch, recipe, curve, measurement)
    return model, [point["step"] for point in curve.points]


def have_same_weights(one: R1PlusModel, other: R1PlusModel) -> bool:
    return all(torch.equal(own, others) for own, others in zip(one.parameters(), other.parameters(), strict=True))


def test_a_model_is_measured_meanwhile_and_trained_as_without_it(tiny: Path, tmp_path: Path) -> None:
    plain = load_model(tiny, R1PLUS)
    losses = [report.loss for report in heal(plain, load_model(tiny), draw_batch, RECIPE, tmp_path / "plain")]
    measurement = Measurement()

    model, steps = run(tiny, tmp_path / "run" / "curve.jsonl", measurement)

    assert steps == DUE
    assert have_same_weights(model, plain)
    assert measurement.counts == [OWN_COUNT] * len(DUE), "it is measured as it would be served"
    points = [json.loads(line) for line in (tmp_path / "run" / "curve.jsonl").read_text().splitlines()]
    assert [point["loss"] for point in points[1:]] == [round(losses[step - 1], 3) for step in DUE[1:]]
    assert points[-1]["tokens"] == sum(int(draw_batch(step).mask.sum()) for step in range(RECIPE.steps))
    assert len({point["mean"] for point in points}) == len(DUE)


def test_a_run_that_is_killed_while_it_measures_keeps_its_curve(tiny: Path, tmp_path: Path) -> None:
    whole, _ = run(tiny, tmp_path / "whole" / "curve.jsonl", Measurement())
    with pytest.raises(KilledError):
        run(tiny, tmp_path / "killed" / "curve.jsonl", Measurement(dies_at=3))  # After step 8, which has a checkpoint.
    measurement = Measurement()

    continued, steps = run(tiny, tmp_path / "killed" / "curve.jsonl", measurement)

    assert steps == [0, 4, 9, 12, 16, 20, 24], "the next step stands in for the one that was lost"
    assert len(measurement.counts) == 5
    assert have_same_weights(continued, whole)


def test_steps_that_are_done_again_are_not_measured_again(tiny: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, checkpoint_every=50)
    with pytest.raises(KilledError):
        run(tiny, tmp_path / "curve.jsonl", Measurement(dies_at=4), recipe)
    measurement = Measurement()

    _, steps = run(tiny, tmp_path / "curve.jsonl", measurement, recipe)

    assert steps == DUE
    assert len(measurement.counts) == 4


def test_a_run_that_ended_without_a_curve_is_measured_at_its_ends(tiny: Path, tmp_path: Path) -> None:
    plain = load_model(tiny, R1PLUS)
    list(heal(plain, load_model(tiny), draw_batch, RECIPE, tmp_path))

    model, steps = run(tiny, tmp_path / "curve.jsonl", Measurement())

    assert steps == [0, 24]
    assert have_same_weights(model, plain)
    measurement = Measurement()
    assert run(tiny, tmp_path / "curve.jsonl", measurement)[1] == [0, 24]
    assert measurement.counts == [], "a run that has its figures has nothing to do"


def test_a_short_run_has_as_many_points_as_steps(tiny: Path, tmp_path: Path) -> None:
    assert run(tiny, tmp_path / "curve.jsonl", Measurement(), replace(RECIPE, steps=3))[1] == [0, 1, 2, 3]
