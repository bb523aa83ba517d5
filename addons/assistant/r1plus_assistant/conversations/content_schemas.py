"""Schemas of what the gateway answers about stored content: conversations, and what administrators do with it."""

from collections.abc import Mapping
from typing import Final

from r1plus_assistant.code.code_interpreter import CALL as CODE_CALL
from r1plus_assistant.code.code_interpreter import NO_CONTAINER
from r1plus_gateway.http.answer_schemas import (
    COUNT,
    NULL,
    NUMBER,
    TEXT,
    Schema,
    build_const,
    build_list,
    build_object,
    or_null,
    refer,
)
from r1plus_gateway.store.content.content import MemorySource

_TRUE: Final[Schema] = {"type": "boolean", "const": True}
_METADATA: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
_PART: Final[Schema] = {
    "anyOf": [
        build_object(type=build_const("input_text"), text=TEXT),
        build_object(type=build_const("output_text"), text=TEXT, annotations=build_list({}), logprobs=build_list({})),
    ]
}
_DONE: Final = build_const("completed")
_ITEM: Final[Schema] = {
    "anyOf": [
        build_object(
            id=TEXT,
            type=build_const("message"),
            status={"enum": ["completed", "incomplete"]},
            role={"enum": ["user", "assistant", "system", "developer"]},
            content=build_list(_PART),
        ),
        build_object(id=TEXT, type=build_const("function_call"), status=_DONE, call_id=TEXT, name=TEXT, arguments=TEXT),
        build_object(id=TEXT, type=build_const("function_call_output"), status=_DONE, call_id=TEXT, output=TEXT),
        build_object(
            {"results": NULL},
            id=TEXT,
            type=build_const("file_search_call"),
            status=_DONE,
            queries=build_list(TEXT),
        ),
        build_object(
            id=TEXT,
            type=build_const(CODE_CALL),
            status={"enum": ["completed", "failed"]},
            code=TEXT,
            container_id=build_const(NO_CONTAINER),
            outputs=build_list(build_object(type=build_const("logs"), logs=TEXT)),
        ),
    ]
}


def _build_page(name: str) -> Schema:
    return build_object(
        object=build_const("list"),
        data=build_list(refer(name)),
        first_id=or_null(TEXT),
        last_id=or_null(TEXT),
        has_more={"type": "boolean"},
    )


def _build_deleted(kind: str) -> Schema:
    return build_object(id=TEXT, object=build_const(kind), deleted=_TRUE)


CONTENT_COMPONENTS: Final[Mapping[str, Schema]] = {
    "Conversation": build_object(id=TEXT, object=build_const("conversation"), created_at=COUNT, metadata=_METADATA),
    "Conversations": _build_page("Conversation"),
    "ConversationItem": _ITEM,
    "ConversationItems": _build_page("ConversationItem"),
    "DeletedConversation": _build_deleted("conversation.deleted"),
    "DeletedResponse": _build_deleted("response"),
    "Memory": build_object(
        id=TEXT,
        object=build_const("memory"),
        text=TEXT,
        source={"enum": [source.value for source in MemorySource]},
        created_at=COUNT,
        expires_at=COUNT,
    ),
    "Memories": _build_page("Memory"),
    "DeletedMemory": _build_deleted("memory.deleted"),
    "ErasureReceipt": build_object(
        object=build_const("erasure_receipt"),
        id=TEXT,
        tenant_uid=TEXT,
        scope=TEXT,
        end_user=TEXT,
        erased_at=COUNT,
        requested_by=TEXT,
        conversations=COUNT,
        items=COUNT,
        responses=COUNT,
        memories=COUNT,
        files=COUNT,
        vector_stores=COUNT,
        chunks=COUNT,
        data_keys=build_list(TEXT),
        public_key=TEXT,
        signature=TEXT,
    ),
    "DataKeys": build_object(object=build_const("data_keys"), owners=COUNT, older_keys=COUNT, rows_left=COUNT),
    "Root": build_object(object=build_const("root"), id=TEXT, owners=COUNT, older_keys=COUNT, rows_left=COUNT),
    "LedgerTime": build_object(object=build_const("ledger_time"), now=NUMBER, seconds_taken_back=NUMBER),
    "ReceiptKey": build_object(object=build_const("receipt_key"), public_key=TEXT),
}
