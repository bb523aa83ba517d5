"""Schemas of what `POST /v1/responses` answers: the response, and the events of its stream."""

from collections.abc import Mapping
from typing import Any, Final

from r1plus_assistant.code.code_interpreter import CALL as CODE_CALL
from r1plus_assistant.code.code_interpreter import NO_CONTAINER
from r1plus_assistant.files.knowledge_schemas import CITATION, KNOWLEDGE
from r1plus_assistant.knowledge.search import SearchMethod
from r1plus_gateway.http.answer_schemas import (
    COUNT,
    NULL,
    NUMBER,
    REPORT,
    TEXT,
    Schema,
    build_const,
    build_list,
    build_object,
    or_null,
    refer,
)
from r1plus_gateway.http.completions.answers import StorageOutcome
from r1plus_gateway.http.schemas.code_tool import KIND as CODE_KIND
from r1plus_gateway.http.schemas.code_tool import MOST_RUNS

_FALSE: Final[Schema] = {"type": "boolean", "const": False}
_INDEX: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 1 + MOST_RUNS}
"""Of an item: those of a search and of programs come before the message."""
_ZERO: Final[Schema] = {"type": "integer", "const": 0}
_ANY: Final[Schema] = {"type": "object"}
_STATUS: Final[Schema] = {"enum": ["in_progress", "completed", "incomplete"]}
_PART: Final[Schema] = build_object(
    type=build_const("output_text"), text=TEXT, annotations=build_list(CITATION), logprobs=build_list({})
)
_MESSAGE: Final[Schema] = build_object(
    type=build_const("message"), id=TEXT, status=_STATUS, role=build_const("assistant"), content=build_list(_PART)
)
_CALL: Final[Schema] = build_object(
    type=build_const("function_call"), id=TEXT, status=_STATUS, call_id=TEXT, name=TEXT, arguments=TEXT
)
_RESULT: Final[Schema] = build_object(file_id=TEXT, filename=TEXT, score=NUMBER, text=TEXT, attributes=_ANY)
_SEARCH: Final[Schema] = build_object(
    type=build_const("file_search_call"),
    id=TEXT,
    status=_STATUS,
    queries=build_list(TEXT),
    results=or_null(build_list(_RESULT)),
)
_CODE_CALL: Final[Schema] = build_object(
    type=build_const(CODE_CALL),
    id=TEXT,
    status={"enum": ["in_progress", "completed", "failed"]},
    code=TEXT,
    container_id=build_const(NO_CONTAINER),
    outputs=or_null(build_list(build_object(type=build_const("logs"), logs=TEXT))),
)
_RUN: Final[Schema] = build_object(
    id=TEXT,
    output=TEXT,
    value=or_null(TEXT),
    error=or_null(TEXT),
    failure=or_null(build_object(code=TEXT, message=TEXT)),
)
_ITEM: Final[Schema] = {"anyOf": [_MESSAGE, _CALL, _SEARCH, _CODE_CALL]}
_TOOL: Final[Schema] = build_object(
    type=build_const("function"),
    name=TEXT,
    description=or_null(TEXT),
    parameters=or_null(_ANY),
    strict={"type": "boolean"},
)
_SEARCH_TOOL: Final[Schema] = build_object(
    type=build_const("file_search"),
    vector_store_ids=build_list(TEXT),
    max_num_results=or_null(COUNT),
    filters=or_null(_ANY),
    ranking_options=or_null(_ANY),
)
_CODE_TOOL: Final[Schema] = build_object(type=build_const(CODE_KIND), container=build_object(type=build_const("auto")))
_CHOICE: Final[Schema] = {
    "anyOf": [
        {"enum": ["none", "auto", "required"]},
        build_object(type=build_const("function"), name=TEXT),
        build_object(type=build_const(CODE_KIND)),
    ]
}
_FORMAT: Final[Schema] = {
    "anyOf": [
        build_object(type={"enum": ["text", "json_object"]}),
        build_object(
            type=build_const("json_schema"),
            name=TEXT,
            description=or_null(TEXT),
            schema=_ANY,
            strict={"type": "boolean"},
        ),
    ]
}
_USAGE: Final[Schema] = build_object(
    input_tokens=COUNT,
    input_tokens_details=build_object(cached_tokens=_ZERO, cache_write_tokens=_ZERO),
    output_tokens=COUNT,
    output_tokens_details=build_object(reasoning_tokens=_ZERO),
    total_tokens=COUNT,
)
_MEMORY: Final[Schema] = build_object(
    {"kept": COUNT},
    budget_tokens=COUNT,
    estimated_tokens=COUNT,
    turns=COUNT,
    verbatim_turns=COUNT,
    cards=COUNT,
    retrieved=COUNT,
    remembered=COUNT,
    search={"enum": [method.value for method in SearchMethod]},
)
_EVIDENCE: Final[Schema] = build_object(
    {"memory": _MEMORY, "knowledge": KNOWLEDGE, "code": build_list(_RUN), **REPORT},
    revision=or_null(TEXT),
    engine_digest=or_null(TEXT),
    verdict=TEXT,
    storage={"enum": [outcome.value for outcome in StorageOutcome]},
)


def _build_event(kind: str, **fields: Schema) -> Schema:
    return build_object(type=build_const(kind), sequence_number=COUNT, **fields)


_PLACE: Final[Mapping[str, Any]] = {"item_id": TEXT, "output_index": _INDEX}
_TEXT_PLACE: Final[Mapping[str, Any]] = {**_PLACE, "content_index": _ZERO}
_LIFE: Final = ("created", "in_progress", "completed", "incomplete", "failed")
_SEARCHING: Final = ("in_progress", "searching", "completed")
_INTERPRETING: Final = ("in_progress", "interpreting", "completed")
_EVENTS: Final = (
    *(_build_event(f"response.{name}", response=refer("Response")) for name in _LIFE),
    *(_build_event(f"response.output_item.{name}", output_index=_INDEX, item=_ITEM) for name in ("added", "done")),
    *(_build_event(f"response.content_part.{name}", **_TEXT_PLACE, part=_PART) for name in ("added", "done")),
    _build_event("response.output_text.delta", **_TEXT_PLACE, delta=TEXT, logprobs=build_list({})),
    _build_event("response.output_text.done", **_TEXT_PLACE, text=TEXT, logprobs=build_list({})),
    *(_build_event(f"response.file_search_call.{name}", **_PLACE) for name in _SEARCHING),
    *(_build_event(f"response.{CODE_CALL}.{name}", **_PLACE) for name in _INTERPRETING),
    _build_event(f"response.{CODE_CALL}_code.delta", **_PLACE, delta=TEXT),
    _build_event(f"response.{CODE_CALL}_code.done", **_PLACE, code=TEXT),
    _build_event("response.output_text.annotation.added", **_TEXT_PLACE, annotation_index=COUNT, annotation=CITATION),
    _build_event("response.function_call_arguments.delta", **_PLACE, delta=TEXT),
    _build_event("response.function_call_arguments.done", **_PLACE, name=TEXT, arguments=TEXT),
    _build_event(
        "error",
        code=TEXT,
        message=TEXT,
        param=or_null(TEXT),
        error=build_object(message=TEXT, type=TEXT, param=or_null(TEXT), code=TEXT),
    ),
)

RESPONSE_COMPONENTS: Final[Mapping[str, Schema]] = {
    "Response": build_object(
        {"conversation": build_object(id=TEXT)},
        id=TEXT,
        object=build_const("response"),
        created_at=COUNT,
        completed_at=or_null(COUNT),
        status={"enum": ["in_progress", "completed", "incomplete", "failed"]},
        error=or_null(build_object(code=TEXT, message=TEXT)),
        incomplete_details=or_null(build_object(reason=build_const("max_output_tokens"))),
        model=TEXT,
        previous_response_id=or_null(TEXT),
        store={"type": "boolean"},
        background=_FALSE,
        truncation=build_const("disabled"),
        parallel_tool_calls=_FALSE,
        max_tool_calls=or_null(COUNT),
        presence_penalty=_ZERO,
        frequency_penalty=_ZERO,
        top_logprobs=_ZERO,
        reasoning=build_object(effort=NULL, summary=NULL),
        service_tier=build_const("default"),
        safety_identifier=NULL,
        prompt_cache_key=NULL,
        instructions=or_null(TEXT),
        text=build_object(format=_FORMAT),
        metadata={"type": "object", "additionalProperties": TEXT},
        tools=build_list({"anyOf": [_TOOL, _SEARCH_TOOL, _CODE_TOOL]}),
        tool_choice=_CHOICE,
        temperature=NUMBER,
        top_p=NUMBER,
        max_output_tokens=or_null(COUNT),
        output=build_list(_ITEM),
        usage=or_null(_USAGE),
        r1plus=_EVIDENCE,
    ),
    "ResponseEvent": {"anyOf": list(_EVENTS)},
}
