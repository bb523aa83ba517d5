"""`/v1/responses/{id}`: responses that were stored, read and deleted by those whose they are."""

from collections.abc import Mapping, Sequence
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
from r1plus_assistant.knowledge.stored_results import read_results
from r1plus_assistant.responses.response_items import SEARCH_CALL
from r1plus_assistant.responses.stored_programs import read_runs
from r1plus_assistant.store.content_reader import ContentReader
from r1plus_assistant.store.knowledge_reader import KnowledgeReader
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.errors import UnsupportedFieldError
from r1plus_gateway.http.operations import Operation, Parameter, read_query
from r1plus_gateway.http.private_answers import respond
from r1plus_gateway.store.content.content import Listed, ListPage, StoredItem, StoredResponse

ID: Final = Parameter("id", "The response's id.", {"type": "string"}, is_in_path=True, pattern="resp_[0-9a-f]+")
STREAM: Final = Parameter("stream", "A stored response is not streamed again.", {"enum": ["false"]})
OPTIONS: Final = (STREAM, *INCLUDE)


class StoredResponses(ContentHandlers):
    """The handlers. They cost no tokens."""

    def list_operations(self) -> Sequence[Operation]:
        """Return the endpoints."""
        one = "/v1/responses/{id}"
        named: dict[str, Any] = {"parameters": (ID,), "errors": (404, 410)}
        return [
            Operation(
                "GET",
                one,
                "Return a stored response.",
                self._guard(self._get),
                "Response",
                parameters=(ID, *OPTIONS),
                errors=(404, 410),
            ),
            Operation(
                "DELETE", one, "Delete a stored response.", self._guard(self._delete), "DeletedResponse", **named
            ),
            Operation(
                "GET",
                f"{one}/input_items",
                "List the items of a stored response's request.",
                self._guard(self._list_items),
                "ConversationItems",
                parameters=(ID, *PAGE),
                errors=(404, 410),
            ),
        ]

    async def _get(self, request: web.Request, caller: Caller) -> web.Response:
        if read_query(request, OPTIONS).get(STREAM.name, "false") != "false":
            raise UnsupportedFieldError(STREAM.name, "a stored response is not streamed again; leave it out")
        name = read_id(request, ID)
        return respond(require(await self._content.read(caller, lambda content: _read_answer(content, name)), name))

    async def _delete(self, request: web.Request, caller: Caller) -> web.Response:
        name = read_id(request, ID)
        if not await self._content.write(caller, lambda content: content.delete_response(name)):
            raise refuse_unknown(name)
        self._content.forget_owner(caller)
        return respond({"id": name, "object": "response", "deleted": True})

    async def _list_items(self, request: web.Request, caller: Caller) -> web.Response:
        page = read_page(request)
        found = await self._find(read_id(request, ID), caller)
        return respond(describe_list(require_page(_cut_page(found, page), page), describe_item))

    async def _find(self, name: str, caller: Caller) -> StoredResponse:
        return require(await self._content.read(caller, lambda content: content.find_response(name)), name)


def _read_answer(content: ContentReader, name: str) -> Mapping[str, Any] | None:
    """Return a stored answer, with what its programs gave, and the texts of its passages that are still there."""
    found = content.find_response(name)
    if found is None:
        return None
    reader = KnowledgeReader(content.connection, content.cipher, content.owner, content.now, content.over_by)
    output = [
        {**item, "results": read_results(reader, item["results"])}
        if item["type"] == SEARCH_CALL and item.get("results")
        else item
        for item in found.answer["output"]
    ]
    return read_runs({**found.answer, "output": output})


def _cut_page(response: StoredResponse, page: ListPage) -> Listed[StoredItem] | None:
    """Return a part of a request's items, whose ids are made of their places; None if `after` is none of them."""
    stem = response.id.partition("_")[2]
    items = [StoredItem(f"msg_{stem}_{place}", dict(content)) for place, content in enumerate(response.input)]
    items = items if page.is_ascending else items[::-1]
    names = [item.id for item in items]
    if page.after and page.after not in names:
        return None
    first = names.index(page.after) + 1 if page.after else 0
    return Listed(items[first : first + page.limit], len(items) > first + page.limit)
