"""Schemas of what the gateway answers. Requests are described by their tables (`field_tables`)."""

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]
TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
NUMBER: Final[Schema] = {"type": "number"}
NULL: Final[Schema] = {"type": "null"}


def refer(name: str) -> Schema:
    """Return a reference to a schema of `COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, NULL]}


def _object(_optional: Mapping[str, Schema] | None = None, **properties: Schema) -> Schema:
    """Return a closed object; `_optional` fields may be absent."""
    return {
        "type": "object",
        "properties": {**properties, **(_optional or {})},
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _const(value: str) -> Schema:
    return {"type": "string", "const": value}


def _build_head(kind: str) -> dict[str, Schema]:
    return {
        "id": TEXT,
        "object": _const(kind),
        "created": COUNT,
        "model": TEXT,
        "system_fingerprint": _or_null(TEXT),
    }


_END: Final[Schema] = {"enum": ["stop", "length"]}
_CHAT_END: Final[Schema] = {"enum": ["stop", "length", "tool_calls"]}
_CALL: Final[Schema] = _object(id=TEXT, type=_const("function"), function=_object(name=TEXT, arguments=TEXT))
_MESSAGE: Final[Schema] = _object(
    {"tool_calls": _list(_CALL)},
    role=_const("assistant"),
    content=_or_null(TEXT),
    refusal=NULL,
    annotations=_list({}),
)
_DELTA: Final[Schema] = {
    "type": "object",
    "properties": {"role": TEXT, "content": _or_null(TEXT), "tool_calls": _list({"type": "object"})},
    "additionalProperties": False,
}
_USAGE: Final = refer("Usage")
_LIMIT_NAMES: Final = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "budget_tokens")
_LIMITS: Final[Schema] = _object(**{name: _or_null(COUNT) for name in _LIMIT_NAMES})
_TIME: Final[Schema] = _or_null(NUMBER)
_KEY: Final[dict[str, Schema]] = {
    "object": _const("api_key"),
    "id": TEXT,
    "name": TEXT,
    "models": _or_null(_list(TEXT)),
    "scopes": _list(TEXT),
    "limits": _LIMITS,
    "created_at": NUMBER,
    "expires_at": _TIME,
    "revoked_at": _TIME,
    "previous_expires_at": _TIME,
}

COMPONENTS: Final[Mapping[str, Schema]] = {
    "Error": _object(error=_object(message=TEXT, type=TEXT, param=_or_null(TEXT), code=TEXT)),
    "Usage": _object(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT),
    "ChatCompletion": _object(
        **_build_head("chat.completion"),
        choices=_list(_object(index=COUNT, message=_MESSAGE, logprobs=NULL, finish_reason=_CHAT_END)),
        usage=_USAGE,
    ),
    "ChatCompletionChunk": _object(
        {"usage": _or_null(_USAGE)},
        **_build_head("chat.completion.chunk"),
        choices=_list(_object(index=COUNT, delta=_DELTA, logprobs=NULL, finish_reason=_or_null(_CHAT_END))),
    ),
    "TextCompletion": _object(
        **_build_head("text_completion"),
        choices=_list(_object(index=COUNT, text=TEXT, logprobs=NULL, finish_reason=_END)),
        usage=_USAGE,
    ),
    "TextCompletionChunk": _object(
        {"usage": _or_null(_USAGE)},
        **_build_head("text_completion"),
        choices=_list(_object(index=COUNT, text=TEXT, logprobs=NULL, finish_reason=_or_null(_END))),
    ),
    "Generation": _object(**_build_head("generation"), text=TEXT, finish_reason=_END, usage=_USAGE),
    "GenerationChunk": _object(
        {"usage": _USAGE}, **_build_head("generation.chunk"), text=TEXT, finish_reason=_or_null(_END)
    ),
    "Model": _object(
        id=TEXT,
        object=_const("model"),
        created=COUNT,
        owned_by=_const("r1plus"),
        r1plus=_object(
            context_tokens=COUNT,
            default_max_new_tokens=COUNT,
            default_temperature=NUMBER,
            capabilities=_list(TEXT),
            preset=_or_null(TEXT),
            accuracy={"enum": ["gated", "measured", "unmeasured"]},
        ),
    ),
    "Models": _object(object=_const("list"), data=_list(refer("Model"))),
    "OwnUsage": _object(
        object=_const("usage"),
        period=_const("month"),
        data=_list(_object(model=TEXT, requests=COUNT, prompt_tokens=COUNT, completion_tokens=COUNT)),
        remaining=_object(requests=_or_null(COUNT), tokens=_or_null(COUNT), budget_tokens=_or_null(COUNT)),
    ),
    "OwnKey": _object(
        object=_const("key"),
        id=TEXT,
        kind={"enum": ["api_key", "service_account", "admin"]},
        models=_list(TEXT),
        scopes=_list(TEXT),
        end_user=_or_null(TEXT),
        limits=_LIMITS,
    ),
    "Key": _object(**_KEY),
    "IssuedKey": _object(**_KEY, key={"type": "string", "description": "The secret. It is shown this once."}),
    "Keys": _object(object=_const("list"), data=_list(refer("Key"))),
    "UsageReport": _object(
        object=_const("usage"),
        data=_list(
            _object(
                caller_kind=TEXT,
                caller_id=TEXT,
                model=TEXT,
                day=TEXT,
                requests=COUNT,
                prompt_tokens=COUNT,
                completion_tokens=COUNT,
                unsettled_tokens=COUNT,
            )
        ),
        budgets=_list(
            _object(
                caller_kind=TEXT,
                caller_id=TEXT,
                month=TEXT,
                used_tokens=COUNT,
                reserved_tokens=COUNT,
                limit_tokens=_or_null(COUNT),
                left_tokens=_or_null(COUNT),
            )
        ),
        is_cut={"type": "boolean"},
    ),
    "Audit": _object(object=_const("audit"), records=COUNT, head=_object(seq=COUNT, mac=TEXT), problem=_or_null(TEXT)),
    "ErasureReceipt": _object(
        object=_const("erasure_receipt"),
        id=TEXT,
        tenant_uid=TEXT,
        scope=TEXT,
        end_user=TEXT,
        erased_at=COUNT,
        requested_by=TEXT,
        conversations=COUNT,
        items=COUNT,
        responses=COUNT,
        data_keys=_list(TEXT),
        public_key=TEXT,
        signature=TEXT,
    ),
    "DataKeys": _object(object=_const("data_keys"), owners=COUNT, older_keys=COUNT, rows_left=COUNT),
    "ReceiptKey": _object(object=_const("receipt_key"), public_key=TEXT),
    "Document": {"type": "object"},
}
