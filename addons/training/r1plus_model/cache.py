"""Keys and values of the tokens so far, in slots: as many as the context for full attention, a ring for a window.

A token's slot follows from its position, row by row. So rows of a batch may have different lengths, and one may come
or leave while others go on. Bytes are allocated at the start and never grow.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EMPTY = -1
"""Position of a slot without a token, and of padding."""


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """How many slots a row has: the first `sinks` tokens keep theirs, the others share a ring."""

    sinks: int
    ring: int

    @property
    def slots(self) -> int:
        """Number of slots of a row."""
        return self.sinks + self.ring

    def count_filled(self, tokens: int) -> int:
        """Return how many slots have been used after so many tokens: the first ones."""
        return min(tokens, self.slots)

    def locate(self, positions: Tensor) -> Tensor:
        """Return the slot of each position."""
        return torch.where(positions < self.sinks, positions, self.sinks + (positions - self.sinks) % self.ring)


@dataclass(frozen=True, slots=True)
class SlotWrite:
    """Where a chunk of tokens goes, for all layers of one layout."""

    positions: Tensor
    """(batch, slots): the position in each slot afterwards."""
    sources: Tensor | None
    """(batch, slots): which token of the chunk goes there, EMPTY if none does; None if the chunk is one token a row."""
    slots: Tensor
    """(batch, tokens): slot of each token."""


class KvCache:
    """Keys and values of a batch, one buffer of each per layer: (batch, KV heads, slots, head size)."""

    def __init__(
        self,
        layouts: Sequence[SlotLayout],
        batch: int,
        context: int,
        kv_heads: int,
        head_size: int,
        dtype: torch.dtype,
    ) -> None:
        self.context = context
        """Tokens of a row, at most."""
        self.layouts = tuple(layouts)
        self.positions = {
            layout: torch.full((batch, layout.slots), EMPTY, dtype=torch.long) for layout in sorted_unique(layouts)
        }
        self.lengths = torch.zeros(batch, dtype=torch.long)
        """(batch): tokens of each row so far, padding left out."""
        sizes = [(batch, kv_heads, layout.slots, head_size) for layout in layouts]
        self._keys = [torch.zeros(size, dtype=dtype) for size in sizes]
        self._values = [torch.zeros(size, dtype=dtype) for size in sizes]

    @property
    def bytes(self) -> int:
        """Bytes that keys and values have allocated."""
        return sum(buffer.nbytes for buffer in (*self._keys, *self._values))

    @property
    def is_empty(self) -> bool:
        """Whether no row has a token."""
        return not bool(self.lengths.any())

    def clear(self, row: int) -> None:
        """Forget the tokens of one row, whose place another sequence may take."""
        self.lengths[row] = 0
        for positions in self.positions.values():
            positions[row] = EMPTY

    def select_rows(self, rows: slice) -> "KvCache":
        """Return a cache of these rows, which shares their slots: what a pass stores in it is stored here."""
        part = copy.copy(self)
        part.positions = {layout: positions[rows] for layout, positions in self.positions.items()}
        part.lengths = self.lengths[rows]
        part._keys = [buffer[rows] for buffer in self._keys]
        part._values = [buffer[rows] for buffer in self._values]
        return part

    def move_row(self, source: int, target: int) -> None:
        """Put the tokens of one row in the place of another's, which are forgotten; the first one is empty then."""
        length = int(self.lengths[source])
        for layout, key, value in zip(self.layouts, self._keys, self._values, strict=True):
            filled = layout.count_filled(length)
            for buffer in (key, value):
                buffer[target, :, :filled] = buffer[source, :, :filled]
        for positions in self.positions.values():
            positions[target] = positions[source]
        self.lengths[target] = length
        self.clear(source)

    def plan_write(self, layout: SlotLayout, positions: Tensor) -> SlotWrite:
        """Return where tokens of these positions (batch, tokens) go. Of two that share a slot the later one stays."""
        stored = self.positions[layout]
        slots = layout.locate(positions.clamp(min=0))
        if positions.shape[1] == 1 and not bool((positions == EMPTY).any()):
            return SlotWrite(stored.scatter(1, slots, positions), None, slots)
        order = torch.arange(positions.shape[1]).expand_as(positions)
        order = torch.where(positions == EMPTY, EMPTY, order)
        sources = torch.full_like(stored, EMPTY).scatter_reduce(1, slots, order, "amax")
        placed = torch.where(sources == EMPTY, stored, positions.gather(1, sources.clamp(min=0)))
        return SlotWrite(placed, sources, slots)

    def write(self, layer: int, write: SlotWrite, keys: Tensor, values: Tensor) -> None:
        """Store a chunk of one layer, (batch, KV heads, tokens, head size) each."""
        for buffer, chunk in ((self._keys[layer], keys), (self._values[layer], values)):
            if write.sources is None:
                buffer[torch.arange(buffer.shape[0]), :, write.slots[:, 0]] = chunk[:, :, 0]
            else:
                sources = write.sources[:, None, :, None].expand(-1, buffer.shape[1], -1, buffer.shape[3])
                chosen = chunk.gather(2, sources.clamp(min=0))
                torch.where(sources == EMPTY, buffer, chosen, out=buffer)

    def read(self, layer: int, slots: int) -> tuple[Tensor, Tensor]:
        """Return keys and values in the first slots of a layer."""
        return self._keys[layer][:, :, :slots], self._values[layer][:, :, :slots]

    def commit(self, writes: dict[SlotLayout, SlotWrite], positions: Tensor) -> None:
        """Take over the positions of a chunk, after all layers have stored it."""
        for layout, write in writes.items():
            self.positions[layout].copy_(write.positions)
        torch.maximum(self.lengths, positions.max(1).values + 1, out=self.lengths)


def sorted_unique(layouts: Sequence[SlotLayout]) -> list[SlotLayout]:
    """Return the layouts without repetition, in a fixed order."""
    return sorted(set(layouts), key=lambda one: (one.slots, one.sinks))
