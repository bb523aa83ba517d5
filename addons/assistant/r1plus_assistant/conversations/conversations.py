"""`/v1/conversations`: what callers keep of what was said, each end user's for itself."""

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from r1plus_assistant.conversations.content_handlers import (
    INCLUDE,
    PAGE,
    ContentHandlers,
    describe_item,
    describe_list,
    read_id,
    read_page,
    refuse_unknown,
    require,
    require_page,
)
from r1plus_assistant.responses.response_items import ITEM_SCHEMA, read_response_item
from r1plus_assistant.responses.response_items import Item as NewItem
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.body.field_tables import ListField, Table
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.metadata import METADATA, MetadataField
from r1plus_gateway.http.operations import Operation, Parameter, read_query
from r1plus_gateway.http.private_answers import respond
from r1plus_gateway.store.content.content import Listed, StoredConversation

MOST_NEW_ITEMS: Final = 20
"""Of one request, as OpenAI has it."""
ITEMS: Final = ListField("items", MOST_NEW_ITEMS, ITEM_SCHEMA)
NEW_ITEMS: Final = ListField("items", MOST_NEW_ITEMS, ITEM_SCHEMA, is_required=True)
CREATION: Final = Table((ITEMS, METADATA))
NEW_METADATA: Final = MetadataField(is_required=True)
CHANGE: Final = Table((NEW_METADATA,))
ADDITION: Final = Table((NEW_ITEMS,))
ID: Final = Parameter("id", "The conversation's id.", {"type": "string"}, is_in_path=True)
ITEM_ID: Final = Parameter("item", "The item's id.", {"type": "string"}, is_in_path=True)


class ConversationHandlers(ContentHandlers):
    """The handlers. They cost no tokens."""

    def list_operations(self) -> Sequence[Operation]:
        """Return the endpoints."""
        every, one = "/v1/conversations", "/v1/conversations/{id}"
        named: dict[str, Any] = {"parameters": (ID,), "errors": (404,)}
        return [
            Operation(
                "POST",
                every,
                "Begin a conversation.",
                self._guard(self._create),
                "Conversation",
                body=CREATION,
                is_body_required=False,
                errors=(413,),
            ),
            Operation(
                "GET",
                every,
                "List your conversations.",
                self._guard(self._list),
                "Conversations",
                parameters=PAGE,
                errors=(404,),
            ),
            Operation("GET", one, "Describe a conversation.", self._guard(self._get), "Conversation", **named),
            Operation(
                "POST",
                one,
                "Replace a conversation's metadata.",
                self._guard(self._change),
                "Conversation",
                body=CHANGE,
                **named,
            ),
            Operation(
                "DELETE", one, "Delete a conversation.", self._guard(self._delete), "DeletedConversation", **named
            ),
            *self._list_item_operations(f"{one}/items"),
        ]

    def _list_item_operations(self, items: str) -> Sequence[Operation]:
        item = f"{items}/{{item}}"
        listed: dict[str, Any] = {"errors": (404,)}
        return [
            Operation(
                "POST",
                items,
                "Add items at a conversation's end.",
                self._guard(self._add_items),
                "ConversationItems",
                body=ADDITION,
                parameters=(ID,),
                **listed,
            ),
            Operation(
                "GET",
                items,
                "List a conversation's items.",
                self._guard(self._list_items),
                "ConversationItems",
                parameters=(ID, *PAGE),
                **listed,
            ),
            Operation(
                "GET",
                item,
                "Return an item.",
                self._guard(self._get_item),
                "ConversationItem",
                parameters=(ID, ITEM_ID, *INCLUDE),
                **listed,
            ),
            Operation(
                "DELETE",
                item,
                "Delete an item.",
                self._guard(self._delete_item),
                "Conversation",
                parameters=(ID, ITEM_ID),
                **listed,
            ),
        ]

    async def _create(self, request: web.Request, caller: Caller) -> web.Response:
        self._require_storage()
        body = self._read_body(request, caller) if request.can_read_body else contextlib.nullcontext(Fields({}))
        async with body as fields:
            items, attributes = _read_items(fields, ITEMS), METADATA.read(fields)
            CREATION.refuse_rest(fields)
            made = await self._content.write(caller, lambda content: content.create_conversation(attributes, items))
        return respond(describe_conversation(made))

    async def _list(self, request: web.Request, caller: Caller) -> web.Response:
        page = read_page(request)
        listed = await self._content.read(caller, lambda content: content.list_conversations(page))
        return respond(describe_list(require_page(listed, page), describe_conversation))

    async def _get(self, request: web.Request, caller: Caller) -> web.Response:
        name = read_id(request, ID)
        found = await self._content.read(caller, lambda content: content.find_conversation(name))
        return respond(describe_conversation(require(found, name)))

    async def _change(self, request: web.Request, caller: Caller) -> web.Response:
        name = read_id(request, ID)
        async with self._read_body(request, caller) as fields:
            attributes = NEW_METADATA.read(fields)
            CHANGE.refuse_rest(fields)
            changed = await self._content.write(caller, lambda content: content.replace_attributes(name, attributes))
        return respond(describe_conversation(require(changed, name)))

    async def _delete(self, request: web.Request, caller: Caller) -> web.Response:
        name = read_id(request, ID)
        if not await self._content.write(caller, lambda content: content.delete_conversation(name)):
            raise refuse_unknown(name)
        self._content.forget(caller, name)
        return respond({"id": name, "object": "conversation.deleted", "deleted": True})

    async def _add_items(self, request: web.Request, caller: Caller) -> web.Response:
        self._require_storage()
        name = read_id(request, ID)
        async with self._read_body(request, caller) as fields:
            items = _read_items(fields, NEW_ITEMS)
            ADDITION.refuse_rest(fields)
            added = require(await self._content.write(caller, lambda content: content.append_items(name, items)), name)
        return respond(describe_list(Listed(added, has_more=False), describe_item))

    async def _list_items(self, request: web.Request, caller: Caller) -> web.Response:
        name, page = read_id(request, ID), read_page(request)
        found, listed = await self._content.read(
            caller, lambda content: (content.find_conversation(name), content.list_items(name, page))
        )
        require(found, name)
        return respond(describe_list(require_page(listed, page), describe_item))

    async def _get_item(self, request: web.Request, caller: Caller) -> web.Response:
        name, item = read_id(request, ID), read_id(request, ITEM_ID)
        read_query(request, INCLUDE)
        found, entry = await self._content.read(
            caller, lambda content: (content.find_conversation(name), content.find_item(name, item))
        )
        require(found, name)
        return respond(describe_item(require(entry, item)))

    async def _delete_item(self, request: web.Request, caller: Caller) -> web.Response:
        name, item = read_id(request, ID), read_id(request, ITEM_ID)
        was_deleted, found = await self._content.write(
            caller, lambda content: (content.delete_item(name, item), content.find_conversation(name))
        )
        conversation = require(found, name)
        if not was_deleted:
            raise refuse_unknown(item)
        self._content.forget(caller, name)
        return respond(describe_conversation(conversation))


def describe_conversation(conversation: StoredConversation) -> dict[str, Any]:
    """Return a conversation as OpenAI's clients read it."""
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": int(conversation.created_at),
        "metadata": conversation.attributes,
    }


def _read_items(fields: Fields, field: ListField) -> list[NewItem]:
    return [read_response_item(f"{field.name}[{position}]", entry) for position, entry in enumerate(field.read(fields))]
