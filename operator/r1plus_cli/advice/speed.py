"""How fast an engine that `r1plus serve` serves answers a suite's prompts: through its gateway, in streams."""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from typing import Any

import httpx

from r1plus_cli.advice.figures import Speed
from r1plus_cli.errors import CliError
from r1plus_contract.suites.suite import Item, Suite, SuiteSampling
from r1plus_edge.pods.processes import read_processor_seconds, read_proportional_memory
from r1plus_monitoring.curate.asking import shuffle

SINGLE_ASKS = 20
"""Requests one at a time: for the time to the first token."""
ORDER = 1
ANSWER_SECONDS = 600.0
_REFUSALS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Statuses of a request that the engine cannot answer, whenever it is sent."""
_EVENT = "data: "
_LAST_EVENT = "[DONE]"
_MOST_ERROR_CHARACTERS = 200


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
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=ANSWER_SECONDS, trust_env=False) as client:
            asker = _Asker(client, model, sampling)
            await asker.ask(items[0])  # The first one finds connections closed and pages cold.
            firsts = [await asker.ask(item) for item in items[:SINGLE_ASKS]]
            before, began = read_processor_seconds(list_processes()), time.monotonic()
            tokens = await _ask_all(asker, items, batch)
            seconds = time.monotonic() - began
            used = read_processor_seconds(list_processes()) - before
    except _RefusedError as error:
        raise SuiteTooLongError(f"suite {suite.header.name} does not fit this engine: {error}") from error
    except (_UnansweredError, httpx.HTTPError) as error:
        raise CliError(f"{url}: it did not answer all of suite {suite.header.name}: {error or repr(error)}") from error
    return Speed(
        tokens_per_second=tokens / seconds,
        answers_per_second=len(items) / seconds,
        first_token_seconds=statistics.median(first for first, _ in firsts),
        processor_seconds_per_answer=used / len(items),
        processor_share=min(1.0, used / (seconds * threads)),
        memory_bytes=read_proportional_memory(list_processes()),
    )


class _UnansweredError(Exception):
    """The gateway did not answer a request, or not to its end."""


class _RefusedError(_UnansweredError):
    """The engine cannot answer this request."""


class _Asker:
    def __init__(self, client: httpx.AsyncClient, model: str, sampling: SuiteSampling) -> None:
        self._client = client
        self._system = [{"role": "system", "content": sampling.system}] if sampling.system else []
        self._fields: dict[str, Any] = {
            "model": model,
            "max_completion_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.stop:
            self._fields["stop"] = list(sampling.stop)

    async def ask(self, item: Item) -> tuple[float, int]:
        """Return the seconds to the first piece of text, or to the end of an empty answer, and the tokens."""
        began, first, tokens = time.monotonic(), 0.0, 0
        body = {**self._fields, "messages": [*self._system, {"role": "user", "content": item.prompt}]}
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != HTTPStatus.OK:
                raise _read_error(response.status_code, await response.aread())
            async for event in _read_events(response):
                if any(choice["delta"].get("content") for choice in event["choices"]):
                    first = first or time.monotonic() - began
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        return first or time.monotonic() - began, tokens


async def _read_events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a stream.

    Raises:
        _UnansweredError: the gateway reports an error, or the stream ends before its last event.
    """
    async for line in response.aiter_lines():
        data = line.removeprefix(_EVENT)
        if data == _LAST_EVENT:
            return
        if data == line:
            continue  # The end of an event, or a heartbeat.
        event = json.loads(data)
        if "error" in event:
            raise _UnansweredError(event["error"]["message"])
        yield event
    raise _UnansweredError("a stream broke off before its answer was complete")


def _read_error(status: int, body: bytes) -> _UnansweredError:
    kind = _RefusedError if status in _REFUSALS else _UnansweredError
    try:
        return kind(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return kind(f"it answered {status}: {body.decode(errors='replace')[:_MOST_ERROR_CHARACTERS]}")


async def _ask_all(asker: _Asker, items: Sequence[Item], batch: int) -> int:
    """Return the tokens of all answers, with `batch` requests in flight."""
    waiting = iter(items)

    async def work() -> int:
        tokens = 0
        for item in waiting:
            tokens += (await asker.ask(item))[1]
        return tokens

    return sum(await asyncio.gather(*(work() for _ in range(batch))))
