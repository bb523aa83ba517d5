"""Healing: a model whose architecture was changed learns from the one that it was, by distillation.

Neurons are switched off bit by bit over the first part of the steps. What R1+ adds has learning rates of its own: with
the rate of the weights a bias that begins at zero hardly moves. A run that is killed continues from its last
checkpoint, with the same numbers as one that was not.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from r1plus_contract.jsonable import dumps
from r1plus_model.errors import DistillationError
from r1plus_model.model import R1PlusModel
from r1plus_model.sparse import collect_predictor_loss
from r1plus_model.training.losses import distillation_loss
from r1plus_model.training.training_state import Position, load_state, save_state

MOST_GRADIENT: Final = 1.0
"""Norm of the gradient beyond which it is scaled down."""


@dataclass(frozen=True, slots=True)
class HealingRecipe:
    """How a model is healed. Rates are peaks: ten steps up, then along a cosine to a tenth.

    Raises:
        DistillationError: a value is out of range.
    """

    steps: int
    rate: float = 2e-4
    bias_rate: float = 1e-2
    span_rate: float = 1e-3
    predictor_rate: float = 1e-3
    temperature: float = 3.0
    first_active: float = 0.6
    """Share of active neurons in the first step; the architecture's own is reached at `anneal` of the steps."""
    anneal: float = 0.5
    span_penalty: float = 0.0
    """Weight of the mean span in the loss: spans that are of no use become shorter."""
    is_bfloat16: bool = True
    """Compute in bfloat16 where torch's autocast does; the weights are in FP32."""
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        bounds = {
            "steps": (1, 10**6),
            "checkpoint_every": (1, 10**6),
            **dict.fromkeys(("rate", "bias_rate", "span_rate", "predictor_rate"), (1e-9, 1.0)),
            "temperature": (0.1, 100),
            "first_active": (1e-6, 1),
            "anneal": (0, 1),
            "span_penalty": (0, 1000),
        }
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                raise DistillationError(
                    f"{name}: {getattr(self, name)!r:.40} is not from {least:g} to {most:g}; change it"
                )


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Tokens of a step: (batch, tokens) each."""

    ids: Tensor
    mask: Tensor
    """False for padding."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step was like."""

    step: int
    loss: float
    active: float
    tokens: int
    """Tokens of all steps so far."""


BatchSource = Callable[[int], TrainingBatch]
"""Step -> its batch. The same step has the same batch, so a run can continue."""


def heal(
    model: R1PlusModel, teacher: R1PlusModel, batches: BatchSource, recipe: HealingRecipe, folder: Path
) -> Iterator[StepReport]:
    """Train the model to match the teacher's distribution; yield after each step.

    It continues if the folder has a checkpoint. The model has its own architecture again after the last step.

    Raises:
        DistillationError: the checkpoint is of another recipe, teacher or model, or cannot be written, or the loss is
            no number.
    """
    optimizer = torch.optim.AdamW(list_groups(model, recipe), betas=(0.9, 0.95), weight_decay=0.0)
    identity = {"recipe": _choose_key(model, recipe), "teacher": _hash_model(teacher), "model": _hash_model(model)}
    position = load_state(folder, identity, model, optimizer)
    teacher.eval()
    model.train()
    for step in range(position.step, recipe.steps):
        active = choose_active(recipe, model.architecture.active, step)
        set_active(model, active)
        batch = batches(step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * scale_rate(step, recipe.steps)
        loss = _train_step(model, teacher, batch, recipe, optimizer, step)
        position = Position(step + 1, position.tokens + int(batch.mask.sum()))
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            save_state(folder, identity, position, model, optimizer)
        yield StepReport(step + 1, loss, active, position.tokens)
    set_active(model, model.architecture.active)
    model.eval()


def list_groups(model: R1PlusModel, recipe: HealingRecipe) -> list[dict[str, Any]]:
    """Return groups of parameters with the peaks of their rates, in a fixed order."""
    rates = {"relative_bias": recipe.bias_rate, "spans": recipe.span_rate, "predictor": recipe.predictor_rate}
    groups: dict[str, list[nn.Parameter]] = {"": [], **{name: [] for name in rates}}
    for name, parameter in model.named_parameters():
        groups[next((part for part in name.split(".") if part in rates), "")].append(parameter)
    peaks = {"": recipe.rate, **rates}
    return [{"params": own, "lr": peaks[name], "peak": peaks[name]} for name, own in groups.items() if own]


def scale_rate(step: int, steps: int) -> float:
    """Return the share of the peak that a rate has in a step, counted from 0."""
    return min(1.0, (step + 1) / 10) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def choose_active(recipe: HealingRecipe, last: float, step: int) -> float:
    """Return the share of neurons that are active in a step."""
    remaining = max(0.0, 1 - step / (recipe.steps * recipe.anneal)) if recipe.anneal else 0.0
    return last + max(0.0, recipe.first_active - last) * remaining


def set_active(model: R1PlusModel, share: float) -> None:
    """Let this share of each MLP's neurons be active."""
    for layer in model.layers:
        layer.mlp.count = max(1, math.floor(layer.mlp.neurons * share))


def _train_step(
    model: R1PlusModel,
    teacher: R1PlusModel,
    batch: TrainingBatch,
    recipe: HealingRecipe,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> float:
    """Change the weights once; return the loss of distillation alone, in nats."""
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.is_bfloat16):
        # Logits are computed for real tokens only: they are the largest tensor by far.
        with torch.no_grad():
            target = teacher.compute_logits(teacher.compute_states(batch.ids, batch.mask)[batch.mask])
        logits = model.compute_logits(model.compute_states(batch.ids, batch.mask)[batch.mask])
        every = torch.ones(len(logits), dtype=torch.bool)
        loss = distillation_loss(logits.float(), target.float(), every, recipe.temperature)
        total = loss + _add_terms(model, recipe)
    if not torch.isfinite(total):
        raise DistillationError(
            f"step {step + 1}: the loss is {float(total.detach())}, no finite number: the rates are too high for this"
            " model, or its weights are broken; lower rate, bias_rate and span_rate, and begin in an empty folder"
        )
    total.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), MOST_GRADIENT)
    if not torch.isfinite(norm):
        raise DistillationError(
            f"step {step + 1}: the gradient is {float(norm)}, no finite number, so the weights were not changed; lower"
            " rate, bias_rate and span_rate, and begin in an empty folder"
        )
    optimizer.step()
    optimizer.zero_grad()
    _limit_spans(model)
    return float(loss.detach())


def _limit_spans(model: R1PlusModel) -> None:
    """Keep spans from 0 to 1: beyond that they have no gradient, and would stay there."""
    with torch.no_grad():
        for layer in model.layers:
            if layer.self_attn.spans is not None:
                layer.self_attn.spans.clamp_(0, 1)


def _add_terms(model: R1PlusModel, recipe: HealingRecipe) -> Tensor:
    """Return what is added to the loss: the predictors' own, and the price of wide spans."""
    total = torch.zeros(())
    predictor_loss = collect_predictor_loss(layer.mlp for layer in model.layers)
    if predictor_loss is not None:
        total = total + predictor_loss
    spans = [layer.self_attn.spans for layer in model.layers if layer.self_attn.spans is not None]
    if spans and recipe.span_penalty:
        total = total + recipe.span_penalty * torch.stack([one.clamp(0, 1) for one in spans]).mean()
    return total


def _choose_key(model: R1PlusModel, recipe: HealingRecipe) -> str:
    """Return what names a run: another recipe or architecture is another run."""
    return hashlib.sha256(
        dumps({"recipe": asdict(recipe), "architecture": asdict(model.architecture)}).encode()
    ).hexdigest()


def _hash_model(model: R1PlusModel) -> str:
    """Return a digest of a model's shape and weights, without predictors: some seconds per GB.

    They begin as approximations of other weights, which another number of threads rounds in another way.
    """
    digest = hashlib.sha256(dumps({"shape": model.shape, "architecture": model.architecture}).encode())
    for name, tensor in model.state_dict().items():
        if "predictor" not in name.split("."):
            digest.update(f"\n{name} {tensor.dtype}\n".encode())
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
