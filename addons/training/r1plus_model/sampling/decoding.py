"""Greedy decoding of a batch with a cache: what suites and benches ask, and what an engine must agree with."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from r1plus_contract.engine.llama_architecture import ModelError
from r1plus_model.cache import KvCache
from r1plus_model.model import R1PlusModel

MOST_READ: Final = 512
"""Tokens of a prompt that are read at once: what they see of each other grows with the square."""


def decode_greedily(
    model: R1PlusModel, prompts: Sequence[Sequence[int]], most: int, is_finished: Callable[[list[int]], bool]
) -> list[list[int]]:
    """Return the tokens that the model continues each prompt with, at most `most` of each.

    `is_finished` is asked after each token of a row; the token that finishes a row is the last of its answer.

    Raises:
        ModelError: a prompt is empty, or prompt and answer are longer than the sequences of training.
    """
    if not prompts or not all(prompts):
        raise ModelError("prompts: none, or one without a token; give each at least one token")
    with torch.inference_mode():
        return _decode(model.eval(), prompts, most, is_finished)


def _decode(
    model: R1PlusModel, prompts: Sequence[Sequence[int]], most: int, is_finished: Callable[[list[int]], bool]
) -> list[list[int]]:
    longest = max(map(len, prompts))
    cache = model.allocate_cache(len(prompts), longest + most)
    states = read_prompts(model, *pad_left(prompts), cache)
    answers: list[list[int]] = [[] for _ in prompts]
    is_open = [True] * len(prompts)
    for _ in range(most):
        chosen = model.compute_logits(states[:, -1]).argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            if is_open[row]:
                answers[row].append(token)
                is_open[row] = not is_finished(answers[row])
        if not any(is_open):
            break
        states = model.compute_states(chosen[:, None], cache=cache)
    return answers


def read_prompts(model: R1PlusModel, ids: Tensor, mask: Tensor, cache: KvCache) -> Tensor:
    """Put prompts (batch, tokens) into the cache; return the states of their last tokens."""
    states = torch.empty(0)
    for begin in range(0, ids.shape[1], MOST_READ):
        part = slice(begin, begin + MOST_READ)
        states = model.compute_states(ids[:, part], mask[:, part], cache)
    return states


def pad_left(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids and mask (batch, longest): padding is before the tokens, so the last column has each row's last."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = True
    return ids, mask
