"""The training loop: deterministic by seed, and able to go on after a kill at any step with the same result.

Which examples a step sees, and its learning rate, follow from the step's number alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from r1plus_model.errors import DistillationError, InterruptedDistillationError, LostWorkerError
from r1plus_model.model import R1PlusModel
from r1plus_model.training.examples import Example
from r1plus_model.training.losses import combine_losses, hard_label_loss, top_distillation_loss
from r1plus_model.training.recipe import DistillationRecipe, Quality
from r1plus_model.training.teacher_cache import TeacherCache
from r1plus_model.training.training_state import Position, load_state, save_state
from r1plus_model.training.work_folder import Disk, measure_disk
from r1plus_model.training.workers import ALONE, Workers
from r1plus_model_repo.distillation_build import EXAMPLES_TOGETHER

_LARGEST_NORM: Final = 1.0
"""Gradients are scaled down to it."""
_WEIGHT_DECAY: Final = 0.01
REPORT_SECONDS: Final = 15.0
GOES_ON: Final = "the same command goes on"
"""What to do about a run that was asked to stop."""


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a run is."""

    done: int
    total: int
    """Steps; examples while the teacher predicts."""
    loss: float | None = None
    """Of the last step; None: the teacher predicts."""
    seconds_left: float | None = None


def _ignore(progress: TrainingProgress) -> None:
    """Note nothing."""


@dataclass(frozen=True, slots=True)
class TrainingProcess:
    """What a training has of the process that it runs in."""

    report: Callable[[str], None]
    clock: Callable[[], float]
    """Seconds, monotonic."""
    should_stop: Callable[[], bool] = lambda: False
    save_seconds: float = 300.0
    """Between two saved states."""
    measure_disk: Callable[[Path], Disk] = measure_disk
    """Return the disk that a folder is on, or would be made on."""
    note: Callable[[TrainingProgress], None] = _ignore
    """Receives the figures of what `report` says in words."""
    workers: Workers = ALONE
    """Which share of the work is this process's."""


@dataclass(frozen=True, slots=True)
class Material:
    """Examples and what the teacher predicts for them; those held out come after those of the training."""

    training: Sequence[Example]
    held_out: Sequence[Example]
    teacher: TeacherCache


class Schedule(Protocol):
    """What decides the steps of a training."""

    @property
    def key(self) -> str:
        """What names the training, so that its state is not taken for another's."""

    @property
    def steps(self) -> int:
        """Steps of the whole training."""

    @property
    def batch(self) -> int:
        """Examples of one step."""

    @property
    def learning_rate(self) -> float:
        """The highest one."""

    @property
    def seed(self) -> int:
        """Decides the order of the examples."""


GradientSource = Callable[[int], tuple[float, int]]
"""Step -> its loss, and how many tokens it predicted; adds the gradients of that loss to the model's."""


def train(
    model: R1PlusModel, material: Material, recipe: DistillationRecipe, folder: Path, process: TrainingProcess
) -> Position:
    """Train the model in place, from the state in `folder` on; return how far it is.

    Several workers take each step together, and the leader alone saves.

    Raises:
        LostWorkerError: another worker ended or should stop; a new start goes on.
        DistillationError: the loss is no number, the process should stop, or the state cannot be used.
    """
    return run_steps(
        model, recipe, lambda step: _add_gradients(model, material, recipe, step, process.workers), folder, process
    )


def run_steps(
    model: R1PlusModel, schedule: Schedule, add_gradients: GradientSource, folder: Path, process: TrainingProcess
) -> Position:
    """Change the model in place by all steps of a schedule, from the state in `folder` on; return how far it is.

    Raises:
        LostWorkerError: another worker ended or should stop; a new start goes on.
        DistillationError: the loss is no number, the process should stop, or the state cannot be used.
    """
    optimizer = AdamW(model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=_WEIGHT_DECAY)
    identity, workers = {"recipe": schedule.key}, process.workers
    position = load_state(folder, identity, model, optimizer)
    workers.check_same(position.step)
    meter, saved_at = _Meter(schedule, process, position), process.clock()
    with deterministic():
        while position.step < schedule.steps:
            should_stop = process.should_stop()
            try:
                if workers.is_any(should_stop):
                    _stop(position, schedule, should_stop=should_stop)
                position = _take_step(model, optimizer, schedule, add_gradients, position, meter)
            except InterruptedDistillationError:
                # Nothing has changed since the last step. Before the first there is nothing to keep, and no moments.
                if position.step and workers.is_leader:
                    save_state(folder, identity, position, model, optimizer)
                raise
            is_due = process.clock() - saved_at >= process.save_seconds or position.step == schedule.steps
            if workers.is_leader and is_due:
                save_state(folder, identity, position, model, optimizer)
                saved_at = process.clock()
    workers.wait()  # The others must not end before the last state is there: without them it cannot be made again.
    return position


def _stop(position: Position, schedule: Schedule, *, should_stop: bool) -> NoReturn:
    where = f"after step {position.step} of {schedule.steps}"
    if should_stop:
        raise InterruptedDistillationError(f"stopped {where}", GOES_ON)
    raise LostWorkerError(f"another worker stopped {where}; the training goes on when it is back")


def measure_quality(model: R1PlusModel, material: Material, recipe: DistillationRecipe) -> Quality:
    """Return how well the model predicts what was held out.

    Raises:
        DistillationError: what it predicts is no number.
    """
    losses, divergences, tokens = 0.0, 0.0, 0
    with torch.no_grad(), deterministic():
        for number, example in enumerate(material.held_out, len(material.training)):
            prediction = material.teacher.read(number)
            logits, labels = _predict(model, [example])
            losses += hard_label_loss(logits, labels).item() * example.targets
            divergence = top_distillation_loss(
                logits, prediction.tokens, prediction.log_probabilities, recipe.temperature
            )
            divergences += divergence.item() * example.targets
            tokens += example.targets
    if not math.isfinite(losses + divergences):
        raise DistillationError("student: what it predicts is no number; give a lower learning rate or another student")
    return Quality(round(math.exp(min(losses / tokens, 50.0)), 3), round(divergences / tokens, 4))


def measure_teacher(material: Material) -> float:
    """Return the teacher's perplexity of what was held out."""
    start = len(material.training)
    losses = torch.cat([material.teacher.read(start + n).text_losses for n in range(len(material.held_out))])
    return round(math.exp(min(losses.mean().item(), 50.0)), 3)


def choose_batch(count: int, recipe: Schedule, step: int) -> list[int]:
    """Return the examples of a step, counted from 0: a new order each time that all were seen."""
    places = [divmod(place, count) for place in range(step * recipe.batch, (step + 1) * recipe.batch)]
    orders = {epoch: _shuffle(count, recipe.seed * 1_000_003 + epoch) for epoch in {epoch for epoch, _ in places}}
    return [orders[epoch][offset] for epoch, offset in places]


def _shuffle(count: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def compute_rate(recipe: Schedule, step: int) -> float:
    """Return the learning rate of a step: a twentieth of them rises to the recipe's, then it falls along a cosine."""
    rise = max(1, recipe.steps // 20)
    if step < rise:
        return recipe.learning_rate * (step + 1) / rise
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, recipe.steps - rise)))


def _take_step(
    model: R1PlusModel,
    optimizer: AdamW,
    schedule: Schedule,
    add_gradients: GradientSource,
    position: Position,
    meter: "_Meter",
) -> Position:
    rate = compute_rate(schedule, position.step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss, tokens = add_gradients(position.step)
    norm = clip_grad_norm_(model.parameters(), _LARGEST_NORM).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DistillationError(_describe_divergence(schedule, position.step, loss, norm, rate, meter.last_loss))
    optimizer.step()
    return meter.note(Position(position.step + 1, position.tokens + tokens), loss)


def _add_gradients(
    model: R1PlusModel, material: Material, recipe: DistillationRecipe, step: int, workers: Workers
) -> tuple[float, int]:
    batch = choose_batch(len(material.training), recipe, step)
    total = sum(material.training[number].targets for number in batch)
    loss = 0.0
    parts = [batch[start : start + EXAMPLES_TOGETHER] for start in range(0, len(batch), EXAMPLES_TOGETHER)]
    for part in workers.select_share(parts):
        share = sum(material.training[number].targets for number in part) / total
        part_loss = _compute_loss(model, material, recipe, part) * share
        part_loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        loss += part_loss.item()
    # Each part is weighted by its share of all tokens of the step, so the sum is the step's, however many work on it.
    workers.add_gradients(model)
    return workers.add(loss), total


def _compute_loss(model: R1PlusModel, material: Material, recipe: DistillationRecipe, numbers: Sequence[int]) -> Tensor:
    """Return the mean loss over the tokens of these examples that count."""
    with autocast(recipe.precision):
        logits, labels = _predict(model, [material.training[number] for number in numbers])
    logits = logits.float()
    hard = hard_label_loss(logits, labels) if recipe.hard_weight > 0 else torch.zeros(())
    if recipe.hard_weight == 1:
        return hard
    predictions = [material.teacher.read(number) for number in numbers]
    soft = top_distillation_loss(
        logits,
        torch.cat([one.tokens for one in predictions]),
        torch.cat([one.log_probabilities for one in predictions]),
        recipe.temperature,
    )
    return combine_losses(soft, hard, recipe.hard_weight)


def _predict(model: R1PlusModel, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Return the logits (N, vocabulary) for all tokens that count, and these tokens, (N,).

    Padding is behind the text, where no token sees it.
    """
    longest = max(len(one.tokens) for one in examples)
    ids = torch.zeros((len(examples), longest), dtype=torch.long)
    counts = torch.zeros_like(ids, dtype=torch.bool)
    for row, one in enumerate(examples):
        ids[row, : len(one.tokens)] = torch.tensor(one.tokens)
        counts[row, one.first : len(one.tokens)] = True
    states = model.compute_states(ids)
    before = torch.roll(counts, -1, dims=1)  # The state before a token predicts it; no first token counts.
    return model.compute_logits(states[before]), ids[counts]


def autocast(precision: str) -> AbstractContextManager[object]:
    """Let torch multiply matrices in this precision."""
    return torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch compute the same bits each time."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _describe_divergence(
    recipe: Schedule, step: int, loss: float, norm: float, rate: float, last_loss: float | None
) -> str:
    before = "the first step" if last_loss is None else f"the step before had a loss of {last_loss:.4f}"
    return (
        f"learning_rate: the training diverged at step {step + 1} of {recipe.steps}: loss {loss:g}, gradient {norm:g},"
        f" learning rate {rate:.2e}; {before}. The weights of this step were not used. Give a lower learning rate, or"
        " float32 instead of bfloat16"
    )


class _Meter:
    """Reports loss and speed, now and then."""

    def __init__(self, recipe: Schedule, process: TrainingProcess, start: Position) -> None:
        self.last_loss: float | None = None
        self._recipe, self._process = recipe, process
        self._began, self._start = process.clock(), start
        self._reported = self._began

    def note(self, position: Position, loss: float) -> Position:
        """Note a finished step; return its position."""
        self.last_loss, now = loss, self._process.clock()
        if now - self._reported >= REPORT_SECONDS or position.step in (self._start.step + 1, self._recipe.steps):
            self._reported, seconds = now, max(now - self._began, 1e-9)
            left = (self._recipe.steps - position.step) * seconds / (position.step - self._start.step)
            speed = (position.tokens - self._start.tokens) / seconds
            self._process.note(TrainingProgress(position.step, self._recipe.steps, loss, left))
            self._process.report(
                f"step {position.step} of {self._recipe.steps}: loss {loss:.4f}, {speed:.0f} tokens/s,"
                f" {left:.0f} s left"
            )
        return position
