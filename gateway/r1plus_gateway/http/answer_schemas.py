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


def or_null(schema: Schema) -> Schema:
    """Return a schema that takes null as well."""
    return {"anyOf": [schema, NULL]}


def build_object(_optional: Mapping[str, Schema] | None = None, **properties: Schema) -> Schema:
    """Return a closed object; `_optional` fields may be absent."""
    return {
        "type": "object",
        "properties": {**properties, **(_optional or {})},
        "required": sorted(properties),
        "additionalProperties": False,
    }


def build_list(items: Schema) -> Schema:
    """Return a list of such items."""
    return {"type": "array", "items": items}


def build_const(value: str) -> Schema:
    """Return a schema of this one text."""
    return {"type": "string", "const": value}


def _build_head(kind: str) -> dict[str, Schema]:
    return {
        "id": TEXT,
        "object": build_const(kind),
        "created": COUNT,
        "model": TEXT,
        "system_fingerprint": or_null(TEXT),
    }


_END: Final[Schema] = {"enum": ["stop", "length"]}
_CHAT_END: Final[Schema] = {"enum": ["stop", "length", "tool_calls"]}
_CALL: Final[Schema] = build_object(
    id=TEXT, type=build_const("function"), function=build_object(name=TEXT, arguments=TEXT)
)
_MESSAGE: Final[Schema] = build_object(
    {"tool_calls": build_list(_CALL)},
    role=build_const("assistant"),
    content=or_null(TEXT),
    refusal=NULL,
    annotations=build_list({}),
)
_DELTA: Final[Schema] = {
    "type": "object",
    "properties": {
        "role": TEXT,
        "content": or_null(TEXT),
        "tool_calls": build_list({"type": "object"}),
        "annotations": build_list({}),
    },
    "additionalProperties": False,
}
_USAGE: Final = refer("Usage")
_LIMIT_NAMES: Final = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "budget_tokens")
FEATURES: Final = ("calculator", "code_interpreter", "conversations", "documents")
"""What a tenant may switch on."""
_LIMITS: Final[Schema] = build_object(**{name: or_null(COUNT) for name in _LIMIT_NAMES})
_TIME: Final[Schema] = or_null(NUMBER)
_KEY: Final[dict[str, Schema]] = {
    "object": build_const("api_key"),
    "id": TEXT,
    "name": TEXT,
    "models": or_null(build_list(TEXT)),
    "scopes": build_list(TEXT),
    "limits": _LIMITS,
    "created_at": NUMBER,
    "expires_at": _TIME,
    "revoked_at": _TIME,
    "previous_expires_at": _TIME,
}

_REASON: Final[Schema] = or_null(build_object(code=TEXT, message=TEXT))
MATH: Final[Mapping[str, Schema]] = {
    "math": build_list(refer("MathEntry")),
    "math_skipped": _REASON,
    "math_usage": build_object(prompt_tokens=COUNT, completion_tokens=COUNT),
}
"""In `r1plus` of an answer under `math_mode`."""
REPORT: Final[Mapping[str, Schema]] = {
    "schema": refer("SchemaReport"),
    "ignored": build_list(TEXT),
    "lowered": {"type": "object", "additionalProperties": COUNT},
    **MATH,
}
"""In `r1plus` of an answer, where there is something to say."""
_REPORT: Final[Mapping[str, Schema]] = {"r1plus": build_object(REPORT)}
_CHAT_REPORT: Final[Mapping[str, Schema]] = {"r1plus": build_object({"knowledge": {"type": "object"}, **REPORT})}

COMPONENTS: Final[Mapping[str, Schema]] = {
    "MathEntry": build_object(
        expression=TEXT,
        exact=or_null(TEXT),
        numeric=or_null(TEXT),
        unit=or_null(TEXT),
        route={"enum": ["text", "units", "translation"]},
        translated={"type": "boolean"},
        verified={"type": "boolean"},
        checked={"type": "boolean"},
        check=or_null(TEXT),
        notes=build_list(TEXT),
        agrees=or_null({"type": "boolean"}),
        error=_REASON,
    ),
    "SchemaReport": build_object(
        dropped=build_list(TEXT),
        dropped_more=COUNT,
        valid=or_null({"type": "boolean"}),
        problem=or_null(TEXT),
    ),
    "Error": build_object(error=build_object(message=TEXT, type=TEXT, param=or_null(TEXT), code=TEXT)),
    "Usage": build_object(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT),
    "ChatCompletion": build_object(
        _CHAT_REPORT,
        **_build_head("chat.completion"),
        choices=build_list(build_object(index=COUNT, message=_MESSAGE, logprobs=NULL, finish_reason=_CHAT_END)),
        usage=_USAGE,
    ),
    "ChatCompletionChunk": build_object(
        {"usage": or_null(_USAGE), **_CHAT_REPORT},
        **_build_head("chat.completion.chunk"),
        choices=build_list(build_object(index=COUNT, delta=_DELTA, logprobs=NULL, finish_reason=or_null(_CHAT_END))),
    ),
    "TextCompletion": build_object(
        _REPORT,
        **_build_head("text_completion"),
        choices=build_list(build_object(index=COUNT, text=TEXT, logprobs=NULL, finish_reason=_END)),
        usage=_USAGE,
    ),
    "TextCompletionChunk": build_object(
        {"usage": or_null(_USAGE), **_REPORT},
        **_build_head("text_completion"),
        choices=build_list(build_object(index=COUNT, text=TEXT, logprobs=NULL, finish_reason=or_null(_END))),
    ),
    "Generation": build_object(_REPORT, **_build_head("generation"), text=TEXT, finish_reason=_END, usage=_USAGE),
    "GenerationChunk": build_object(
        {"usage": _USAGE, **_REPORT}, **_build_head("generation.chunk"), text=TEXT, finish_reason=or_null(_END)
    ),
    "Calculation": build_object(
        object=build_const("calculation"),
        id=TEXT,
        expression=TEXT,
        exact=or_null(TEXT),
        numeric=or_null(TEXT),
        verified={"type": "boolean"},
        check=TEXT,
        notes=build_list(TEXT),
    ),
    "Embeddings": build_object(
        object=build_const("list"),
        data=build_list(
            build_object(object=build_const("embedding"), index=COUNT, embedding={"anyOf": [build_list(NUMBER), TEXT]})
        ),
        model=TEXT,
        usage=build_object(prompt_tokens=COUNT, total_tokens=COUNT),
        r1plus=build_object(engine=TEXT, truncated=build_list(COUNT)),
    ),
    "Model": build_object(
        id=TEXT,
        object=build_const("model"),
        created=COUNT,
        owned_by=build_const("r1plus"),
        r1plus={
            "anyOf": [
                build_object(
                    context_tokens=COUNT,
                    default_max_new_tokens=COUNT,
                    default_temperature=NUMBER,
                    capabilities=build_list(TEXT),
                    preset=or_null(TEXT),
                    accuracy={"enum": ["gated", "measured", "unmeasured"]},
                ),
                build_object(context_tokens=COUNT, dimensions=COUNT, engine=TEXT, capabilities=build_list(TEXT)),
            ]
        },
    ),
    "Models": build_object(object=build_const("list"), data=build_list(refer("Model"))),
    "OwnUsage": build_object(
        object=build_const("usage"),
        period=build_const("month"),
        data=build_list(build_object(model=TEXT, requests=COUNT, prompt_tokens=COUNT, completion_tokens=COUNT)),
        remaining=build_object(requests=or_null(COUNT), tokens=or_null(COUNT), budget_tokens=or_null(COUNT)),
    ),
    "OwnKey": build_object(
        object=build_const("key"),
        id=TEXT,
        kind={"enum": ["api_key", "service_account", "admin"]},
        models=build_list(TEXT),
        features=build_list({"enum": list(FEATURES)}),
        scopes=build_list(TEXT),
        end_user=or_null(TEXT),
        limits=_LIMITS,
    ),
    "Key": build_object(**_KEY),
    "IssuedKey": build_object(**_KEY, key={"type": "string", "description": "The secret. It is shown this once."}),
    "Keys": build_object(object=build_const("list"), data=build_list(refer("Key"))),
    "UsageReport": build_object(
        object=build_const("usage"),
        data=build_list(
            build_object(
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
        budgets=build_list(
            build_object(
                caller_kind=TEXT,
                caller_id=TEXT,
                month=TEXT,
                used_tokens=COUNT,
                reserved_tokens=COUNT,
                limit_tokens=or_null(COUNT),
                left_tokens=or_null(COUNT),
            )
        ),
        is_cut={"type": "boolean"},
    ),
    "Audit": build_object(
        object=build_const("audit"),
        records=COUNT,
        head=build_object(seq=COUNT, mac=TEXT),
        problem=or_null(TEXT),
        restores=build_list(build_object(seq=COUNT, at=NUMBER, restore_id=TEXT, backup=TEXT)),
    ),
    "Restore": build_object(
        object=build_const("restore"),
        id=or_null(TEXT),
        backup=build_object(id=TEXT, created_at=COUNT, schema=TEXT, tenant_uid=TEXT),
        rows={"type": "object", "additionalProperties": COUNT},
        data_keys=COUNT,
        unreadable_rows=COUNT,
        retention_problem=or_null(TEXT),
    ),
    "Document": {"type": "object"},
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
