"""Backups and restores over HTTP: bytes pass between the client and the thread that copies, a frame at a time.

Called by `http.administration`, for admins only. A client that takes nothing, or sends nothing, for so long is cut off,
since a snapshot of the data, or the only transaction that writes, waits for it.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Final

import aiohttp
import orjson
from aiohttp import web

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.errors import InvalidFieldError, RequestError
from r1plus_gateway.http.operations import FILE, Parameter, read_query
from r1plus_gateway.settings import GatewayLimits
from r1plus_gateway.store.copies.backup import make_copy
from r1plus_gateway.store.copies.restoration import RestoreReport, check_backup, restore_backup
from r1plus_gateway.store.copies.sealed_stream import NAMES, StreamKind
from r1plus_gateway.store.tenant import TenantStore

FOR_RESTORE: Final = Parameter(
    "for_restore", "Also ask whether they could be restored here, now.", {"enum": ["true", "false"]}
)
_GRACE_SECONDS: Final = 5.0
LONGEST_SECONDS: Final = 6 * 3600.0
"""Of one copy: SQLite's log grows as long as a snapshot is open."""


class Copies:
    """The handlers."""

    def __init__(self, store: TenantStore, read_limits: Callable[[], GatewayLimits]) -> None:
        self._store = store
        self._read_limits = read_limits

    async def send_backup(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Answer with a backup."""
        return await self._send(request, caller, StreamKind.BACKUP)

    async def send_keys(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Answer with a keys file."""
        return await self._send(request, caller, StreamKind.KEYS)

    async def check(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Read what the client sends, and say what it is."""
        answer = read_query(request, (FOR_RESTORE,)).get(FOR_RESTORE.name, "false")
        if answer not in ("true", "false"):
            raise InvalidFieldError(FOR_RESTORE.name, f"{answer!r:.40} is neither true nor false")
        with self._open_body(request) as read:
            return _respond(await check_backup(self._store, caller, read, needs_new=answer == "true"), 200)

    async def restore(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Restore what the client sends."""
        read_query(request, ())
        with self._open_body(request) as read:
            return _respond(await restore_backup(self._store, caller, read), 201)

    async def _send(self, request: web.Request, caller: Caller, kind: StreamKind) -> web.StreamResponse:
        read_query(request, ())
        headers = {
            "Content-Type": FILE,
            "Content-Disposition": f'attachment; filename="{NAMES[kind]}.r1plus"',
            "Cache-Control": "no-store",
        }
        async with aclosing(make_copy(self._store, caller, kind)) as pieces:
            head = await anext(pieces)  # what fails here is answered as an error; later the connection is cut
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    await self._write(response, head)
                    async for piece in pieces:
                        await self._write(response, piece)
            except TimeoutError as error:
                raise ConnectionResetError("the client takes nothing") from error
        await response.write_eof()
        return response

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(self._read_limits().slow_reader_seconds):
            await response.write(data)

    @contextmanager
    def _open_body(self, request: web.Request) -> Iterator["BodyReader"]:
        if request.content_type != FILE or "Content-Encoding" in request.headers:
            raise RequestError(
                415, "unsupported_media_type", f"send the keys file and then the backup as they are, as {FILE}"
            )
        seconds = self._read_limits().body_seconds
        try:
            yield BodyReader(request.content, seconds)
        except TimeoutError:
            raise RequestError(408, "request_timeout", f"nothing of the body arrived for {seconds:g} s") from None


class BodyReader:
    """Reads a request's body from a thread."""

    def __init__(self, content: aiohttp.StreamReader, seconds: float) -> None:
        self._content = content
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + LONGEST_SECONDS

    def __call__(self, count: int) -> bytes:
        """Return so many bytes; fewer at the end only. Raises TimeoutError where the client sends nothing."""
        reading = asyncio.run_coroutine_threadsafe(self._read(count), self._loop)
        return reading.result(self._seconds + _GRACE_SECONDS)  # a loop that has ended would never answer

    async def _read(self, count: int) -> bytes:
        async with asyncio.timeout_at(min(self._ends_at, self._loop.time() + self._seconds)):
            try:
                return await self._content.readexactly(count)
            except asyncio.IncompleteReadError as error:
                return error.partial


def _respond(report: RestoreReport, status: int) -> web.Response:
    backup = report.backup
    document = {
        "object": "restore",
        "id": report.restore_id or None,
        "backup": {
            "id": backup.id,
            "created_at": backup.created_at,
            "schema": backup.schema,
            "tenant_uid": backup.tenant_uid,
        },
        "rows": dict(report.rows),
        "data_keys": report.data_keys,
        "unreadable_rows": report.unreadable_rows,
        "retention_problem": report.retention_problem or None,
    }
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")
