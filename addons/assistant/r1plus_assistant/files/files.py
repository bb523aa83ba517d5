"""`/v1/files`: what callers upload, each end user's for itself, and the key's own for all its end users."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from r1plus_assistant.conversations.content_handlers import (
    PAGE,
    describe_list,
    read_id,
    read_page_of,
    require,
    require_page,
)
from r1plus_assistant.files.knowledge_handlers import KnowledgeHandlers, describe_file, respond_file
from r1plus_assistant.files.uploads import FILE_FIELD, MOST_NAME_CHARACTERS, Upload
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.operations import Operation, Parameter, read_query
from r1plus_gateway.http.private_answers import respond
from r1plus_gateway.store.content.content import ListPage
from r1plus_gateway.store.keys.content_cipher import Owner

PURPOSES: Final = ("assistants", "user_data")
PURPOSE: Final = "purpose"
ANCHOR: Final = "expires_after[anchor]"
SECONDS: Final = "expires_after[seconds]"
LEAST_EXPIRY: Final = 3600
MOST_EXPIRY: Final = 30 * 86400
ID: Final = Parameter("file", "The file's id.", {"type": "string"}, is_in_path=True)
BY_PURPOSE: Final = Parameter("purpose", "Files of this purpose only.", {"enum": list(PURPOSES)})
FORM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        FILE_FIELD: {
            "type": "string",
            "format": "binary",
            "description": f"With a name of at most {MOST_NAME_CHARACTERS} characters; its extension says the format.",
        },
        PURPOSE: {"type": "string", "enum": list(PURPOSES)},
        ANCHOR: {"type": "string", "const": "created_at"},
        SECONDS: {"type": "integer", "minimum": LEAST_EXPIRY, "maximum": MOST_EXPIRY},
    },
    "required": [FILE_FIELD, PURPOSE],
    "additionalProperties": False,
}


class FileHandlers(KnowledgeHandlers):
    """The handlers."""

    def list_operations(self) -> Sequence[Operation]:
        """Return the endpoints."""
        every, one = "/v1/files", "/v1/files/{file}"
        named: dict[str, Any] = {"parameters": (ID,), "errors": (404, 410)}
        return [
            Operation(
                "POST",
                every,
                "Upload a file.",
                self._guard(self._upload),
                "File",
                form=FORM_SCHEMA,
                errors=(413,),
            ),
            Operation(
                "GET",
                every,
                "List your files.",
                self._guard(self._list),
                "Files",
                parameters=(BY_PURPOSE, *PAGE),
                errors=(410,),
            ),
            Operation("GET", one, "Describe a file.", self._guard(self._get), "File", **named),
            Operation(
                "DELETE",
                one,
                "Delete a file, also from all vector stores.",
                self._guard(self._delete),
                "DeletedFile",
                **named,
            ),
            Operation(
                "GET", f"{one}/content", "Download a file.", self._guard(self._download), "", is_file=True, **named
            ),
        ]

    async def _upload(self, request: web.Request, caller: Caller) -> web.Response:
        self._require_knowledge()
        read_query(request, ())
        owner, upload = self._identify(caller), Upload(request, self._read_settings().limits)
        file_id, position, is_whole = "", 0, False
        try:
            async for piece in upload.read_pieces():
                if not file_id:
                    name = upload.form.file_name
                    file_id = await self._knowledge.write(owner, lambda one: one.begin_file(name))  # noqa: B023
                await self._knowledge.write(owner, lambda one: one.append_part(file_id, position, piece))  # noqa: B023
                position += 1
            name, purpose, seconds = upload.form.file_name, *_read_fields(upload.form.fields)
            file = await self._knowledge.write(owner, lambda one: one.finish_file(file_id, name, purpose, seconds))
            is_whole = True
        finally:
            if file_id and not is_whole:
                await asyncio.shield(self._drop(owner, file_id))
        return respond(describe_file(require(file, file_id)))

    async def _drop(self, owner: Owner, file_id: str) -> None:
        """Delete what has arrived of a file that does not become whole; what fails here goes within the hour."""
        await self._knowledge.delete(owner, lambda one: one.drop_upload(file_id))

    async def _list(self, request: web.Request, caller: Caller) -> web.Response:
        page, purpose = read_file_page(request)
        listed = await self._knowledge.read(self._identify(caller), lambda one: one.list_files(page, purpose))
        return respond(describe_list(require_page(listed, page), describe_file))

    async def _get(self, request: web.Request, caller: Caller) -> web.Response:
        name = read_id(request, ID)
        file = await self._knowledge.read(self._identify(caller), lambda one: one.find_file(name))
        return respond(describe_file(require(file, name)))

    async def _delete(self, request: web.Request, caller: Caller) -> web.Response:
        name, owner = read_id(request, ID), self._identify(caller)
        if not await self._knowledge.delete(owner, lambda one: one.delete_file(name)):
            raise await self._refuse_foreign(owner, name, lambda one: one.find_file(name))
        return respond({"id": name, "object": "file", "deleted": True})

    async def _download(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        name, owner = read_id(request, ID), self._identify(caller)
        file = require(await self._knowledge.read(owner, lambda one: one.find_file(name)), name)
        response = web.StreamResponse(headers=respond_file(file.name))
        response.content_length = file.bytes
        part = await self._knowledge.read(owner, lambda one: one.read_part(name, 0))
        await response.prepare(request)
        position = 0
        while part is not None:
            async with asyncio.timeout(self._read_settings().limits.slow_reader_seconds):
                await response.write(part)
            position += 1
            part = await self._knowledge.read(owner, lambda one: one.read_part(name, position))  # noqa: B023
        await response.write_eof()
        return response


def read_file_page(request: web.Request) -> tuple[ListPage, str]:
    """Return which part of the list of files a request asks for, and of which purpose. Raises InvalidFieldError."""
    query = read_query(request, (BY_PURPOSE, *PAGE))
    purpose = query.get(BY_PURPOSE.name, "")
    if purpose and purpose not in PURPOSES:
        raise InvalidFieldError(BY_PURPOSE.name, f"{purpose!r:.40} is not one of {', '.join(PURPOSES)}")
    return read_page_of(query), purpose


def _read_fields(fields: dict[str, str]) -> tuple[str, float | None]:
    """Return purpose and expiry in seconds. Raises InvalidFieldError."""
    if unknown := sorted(fields.keys() - {PURPOSE, ANCHOR, SECONDS}):
        raise UnsupportedFieldError(unknown[0][:80], "is not a known field; leave it out")
    purpose = fields.get(PURPOSE, "")
    if not purpose:
        raise InvalidFieldError(PURPOSE, "is missing; send assistants", code="missing_required_parameter")
    if purpose not in PURPOSES:
        raise UnsupportedFieldError(PURPOSE, f"{purpose!r:.40} is not one of {', '.join(PURPOSES)}")
    if fields.get(ANCHOR, "created_at") != "created_at":
        raise InvalidFieldError(ANCHOR, f"{fields[ANCHOR]!r:.40} is not created_at")
    text = fields.get(SECONDS)
    if text is None:
        return purpose, None
    is_number = text.isascii() and text.isdecimal() and len(text) <= 9
    if not is_number or not LEAST_EXPIRY <= int(text) <= MOST_EXPIRY:
        raise InvalidFieldError(SECONDS, f"{text!r:.40} is not between {LEAST_EXPIRY} and {MOST_EXPIRY}")
    return purpose, float(text)
