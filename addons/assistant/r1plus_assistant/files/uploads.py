"""Uploads: the parts of a form as they arrive, a bounded piece of a file at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from r1plus_gateway.http.errors import InvalidFieldError, RequestError
from r1plus_gateway.http.operations import FORM
from r1plus_gateway.settings import GatewayLimits
from r1plus_gateway.store.content.knowledge import PART_BYTES

T = TypeVar("T")
FILE_FIELD: Final = "file"
MOST_FIELDS: Final = 16
MOST_FIELD_BYTES: Final = 4096
FORM_BYTES: Final = 64 * 1024
"""Of a form besides its file."""
MOST_NAME_CHARACTERS: Final = 255


@dataclass(slots=True)
class UploadForm:
    """The fields of a form. They are known when all pieces of its file were read."""

    file_name: str = ""
    fields: dict[str, str] = field(default_factory=dict)


class Upload:
    """One form with one file."""

    def __init__(self, request: web.Request, limits: GatewayLimits) -> None:
        """Raises RequestError: it is no form, or says that it is too large."""
        if request.content_type != FORM or "Content-Encoding" in request.headers:
            raise RequestError(415, "unsupported_media_type", f"send the file as it is, in a body of type {FORM}")
        self._limits = limits
        self._request = request
        self.form = UploadForm()
        if request.content_length is not None and request.content_length > limits.file_bytes + FORM_BYTES:
            raise self._refuse_size()

    async def read_pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the file, of `PART_BYTES` and a shorter last one.

        Raises:
            RequestError: the form is not as it should be, too large, or stops arriving.
        """
        try:
            reader = await self._request.multipart()
            while (part := await self._wait(reader.next())) is not None:
                if not isinstance(part, aiohttp.BodyPartReader) or not part.name:
                    raise InvalidFieldError("body", "a part has no name; send file and purpose")
                if part.name == FILE_FIELD:
                    async for piece in self._read_file(part):
                        yield piece
                else:
                    await self._read_field(part)
        except (ValueError, AssertionError, LookupError, RuntimeError, HttpProcessingError) as error:
            if isinstance(error, RequestError):
                raise
            message = "the body is no form of parts; send multipart/form-data"
            raise RequestError(400, "invalid_request", message) from error
        if not self.form.file_name:
            raise InvalidFieldError(FILE_FIELD, "is missing; send a file", code="missing_required_parameter")

    async def _read_file(self, part: aiohttp.BodyPartReader) -> AsyncIterator[bytes]:
        if self.form.file_name:
            raise InvalidFieldError(FILE_FIELD, "is there twice; send a request for each file")
        self.form.file_name = read_file_name(part.filename)
        total, buffer = 0, bytearray()
        while chunk := await self._wait(part.read_chunk(64 * 1024)):
            total += len(chunk)
            if total > self._limits.file_bytes:
                raise self._refuse_size()
            buffer += chunk
            while len(buffer) >= PART_BYTES:
                yield bytes(buffer[:PART_BYTES])
                del buffer[:PART_BYTES]
        if not total:
            raise InvalidFieldError(FILE_FIELD, "is empty; send a file with content")
        if buffer:
            yield bytes(buffer)

    async def _read_field(self, part: aiohttp.BodyPartReader) -> None:
        name, value = str(part.name), b""
        if name in self.form.fields or len(self.form.fields) >= MOST_FIELDS:
            raise InvalidFieldError(name[:80], f"is there twice, or one of more than {MOST_FIELDS} fields")
        while chunk := await self._wait(part.read_chunk(MOST_FIELD_BYTES)):
            value += chunk
            if len(value) > MOST_FIELD_BYTES:
                raise InvalidFieldError(name[:80], f"has more than {MOST_FIELD_BYTES} bytes")
        try:
            self.form.fields[name] = value.decode()
        except UnicodeDecodeError as error:
            raise InvalidFieldError(name[:80], "is no text in UTF-8") from error

    async def _wait(self, awaitable: Awaitable[T]) -> T:
        """Wait for what the client sends next. Raises RequestError 408."""
        seconds = self._limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                return await awaitable
        except TimeoutError as error:
            raise RequestError(408, "request_timeout", f"nothing of the body arrived for {seconds:g} s") from error

    def _refuse_size(self) -> RequestError:
        most = self._limits.file_bytes
        return RequestError(413, "file_too_large", f"the file has more than {most} bytes; split it", param=FILE_FIELD)


def read_file_name(name: str | None) -> str:
    """Return a file's name without folders. Raises InvalidFieldError."""
    base = (name or "").replace("\\", "/").rpartition("/")[2].strip()
    if not base or not base.isprintable() or len(base) > MOST_NAME_CHARACTERS:
        message = f"needs a file name of 1 to {MOST_NAME_CHARACTERS} printable characters"
        raise InvalidFieldError(FILE_FIELD, message)
    return base
