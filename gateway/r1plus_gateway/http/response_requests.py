"""The body of `POST /v1/responses`. Its prompt is the one that a chat of the same messages has."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.field_tables import FlagField, ListField, ObjectField, Table, TextField
from r1plus_gateway.http.fields import Fields
from r1plus_gateway.http.json_body import Json
from r1plus_gateway.http.messages import PromptMessage, build_prompt
from r1plus_gateway.http.metadata import METADATA
from r1plus_gateway.http.requests import (
    COMMON,
    STREAM_OPTIONS,
    GenerateRequest,
    ModelName,
    read_stream,
    refuse_both,
)
from r1plus_gateway.http.response_items import INPUT
from r1plus_gateway.http.sampling_fields import (
    TokenLimit,
    build_limit_fields,
    read_sampling,
    read_token_limit,
)
from r1plus_gateway.http.schemas import TEXT_FORMAT
from r1plus_gateway.http.tools import FLAT_TOOLS, read_tools
from r1plus_gateway.serving.triton_wire import Sampling
from r1plus_gateway.settings import ModelSettings

MOST_TOOL_BYTES: Final = 256 * 1024
"""Also of tools that may not be called, which no schema bounds."""
INSTRUCTIONS: Final = TextField("instructions")
STORE: Final = FlagField("store")
TEXT_CONFIG: Final = ObjectField("text", Table((TEXT_FORMAT,), unsupported={"verbosity": ("medium",)}))
REASONING: Final = ObjectField(
    "reasoning", Table((), unsupported={"effort": ("none",), "summary": (), "generate_summary": ()})
)
INCLUDABLE: Final = (
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "message.input_image.image_url",
)
"""Parts of items that no answer has, so that asking for them changes nothing."""
INCLUDE: Final = ListField("include", 32, {"type": "string", "enum": list(INCLUDABLE)})
LIMITS: Final = build_limit_fields("max_output_tokens")
IGNORED: Final = frozenset(
    {
        "user",
        "service_tier",
        "parallel_tool_calls",
        "max_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
    }
)
"""Fields that cannot change the answer."""
EARLIER: Final = ("previous_response_id", "conversation")
"""Fields that name messages before those of `input`. They are refused as long as nothing is stored."""
UNSUPPORTED: Final[Mapping[str, tuple[Json, ...]]] = {
    **dict.fromkeys(EARLIER, ()),
    "truncation": ("disabled",),
    "background": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "prompt": (),
    "context_management": (),
    "moderation": (),
    "top_k": (),
    "min_p": (),
}
"""Fields that are not supported -> values that ask for nothing, besides null."""
RESPONSE: Final = Table(
    (
        *COMMON,
        INPUT,
        INSTRUCTIONS,
        TEXT_CONFIG,
        FLAT_TOOLS.tools,
        FLAT_TOOLS.choice,
        REASONING,
        INCLUDE,
        METADATA,
        STORE,
        STREAM_OPTIONS,
        *LIMITS,
    ),
    IGNORED,
    UNSUPPORTED,
)

EarlierReader = Callable[[Fields, Caller], Awaitable[Sequence[PromptMessage]]]
"""Returns the messages that a request continues, without earlier instructions: those do not carry over."""


async def refuse_earlier(fields: Fields, _: Caller) -> Sequence[PromptMessage]:
    """Return no messages: nothing is stored.

    Raises:
        UnsupportedFieldError: the request continues something.
    """
    for name in EARLIER:
        if fields.has(name):
            message = "no response is stored, so none can be continued; send the whole conversation in input"
            raise UnsupportedFieldError(name, message)
    return ()


@dataclass(frozen=True, slots=True)
class _TextConfig:
    """What `text` asks for."""

    schema: bytes | None
    format: Mapping[str, Json]
    """As the answer repeats it."""


def parse_response(
    fields: Fields, name: ModelName, model: ModelSettings, earlier: Sequence[PromptMessage] = ()
) -> GenerateRequest:
    """Parse a body that continues `earlier` messages."""
    messages = [*earlier, *INPUT.read(fields)]
    instructions = INSTRUCTIONS.read(fields)
    if instructions:
        messages = [PromptMessage("system", instructions), *messages]
    text = _read_text_config(fields, model)
    tools = read_tools(fields, model, FLAT_TOOLS)
    refuse_both("text.format", text.schema, tools)
    _read_include(fields)
    metadata = METADATA.read(fields)
    STORE.read(fields)
    is_streamed, _ = read_stream(fields)
    if (reasoning := REASONING.read(fields)) is not None:
        REASONING.table.refuse_rest(reasoning)
    sampling = read_sampling(fields, name.preset)
    limit = read_token_limit(fields, model, LIMITS)
    RESPONSE.refuse_rest(fields)
    instruction = tools.instruction if tools else ""
    schema = tools.schema if tools else text.schema
    prompt = build_prompt(messages, instruction, model, schema, param=INPUT.name)
    echo = {
        "instructions": instructions or None,
        "text": {"format": text.format},
        "metadata": metadata,
        **_echo_tools(fields),
        **_echo_sampling(sampling, limit),
    }
    return GenerateRequest(name, prompt, sampling, limit, is_streamed, has_tools=tools is not None, echo=echo)


def _read_text_config(fields: Fields, model: ModelSettings) -> _TextConfig:
    config = TEXT_CONFIG.read(fields)
    if config is None:
        return _TextConfig(None, {"type": "text"})
    schema = TEXT_FORMAT.read(config, model)
    TEXT_CONFIG.table.refuse_rest(config)
    form = config.get(TEXT_FORMAT.name) or {"type": "text"}
    if form["type"] != "json_schema":
        return _TextConfig(schema, {"type": form["type"]})
    names = ("type", "name", "description", "schema")
    return _TextConfig(schema, {**{name: form.get(name) for name in names}, "strict": True})


def _read_include(fields: Fields) -> None:
    for position, item in enumerate(INCLUDE.read(fields)):
        if item not in INCLUDABLE:
            raise UnsupportedFieldError(f"{INCLUDE.name}[{position}]", f"{item!r:.80} is not supported; leave it out")


def _echo_tools(fields: Fields) -> dict[str, Any]:
    """Return tools and choice, which have been read, as the answer repeats them.

    Raises:
        InvalidFieldError: the tools are too large to be repeated in several events.
    """
    choice = fields.get(FLAT_TOOLS.choice.name) or "auto"
    tools = [
        {
            "type": "function",
            "name": tool["name"],
            "description": tool.get("description"),
            "parameters": tool.get("parameters"),
            "strict": True,
        }
        for tool in fields.get(FLAT_TOOLS.tools.name) or []
    ]
    if (size := len(orjson.dumps(tools))) > MOST_TOOL_BYTES:
        raise InvalidFieldError(FLAT_TOOLS.tools.name, f"{size} bytes exceed {MOST_TOOL_BYTES}; send fewer")
    return {
        "tools": tools,
        "tool_choice": choice if isinstance(choice, str) else {"type": "function", "name": choice["name"]},
    }


def _echo_sampling(sampling: Sampling, limit: TokenLimit) -> dict[str, Any]:
    """Return what holds; the engine's defaults are temperature 0 and all tokens."""
    return {
        "temperature": sampling.temperature or 0,
        "top_p": 1 if sampling.top_p is None else sampling.top_p,
        "max_output_tokens": limit.tokens if limit.is_explicit else None,
    }
