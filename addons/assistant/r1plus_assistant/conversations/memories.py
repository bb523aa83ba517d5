"""`/v1/memories`: what is remembered of an end user across conversations, for its owner to see, change and delete."""

from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from r1plus_assistant.conversations.content_handlers import (
    PAGE,
    ContentHandlers,
    describe_list,
    read_id,
    read_page,
    refuse_unknown,
    require,
    require_page,
)
from r1plus_assistant.conversations.recall import KNOWN
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.body.field_tables import IntegerField, StringField, Table
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.errors import InvalidFieldError
from r1plus_gateway.http.operations import Operation, Parameter
from r1plus_gateway.http.private_answers import respond
from r1plus_gateway.store.content.content import MOST_MEMORY_CHARACTERS, MemorySource, StoredMemory

MOST_DAYS: Final = 3_650
TEXT: Final = StringField("text", MOST_MEMORY_CHARACTERS, is_required=True)
NEW_TEXT: Final = StringField("text", MOST_MEMORY_CHARACTERS)
DAYS: Final = IntegerField("expires_after_days", 1, MOST_DAYS)
CREATION: Final = Table((TEXT, DAYS))
CHANGE: Final = Table((NEW_TEXT, DAYS))
ID: Final = Parameter("id", "The memory's id.", {"type": "string"}, is_in_path=True)


class MemoryHandlers(ContentHandlers):
    """The handlers. They cost no tokens."""

    def list_operations(self) -> Sequence[Operation]:
        """Return the endpoints."""
        every, one = "/v1/memories", "/v1/memories/{id}"
        named: dict[str, Any] = {"parameters": (ID,), "errors": (404, 410)}
        return [
            Operation(
                "POST",
                every,
                "Remember a text across conversations.",
                self._guard(self._create),
                "Memory",
                body=CREATION,
                errors=(413,),
            ),
            Operation(
                "GET",
                every,
                "List what is remembered of you.",
                self._guard(self._list),
                "Memories",
                parameters=PAGE,
                errors=(404, 410),
            ),
            Operation("GET", one, "Return a memory.", self._guard(self._get), "Memory", **named),
            Operation(
                "POST",
                one,
                "Change a memory's text or time; its time begins anew.",
                self._guard(self._change),
                "Memory",
                body=CHANGE,
                parameters=(ID,),
                errors=(404, 410, 413),
            ),
            Operation("DELETE", one, "Delete a memory.", self._guard(self._delete), "DeletedMemory", **named),
        ]

    async def _create(self, request: web.Request, caller: Caller) -> web.Response:
        self._require_storage()
        async with self._read_body(request, caller) as fields:
            text, days = TEXT.read(fields), self._read_days(fields)
            CREATION.refuse_rest(fields)
            _refuse_blank(text)
            made = await self._content.write(
                caller, lambda content: content.add_memory(text, MemorySource.PINNED, days)
            )
        return respond(describe_memory(made))

    async def _list(self, request: web.Request, caller: Caller) -> web.Response:
        page = read_page(request)
        listed = await self._content.read(caller, lambda content: content.list_memories(page))
        return respond(describe_list(require_page(listed, page), describe_memory))

    async def _get(self, request: web.Request, caller: Caller) -> web.Response:
        name = read_id(request, ID)
        found = await self._content.read(caller, lambda content: content.find_memory(name))
        return respond(describe_memory(require(found, name)))

    async def _change(self, request: web.Request, caller: Caller) -> web.Response:
        self._require_storage()
        name = read_id(request, ID)
        async with self._read_body(request, caller) as fields:
            text = NEW_TEXT.read(fields) if fields.has(NEW_TEXT.name) else None
            days = self._read_days(fields)
            CHANGE.refuse_rest(fields)
            if text is not None:
                _refuse_blank(text)
            changed = await self._content.write(caller, lambda content: content.replace_memory(name, text, days))
            self._content.forget(caller, KNOWN)
        return respond(describe_memory(require(changed, name)))

    async def _delete(self, request: web.Request, caller: Caller) -> web.Response:
        name = read_id(request, ID)
        if not await self._content.write(caller, lambda content: content.delete_memory(name)):
            raise refuse_unknown(name)
        self._content.forget(caller, KNOWN)
        return respond({"id": name, "object": "memory.deleted", "deleted": True})

    def _read_days(self, fields: Fields) -> float:
        """Return for how many days a memory is kept: at most as long as the tenant keeps anything."""
        days, most = DAYS.read(fields), self._content.days
        if days is not None and days > most:
            message = f"{days} is more than the {most:g} days for which this tenant keeps what it stores"
            raise InvalidFieldError(DAYS.name, message)
        return most if days is None else days


def describe_memory(memory: StoredMemory) -> dict[str, Any]:
    """Return a memory as the API has it."""
    return {
        "id": memory.id,
        "object": "memory",
        "text": memory.text,
        "source": memory.source.value,
        "created_at": int(memory.created_at),
        "expires_at": int(memory.expires_at),
    }


def _refuse_blank(text: str) -> None:
    if not text.strip():
        raise InvalidFieldError(TEXT.name, "is blank; write what is to be remembered")
