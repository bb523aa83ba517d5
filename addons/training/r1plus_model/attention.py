"""Attention of a Llama, and R1+'s: a sliding window with sinks, learned spans and a learned relative bias.

With the options off it computes what transformers 5 computes by `sdpa`, in the same order, so the bits are the same
(models/llama/modeling_llama.py, integrations/sdpa_attention.py). Tensors are (batch, heads, tokens, head size).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from r1plus_contract.engine.llama_architecture import LlamaArchitecture, LlamaShape
from r1plus_model.cache import EMPTY, SlotLayout, SlotWrite


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which keys each query sees, in layers of one layout."""

    allowed: Tensor | None
    """(batch or 1, 1, queries, keys); None: all that causality allows."""
    entries: Tensor | None = None
    """(batch or 1, queries, keys): which column of `Attention.score_distances` is added; None for full attention."""


class KeyStore(Protocol):
    """What a pass stores keys and values in, and reads them from."""

    def write(self, layer: int, write: SlotWrite, keys: Tensor, values: Tensor) -> None:
        """Store a chunk of one layer, (batch, KV heads, tokens, head size) each."""

    def read(self, layer: int, slots: int) -> tuple[Tensor, Tensor]:
        """Return keys and values in the first slots of a layer."""


@dataclass(frozen=True, slots=True)
class LayerContext:
    """What the layers of one layout share while they compute one chunk of tokens."""

    cosines: Tensor
    sines: Tensor
    visibility: Visibility
    cache: KeyStore | None = None
    write: SlotWrite | None = None
    stored_slots: int = 0
    """Slots of the cache that may hold tokens; 0: the chunk is all there is."""


def compute_rotations(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the positions (batch, tokens): (batch, 1, tokens, head size)."""
    angles = positions[..., None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn queries or keys by their positions."""
    half = x.shape[-1] // 2
    return (x * cosines) + (torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sines)


def find_visible(queries: Tensor, keys: Tensor, window: int | None, sinks: int) -> Visibility:
    """Return what queries see of keys, by their positions (batch, tokens).

    No real token sees padding. Padding sees padding in window layers, so that no row of an added mask is -inf alone.
    """
    distances = queries[:, :, None] - keys[:, None, :]
    is_causal = (distances >= 0) & (keys != EMPTY)[:, None, :]
    if window is None:
        return Visibility(is_causal[:, None])
    is_near, is_sink = distances < window, (keys < sinks)[:, None, :]
    allowed = is_causal & (is_near | is_sink)
    if bool((queries == EMPTY).any()):
        allowed = allowed | ((queries == EMPTY)[:, :, None] & (keys == EMPTY)[:, None, :])
    entries = distances.clamp(0, window - 1) + is_sink * window
    return Visibility(allowed[:, None], torch.where(is_near, entries, 2 * window))


class GroupedQueryAttention(nn.Module):
    """Grouped-query attention of one layer."""

    def __init__(self, shape: LlamaShape, architecture: LlamaArchitecture, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads = layer, shape.heads, shape.kv_heads
        self.head_size, self.scale = shape.head_size, shape.head_size**-0.5
        queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
        self.q_proj = nn.Linear(shape.hidden_size, queries, bias=shape.has_attention_bias)
        self.k_proj = nn.Linear(shape.hidden_size, keys, bias=shape.has_attention_bias)
        self.v_proj = nn.Linear(shape.hidden_size, keys, bias=shape.has_attention_bias)
        self.o_proj = nn.Linear(queries, shape.hidden_size, bias=shape.has_attention_bias)
        self.window = architecture.window if architecture.has_window(layer) else None
        self.sinks = architecture.sinks if self.window else 0
        self.span_ramp = architecture.span_ramp
        # One number per head and distance, and one for sinks beyond the window, whatever their distance.
        self.relative_bias = None
        self.spans = None
        if self.window:
            if architecture.relative_bias:
                self.relative_bias = nn.Parameter(torch.zeros(shape.heads, self.window + 1))
            if architecture.span_ramp:
                self.spans = nn.Parameter(torch.ones(shape.heads))

    @property
    def is_adaptive(self) -> bool:
        """Whether scores depend on the distance by learned numbers."""
        return self.relative_bias is not None or self.spans is not None

    def forward(self, x: Tensor, context: LayerContext) -> Tensor:
        """Return what the tokens (batch, tokens, hidden size) take from those that they see."""
        batch, tokens, _ = x.shape
        queries, keys, values = (
            projected.view(batch, tokens, -1, self.head_size).transpose(1, 2)
            for projected in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        queries = rotate(queries, context.cosines, context.sines)
        keys = rotate(keys, context.cosines, context.sines)
        if context.cache is not None and context.write is not None:
            keys, values = self._exchange(context, context.cache, context.write, keys, values)
        mixed = self.mix(queries, keys, values, context.visibility)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))

    def _exchange(
        self, context: LayerContext, cache: KeyStore, write: SlotWrite, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Store the chunk, and return all keys and values that its queries may see."""
        if write.sources is None:
            cache.write(self.layer, write, keys, values)
            return cache.read(self.layer, context.stored_slots)
        if context.stored_slots:
            # A ring has no place for the chunk and for what its first token sees: read, then write.
            old_keys, old_values = (buffer.clone() for buffer in cache.read(self.layer, context.stored_slots))
            cache.write(self.layer, write, keys, values)
            return torch.cat((old_keys, keys), 2), torch.cat((old_values, values), 2)
        cache.write(self.layer, write, keys, values)
        return keys, values

    def mix(self, queries: Tensor, keys: Tensor, values: Tensor, visibility: Visibility) -> Tensor:
        """Return the values that each query sees, by their scores: (batch, heads, queries, head size)."""
        mask = self._build_mask(visibility, queries.dtype)
        return functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None and queries.shape[2] > 1,
            scale=self.scale,
            enable_gqa=self.kv_heads < self.heads,
        )

    def _build_mask(self, visibility: Visibility, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to the scores, or which keys are visible, or None for plain causality."""
        if not self.is_adaptive or visibility.allowed is None:
            return visibility.allowed
        numbers, entries = self.score_distances(), visibility.entries
        assert entries is not None
        added = numbers.index_select(1, entries.flatten()).view(self.heads, *entries.shape).transpose(0, 1)
        return added.masked_fill(~visibility.allowed, float("-inf")).to(dtype)

    def score_distances(self) -> Tensor:
        """Return what is added to scores: (heads, 2 * window + 1).

        By distance for tokens, then by distance for sinks, which no span hides, and last for sinks beyond the window.
        """
        assert self.window is not None
        bias = torch.zeros(self.heads, self.window + 1) if self.relative_bias is None else self.relative_bias
        near = bias[:, : self.window]
        return torch.cat((near if self.spans is None else near + self._log_visibility(), bias), dim=1)

    def count_visible(self) -> int:
        """Return the largest distance that a head of this layer sees, plus one: slots that a ring needs."""
        assert self.window is not None
        if self.spans is None:
            return self.window
        is_visible = (self._log_visibility() > float("-inf")).any(0)
        return int(is_visible.nonzero().max()) + 1

    def _log_visibility(self) -> Tensor:
        """Return the logarithm of the share of a key that counts, by distance: (heads, window).

        1 up to the span, then falling to 0 over the ramp. The gradient is finite where the share is 0. A token sees
        itself whatever the span is.
        """
        assert self.window is not None and self.spans is not None and self.span_ramp is not None
        reach = self.spans.clamp(0, 1) * (self.window - 1)
        shares = (reach[:, None] - torch.arange(self.window)) / self.span_ramp + 1
        shares = shares.clamp(0, 1)
        is_zero = shares <= 0
        return torch.where(is_zero, float("-inf"), torch.where(is_zero, 1, shares).log())


def choose_layout(attention: GroupedQueryAttention, context: int) -> SlotLayout:
    """Return the slots of a layer for sequences of at most `context` tokens: a ring where it has a window."""
    if attention.window is None:
        return SlotLayout(0, context)
    sinks = min(attention.sinks, context - 1)
    return SlotLayout(sinks, min(attention.count_visible(), context - sinks))
