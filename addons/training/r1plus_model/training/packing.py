"""Texts with the same beginning in one pass: the beginning is computed once, and its gradient, too.

Examples before a question have ten times its tokens: without this they would be computed for each text of a step, and
read for each token of each answer. For a Llama alone: what a token sees is given here, by no window.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from r1plus_contract.engine.llama_architecture import ModelError
from r1plus_model.attention import LayerContext, Visibility, compute_rotations
from r1plus_model.cache import SlotWrite
from r1plus_model.model import R1PlusModel

_BEGINNING: Final = -1
"""Owner of the tokens that all texts see."""


def find_beginning(texts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all texts begin with; the last token of each is not counted."""
    most = min(map(len, texts)) - 1
    return next((place for place in range(most) if len({text[place] for text in texts}) > 1), most)


def compute_packed_states(model: R1PlusModel, beginning: Sequence[int], rests: Sequence[Sequence[int]]) -> Tensor:
    """Return the states (tokens, hidden size) of the rests, one after the other, each after the same beginning.

    They are what one pass for each text computes, up to rounding, and have its gradient.

    Raises:
        ModelError: the model has attention windows or sparse layers, or a text is longer than those of training.
    """
    start = len(beginning)
    tokens = [*beginning, *(token for rest in rests for token in rest)]
    positions = torch.cat([torch.arange(start), *(start + torch.arange(len(rest)) for rest in rests)])
    return _compute(model, tokens, positions, _find_visible(_list_owners(start, rests)), None)[start:]


class BranchCache:
    """Keys and values of a beginning, of texts that follow it, and of continuations of these: each token once.

    A cache with a row for each continuation would hold the beginning as often, and read all of it for each token.
    """

    def __init__(self, model: R1PlusModel, beginning: Sequence[int]) -> None:
        """Compute the beginning, which may be empty."""
        self._model, self._start = model, len(beginning)
        self._keys: list[Tensor] = [torch.empty(0)] * model.shape.layers
        self._values = list(self._keys)
        if beginning:
            visible = _find_visible(_list_owners(self._start, ()))
            _compute(model, beginning, torch.arange(self._start), visible, self)
        self._beginning = list(zip(self._keys, self._values, strict=True))
        self._seen, self._lengths = torch.empty(0), torch.empty(0)

    def begin(self, rests: Sequence[Sequence[int]], copies: int) -> Tensor:
        """Forget all but the beginning; return the states (rows, hidden size) of the last tokens of texts.

        Each text has `copies` rows, one after the other, that go on by themselves.
        """
        for layer, (key, value) in enumerate(self._beginning):
            self._keys[layer], self._values[layer] = key, value
        owners = _list_owners(self._start, rests)
        own = owners[self._start :]
        positions = torch.cat([self._start + torch.arange(len(rest)) for rest in rests])
        tokens = [token for rest in rests for token in rest]
        states = _compute(self._model, tokens, positions, _find_visible(owners)[self._start :], self)
        ends = torch.tensor([len(rest) for rest in rests]).cumsum(0) - 1
        # Of each continuation, which stored tokens it sees; its own are added as they come.
        seen = (own[None, :] == torch.arange(len(rests))[:, None]).repeat_interleave(copies, 0)
        self._seen = torch.cat([torch.ones(len(seen), self._start, dtype=torch.bool), seen], 1)
        self._lengths = torch.tensor([self._start + len(rest) for rest in rests]).repeat_interleave(copies)
        return states[ends].repeat_interleave(copies, 0)

    def extend(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Return the states (rows, hidden size) of one token more of each of these rows."""
        chosen = torch.tensor(rows)
        own = torch.zeros(len(self._seen), len(rows), dtype=torch.bool)
        own[chosen, torch.arange(len(rows))] = True
        self._seen = torch.cat([self._seen, own], 1)
        states = _compute(self._model, tokens, self._lengths[chosen], self._seen[chosen], self)
        self._lengths[chosen] += 1
        return states

    def write(self, layer: int, write: SlotWrite, keys: Tensor, values: Tensor) -> None:
        """Add keys and values of a layer: what `Attention` asks of a cache."""
        if not self._keys[layer].numel():
            self._keys[layer], self._values[layer] = keys, values
            return
        self._keys[layer] = torch.cat([self._keys[layer], keys], 2)
        self._values[layer] = torch.cat([self._values[layer], values], 2)

    def read(self, layer: int, slots: int) -> tuple[Tensor, Tensor]:
        """Return all keys and values of a layer."""
        return self._keys[layer], self._values[layer]


def _list_owners(start: int, rests: Sequence[Sequence[int]]) -> Tensor:
    """Return the number of the text that each token belongs to."""
    rows = [torch.full((len(rest),), row) for row, rest in enumerate(rests)]
    return torch.cat([torch.full((start,), _BEGINNING), *rows])


def _find_visible(owners: Tensor) -> Tensor:
    """Return what tokens see (tokens, tokens): those before them of the beginning, and of their own text."""
    is_before = torch.ones(len(owners), len(owners), dtype=torch.bool).tril()
    return is_before & ((owners[None, :] == owners[:, None]) | (owners == _BEGINNING)[None, :])


def _compute(
    model: R1PlusModel, tokens: Sequence[int], positions: Tensor, visible: Tensor, cache: BranchCache | None
) -> Tensor:
    """Return the states (tokens, hidden size) of one row of tokens that see what `visible` (tokens, keys) says."""
    if not model.architecture.is_llama:
        raise ModelError("model_type: r1plus: texts of one beginning are computed together for a Llama only")
    if (length := int(positions.max()) + 1) > model.shape.context:
        raise ModelError(f"ids: a sequence of {length} tokens, and the model was trained on {model.shape.context}")
    x = model.embed_tokens(torch.tensor([tokens]))
    rotations = compute_rotations(positions[None], model.frequencies, x.dtype)
    write = None if cache is None else SlotWrite(positions[None], None, positions[None])
    context = LayerContext(*rotations, Visibility(visible[None, None]), cache, write)
    for layer in model.layers:
        x = layer(x, context)
    states: Tensor = model.norm(x)[0]
    return states
