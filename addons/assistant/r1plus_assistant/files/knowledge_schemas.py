"""Schemas of what the gateway answers about knowledge: files, vector stores, and what a search finds."""

from collections.abc import Mapping
from typing import Final

from r1plus_gateway.http.answer_schemas import (
    COUNT,
    NUMBER,
    TEXT,
    Schema,
    build_const,
    build_list,
    build_object,
    or_null,
    refer,
)

_TRUE: Final[Schema] = {"type": "boolean", "const": True}
_FLAG: Final[Schema] = {"type": "boolean"}
_METADATA: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
_ATTRIBUTES: Final[Schema] = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_FILE_ERROR: Final[Schema] = {"enum": ["server_error", "unsupported_file", "invalid_file"]}
_STATES: Final = ("in_progress", "completed", "failed", "cancelled")
_COUNTS: Final[Schema] = build_object(**dict.fromkeys((*_STATES, "total"), COUNT))
METHOD: Final[Schema] = {"enum": ["hybrid", "words"]}
PLACE: Final[Mapping[str, Schema]] = {"page": or_null(COUNT), "heading": TEXT, "start": COUNT, "end": COUNT}
"""Where a passage is in its document: page, heading, and characters of the document's text before its ends."""


CITATION: Final[Schema] = build_object(
    type=build_const("file_citation"),
    index=COUNT,
    file_id=TEXT,
    filename=TEXT,
    number=COUNT,
    basis={"enum": ["number", "words"]},
    **PLACE,
)
KNOWLEDGE: Final[Schema] = build_object(
    search=METHOD,
    found=COUNT,
    estimated_tokens=COUNT,
    passages=build_list(
        build_object(
            number=COUNT, vector_store_id=TEXT, file_id=TEXT, filename=TEXT, score=NUMBER, is_cited=_FLAG, **PLACE
        )
    ),
)
"""What an answer says of the documents that were quoted to the model."""


def _build_page(name: str) -> Schema:
    return build_object(
        object=build_const("list"),
        data=build_list(refer(name)),
        first_id=or_null(TEXT),
        last_id=or_null(TEXT),
        has_more=_FLAG,
    )


def _build_deleted(kind: str) -> Schema:
    return build_object(id=TEXT, object=build_const(kind), deleted=_TRUE)


KNOWLEDGE_COMPONENTS: Final[Mapping[str, Schema]] = {
    "File": build_object(
        id=TEXT,
        object=build_const("file"),
        bytes=COUNT,
        created_at=COUNT,
        expires_at=or_null(COUNT),
        filename=TEXT,
        purpose=TEXT,
        status=build_const("processed"),
        r1plus=build_object(is_shared=_FLAG),
    ),
    "Files": _build_page("File"),
    "DeletedFile": _build_deleted("file"),
    "VectorStore": build_object(
        id=TEXT,
        object=build_const("vector_store"),
        created_at=COUNT,
        name=TEXT,
        description=TEXT,
        usage_bytes=COUNT,
        file_counts=_COUNTS,
        status={"enum": ["in_progress", "completed"]},
        expires_after=or_null(build_object(anchor=build_const("last_active_at"), days=COUNT)),
        expires_at=or_null(COUNT),
        last_active_at=COUNT,
        metadata=_METADATA,
        r1plus=build_object(chunks=COUNT, search=METHOD, is_shared=_FLAG),
    ),
    "VectorStores": _build_page("VectorStore"),
    "DeletedVectorStore": _build_deleted("vector_store.deleted"),
    "VectorStoreFile": build_object(
        id=TEXT,
        object=build_const("vector_store.file"),
        created_at=COUNT,
        vector_store_id=TEXT,
        usage_bytes=COUNT,
        status={"enum": list(_STATES)},
        last_error=or_null(build_object(code=_FILE_ERROR, message=TEXT)),
        chunking_strategy=build_object(
            type=build_const("static"),
            static=build_object(max_chunk_size_tokens=COUNT, chunk_overlap_tokens=COUNT),
        ),
        attributes=_ATTRIBUTES,
        r1plus=build_object(
            pages=COUNT,
            chunks=COUNT,
            reader=TEXT,
            error_code=or_null(TEXT),
            unreadable_pages=build_list(build_object(page=or_null(COUNT), message=TEXT)),
        ),
    ),
    "VectorStoreFiles": _build_page("VectorStoreFile"),
    "FileBatch": build_object(
        id=TEXT,
        object=build_const("vector_store.files_batch"),
        created_at=COUNT,
        vector_store_id=TEXT,
        status={"enum": list(_STATES)},
        file_counts=_COUNTS,
    ),
    "DeletedVectorStoreFile": _build_deleted("vector_store.file.deleted"),
    "SearchResults": build_object(
        object=build_const("vector_store.search_results.page"),
        search_query=build_list(TEXT),
        data=build_list(
            build_object(
                file_id=TEXT,
                filename=TEXT,
                score=NUMBER,
                attributes=_ATTRIBUTES,
                content=build_list(build_object(type=build_const("text"), text=TEXT)),
                r1plus=build_object(**PLACE),
            )
        ),
        has_more={"type": "boolean", "const": False},
        next_page={"type": "null"},
        r1plus=build_object(search=METHOD),
    ),
}
