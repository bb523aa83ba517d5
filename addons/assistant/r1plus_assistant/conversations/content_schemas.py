"""Schemas of what the gateway answers about stored content."""

from collections.abc import Mapping
from typing import Final

from r1plus_assistant.code.code_interpreter import CALL as CODE_CALL
from r1plus_assistant.code.code_interpreter import NO_CONTAINER
from r1plus_gateway.http.answer_schemas import (
    COUNT,
    NULL,
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
}
