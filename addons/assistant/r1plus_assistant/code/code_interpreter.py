"""The tool `code_interpreter` of a response: what a request may say of it, and how a program and its run are said.

The model calls it as it calls any function, and the gateway runs the program. See `code_rounds`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from r1plus_gateway.http.body.field_tables import IntegerField, ObjectField, StringField, Table, read_item
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.errors import InvalidFieldError, NotConfiguredError
from r1plus_gateway.http.schemas.code_tool import DEFAULT_RUNS, KIND, MOST_RUNS, TOOLS, CodeCall, CodeTool

CALL: Final = "code_interpreter_call"
NO_CONTAINER: Final = "none"
"""Id of a call's container: nothing is kept from one program to the next."""
QUOTED_SHARE: Final = 8
"""The model reads at most so many bytes of an output: its context's tokens, divided by this, times four."""
LEAST_QUOTED_BYTES: Final = 256
MOST_RUNS_FIELD: Final = IntegerField("max_tool_calls", 1, MOST_RUNS)
"""Read with the tool only: without it the field cannot change the answer."""
CHOICE: Final = "tool_choice"
TYPE: Final = StringField("type", values=(KIND,), is_required=True)
CONTAINER_TYPE: Final = StringField("type", values=("auto",), is_required=True)
CONTAINER: Final = ObjectField(
    "container",
    Table(
        (CONTAINER_TYPE,),
        unsupported={"file_ids": ([],), "memory_limit": (), "network_policy": ()},
    ),
)
TOOL: Final = Table((TYPE, CONTAINER))
ECHO: Final[Mapping[str, Json]] = {"type": KIND, CONTAINER.name: {"type": "auto"}}
NOT_CONFIGURED: Final = (
    "this gateway runs no code. Leave the tool out, or ask the platform team to set spec.gateway.codeInterpreter: true"
    " in the R1PlusTenant"
)


def split_code_interpreter(fields: Fields, *, runs_code: bool) -> tuple[Fields, CodeTool | None]:
    """Return the fields without the tool `code_interpreter`, and what it asks for.

    Raises:
        InvalidFieldError: it has another form, is there twice, or is chosen and not there.
        NotConfiguredError: this gateway runs no code.
    """
    entries = fields.get(TOOLS)
    places = [place for place, one in enumerate(entries) if _is_code(one)] if isinstance(entries, list) else []
    choice = fields.get(CHOICE)
    if not isinstance(entries, list) or not places:
        if _is_code(choice):
            raise InvalidFieldError(CHOICE, f"{KIND} is not one of the tools; add it to {TOOLS}")
        return fields, None
    if len(places) > 1:
        raise InvalidFieldError(f"{TOOLS}[{places[1]}]", f"is a second {KIND}; send one")
    path = f"{TOOLS}[{places[0]}]"
    _check_tool(read_item(path, entries[places[0]]))
    if not runs_code:
        raise NotConfiguredError("code_interpreter_not_configured", f"{path}: {NOT_CONFIGURED}", param=path)
    most_runs = MOST_RUNS_FIELD.read(fields) or DEFAULT_RUNS
    others = [one for place, one in enumerate(entries) if place != places[0]]
    is_forced = _is_code(choice)
    is_left_out = choice == "none" or (isinstance(choice, dict) and not is_forced)
    if is_left_out and choice != "none" and not others:
        raise InvalidFieldError(CHOICE, f'names none of the tools; send "auto", or {{"type": "{KIND}"}}')
    changes: dict[str, Json] = {TOOLS: others or None}
    if is_forced or (choice == "none" and not others):
        changes[CHOICE] = None
    return fields.change(changes), None if is_left_out else CodeTool(most_runs, is_forced)


def _is_code(value: Json) -> bool:
    return isinstance(value, dict) and value.get("type") == KIND


def _check_tool(tool: Fields) -> None:
    if isinstance(name := tool.get(CONTAINER.name), str):
        message = f'{name!r:.80}: no container is kept between requests; send {{"type": "auto"}}'
        raise InvalidFieldError(tool.locate(CONTAINER.name), message)
    container = CONTAINER.read(tool)
    if container is not None:
        CONTAINER_TYPE.read(container)
        CONTAINER.table.refuse_rest(container)
    TOOL.refuse_rest(tool)


def read_code(arguments: str) -> str:
    """Return the program of a call; empty where it has none."""
    value = orjson.loads(arguments)
    code = value.get("code") if isinstance(value, dict) else None
    return code if isinstance(code, str) else ""


def build_call_item(call: CodeCall, status: str) -> dict[str, Any]:
    """Return a call as OpenAI's clients read it."""
    is_over = call.run is not None or call.failure is not None
    outputs = [{"type": "logs", "logs": call.logs}] if is_over else None
    own = {"code": call.text, "container_id": NO_CONTAINER, "outputs": outputs}
    return {"type": CALL, "id": call.id, "status": status, **own}


def read_logs(outputs: Sequence[Mapping[str, Any]] | None) -> str:
    """Return the text of a past call's outputs."""
    return "".join(output["logs"] for output in outputs or ())


def quote_output(text: str, context_tokens: int) -> str:
    """Return what the model reads of an output: of one longer than a share of the context its beginning and its end."""
    most = max(LEAST_QUOTED_BYTES, 4 * context_tokens // QUOTED_SHARE)
    data = text.encode()
    if len(data) <= most:
        return text
    first, last = data[: most // 2].decode(errors="ignore"), data[-(most // 2) :].decode(errors="ignore")
    return f"{first}\n[{len(data) - most} bytes are left out]\n{last}"
