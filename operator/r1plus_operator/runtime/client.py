"""Client of the API server: orjson and plain dicts over a `Transport`, no model classes in between.

Reflectors list and watch with it, the applier writes. Objects are the plain dicts of the wire.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import orjson

from r1plus_operator.runtime import connection as connections
from r1plus_operator.runtime.backoff import Backoff
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.errors import (
    ApiError,
    ApiServerError,
    FencedError,
    TooManyRequestsError,
    TransportError,
    from_response,
    from_status,
)
from r1plus_operator.runtime.framing import LineCutter
from r1plus_operator.runtime.resources import Resource
from r1plus_operator.runtime.transport import AiohttpTransport, HttpRequest, Transport

Object = dict[str, Any]
Page = tuple[list[Object], str]
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_RETRY = Backoff(first=0.1, cap=2.0)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How long and how often. Seconds, except where the name says otherwise."""

    request: float = 30.0
    connect: float = 5.0
    concurrent_requests: int = 32
    """As many connections are kept, and each holds a quarter of a MiB for TLS."""
    pages: int = 2
    """Pages of lists that reflectors hold at once: many kinds are listed at the same time."""
    retries: int = 3
    longest_retry_after: float = 10.0
    """A server that asks for more is reported to the caller, who has a queue for long waits."""
    retry: Backoff = _RETRY


@dataclass(frozen=True, slots=True)
class _Call:
    """A request before it is sent. `repeatable`: if no answer came, it may be sent again."""

    method: str
    path: str
    query: str = ""
    """Encoded."""
    body: Any = None
    content_type: str = _JSON
    is_repeatable: bool = False
    accept: str = _JSON

    @property
    def is_write(self) -> bool:
        return self.method != "GET"

    def build_target(self, more: str = "") -> str:
        query = f"{self.query}&{more}" if self.query and more else self.query or more
        return f"{self.path}?{query}" if query else self.path

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class ApiClient:
    """One per process, closed at its end. Safe for any number of tasks of one event loop."""

    def __init__(
        self,
        connection: ApiConnection,
        *,
        limits: RequestLimits | None = None,
        user_agent: str = "",
        transport: Transport | None = None,
        rand: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._limits = limits or RequestLimits()
        self._slots = asyncio.Semaphore(self._limits.concurrent_requests)
        self.page_turns = asyncio.Semaphore(self._limits.pages)
        self._rand = rand or random.Random()  # noqa: S311 - jitter is no secret
        self._transport = transport or AiohttpTransport(
            connection,
            connect_s=self._limits.connect,
            user_agent=user_agent or Path(sys.argv[0] or "python").name,
        )
        self.on_write: Callable[[str, Resource], None] | None = None
        """Called with the verb and the kind for each write that is sent (once, however often it is retried)."""
        self.fence: Callable[[], float] | None = None
        """Seconds for which a write may still be under way, read before each attempt. None: for ever."""

    @classmethod
    def from_kubeconfig(cls, path: Path | str | None = None) -> Self:
        """Return a client for the current context of a kubeconfig, by default KUBECONFIG's or the user's own."""
        return cls(connections.from_kubeconfig(Path(path) if path else None, os.environ))

    @classmethod
    def in_cluster(cls) -> Self:
        """Return a client with the service account of the pod that this runs in."""
        return cls(connections.in_cluster(os.environ))

    @classmethod
    def autodetect(cls, *, limits: RequestLimits | None = None, user_agent: str = "") -> Self:
        """Return a client for KUBECONFIG if set, else for the pod's service account, else for ~/.kube/config."""
        return cls(connections.autodetect(os.environ), limits=limits, user_agent=user_agent)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, watches included."""
        await self._transport.close()

    async def get(self, res: Resource, name: str, namespace: str | None = None) -> Object:
        """Read one object."""
        return await self._send(_Call("GET", res.path(namespace, name), is_repeatable=True))

    async def read_path(self, path: str) -> Object:
        """Read a JSON document that is no object, such as `/openid/v1/jwks`, whatever its media type."""
        return await self._send(_Call("GET", path, is_repeatable=True, accept="*/*"))

    async def list(
        self, res: Resource, namespace: str | None = None, *, name: str = "", label_selector: str = "", limit: int = 500
    ) -> Page:
        """Read all objects, or those of one name, and the resourceVersion they are from.

        Reflectors use `iter_pages`.
        """
        objects: list[Object] = []
        rv = ""
        async for items, page_rv in self.iter_pages(
            res, namespace, name=name, label_selector=label_selector, limit=limit
        ):
            objects += items
            rv = page_rv
        return objects, rv

    async def iter_pages(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        name: str = "",
        label_selector: str = "",
        limit: int = 500,
        metadata_only: bool = False,
    ) -> AsyncGenerator[Page, None]:
        """Read all objects, `limit` per request; every page carries the same resourceVersion.

        The objects of a list have no `apiVersion` and no `kind`: that is how the API server answers. With
        `metadata_only` they have nothing but their metadata: the server sends no body.

        Raises:
            GoneError: reading took longer than the server keeps its history (5 minutes); start again.
        """
        query: dict[str, str | int] = {"limit": limit} if limit else {}
        if label_selector:
            query["labelSelector"] = label_selector
        if name:
            query["fieldSelector"] = f"metadata.name={name}"
        while True:
            call = _Call(
                "GET",
                res.path(namespace),
                urlencode(query),
                is_repeatable=True,
                accept=_METADATA_LIST if metadata_only else _JSON,
            )
            page = await self._send(call)
            meta = page.get("metadata") or {}
            # Drop the page before the next one is read, so that memory holds one page and not two.
            yield page.pop("items", None) or [], str(meta.get("resourceVersion", ""))
            if not meta.get("continue"):
                return
            query = {**query, "continue": meta["continue"]}

    async def apply(
        self, res: Resource, obj: Object, *, field_manager: str, force: bool = True, subresource: str = ""
    ) -> Object:
        """Apply an object (server-side): own its fields as `field_manager`, create it if absent."""
        namespace, name = _read_address(res, obj)
        query = _encode_query(fieldManager=field_manager, force="true" if force else "false")
        path = res.path(namespace, name, subresource)
        return await self._write("apply", res, _Call("PATCH", path, query, obj, APPLY_PATCH, is_repeatable=True))

    async def patch(
        self,
        res: Resource,
        name: str,
        namespace: str | None,
        body: Object | Sequence[Object],
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        field_manager: str = "",
    ) -> Object:
        """Change single fields. A JSON patch is not sent twice, since `add` to a list is not the same twice."""
        query = _encode_query(fieldManager=field_manager) if field_manager else ""
        path = res.path(namespace, name, subresource)
        repeatable = content_type != JSON_PATCH
        return await self._write("patch", res, _Call("PATCH", path, query, body, content_type, repeatable))

    async def create(
        self, res: Resource, obj: Object, *, field_manager: str = "", subresource: str = "", dry_run: bool = False
    ) -> Object:
        """Create an object. Sent once: without an answer it may or may not exist.

        With a subresource (`eviction`, `token`), `metadata.name` says of which object. `dry_run`: judge it, and store
        nothing.
        """
        namespace, name = _read_address(res, obj, check_kind=not subresource)
        options = {"fieldManager": field_manager, "dryRun": "All" if dry_run else ""}
        query = _encode_query(**{key: value for key, value in options.items() if value})
        path = res.path(namespace, name if subresource else None, subresource)
        return await self._write("create", res, _Call("POST", path, query, obj))

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> Object:
        """Delete an object; with `uid` only that very one, not a namesake that came after it (ConflictError).

        `grace_seconds`: instead of the pod's own grace period.

        aiohttp repeats a DELETE whose connection broke. Give `uid` where you can: without it a namesake may be hit.
        """
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        path = res.path(namespace, name)
        return await self._write("delete", res, _Call("DELETE", path, "", body, is_repeatable=uid is not None))

    async def watch(
        self,
        res: Resource,
        rv: str,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        lifetime_s: float = 300.0,
        inactivity_s: float = 150.0,
        skip: Callable[[bytes], bool] = lambda _: False,
        metadata_only: bool = False,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Yield (ADDED | MODIFIED | DELETED | BOOKMARK, object) from after `rv` on, until the server ends the stream.

        Close it (`contextlib.aclosing`) when leaving early. The server sends bookmarks, up to two minutes apart
        (measured, 1.34), so a stream without a byte for `inactivity_s` is dead, however alive its socket looks.
        `skip` gets each event as bytes from the wire; one for which it returns true is never decoded.

        Raises:
            ApiError: the server's refusal, or its ERROR event; GoneError if `rv` is too old.
            TransportError: the stream broke, fell silent or held what is no JSON.
        """
        query: dict[str, str | int] = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": rv, "timeoutSeconds": int(lifetime_s)
        }  # fmt: skip
        if label_selector:
            query["labelSelector"] = label_selector
        accept = _METADATA if metadata_only else _JSON
        call = _Call("GET", res.path(namespace), urlencode(query), accept=accept)
        try:
            request = self._build_request(call, call.build_target())
            async with self._transport.open_stream(request, inactivity_s) as stream:
                if stream.status >= 400:
                    body = b"".join([chunk async for chunk in stream.chunks])
                    raise from_response(stream.status, body, stream.headers, request=str(call))
                cutter = LineCutter()
                async for chunk in stream.chunks:
                    for line in cutter.feed(chunk):
                        if not skip(line):
                            yield _decode_event(line, call)
        except TransportError as error:
            error.request = str(call)
            raise
        if cutter.pending_bytes:
            text = f"the stream ended {cutter.pending_bytes} bytes into a line"
            raise TransportError(text, reason="Truncated", request=str(call))

    async def _write(self, verb: str, res: Resource, call: _Call) -> Object:
        if self.on_write is not None:
            self.on_write(verb, res)
        return await self._send(call)

    async def _send(self, call: _Call) -> Object:
        """Send a call, and again where a retry can help, until there is an answer."""
        failures = 0
        while True:
            try:
                return await self._send_once(call)
            except (TooManyRequestsError, ApiServerError, TransportError) as error:
                delay = self._retry_delay(error, call, failures)
                if delay is None:
                    raise
            failures += 1
            await asyncio.sleep(delay)

    def _retry_delay(self, error: ApiError, call: _Call, failures: int) -> float | None:
        """Return the seconds until the next attempt; None if the error goes to the caller.

        429 means that nothing was done, so any call is sent again. After other failures only a repeatable call is.
        A timeout is not repeated: it has cost the caller enough already.
        """
        if failures >= self._limits.retries:
            return None
        retry_after = error.retry_after
        if retry_after is not None and retry_after > self._limits.longest_retry_after:
            return None
        if isinstance(error, TransportError) and (not call.is_repeatable or error.reason == "Timeout"):
            return None
        if isinstance(error, ApiServerError) and (not call.is_repeatable or retry_after is None):
            return None
        return max(retry_after or 0.0, self._limits.retry.compute_delay(failures, self._rand))

    async def _send_once(self, call: _Call) -> Object:
        async with self._slots:
            target, seconds = self._apply_fence(call)
            try:
                answer = await self._transport.send(self._build_request(call, target), seconds)
            except TransportError as error:
                error.request = str(call)
                raise
        if answer.status >= 400:
            raise from_response(answer.status, answer.body, answer.headers, request=str(call))
        return _decode_object(answer.body, call)

    def _apply_fence(self, call: _Call) -> tuple[str, float]:
        """Return the call's target and its timeout in seconds: a write ends before the fence falls.

        The server gets the timeout too. So it drops a write that it has begun, even if our disconnect does not arrive.

        Raises:
            FencedError: this process does not hold the Lease any more.
        """
        if self.fence is None or not call.is_write:
            return call.build_target(), self._limits.request
        seconds_left = self.fence()
        if seconds_left <= 0:
            raise FencedError(request=str(call))
        seconds = min(seconds_left, self._limits.request)
        return call.build_target(f"timeout={seconds:.3f}s"), seconds

    def _build_request(self, call: _Call, target: str) -> HttpRequest:
        headers = {"Accept": call.accept}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        if token := self._connection.token():
            headers["Authorization"] = f"Bearer {token}"
        return HttpRequest(call.method, target, headers, orjson.dumps(call.body) if call.body is not None else None)


@lru_cache(maxsize=64)
def _encode_query(**parameters: str) -> str:
    """Encode a query. Cached, since an operator writes as one field manager all its life."""
    return urlencode(parameters)


def _read_address(res: Resource, obj: Object, *, check_kind: bool = True) -> tuple[str | None, str | None]:
    """Return namespace and name of an object to write; raise ValueError if it is of another kind."""
    if check_kind and (obj.get("apiVersion"), obj.get("kind")) != (res.api_version, res.kind):
        actual = f"{obj.get('apiVersion')} {obj.get('kind')}"
        raise ValueError(
            f"apiVersion, kind: {actual} is no {res.api_version} {res.kind}; use the object's own resource"
        )
    meta = obj.get("metadata") or {}
    return meta.get("namespace"), meta.get("name")


def _decode_event(line: bytes, call: _Call) -> tuple[str, Object]:
    event = _decode_object(line, call)
    kind, obj = event.get("type"), event.get("object")
    if not isinstance(kind, str) or not isinstance(obj, dict):
        raise TransportError("a watch event has no type or no object", reason="Malformed", request=str(call))
    if kind == "ERROR":
        raise from_status(obj, request=str(call))
    return kind, obj


def _decode_object(body: bytes, call: _Call) -> Object:
    try:
        obj = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise TransportError(f"the answer is no JSON: {error}", reason="Malformed", request=str(call)) from error
    if not isinstance(obj, dict):
        raise TransportError("the answer is no JSON object", reason="Malformed", request=str(call))
    return obj
