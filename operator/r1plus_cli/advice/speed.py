"""How fast an engine that `r1plus serve` serves answers a suite's prompts: through its gateway, with the client."""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence

import httpx

from r1plus_cli.advice.figures import Speed
from r1plus_cli.errors import CliError
from r1plus_client import AsyncClient, ChatCompletion, InvalidRequestError, R1PlusError
from r1plus_client.protocol import Options
from r1plus_contract.suite import Item, Suite, SuiteSampling
from r1plus_edge.pods.processes import read_processor_seconds, read_proportional_memory
from r1plus_monitoring.curate.asking import shuffle

SINGLE_ASKS = 20
"""Requests one at a time: for the time to the first token."""
ORDER = 1
ANSWER_SECONDS = 600.0


class SuiteTooLongError(CliError):
    """An item of the suite does not fit the engine's context."""


async def measure_speed(
    url: str, key: str, model: str, suite: Suite, *, batch: int, threads: float, list_processes: Callable[[], list[int]]
) -> Speed:
    """Ask every item once with `batch` in flight, and some alone.

    `threads`: of the engine. `list_processes`: those that serve.

    Raises:
        SuiteTooLongError: an item does not fit the context.
        CliError: the gateway does not answer.
    """
    sampling, items = suite.header.sampling, shuffle(suite.items, ORDER)
    try:
        # It is on loopback: a proxy of the environment leads elsewhere.
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:
            client = AsyncClient(url, key, http=http)
            asker = _Asker(client, model, sampling)
            await asker.ask(items[0])  # The first one finds connections closed and pages cold.
            firsts = [await asker.ask(item) for item in items[:SINGLE_ASKS]]
            before, began = read_processor_seconds(list_processes()), time.monotonic()
            tokens = await _ask_all(asker, items, batch)
            seconds = time.monotonic() - began
            used = read_processor_seconds(list_processes()) - before
    except InvalidRequestError as error:
        raise SuiteTooLongError(f"suite {suite.header.name} does not fit this engine: {error}") from error
    except R1PlusError as error:
        raise CliError(f"{url}: it did not answer all of suite {suite.header.name}: {error}") from error
    return Speed(
        tokens_per_second=tokens / seconds,
        answers_per_second=len(items) / seconds,
        first_token_seconds=statistics.median(first for first, _ in firsts),
        processor_seconds_per_answer=used / len(items),
        processor_share=min(1.0, used / (seconds * threads)),
        memory_bytes=read_proportional_memory(list_processes()),
    )


class _Asker:
    def __init__(self, client: AsyncClient, model: str, sampling: SuiteSampling) -> None:
        self._client = client
        self._model = model
        self._system = [{"role": "system", "content": sampling.system}] if sampling.system else []
        self._options: Options = {
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
        }
        if sampling.stop:
            self._options["stop"] = list(sampling.stop)

    async def ask(self, item: Item) -> tuple[float, int]:
        """Return the seconds to the first piece of text, or to the end of an empty answer, and the tokens."""
        began, first = time.monotonic(), 0.0
        messages = [*self._system, {"role": "user", "content": item.prompt}]
        async with await self._client.stream_chat(model=self._model, messages=messages, **self._options) as stream:
            async for _ in stream:
                first = first or time.monotonic() - began
            result: ChatCompletion = stream.result
        return first or time.monotonic() - began, result.usage.completion_tokens


async def _ask_all(asker: _Asker, items: Sequence[Item], batch: int) -> int:
    """Return the tokens of all answers, with `batch` requests in flight."""
    waiting = iter(items)

    async def work() -> int:
        tokens = 0
        for item in waiting:
            tokens += (await asker.ask(item))[1]
        return tokens

    return sum(await asyncio.gather(*(work() for _ in range(batch))))
