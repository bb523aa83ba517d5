"""Continuous batching of R1+'s model in torch: requests come and go, and each pass computes those that run.

Requests whose answers are written have the first rows of the KV cache; the one whose prompt is read has the row after
them. A row that is left empty gets the last one's tokens, so that a pass computes no row for nothing.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from r1plus_contract.inference import FinishReason
from r1plus_model.cache import KvCache
from r1plus_model.model import R1PlusModel
from r1plus_model.sampling.token_sampling import ConstraintFailedError, TokenSampler, TorchSampling

READ_TOKENS: Final = 256
"""Tokens of a prompt that a step reads: as long do the answers of the others wait."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """What a step has made for one request."""

    request_id: Hashable
    token: int | None
    """None: the request has failed."""
    reason: FinishReason | None = None
    failure: str = ""


@dataclass(slots=True, eq=False)
class _Sequence:
    request_id: Hashable
    prompt: Sequence[int]
    sampler: TokenSampler
    limit: int
    read: int = 0
    """Tokens of the prompt in the cache."""
    written: int = 0
    last: int = 0


class TorchBatch:
    """The requests that a model answers together, each with the tokens that it would get alone.

    Up to rounding: in a batch numbers are added in another order.
    """

    def __init__(self, model: R1PlusModel, rows: int, context: int, end_ids: Sequence[int]) -> None:
        self._model = model
        self._end_ids = frozenset(end_ids)
        self._cache = model.allocate_cache(rows, context)
        self._rows = rows
        self._waiting: deque[_Sequence] = deque()
        self._reading: _Sequence | None = None
        self._writing: list[_Sequence] = []

    @property
    def cache_bytes(self) -> int:
        """Bytes of the KV cache, which do not change."""
        return self._cache.bytes

    def add(self, request_id: Hashable, prompt: Sequence[int], sampling: TorchSampling) -> None:
        """Begin a request, whose prompt the next steps read."""
        sampler = TokenSampler(sampling, prompt, self._model.shape.vocabulary)
        self._waiting.append(_Sequence(request_id, prompt, sampler, sampling.limit))

    def remove(self, request_id: Hashable) -> None:
        """Drop a request that has not ended."""
        if self._reading is not None and self._reading.request_id == request_id:
            self._reading = None
            return
        for row, one in enumerate(self._writing):
            if one.request_id == request_id:
                self._leave(row)
                return
        self._waiting = deque(one for one in self._waiting if one.request_id != request_id)

    def step(self) -> list[NewToken]:
        """Write a token of each answer, and read a part of the next prompt."""
        with torch.inference_mode():
            return [*self._write(), *self._read()]

    def _write(self) -> Iterator[NewToken]:
        if not self._writing:
            return
        rows = list(self._writing)
        ids = torch.tensor([[one.last] for one in rows])
        logits = self._compute(ids, slice(len(rows)))
        made = [self._choose(one, logits[row]) for row, one in enumerate(rows)]
        for row in reversed(range(len(rows))):
            if made[row].token is None or made[row].reason is not None:
                self._leave(row)
        yield from made

    def _read(self) -> Iterator[NewToken]:
        row = len(self._writing)
        if self._reading is None and self._waiting and row < self._rows:
            self._reading = self._waiting.popleft()
            self._cache.clear(row)
        if (one := self._reading) is None:
            return
        part = one.prompt[one.read : one.read + READ_TOKENS]
        logits = self._compute(torch.tensor([part]), slice(row, row + 1))
        one.read += len(part)
        if one.read < len(one.prompt):
            return
        self._reading = None
        made = self._choose(one, logits[0])
        if made.token is not None and made.reason is None:
            self._writing.append(one)
        yield made

    def _compute(self, ids: Tensor, rows: slice) -> Tensor:
        """Return the logits after the last tokens of rows: (rows, vocabulary)."""
        part: KvCache = self._cache.select_rows(rows)
        states = self._model.compute_states(ids, cache=part)
        return self._model.compute_logits(states[:, -1])

    def _choose(self, one: _Sequence, logits: Tensor) -> NewToken:
        try:
            one.last = one.sampler.choose(logits)
        except ConstraintFailedError as error:
            return NewToken(one.request_id, None, failure=str(error))
        one.written += 1
        reason = None
        if one.last in self._end_ids:
            reason = FinishReason.STOP
        elif one.written == one.limit:
            reason = FinishReason.LENGTH
        return NewToken(one.request_id, one.last, reason)

    def _leave(self, row: int) -> None:
        """Free a row. The last one that is written, and the one that is read, move up."""
        last = len(self._writing) - 1
        if row < last:
            self._cache.move_row(last, row)
            self._writing[row] = self._writing[last]
        self._writing.pop()
        if self._reading is not None:
            self._cache.move_row(last + 1, last)
