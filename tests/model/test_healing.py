"""Healing: a changed model gets nearer to the one it was; a killed run continues with the same numbers."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from r1plus_contract.engine.llama_architecture import LlamaArchitecture
from r1plus_model.checkpoint import load_model
from r1plus_model.errors import DistillationError
from r1plus_model.model import R1PlusModel
from r1plus_model.training.healing import HealingRecipe, TrainingBatch, choose_active, heal, list_groups, scale_rate
from support.model.llamas import draw_ids, mask_padding, write_tiny
from support.tables import for_each

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
R1PLUS = LlamaArchitecture(
    window=8, sinks=2, global_every=3, relative_bias=True, span_ramp=4, active=0.2, predictor_rank=8
)
RECIPE = HealingRecipe(steps=40, rate=2e-3, is_bfloat16=False, checkpoint_every=10)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def draw_batch(step: int) -> TrainingBatch:
    return TrainingBatch(draw_ids(4, 24, seed=step % 10), mask_padding([0, 0, 5, 10], 24))


def measure(model: R1PlusModel, teacher: R1PlusModel) -> float:
    """Return the divergence on ids of the training: these are random, so others have nothing in common with them."""
    ids = torch.cat([draw_batch(step).ids for step in range(10)])
    with torch.no_grad():
        target, own = (one.eval()(ids).log_softmax(-1) for one in (teacher, model))
        return float((target.exp() * (target - own)).sum(-1).mean())


def run(model: R1PlusModel, teacher: R1PlusModel, folder: Path, recipe: HealingRecipe = RECIPE) -> list[float]:
    return [report.loss for report in heal(model, teacher, draw_batch, recipe, folder)]


@for_each(
    "architecture",
    {
        "window, spans and bias": replace(R1PLUS, active=1.0, predictor_rank=None),
        "neurons by the gate": LlamaArchitecture(active=0.2),
        "neurons by a predictor": LlamaArchitecture(active=0.2, predictor_rank=8),
        "all of R1+": R1PLUS,
    },
)
def test_a_changed_model_gets_nearer_to_what_it_was(
    architecture: LlamaArchitecture, tiny: Path, tmp_path: Path
) -> None:
    model, teacher = load_model(tiny, architecture), load_model(tiny)
    before = measure(model, teacher)

    losses = run(model, teacher, tmp_path)

    assert len(losses) == RECIPE.steps
    assert measure(model, teacher) < 0.9 * before
    assert not model.training
    assert [layer.mlp.count for layer in model.layers] == [architecture.count_active(80)] * 3


@for_each("is_bfloat16", {"in FP32": False, "in bfloat16 where torch computes in it": True})
def test_a_killed_run_continues_with_the_same_numbers(is_bfloat16: bool, tiny: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, is_bfloat16=is_bfloat16)
    teacher, whole, killed = load_model(tiny), load_model(tiny, R1PLUS), load_model(tiny, R1PLUS)
    losses = run(whole, teacher, tmp_path / "whole", recipe)
    for report in heal(killed, teacher, draw_batch, recipe, tmp_path / "killed"):
        if report.step == 17:
            break  # Seven steps are lost, and three checkpoints are not written.

    continued = load_model(tiny, R1PLUS)
    again = run(continued, teacher, tmp_path / "killed", recipe)

    assert again == losses[10:]
    assert all(torch.equal(one, other) for one, other in zip(continued.parameters(), whole.parameters(), strict=True))
    assert run(load_model(tiny, R1PLUS), teacher, tmp_path / "killed", recipe) == [], "a finished run has nothing to do"


def test_what_r1plus_adds_has_rates_of_its_own(tiny: Path) -> None:
    model = load_model(tiny, R1PLUS)
    recipe = HealingRecipe(steps=1, rate=0.1, bias_rate=0.2, span_rate=0.3, predictor_rate=0.4)

    groups = {group["peak"]: len(group["params"]) for group in list_groups(model, recipe)}

    window_layers, layers = 2, 3
    assert groups == {0.1: 2 + 9 * layers, 0.2: window_layers, 0.3: window_layers, 0.4: 3 * layers}


def test_the_bias_moves_by_its_rate(tiny: Path, tmp_path: Path) -> None:
    moved = []
    for rate in (2e-4, 2e-2):
        model = load_model(tiny, R1PLUS)
        run(model, load_model(tiny), tmp_path / str(rate), replace(RECIPE, steps=10, bias_rate=rate))
        moved.append(float(model.layers[0].self_attn.relative_bias.abs().max().detach()))

    assert 0 < moved[0] < 4e-3 < moved[1]


def test_spans_that_have_a_price_become_shorter(tiny: Path, tmp_path: Path) -> None:
    spans = []
    for penalty in (0.0, 100.0):
        model = load_model(tiny, R1PLUS)
        run(model, load_model(tiny), tmp_path / str(penalty), replace(RECIPE, span_rate=2e-2, span_penalty=penalty))
        spans.append(float(model.layers[0].self_attn.spans.mean().detach()))

    assert spans[1] < spans[0] - 0.1


@for_each(
    "step, share",
    {
        "begins with many": (0, 0.6),
        "halfway down": (25, 0.375),
        "all are off at half of the steps": (50, 0.15),
        "and stay off": (99, 0.15),
    },
)
def test_neurons_are_switched_off_bit_by_bit(step: int, share: float) -> None:
    assert choose_active(HealingRecipe(steps=100), 0.15, step) == pytest.approx(share)


def test_no_neuron_is_switched_off_for_a_dense_model() -> None:
    assert choose_active(HealingRecipe(steps=100), 1.0, 0) == 1.0


def test_rates_rise_for_ten_steps_and_fall_to_a_tenth() -> None:
    rates = [scale_rate(step, 1000) for step in range(1000)]

    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert rates.index(max(rates)) == 9
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


@for_each(
    "values, message",
    {
        "no step": ({"steps": 0}, "steps: 0 is not from 1 to 1e+06"),
        "a rate of nothing": ({"rate": 0.0}, "rate: 0.0 is not from 1e-09 to 1"),
        "a rate that is no number": ({"bias_rate": math.nan}, "bias_rate: nan is not"),
        "no temperature": ({"temperature": 0}, "temperature: 0 is not from 0.1 to 100"),
        "a percentage": ({"first_active": 60}, "first_active: 60 is not from 1e-06 to 1"),
        "longer than the run": ({"anneal": 1.5}, "anneal: 1.5 is not from 0 to 1"),
        "a reward for wide spans": ({"span_penalty": -1}, "span_penalty: -1 is not from 0 to 1000"),
    },
)
def test_a_recipe_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DistillationError) as raised:
        HealingRecipe(**({"steps": 1} | values))

    assert message in str(raised.value)


OTHERS: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "another recipe": (lambda tiny: {"recipe": RECIPE}, "recipe"),
    "another teacher": (lambda tiny: {"teacher": change_weights(load_model(tiny))}, "teacher"),
    "a teacher with a window": (lambda tiny: {"teacher": load_model(tiny, LlamaArchitecture(window=8))}, "teacher"),
    "another model": (lambda tiny: {"model": change_weights(load_model(tiny, R1PLUS))}, "model"),
}


def change_weights(model: R1PlusModel) -> R1PlusModel:
    """Change the last number of the last layer a little."""
    with torch.no_grad():
        model.layers[-1].mlp.down_proj.weight[-1, -1] += 1e-6
    return model


@for_each("change, name", OTHERS)
def test_a_checkpoint_is_refused_of(
    change: Callable[[Path], dict[str, Any]], name: str, tiny: Path, tmp_path: Path
) -> None:
    own = {"model": load_model(tiny, R1PLUS), "teacher": load_model(tiny), "recipe": replace(RECIPE, steps=1)}
    run(folder=tmp_path, **own)
    own["model"] = load_model(tiny, R1PLUS)
    other = own | change(tiny)

    message = (
        rf"state.safetensors: a state of another training: {name} [0-9a-f]{{12}} \(here [0-9a-f]{{12}}\); give another"
    )
    with pytest.raises(DistillationError, match=message):
        run(folder=tmp_path, **other)
    assert run(folder=tmp_path, **own) == [], "it is still there, and whole"


def test_a_checkpoint_that_says_nothing_of_its_models_is_refused(tiny: Path, tmp_path: Path) -> None:
    """As an earlier commit wrote it."""
    recipe = replace(RECIPE, steps=1)
    run(load_model(tiny, R1PLUS), load_model(tiny), tmp_path, recipe)
    (file,) = tmp_path.iterdir()
    with safe_open(file, "pt") as stream:
        metadata = stream.metadata()
    save_file(load_file(file), file, {name: metadata[name] for name in ("recipe", "step", "tokens")})

    message = (
        r"another training: teacher not recorded \(here [0-9a-f]{12}\), model not recorded \(here [0-9a-f]{12}\); give"
    )
    with pytest.raises(DistillationError, match=message):
        run(load_model(tiny, R1PLUS), load_model(tiny), tmp_path, recipe)


def test_a_run_continues_with_predictors_that_began_otherwise(tiny: Path, tmp_path: Path) -> None:
    """Another number of threads rounds them in another way."""
    recipe = replace(RECIPE, steps=1)
    assert run(load_model(tiny, R1PLUS), load_model(tiny), tmp_path, recipe)
    model = load_model(tiny, R1PLUS)
    with torch.no_grad():
        model.layers[0].mlp.predictor.up.weight.mul_(1.001)

    assert run(model, load_model(tiny), tmp_path, recipe) == []


def test_a_checkpoint_that_is_damaged_is_refused(tiny: Path, tmp_path: Path) -> None:
    run(load_model(tiny, R1PLUS), load_model(tiny), tmp_path, replace(RECIPE, steps=1))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:5000])

    with pytest.raises(DistillationError, match=r"remove"):
        run(load_model(tiny, R1PLUS), load_model(tiny), tmp_path, replace(RECIPE, steps=1))


@for_each(
    "spoil",
    {
        "weights that are no numbers": lambda model: model.layers[1].mlp.up_proj.weight.fill_(math.nan),
        "weights that overflow": lambda model: model.layers[1].mlp.up_proj.weight.fill_(3e38),
    },
)
def test_a_loss_that_is_no_number_stops_the_run(spoil: Callable[[Any], object], tiny: Path, tmp_path: Path) -> None:
    model = load_model(tiny, R1PLUS)
    with torch.no_grad():
        spoil(model)

    with pytest.raises(DistillationError, match=r"step 1: the loss is .*; lower rate"):
        run(model, load_model(tiny), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_gradient_that_is_no_number_stops_the_run_before_the_weights_change(tiny: Path, tmp_path: Path) -> None:
    model = load_model(tiny, R1PLUS)
    with torch.no_grad():
        model.norm.weight.mul_(1e25)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(DistillationError, match=r"step 1: the gradient is inf, .*; lower rate"):
        run(model, load_model(tiny), tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not list(tmp_path.iterdir())
