"""`/v1/vector_stores`: sets of files that are searched by words and by vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from r1plus_assistant.conversations.content_handlers import (
    PAGE,
    check_id,
    describe_list,
    read_id,
    read_page,
    read_page_of,
    require,
    require_page,
)
from r1plus_assistant.files.knowledge_fields import (
    ATTRIBUTES,
    CHUNKING,
    EXPIRES_AFTER,
    SEARCH,
    read_chunk_size,
    read_expiry_days,
    read_search,
)
from r1plus_assistant.files.knowledge_handlers import (
    KnowledgeHandlers,
    describe_store_file,
    describe_vector_store,
)
from r1plus_assistant.files.knowledge_search import search_knowledge
from r1plus_assistant.knowledge.chunking import ChunkSize
from r1plus_assistant.knowledge.quotation import describe_passage_place
from r1plus_assistant.knowledge.search import Passage
from r1plus_assistant.store.knowledge_writer import KnowledgeWriter
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.body.field_tables import ListField, StringField, Table
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.metadata import METADATA
from r1plus_gateway.http.errors import InvalidFieldError
from r1plus_gateway.http.operations import Operation, Parameter, read_query
from r1plus_gateway.http.private_answers import respond
from r1plus_gateway.store.content.content import ListPage
from r1plus_gateway.store.content.knowledge import Ingestion, IngestionState, VectorStore

MOST_NEW_FILES: Final = 100
NAME: Final = StringField("name", most=256)
DESCRIPTION: Final = StringField("description", most=512)
_ID: Final = {"type": "string", "minLength": 1, "maxLength": 128}
FILE_IDS: Final = ListField("file_ids", MOST_NEW_FILES, _ID)
FILE_ID: Final = StringField("file_id", most=128, is_required=True)
CREATION: Final = Table((NAME, DESCRIPTION, FILE_IDS, METADATA, EXPIRES_AFTER, CHUNKING))
CHANGE: Final = Table((NAME, DESCRIPTION, METADATA, EXPIRES_AFTER))
ADDITION: Final = Table((FILE_ID, ATTRIBUTES, CHUNKING))
NEW_ATTRIBUTES: Final = replace(ATTRIBUTES, is_required=True)
FILE_CHANGE: Final = Table((NEW_ATTRIBUTES,))
ID: Final = Parameter("id", "The vector store's id.", {"type": "string"}, is_in_path=True)
FILE: Final = Parameter("file", "The file's id.", {"type": "string"}, is_in_path=True)
STATES: Final = tuple(state.value for state in IngestionState)
BY_STATE: Final = Parameter("filter", "Files in this state only.", {"enum": list(STATES)})


class VectorStoreHandlers(KnowledgeHandlers):
    """The handlers."""

    def list_operations(self) -> Sequence[Operation]:
        """Return the endpoints."""
        every, one = "/v1/vector_stores", "/v1/vector_stores/{id}"
        named: dict[str, Any] = {"parameters": (ID,), "errors": (404, 410)}
        guard = self._guard
        return [
            Operation(
                "POST",
                every,
                "Make a vector store.",
                guard(self._create),
                "VectorStore",
                body=CREATION,
                errors=(404, 413),
            ),
            Operation(
                "GET",
                every,
                "List your vector stores.",
                guard(self._list),
                "VectorStores",
                parameters=PAGE,
                errors=(410,),
            ),
            Operation("GET", one, "Describe a vector store.", guard(self._get), "VectorStore", **named),
            Operation("POST", one, "Change a vector store.", guard(self._change), "VectorStore", body=CHANGE, **named),
            Operation(
                "DELETE",
                one,
                "Delete a vector store; its files stay.",
                guard(self._delete),
                "DeletedVectorStore",
                **named,
            ),
            Operation(
                "POST",
                f"{one}/search",
                "Search a vector store.",
                guard(self._search),
                "SearchResults",
                body=SEARCH,
                **named,
            ),
            *self._list_file_operations(f"{one}/files"),
        ]

    def _list_file_operations(self, files: str) -> Sequence[Operation]:
        guard, file = self._guard, f"{files}/{{file}}"
        of_file: dict[str, Any] = {"parameters": (ID, FILE), "errors": (404, 410)}
        return [
            Operation(
                "POST",
                files,
                "Add a file, which is read in the background.",
                guard(self._add_file),
                "VectorStoreFile",
                body=ADDITION,
                parameters=(ID,),
                errors=(404, 410),
            ),
            Operation(
                "GET",
                files,
                "List a vector store's files.",
                guard(self._list_files),
                "VectorStoreFiles",
                parameters=(ID, BY_STATE, *PAGE),
                errors=(404, 410),
            ),
            Operation(
                "GET",
                file,
                "Describe a file, and how far it was read.",
                guard(self._get_file),
                "VectorStoreFile",
                **of_file,
            ),
            Operation(
                "POST",
                file,
                "Replace a file's attributes.",
                guard(self._change_file),
                "VectorStoreFile",
                body=FILE_CHANGE,
                **of_file,
            ),
            Operation(
                "DELETE",
                file,
                "Remove a file from a vector store; the file stays.",
                guard(self._remove_file),
                "DeletedVectorStoreFile",
                **of_file,
            ),
        ]

    async def _create(self, request: web.Request, caller: Caller) -> web.Response:
        self._require_knowledge()
        owner = self._identify(caller)
        async with self._read_body(request, caller) as fields:
            name, description, attributes = NAME.read(fields), DESCRIPTION.read(fields), METADATA.read(fields)
            file_ids = read_ids(fields, FILE_IDS)
            days, size = read_expiry_days(fields), read_chunk_size(fields)
            CREATION.refuse_rest(fields)
            if file_ids:
                self._require_reader()

            def create(writer: KnowledgeWriter) -> VectorStore | str:
                """Return the vector store, or the id of a file that this owner has not."""
                made = writer.create_vector_store(name, description, attributes, days)
                ingestions = {file_id: begin_ingestion({}, size) for file_id in file_ids}
                if file_ids and (unknown := writer.add_store_files(made.id, ingestions)):
                    writer.delete_vector_store(made.id)
                    return unknown
                return require(writer.find_vector_store(made.id), made.id)

            made = await self._knowledge.write(owner, create)
        if isinstance(made, str):
            unknown = made
            raise await self._refuse_foreign(owner, unknown, lambda one: one.find_file(unknown))
        self._parts.ingestion.wake()
        return respond(describe_vector_store(made, self._parts.method))

    async def _list(self, request: web.Request, caller: Caller) -> web.Response:
        page = read_page(request)
        listed = await self._knowledge.read(self._identify(caller), lambda one: one.list_vector_stores(page))
        return respond(
            describe_list(require_page(listed, page), lambda store: describe_vector_store(store, self._parts.method))
        )

    async def _get(self, request: web.Request, caller: Caller) -> web.Response:
        name = read_id(request, ID)
        found = await self._knowledge.read(self._identify(caller), lambda one: one.find_vector_store(name))
        return respond(describe_vector_store(require(found, name), self._parts.method))

    async def _change(self, request: web.Request, caller: Caller) -> web.Response:
        name, owner = read_id(request, ID), self._identify(caller)
        async with self._read_body(request, caller) as fields:
            changes = _read_changes(fields)
            CHANGE.refuse_rest(fields)

            def change(writer: KnowledgeWriter) -> VectorStore | None:
                before = writer.find_vector_store(name)
                return None if before is None else writer.change_vector_store(replace(before, **changes))

            changed = await self._knowledge.write(owner, change)
        if changed is None:
            raise await self._refuse_foreign(owner, name, lambda one: one.find_vector_store(name))
        return respond(describe_vector_store(changed, self._parts.method))

    async def _delete(self, request: web.Request, caller: Caller) -> web.Response:
        name, owner = read_id(request, ID), self._identify(caller)
        if not await self._knowledge.delete(owner, lambda one: one.delete_vector_store(name)):
            raise await self._refuse_foreign(owner, name, lambda one: one.find_vector_store(name))
        return respond({"id": name, "object": "vector_store.deleted", "deleted": True})

    async def _search(self, request: web.Request, caller: Caller) -> web.Response:
        name, owner = read_id(request, ID), self._identify(caller)
        async with self._read_body(request, caller) as fields:
            query = read_search(fields)
            SEARCH.refuse_rest(fields)
        most = self._read_settings().limits.queue_per_key
        with self._convert_full_queue():
            async with self._turns.searches.wait(caller, most):
                result = await search_knowledge(self._parts.search, owner, [name], query.text, query.options)
        return respond(
            {
                "object": "vector_store.search_results.page",
                "search_query": query.texts,
                "data": [_describe_result(passage) for passage in result.passages],
                "has_more": False,
                "next_page": None,
                "r1plus": {"search": result.method.value},
            }
        )

    async def _add_file(self, request: web.Request, caller: Caller) -> web.Response:
        self._require_knowledge()
        self._require_reader()
        name, owner = read_id(request, ID), self._identify(caller)
        async with self._read_body(request, caller) as fields:
            file_id, attributes = check_id(FILE_ID.read(fields)), ATTRIBUTES.read(fields)
            ingestion = begin_ingestion(attributes, read_chunk_size(fields))
            ADDITION.refuse_rest(fields)
            added = await self._knowledge.write(owner, lambda one: one.add_store_file(name, file_id, ingestion))
        if added is None:
            raise await self._refuse_addition(owner, name, file_id)
        await self._knowledge.drop_deleted(owner)  # of a large file that is read again
        self._parts.ingestion.wake()
        return respond(describe_store_file(added))

    async def _list_files(self, request: web.Request, caller: Caller) -> web.Response:
        name = read_id(request, ID)
        page, state = read_state_page(request)
        found, listed = await self._knowledge.read(
            self._identify(caller), lambda one: (one.find_vector_store(name), one.list_store_files(name, page, state))
        )
        require(found, name)
        return respond(describe_list(require_page(listed, page), describe_store_file))

    async def _get_file(self, request: web.Request, caller: Caller) -> web.Response:
        name, file_id = read_id(request, ID), read_id(request, FILE)
        file = await self._knowledge.read(self._identify(caller), lambda one: one.find_store_file(name, file_id))
        return respond(describe_store_file(require(file, file_id)))

    async def _change_file(self, request: web.Request, caller: Caller) -> web.Response:
        name, file_id, owner = read_id(request, ID), read_id(request, FILE), self._identify(caller)
        async with self._read_body(request, caller) as fields:
            attributes = NEW_ATTRIBUTES.read(fields)
            FILE_CHANGE.refuse_rest(fields)
            changed = await self._knowledge.write(owner, lambda one: one.change_store_file(name, file_id, attributes))
        if changed is None:
            raise await self._refuse_foreign(owner, file_id, lambda one: one.find_store_file(name, file_id))
        return respond(describe_store_file(changed))

    async def _remove_file(self, request: web.Request, caller: Caller) -> web.Response:
        name, file_id, owner = read_id(request, ID), read_id(request, FILE), self._identify(caller)
        if not await self._knowledge.delete(owner, lambda one: one.remove_store_file(name, file_id)):
            raise await self._refuse_foreign(owner, file_id, lambda one: one.find_store_file(name, file_id))
        return respond({"id": file_id, "object": "vector_store.file.deleted", "deleted": True})


def read_state_page(request: web.Request) -> tuple[ListPage, IngestionState | None]:
    """Return which part of a list of files a request asks for, and in which state. Raises InvalidFieldError."""
    query = read_query(request, (BY_STATE, *PAGE))
    wanted = query.get(BY_STATE.name)
    if wanted is not None and wanted not in STATES:
        raise InvalidFieldError(BY_STATE.name, f"{wanted!r:.40} is not one of {', '.join(STATES)}")
    return read_page_of(query), None if wanted is None else IngestionState(wanted)


def begin_ingestion(attributes: Mapping[str, Any], size: ChunkSize) -> Ingestion:
    """Return how a file is read from its beginning."""
    return Ingestion(dict(attributes), size.tokens, size.overlap)


def read_ids(fields: Fields, field: ListField) -> list[str]:
    """Return ids, each once. Raises InvalidFieldError."""
    ids = field.read(fields)
    for position, one in enumerate(ids):
        if not isinstance(one, str) or not 1 <= len(one) <= 128 or not one.isprintable():
            raise InvalidFieldError(f"{field.name}[{position}]", "expected an id", code="invalid_type")
    return list(dict.fromkeys(ids))


def _read_changes(fields: Fields) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if fields.has(NAME.name):
        changes["name"] = NAME.read(fields)
    if fields.has(DESCRIPTION.name):
        changes["description"] = DESCRIPTION.read(fields)
    if fields.has(METADATA.name):
        changes["attributes"] = METADATA.read(fields)
    if fields.has(EXPIRES_AFTER.name):
        changes["expires_days"] = read_expiry_days(fields)
    return changes


def _describe_result(passage: Passage) -> dict[str, Any]:
    return {
        "file_id": passage.file_id,
        "filename": passage.file_name,
        "score": round(passage.score, 6),
        "attributes": dict(passage.attributes),
        "content": [{"type": "text", "text": passage.chunk.text}],
        "r1plus": describe_passage_place(passage),
    }
