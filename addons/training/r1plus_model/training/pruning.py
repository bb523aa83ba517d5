"""Which layers of a teacher a student keeps: those that change the hidden states most.

The influence of a layer is 1 - the mean cosine between its input and its output (ShortGPT, Men et al. 2024, "block
influence"). What is cut is cut at once, as measured with all layers in place.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from r1plus_model.model import R1PlusModel


def measure_influence(model: R1PlusModel, texts: Sequence[Sequence[int]]) -> list[float]:
    """Return the influence of each layer on the tokens of these texts, from 0, which changes nothing, to 2."""
    sums = [0.0] * len(model.layers)

    def watch(number: int, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            sums[number] += (1 - functional.cosine_similarity(inputs[0], output, dim=-1)).sum().item()

        return layer.register_forward_hook(add)

    handles = [watch(number, layer) for number, layer in enumerate(model.layers)]
    try:
        with torch.no_grad():
            for text in texts:
                model.compute_states(torch.tensor([list(text)]))
    finally:
        for handle in handles:
            handle.remove()
    return [one / sum(map(len, texts)) for one in sums]


def choose_layers(influence: Sequence[float], count: int) -> tuple[int, ...]:
    """Return the `count` layers of most influence, in their order; of equal ones the earlier."""
    ranked = sorted(range(len(influence)), key=lambda layer: (-influence[layer], layer))
    return tuple(sorted(ranked[:count]))
