"""Requests: chat and text completions as OpenAI has them, the native `generate`, and what all forms share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.field_tables import (
    FlagField,
    ObjectField,
    OtherField,
    StringField,
    Table,
    TextField,
)
from r1plus_gateway.http.fields import Fields
from r1plus_gateway.http.json_body import Json
from r1plus_gateway.http.messages import MESSAGES, build_prompt, read_messages
from r1plus_gateway.http.presets import PRESETS, split_model
from r1plus_gateway.http.sampling_fields import (
    SAMPLING,
    TokenLimit,
    build_limit_fields,
    read_sampling,
    read_token_limit,
)
from r1plus_gateway.http.schemas import RESPONSE_FORMAT
from r1plus_gateway.http.tools import CHAT_TOOLS, ToolSet, read_tools
from r1plus_gateway.serving.triton_wire import Prompt, Sampling
from r1plus_gateway.settings import ModelSettings
from r1plus_gateway.store.content import MemoryChanges

IGNORED: Final = frozenset(
    {
        "user",
        "metadata",
        "service_tier",
        "parallel_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prediction",
    }
)
"""Fields that cannot change the answer."""
UNSUPPORTED: Final[Mapping[str, tuple[Json, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "store": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none",),
    "audio": (),
    "web_search_options": (),
    "reasoning_effort": (),
    "verbosity": (),
    "top_k": (),
    "min_p": (),
}
"""Fields that are not supported -> values that ask for nothing, besides null."""

MODEL: Final = StringField("model", is_required=True)
PRESET: Final = StringField("preset", values=tuple(PRESETS))
STREAM: Final = FlagField("stream")
INCLUDE_USAGE: Final = FlagField("include_usage")
STREAM_OPTIONS: Final = ObjectField(
    "stream_options", Table((INCLUDE_USAGE,), ignored=frozenset({"include_obfuscation"}))
)
CHAT_LIMITS: Final = build_limit_fields("max_tokens", "max_completion_tokens")
TEXT_LIMITS: Final = build_limit_fields("max_tokens")
GENERATE_LIMITS: Final = build_limit_fields("max_new_tokens", "length")
_TEXT: Final = {"type": "string", "minLength": 1}
TEXT_PROMPT: Final = OtherField(
    "prompt", {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1}]}, is_required=True
)
PROMPT: Final = TextField("prompt", is_required=True)
SYSTEM: Final = TextField("system")
RAW_PROMPT: Final = FlagField("raw_prompt")
COMMON: Final = (MODEL, PRESET, STREAM, *SAMPLING)
CHAT: Final = Table(
    (*COMMON, MESSAGES, RESPONSE_FORMAT, CHAT_TOOLS.tools, CHAT_TOOLS.choice, STREAM_OPTIONS, *CHAT_LIMITS),
    IGNORED,
    UNSUPPORTED,
)
TEXT: Final = Table((*COMMON, TEXT_PROMPT, STREAM_OPTIONS, *TEXT_LIMITS), IGNORED, UNSUPPORTED)
GENERATE: Final = Table((*COMMON, PROMPT, SYSTEM, RAW_PROMPT, RESPONSE_FORMAT, *GENERATE_LIMITS), IGNORED, UNSUPPORTED)
"""The bodies of the three forms: what they list is read, and is what the OpenAPI document says."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """The model that a request names."""

    id: str
    """As in the request, with its preset: answers repeat it."""
    deployment: str
    preset: str


@dataclass(frozen=True, slots=True)
class StorageRequest:
    """What is to be stored when the answer is whole."""

    items: Sequence[Mapping[str, Json]]
    """Of the request, without those before them."""
    previous_id: str = ""
    """The response that this one follows; empty: none."""
    conversation_id: str = ""
    """The conversation that request and answer are added to; empty: none."""
    keeps_response: bool = False
    """Whether the response can be read and continued later."""
    memories: MemoryChanges | None = None
    """What is kept for other conversations."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A request whose fields are all checked."""

    model: ModelName
    prompt: Prompt
    sampling: Sampling
    limit: TokenLimit
    is_streamed: bool = False
    includes_usage: bool = False
    """Whether a stream ends with a chunk of the usage."""
    has_tools: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    """For the answer: warnings."""
    echo: Mapping[str, Json] = field(default_factory=dict)
    """Fields that the answer repeats."""
    storage: StorageRequest | None = None
    """None: nothing is stored."""
    memory: "MemoryPrompt | None" = None
    """None: the prompt has all that was said before."""


class MemoryPrompt(Protocol):
    """Memory in a prompt."""

    def build_figures(self) -> dict[str, int]:
        """Return what the answer says of it."""

    def shrink(self, prompt_tokens: int) -> GenerateRequest | None:
        """Return the request with less memory, if the engine counts more tokens than its budget has; None if not."""


def read_model_name(fields: Fields) -> ModelName:
    """Read `model` and `preset`."""
    model_id = MODEL.read(fields)
    deployment, preset = split_model(model_id, PRESET.read(fields))
    return ModelName(model_id, deployment, preset)


def parse_chat(fields: Fields, name: ModelName, model: ModelSettings) -> GenerateRequest:
    """Parse the body of `POST /v1/chat/completions`."""
    messages = read_messages(fields)
    schema = RESPONSE_FORMAT.read(fields, model)
    tools = read_tools(fields, model)
    refuse_both(RESPONSE_FORMAT.name, schema, tools)
    is_streamed, includes_usage = read_stream(fields)
    sampling = read_sampling(fields, name.preset)
    limit = read_token_limit(fields, model, CHAT_LIMITS)
    CHAT.refuse_rest(fields)
    instruction = tools.instruction if tools else ""
    prompt = build_prompt(messages, instruction, model, tools.schema if tools else schema)
    return GenerateRequest(name, prompt, sampling, limit, is_streamed, includes_usage, has_tools=tools is not None)


def parse_text(fields: Fields, name: ModelName, model: ModelSettings) -> GenerateRequest:
    """Parse the body of `POST /v1/completions`: the prompt is continued, without a chat template."""
    text = _read_single_prompt(fields.get(TEXT_PROMPT.name))
    is_streamed, includes_usage = read_stream(fields)
    sampling = read_sampling(fields, name.preset)
    limit = read_token_limit(fields, model, TEXT_LIMITS)
    TEXT.refuse_rest(fields)
    return GenerateRequest(name, Prompt(text, is_raw=True), sampling, limit, is_streamed, includes_usage)


def parse_generate(fields: Fields, name: ModelName, model: ModelSettings) -> GenerateRequest:
    """Parse the body of `POST /v1/generate`: `length` is the former name of `max_new_tokens`."""
    text = PROMPT.read(fields) or ""
    system = SYSTEM.read(fields) or ""
    is_raw = RAW_PROMPT.read(fields)
    if is_raw and system:
        raise InvalidFieldError("system", "has no place in a raw prompt; leave it out")
    schema = RESPONSE_FORMAT.read(fields, model)
    is_streamed = STREAM.read(fields)
    sampling = read_sampling(fields, name.preset)
    headers = {"Deprecation": "true"} if fields.has("length") else {}
    limit = read_token_limit(fields, model, GENERATE_LIMITS)
    GENERATE.refuse_rest(fields)
    prompt = Prompt(text, system, is_raw, response_schema=schema)
    return GenerateRequest(name, prompt, sampling, limit, is_streamed, includes_usage=True, headers=headers)


def refuse_both(param: str, schema: bytes | None, tools: ToolSet | None) -> None:
    """Refuse a form of the answer together with tools: an answer is held to one schema."""
    if schema is not None and tools is not None:
        raise UnsupportedFieldError(param, "cannot be held together with tools; send one of them")


def read_stream(fields: Fields) -> tuple[bool, bool]:
    """Return whether to stream, and whether a stream ends with a chunk of the usage."""
    is_streamed = STREAM.read(fields)
    options = STREAM_OPTIONS.read(fields)
    if options is None:
        return is_streamed, False
    if not is_streamed:
        raise InvalidFieldError("stream_options", "needs stream: true")
    includes_usage = INCLUDE_USAGE.read(options)
    STREAM_OPTIONS.table.refuse_rest(options)
    return True, includes_usage


def _read_single_prompt(value: Json) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise UnsupportedFieldError("prompt", "takes one text; send a request for each, and no token ids")
    if not isinstance(value, str):
        raise InvalidFieldError("prompt", "expected a string", code="invalid_type")
    if not value:
        raise InvalidFieldError("prompt", "is empty; send at least one character", code="missing_required_parameter")
    return value
