"""Asks through Triton, over the very client that the monitor uses. Used by `__main__ verify` and by
`r1plus suite`.

What the gate will see: the served backend's stop strings, batching and arithmetic, not the library's.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from r1plus_contract.suite import Item, Sampling
from r1plus_monitoring.curate.asking import Answer, Condition, shuffle
from r1plus_monitoring.probe.client import TritonEngine

SECONDS: float = 300.0
"""For one answer; the machine that curates may be busy."""


class ServedAsker:
    """A server that runs already, at `http` and `grpc` (host:port)."""

    def __init__(self, http: str, grpc: str, sampling: Sampling, answered: Callable[[], None] = lambda: None) -> None:
        """`answered` is called after every answer."""
        self._addresses = (http, grpc)
        self._sampling = sampling
        self._answered = answered

    def ask(self, items: Sequence[Item], condition: Condition) -> Mapping[str, Answer]:
        """`condition.batch` requests in flight; raises RuntimeError when one brings no answer."""
        return asyncio.run(self._ask(shuffle(items, condition.order), condition.batch))

    async def _ask(self, items: Sequence[Item], batch: int) -> Mapping[str, Answer]:
        engine = TritonEngine(*self._addresses, SECONDS)
        slots = asyncio.Semaphore(batch)
        try:
            answers = await asyncio.gather(*(self._one(engine, slots, item) for item in items))
        finally:
            await engine.close()
        return {item.id: answer for item, answer in zip(items, answers, strict=True)}

    async def _one(self, engine: TritonEngine, slots: asyncio.Semaphore, item: Item) -> Answer:
        async with slots:
            reply = await engine.ask(item.prompt, self._sampling)
        if reply.failure is not None:
            raise RuntimeError(f"item {item.id}: {reply.failure}: {reply.detail}")
        self._answered()
        return Answer(reply.text, reply.finish_reason, reply.completion_tokens)
