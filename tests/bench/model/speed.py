"""Decoding in turn: each token of each model is timed after the same token of the others, so all meet the same load."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from r1plus_model.model import R1PlusModel

WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """Milliseconds of one step, and how many times as fast it is as the first of its series, pair by pair."""

    least: float
    median: float
    gain: float
    gain_range: tuple[float, float]
    """Quartiles of the pairs."""


def time_in_turn(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Pace]:
    """Time each step once a round; the first is what the others are compared with."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds + WARM_UP):
        # The order changes, so no arm is always the one that finds the processor's cache cold.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            steps[name]()
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    first = seconds[names[0]]
    return {name: _describe(first, own) for name, own in seconds.items()}


def _describe(first: Sequence[float], own: Sequence[float]) -> Pace:
    gains = sorted(one / other for one, other in zip(first, own, strict=True))
    quartiles = statistics.quantiles(gains, n=4) if len(gains) > 1 else [gains[0]] * 3
    low, middle, high = (round(one, 2) for one in quartiles)
    return Pace(round(min(own) * 1e3, 2), round(statistics.median(own) * 1e3, 2), middle, (low, high))


class Decoder:
    """A model that has read a text and decodes one token after the other."""

    def __init__(self, model: R1PlusModel, batch: int, read: int, rounds: int) -> None:
        self._model = model.eval()
        self._cache = model.allocate_cache(batch, read + rounds + WARM_UP)
        ids = torch.randint(0, model.shape.vocabulary, (batch, read), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            states = model.compute_states(ids, cache=self._cache)
            self._next = model.compute_logits(states[:, -1:]).argmax(-1)

    def step(self) -> None:
        """Decode one token of each row."""
        with torch.inference_mode():
            self._next = self._model(self._next, cache=self._cache).argmax(-1)


def compute_mlps(model: R1PlusModel) -> Callable[[], None]:
    """Return a step that computes the MLPs of all layers for one token, and nothing else."""
    model.eval()
    x = torch.randn(1, 1, model.shape.hidden_size, generator=torch.Generator().manual_seed(1))

    def step() -> None:
        with torch.inference_mode():
            for layer in model.layers:
                layer.mlp(x)

    return step
