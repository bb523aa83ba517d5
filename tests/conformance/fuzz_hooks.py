"""Loaded by schemathesis, in its own environment: what the document allows is refused only for what it cannot say."""

import json
from collections.abc import Mapping
from typing import Any, Final

import schemathesis

UNSAID: Final[Mapping[str, tuple[str, ...]]] = {
    "stream_options": ("needs stream: true",),
    "tool_choice": ("needs tools", "is not one of the tools", "names none of the tools"),
    "response_format": ("cannot be held together with tools",),
    "text.format": ("cannot be held together with tools",),
    "max_completion_tokens": ("contradicts",),
    "length": ("contradicts",),
    "system": ("has no place in a raw prompt",),
    "first": ("is after last",),
    "name": ("printable characters",),
    **dict.fromkeys(("model", "include", "include[]"), ("has control characters",)),
    "end_user": ("has control characters", "nobody is named"),
    "limits": ("nothing is named that changes",),
    "key": ("has control characters", "are named"),
    "service_account": ("are named",),
    "after": ("is no entry of this list", "has control characters"),
    "keys": ("is not a file of r1plus tenant backup",),
    "dimensions": ("leave it out",),
    "input": ("bytes exceed", "tokens, and the engine reads", "all items are a file_search_call"),
    "expires_after_days": ("for which this tenant keeps",),
    "text": ("is blank",),
    "math_mode": ("cannot be held together with tools",),
    "chunking_strategy.static.chunk_overlap_tokens": ("is more than half",),
    **dict.fromkeys(("filters", "filters.filters", "knowledge.filters", "knowledge.filters.filters"), ("more than",)),
    "tools": (
        "more than",
        "is a second code_interpreter",
        "is a second file_search",
        "a function has the name",
        "tokens with the prompt",
    ),
    "max_tool_calls": ("is not between", "expected an integer"),
    "file": ("is empty",),
    "purpose": ("expected an id", "has control characters"),
    "file_ids": ("expected an id", "has control characters", "is missing or empty"),
    "files": (
        "is there together with",
        "is there twice",
        "is more than half",
        "expected an id",
        "has control characters",
    ),
    "conversation": ("cannot be continued together with a response",),
}
"""What the document cannot say: relations of fields, and which characters are printable -> the words of the refusal."""

SCHEMAS: Final = ("parameters", "json_schema.schema", "text.format.schema")
OF_A_SCHEMA: Final = (
    "is no ",
    "is outside of the schema",
    "names nothing",
    "leads outside",
    "cannot enforce",
    "exceed",
    "recursive",
    "nested",
)
"""The document knows no language of schemas either."""
OF_AN_EXPRESSION: Final = "calculation_"
"""Begins the codes of expressions without a result: a schema knows no language of expressions."""


@schemathesis.check
def refused_for_what_is_unsaid(ctx: Any, response: Any, case: Any) -> None:
    """Fail where a request that the document allows is refused for anything else."""
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or response.status_code not in (400, 413, 415):
        return
    error = json.loads(response.text)["error"]
    if error["code"].startswith(OF_AN_EXPRESSION):
        return
    param = error["param"] or ""
    words = UNSAID.get(param) or UNSAID.get(param.partition("[")[0], ())
    if any(name in param for name in SCHEMAS):
        words = OF_A_SCHEMA
    assert any(word in error["message"] for word in words), f"valid by the document, and refused: {error}"
