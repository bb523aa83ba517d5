"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from r1plus_client import protocol, streams
from r1plus_client.async_resources import (
    AsyncConversations,
    AsyncFiles,
    AsyncMemories,
    AsyncResponses,
    AsyncVectorStores,
)
from r1plus_client.calls import Call
from r1plus_client.client import DEFAULT_RETRIES, DEFAULT_TIMEOUT
from r1plus_client.errors import build_error
from r1plus_client.protocol import Access, MessageLike, Options
from r1plus_client.streams import AsyncStream
from r1plus_client.types import ChatCompletion, Generation, Model

T = TypeVar("T")


class AsyncClient:
    """Calls one tenant's gateway. For any number of tasks of one event loop; close it, or use it as a context manager.

    Args:
        base_url: the gateway, with or without `/v1`; by default R1PLUS_BASE_URL.
        api_key: by default R1PLUS_API_KEY.
        token_file: a projected ServiceAccount token with audience `r1plus-gateway`, in place of a key.
        timeout: seconds, or an httpx.Timeout.
        max_retries: further tries of a request that nothing was answered to. A stream that has begun is never retried.
        http: an httpx.AsyncClient of your own, for proxies, CAs or client certificates. It is not closed here.

    Raises:
        ValueError: no or a wrong `base_url`, or a key with characters that no key has.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        token_file: str | Path | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_RETRIES,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._access = Access.resolve(base_url, api_key, token_file)
        self._max_retries = max_retries
        self._owned = http is None
        self._http = http or httpx.AsyncClient(timeout=timeout)
        self._bind()

    async def generate(
        self, *, model: str, prompt: str, system: str | None = None, **options: Unpack[Options]
    ) -> Generation:
        """Return the answer to a prompt.

        Raises:
            APIError: the gateway refused or failed; its subclasses say how.
            GatewayConnectionError: no answer.
            ValueError: `length` contradicts `max_new_tokens`.
        """
        body = protocol.build_generate_body(model, prompt, system, options, stream=False)
        response = await self._send("POST", protocol.GENERATE_PATH, body)
        return protocol.parse_generation(response.headers, response.content)

    async def stream_generate(
        self, *, model: str, prompt: str, system: str | None = None, **options: Unpack[Options]
    ) -> AsyncStream[Generation]:
        """Return the answer to a prompt as a stream of text. Errors as for `generate`.

        Raises while it is read:
            StreamInterruptedError: the stream ended early; `text` is what arrived.
        """
        body = protocol.build_generate_body(model, prompt, system, options, stream=True)
        response = await self._send("POST", protocol.GENERATE_PATH, body, stream=True)
        return AsyncStream(response, streams.build_generation)

    async def chat(
        self,
        *,
        model: str,
        messages: Sequence[MessageLike],
        extra: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> ChatCompletion:
        """Return the next message of a chat. `extra` adds OpenAI's other fields, such as `response_format` or `tools`.

        Raises as `generate`.
        """
        body = protocol.build_chat_body(model, messages, options, extra, stream=False)
        response = await self._send("POST", protocol.CHAT_PATH, body)
        return protocol.parse_chat(response.headers, response.content)

    async def stream_chat(
        self,
        *,
        model: str,
        messages: Sequence[MessageLike],
        extra: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> AsyncStream[ChatCompletion]:
        """Return the next message of a chat as a stream of text. Raises as `stream_generate`."""
        body = protocol.build_chat_body(model, messages, options, extra, stream=True)
        response = await self._send("POST", protocol.CHAT_PATH, body, stream=True)
        return AsyncStream(response, streams.build_chat)

    async def list_models(self) -> tuple[Model, ...]:
        """Return the models, and their presets, that this caller may use."""
        return protocol.parse_models((await self._send("GET", protocol.MODELS_PATH)).content)

    async def read_usage(self) -> Mapping[str, Any]:
        """Return what this caller has used and has left, as `/v1/usage` says it."""
        usage: Mapping[str, Any] = (await self._send("GET", protocol.USAGE_PATH)).json()
        return usage

    def for_end_user(self, end_user: str) -> AsyncClient:
        """Return a client whose stored data are this end user's. It shares connections, and need not be closed.

        Raises:
            ValueError: a name with characters that no header has.
        """
        other = copy(self)
        other._access, other._owned = self._access.for_end_user(end_user), False
        other._bind()
        return other

    async def run(self, call: Call[T]) -> T:
        """Send a call of stored data. Raises APIError, GatewayConnectionError."""
        parts = {"data": dict(call.form), "files": {"file": call.file}} if call.file else {}
        response = await self._send(call.method, call.path, call.body, query=call.query, parts=parts)
        return call.parse(response.headers, response.content)

    def _bind(self) -> None:
        self.conversations = AsyncConversations(self)
        self.responses = AsyncResponses(self)
        self.files = AsyncFiles(self)
        self.vector_stores = AsyncVectorStores(self)
        self.memories = AsyncMemories(self)

    async def close(self) -> None:
        """Close all connections."""
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        stream: bool = False,
        query: Mapping[str, str] | None = None,
        parts: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Send until there is an answer, or another try does not help."""
        attempt = 0
        while True:
            attempt += 1
            request = self._http.build_request(
                method,
                self._access.base_url + path,
                json=body,
                params=query or None,
                headers=self._access.build_headers(),
                **(parts or {}),
            )
            try:
                response = await self._http.send(request, stream=stream, follow_redirects=False)
            except httpx.TransportError as error:
                delay = self._choose_delay(None, {}, attempt)
                if delay is None or isinstance(error, httpx.ReadTimeout):
                    raise streams.explain_transport_error(error, self._access.base_url) from error
            else:
                if response.is_success:
                    return response
                content = await response.aread()
                delay = self._choose_delay(response.status_code, response.headers, attempt)
                if delay is None:
                    raise build_error(response.status_code, response.headers, content)
            await asyncio.sleep(delay)

    def _choose_delay(self, status: int | None, headers: Mapping[str, str], attempt: int) -> float | None:
        return None if attempt > self._max_retries else protocol.compute_retry_delay(status, headers, attempt)
