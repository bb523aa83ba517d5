"""Streams of text: iterate over one for the pieces, then read `result`. Leaving one early cancels the request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

import httpx

from r1plus_client.errors import GatewayConnectionError, StreamInterruptedError
from r1plus_client.protocol import EventDecoder, StreamState
from r1plus_client.types import ChatCompletion, Generation, Message

Answer = TypeVar("Answer")


def build_generation(state: StreamState) -> Generation:
    """Return the whole answer of a stream of `generate`."""
    return Generation(
        state.text, state.finish_reason, state.usage, state.model, state.evidence, state.request_id, state.math
    )


def build_chat(state: StreamState) -> ChatCompletion:
    """Return the whole answer of a stream of `chat`."""
    message = Message("assistant", state.text)
    return ChatCompletion(
        message, state.finish_reason, state.usage, state.model, state.evidence, state.request_id, state.math
    )


class _StreamBase(Generic[Answer]):
    def __init__(self, response: httpx.Response, build: Callable[[StreamState], Answer]) -> None:
        self._response = response
        self._build = build
        self._state = StreamState(response.headers)
        self._decoder = EventDecoder()

    @property
    def text(self) -> str:
        """What has arrived so far."""
        return self._state.text

    @property
    def result(self) -> Answer:
        """The whole answer. Raises StreamInterruptedError before the stream has ended."""
        self._state.close()
        return self._build(self._state)

    def _read(self, chunk: bytes) -> Iterator[str]:
        for data in self._decoder.feed(chunk):
            if text := self._state.read_event(data):
                yield text

    def _build_break(self, error: httpx.TransportError) -> StreamInterruptedError:
        text = f"the stream broke off after {len(self.text)} characters: {type(error).__name__}: {error}; ask again"
        return StreamInterruptedError(text, text=self.text)


class Stream(_StreamBase[Answer]):
    """The pieces of an answer. Use it as a context manager where you may leave before its end."""

    def __iter__(self) -> Iterator[str]:
        try:
            for chunk in self._response.iter_raw():
                yield from self._read(chunk)
        except httpx.TransportError as error:
            raise self._build_break(error) from error
        finally:
            self.close()
        self._state.close()

    def close(self) -> None:
        """End the request; the model stops at its next token."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(_StreamBase[Answer]):
    """As `Stream`, for `async for`."""

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for chunk in self._response.aiter_raw():
                for text in self._read(chunk):
                    yield text
        except httpx.TransportError as error:
            raise self._build_break(error) from error
        finally:
            await self.close()
        self._state.close()

    async def close(self) -> None:
        """End the request; the model stops at its next token."""
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def explain_transport_error(error: httpx.TransportError, base_url: str) -> GatewayConnectionError:
    """Return the error of a request that got no answer."""
    what = "took too long" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
    remedy = "raise `timeout`" if isinstance(error, httpx.ReadTimeout) else "check base_url, DNS and network policies"
    return GatewayConnectionError(f"the gateway at {base_url} {what}: {type(error).__name__}: {error}; {remedy}")
