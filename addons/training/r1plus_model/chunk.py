"""The tokens of one pass: their positions, what they see, and where their keys and values go."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r1plus_contract.engine.llama_architecture import ModelError
from r1plus_model.attention import GroupedQueryAttention, LayerContext, Visibility, compute_rotations, find_visible
from r1plus_model.cache import EMPTY, KvCache, SlotLayout, SlotWrite

_CAUSAL = Visibility(None)


@dataclass(frozen=True, slots=True)
class PassPositions:
    """Positions (batch, tokens) of the tokens of one pass, EMPTY for padding."""

    positions: Tensor
    tokens: int
    """Tokens of a row, padding included."""
    stored: int
    """Tokens that the longest row has in the cache."""
    is_plain: bool
    """No padding, and rows of the same length."""

    @property
    def rows(self) -> slice:
        """Rows that say what each token sees: one is enough where all are alike."""
        return slice(1) if self.is_plain else slice(None)


def place_chunk(ids: Tensor, mask: Tensor | None, cache: KvCache | None, context: int) -> PassPositions:
    """Return the chunk that the tokens (batch, tokens) are, after those in the cache.

    Raises:
        ModelError: no token, a mask or a cache of another size, or a row that gets longer than `context`.
    """
    if ids.ndim != 2 or not ids.numel():
        raise ModelError(f"ids: shape {tuple(ids.shape)} is not (batch, tokens) with a token; give such ids")
    if mask is not None and mask.shape != ids.shape:
        raise ModelError(f"mask: shape {tuple(mask.shape)}, and ids have {tuple(ids.shape)}; give one value per token")
    lengths = torch.zeros(len(ids), dtype=torch.long) if cache is None else cache.lengths
    if len(lengths) != len(ids):
        raise ModelError(f"ids: {len(ids)} rows, and the cache has {len(lengths)}; allocate a cache for that batch")
    if mask is None or bool(mask.all()):
        positions = lengths[:, None] + torch.arange(ids.shape[1])
        is_plain = bool((lengths == lengths[0]).all())
    else:
        positions = torch.where(mask.bool(), lengths[:, None] + mask.long().cumsum(1) - 1, EMPTY)
        is_plain = False
    _check_length(int(positions.max()) + 1, context, cache)
    return PassPositions(positions, ids.shape[1], int(lengths.max()), is_plain)


def _check_length(length: int, context: int, cache: KvCache | None) -> None:
    if length > context:
        raise ModelError(
            f"ids: a sequence of {length} tokens, and the model was trained on {context} (max_position_embeddings):"
            " what it says beyond that was never measured; shorten the text"
        )
    if cache is not None and length > cache.context:
        raise ModelError(
            f"ids: a sequence of {length} tokens, and the cache was allocated for {cache.context}; allocate more"
        )


def share_contexts(
    chunk: PassPositions,
    attentions: Sequence[GroupedQueryAttention],
    cache: KvCache | None,
    frequencies: Tensor,
    dtype: torch.dtype,
) -> tuple[list[LayerContext], dict[SlotLayout, SlotWrite]]:
    """Return the context of each layer, shared where layers see the same, and where the cache stores the chunk."""
    cosines, sines = compute_rotations(chunk.positions, frequencies, dtype)
    shared: dict[tuple[object, ...], LayerContext] = {}
    writes: dict[SlotLayout, SlotWrite] = {}
    contexts = []
    for attention in attentions:
        layout = None if cache is None else cache.layouts[attention.layer]
        key = (layout, attention.window, attention.is_adaptive)
        if key not in shared:
            if cache is not None and layout is not None and layout not in writes:
                writes[layout] = cache.plan_write(layout, chunk.positions)
            rotations = (cosines, sines)
            if cache is None or layout is None:
                shared[key] = LayerContext(*rotations, _see_chunk(chunk, attention))
            else:
                shared[key] = _join_cache(chunk, attention, rotations, cache, layout, writes[layout])
        contexts.append(shared[key])
    return contexts, writes


def _join_cache(
    chunk: PassPositions,
    attention: GroupedQueryAttention,
    rotations: tuple[Tensor, Tensor],
    cache: KvCache,
    layout: SlotLayout,
    write: SlotWrite,
) -> LayerContext:
    is_stored_first = write.sources is None
    slots = layout.count_filled(chunk.stored + is_stored_first)
    visibility = _see_cache(chunk, attention, cache.positions[layout][:, :slots], write)
    return LayerContext(*rotations, visibility, cache, write, slots)


def _see_chunk(chunk: PassPositions, attention: GroupedQueryAttention) -> Visibility:
    """Return what the tokens see of each other, if there are no others."""
    has_all_near = attention.window is None or (chunk.tokens <= attention.window and not attention.is_adaptive)
    if chunk.is_plain and has_all_near:
        return _CAUSAL
    positions = chunk.positions[chunk.rows]
    return find_visible(positions, positions, attention.window, attention.sinks)


def _see_cache(chunk: PassPositions, attention: GroupedQueryAttention, stored: Tensor, write: SlotWrite) -> Visibility:
    """Return what the tokens see of those in the cache, and of each other."""
    if write.sources is None:
        # One token a row, which is in the cache already. A ring has no token that is out of its window.
        if chunk.is_plain and not attention.is_adaptive:
            return _CAUSAL
        keys = write.positions[chunk.rows, : stored.shape[1]]
        return find_visible(chunk.positions[chunk.rows], keys, attention.window, attention.sinks)
    if not stored.shape[1]:
        return _see_chunk(chunk, attention)
    keys = torch.cat((stored, chunk.positions), 1)[chunk.rows]
    return find_visible(chunk.positions[chunk.rows], keys, attention.window, attention.sinks)
