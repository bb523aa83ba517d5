"""What an answer says of a schema that the engine enforces in part: what was dropped, and whether it is valid."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.schemas.schemas import SchemaCheck
from r1plus_gateway.http.schemas.tools import parse_tool_answer
from r1plus_gateway.http.schemas.validation import SchemaFinding, validate

_NO_JSON: Final = SchemaFinding(False, "the answer is no JSON")


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """See `SchemaCheck`."""

    check: SchemaCheck
    finding: SchemaFinding

    def describe(self) -> dict[str, Any]:
        """Return it as the API writes it."""
        return {
            "dropped": self.check.dropped,
            "dropped_more": self.check.more,
            "valid": self.finding.is_valid,
            "problem": self.finding.problem or None,
        }


def check_text(check: SchemaCheck, text: str) -> SchemaReport:
    """Return what a whole text is by the request's schema: up to 0.2 s of a thread."""
    return SchemaReport(check, _find(check, text))


def _find(check: SchemaCheck, text: str) -> SchemaFinding:
    schema, written = check.answer, text
    if check.arguments is not None:
        call = parse_tool_answer(text).call
        if call is None:
            return SchemaFinding(None)
        schema, written = check.arguments.get(call.name), call.arguments
        if schema is None:
            return SchemaFinding(True)
    assert schema is not None
    try:
        value: Json = orjson.loads(written)
    except ValueError:
        return _NO_JSON
    return validate(schema, value, len(written))
