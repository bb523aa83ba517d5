"""`/v1/vector_stores/{id}/file_batches`: files that are added to a vector store together."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from r1plus_assistant.conversations.content_handlers import (
    PAGE,
    check_id,
    describe_list,
    read_id,
    require,
    require_page,
)
from r1plus_assistant.files.knowledge_fields import ATTRIBUTES, CHUNKING, read_chunk_size
from r1plus_assistant.files.knowledge_handlers import (
    KnowledgeHandlers,
    describe_file_batch,
    describe_store_file,
)
from r1plus_assistant.files.vector_stores import (
    ADDITION,
    BY_STATE,
    FILE_ID,
    ID,
    begin_ingestion,
    read_ids,
    read_state_page,
)
from r1plus_assistant.store.content_writer import make_id
from r1plus_assistant.store.knowledge_writer import KnowledgeWriter
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.body.field_tables import ListField, Table, read_item
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.errors import InvalidFieldError
from r1plus_gateway.http.operations import Operation, Parameter
from r1plus_gateway.http.private_answers import respond
from r1plus_gateway.store.content.knowledge import FileBatch, Ingestion

MOST_BATCH_FILES: Final = 2_000
_ID: Final = {"type": "string", "minLength": 1, "maxLength": 128}
FILE_IDS: Final = ListField("file_ids", MOST_BATCH_FILES, _ID)
FILES: Final = ListField("files", MOST_BATCH_FILES, ADDITION.build_schema())
BATCH: Final = Table((FILE_IDS, FILES, ATTRIBUTES, CHUNKING))
BATCH_ID: Final = Parameter("batch", "The batch's id.", {"type": "string"}, is_in_path=True)


class VectorStoreBatches(KnowledgeHandlers):
    """The handlers."""

    def list_operations(self) -> Sequence[Operation]:
        """Return the endpoints."""
        every = "/v1/vector_stores/{id}/file_batches"
        one = f"{every}/{{batch}}"
        named: dict[str, Any] = {"parameters": (ID, BATCH_ID), "errors": (404, 410)}
        guard = self._guard
        return [
            Operation(
                "POST",
                every,
                "Add files together, which are read in the background.",
                guard(self._create),
                "FileBatch",
                body=BATCH,
                parameters=(ID,),
                errors=(404, 410, 413),
            ),
            Operation("GET", one, "Describe a batch of files.", guard(self._get), "FileBatch", **named),
            Operation(
                "POST", f"{one}/cancel", "Read no further files of a batch.", guard(self._cancel), "FileBatch", **named
            ),
            Operation(
                "GET",
                f"{one}/files",
                "List a batch's files.",
                guard(self._list_files),
                "VectorStoreFiles",
                parameters=(ID, BATCH_ID, BY_STATE, *PAGE),
                errors=(404, 410),
            ),
        ]

    async def _create(self, request: web.Request, caller: Caller) -> web.Response:
        self._require_knowledge()
        self._require_reader()
        name, owner, batch_id = read_id(request, ID), self._identify(caller), make_id("vsfb")
        async with self._read_body(request, caller) as fields:
            ingestions = read_batch(fields)

            def create(writer: KnowledgeWriter) -> FileBatch | str:
                """Return the batch, or the id of what this owner has not."""
                unknown = writer.add_store_files(name, ingestions, batch_id)
                return unknown or require(writer.find_batch(name, batch_id), batch_id)

            made = await self._knowledge.write(owner, create)
        if isinstance(made, str):
            raise await self._refuse_addition(owner, name, made if made != name else next(iter(ingestions)))
        await self._knowledge.drop_deleted(owner)  # of large files that are read again
        self._parts.ingestion.wake()
        return respond(describe_file_batch(made))

    async def _get(self, request: web.Request, caller: Caller) -> web.Response:
        name, batch_id = read_id(request, ID), read_id(request, BATCH_ID)
        found = await self._knowledge.read(self._identify(caller), lambda one: one.find_batch(name, batch_id))
        return respond(describe_file_batch(require(found, batch_id)))

    async def _cancel(self, request: web.Request, caller: Caller) -> web.Response:
        name, batch_id, owner = read_id(request, ID), read_id(request, BATCH_ID), self._identify(caller)
        if not await self._knowledge.delete(owner, lambda one: one.cancel_batch(name, batch_id)):
            raise await self._refuse_foreign(owner, batch_id, lambda one: one.find_batch(name, batch_id))
        return await self._get(request, caller)

    async def _list_files(self, request: web.Request, caller: Caller) -> web.Response:
        name, batch_id = read_id(request, ID), read_id(request, BATCH_ID)
        page, state = read_state_page(request)
        found, listed = await self._knowledge.read(
            self._identify(caller),
            lambda one: (one.find_batch(name, batch_id), one.list_store_files(name, page, state, batch_id)),
        )
        require(found, batch_id)
        return respond(describe_list(require_page(listed, page), describe_store_file))


def read_batch(fields: Fields) -> Mapping[str, Ingestion]:
    """Return how each file is read, by its id: of `file_ids` all in one way, of `files` each in its own.

    Raises:
        InvalidFieldError: neither of the two is there, or both are, or a file is there twice.
    """
    file_ids = read_ids(fields, FILE_IDS)
    items = FILES.read(fields)
    attributes, size = ATTRIBUTES.read(fields), read_chunk_size(fields)
    BATCH.refuse_rest(fields)
    if file_ids and items:
        raise InvalidFieldError(FILES.name, f"is there together with {FILE_IDS.name}; send one of them")
    if not file_ids and not items:
        raise fields.build_missing_error(FILE_IDS.name)
    if file_ids:
        return {file_id: begin_ingestion(attributes, size) for file_id in file_ids}
    ingestions: dict[str, Ingestion] = {}
    for position, item in enumerate(items):
        own = read_item(f"{FILES.name}[{position}]", item)
        file_id = check_id(FILE_ID.read(own))
        if file_id in ingestions:
            raise InvalidFieldError(own.locate(FILE_ID.name), f"{file_id} is there twice; send it once")
        ingestions[file_id] = begin_ingestion(ATTRIBUTES.read(own), read_chunk_size(own))
        ADDITION.refuse_rest(own)
    return ingestions
