"""Asks through Triton, with the client that the monitor uses. Used by `__main__ verify` and by `r1plus suite`.

It measures what the gate will see: the served backend's stop strings, batching and arithmetic, not the library's.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from r1plus_contract.suites.suite import Item, SuiteSampling
from r1plus_monitoring.curate.asking import AskingCondition, CandidateAnswer, shuffle
from r1plus_monitoring.probe.client import TritonEngine

SECONDS: float = 300.0
"""For one answer; the machine that curates may be busy."""


class ServedAsker:
    """Asks a running server at `http` and `grpc` (host:port)."""

    def __init__(
        self, http: str, grpc: str, sampling: SuiteSampling, on_answer: Callable[[], None] = lambda: None
    ) -> None:
        """`on_answer` is called after every answer."""
        self._addresses = (http, grpc)
        self._sampling = sampling
        self._on_answer = on_answer

    def ask(self, items: Sequence[Item], condition: AskingCondition) -> Mapping[str, CandidateAnswer]:
        """Ask with `condition.batch` requests in flight; raise RuntimeError when one brings no answer."""
        return asyncio.run(self._ask(shuffle(items, condition.order), condition.batch))

    async def _ask(self, items: Sequence[Item], batch: int) -> Mapping[str, CandidateAnswer]:
        engine = TritonEngine(*self._addresses, SECONDS)
        slots = asyncio.Semaphore(batch)
        try:
            answers = await asyncio.gather(*(self._ask_one(engine, slots, item) for item in items))
        finally:
            await engine.close()
        return {item.id: answer for item, answer in zip(items, answers, strict=True)}

    async def _ask_one(self, engine: TritonEngine, slots: asyncio.Semaphore, item: Item) -> CandidateAnswer:
        async with slots:
            reply = await engine.ask(item.prompt, self._sampling)
        if reply.failure is not None:
            raise RuntimeError(f"item {item.id}: {reply.failure}: {reply.detail}")
        self._on_answer()
        return CandidateAnswer(reply.text, reply.finish_reason, reply.completion_tokens)
