"""Requests: chat and text completions as OpenAI has them, the native `generate`, and what all forms share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from r1plus_gateway.http.body.field_tables import (
    FlagField,
    ObjectField,
    OtherField,
    StringField,
    Table,
    TextField,
)
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.completions.contexts import FoundSources, QuotedSources
from r1plus_gateway.http.completions.estimated_tokens import EstimatedTokens
from r1plus_gateway.http.completions.math_fields import MATH_MODE, MathQuestion, read_math
from r1plus_gateway.http.completions.messages import (
    MESSAGES,
    PromptMessage,
    build_prompt,
    find_question,
    insert_quotations,
    list_ignored,
    read_messages,
)
from r1plus_gateway.http.completions.presets import PRESETS, split_model
from r1plus_gateway.http.completions.sampling_fields import (
    SAMPLING,
    TokenLimit,
    build_limit_fields,
    read_sampling,
    read_stop,
    read_token_limit,
)
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.schemas.schemas import RESPONSE_FORMAT, AnswerSchema, SchemaCheck
from r1plus_gateway.http.schemas.tools import CHAT_TOOLS, CodeRoundsPlan, ToolSet, read_tools
from r1plus_gateway.serving.triton_wire import Prompt, Sampling
from r1plus_gateway.settings import ModelSettings
from r1plus_gateway.store.content.content import MemoryChanges

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
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "chat_template_kwargs": ({}, {"enable_thinking": False}),
}
"""Fields that are not supported -> values that ask for nothing, besides null."""
_ONE_ANSWER: Final = "a request has one answer; send a request for each, at once if you like"
_NO_PROBABILITIES: Final = "the engines give no probabilities of tokens"
REASONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("n", "best_of"), _ONE_ANSWER),
    **dict.fromkeys(("logprobs", "top_logprobs"), _NO_PROBABILITIES),
}
"""Why those are refused (docs/decisions/0015-one-generation-a-request.md)."""
REPORTED: Final = frozenset(
    {
        *("top_k", "min_p", "typical_p", "mirostat", "mirostat_eta", "mirostat_tau", "tfs_z", "repeat_last_n"),
        *("chat_id", "session_id", "message_id", "id", "cache_prompt", "keep_alive"),
    }
)
"""Fields of other servers that front ends send: how the likeliest tokens are cut, ids of their own, and caches."""

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
COMMON: Final = (MODEL, PRESET, STREAM, MATH_MODE, *SAMPLING)
CHAT: Final = Table(
    (*COMMON, MESSAGES, RESPONSE_FORMAT, CHAT_TOOLS.tools, CHAT_TOOLS.choice, STREAM_OPTIONS, *CHAT_LIMITS),
    IGNORED,
    UNSUPPORTED,
    REPORTED,
    REASONS,
)
TEXT: Final = Table((*COMMON, TEXT_PROMPT, STREAM_OPTIONS, *TEXT_LIMITS), IGNORED, UNSUPPORTED, REPORTED, REASONS)
GENERATE: Final = Table(
    (*COMMON, PROMPT, SYSTEM, RAW_PROMPT, RESPONSE_FORMAT, *GENERATE_LIMITS), IGNORED, UNSUPPORTED, REPORTED, REASONS
)
"""The bodies of the three forms: what they list is read, and is what the OpenAPI document says."""
SOURCES_SHARE: Final = 0.4
"""Share of the model's context that quotations of documents may fill."""


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
    audit_seq: int = 0
    """An erasure with a later audit record comes before all of this: it is not stored."""


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
    text_stop: Sequence[str] = ()
    """Strings before which the text of an answer under tools ends."""
    schema_check: SchemaCheck | None = None
    """None: the engine enforces all that the answer is held to."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """For the answer: warnings."""
    ignored: Sequence[str] = ()
    """Places of fields that were ignored, which the answer names."""
    echo: Mapping[str, Json] = field(default_factory=dict)
    """Fields that the answer repeats."""
    storage: StorageRequest | None = None
    """None: nothing is stored."""
    memory: "MemoryFigures | None" = None
    """None: the prompt has all that was said before."""
    knowledge: QuotedSources | None = None
    """None: nothing was searched."""
    includes_results: bool = False
    """Whether the answer has the texts of what was found."""
    packing: "PromptPacking | None" = None
    """None: nothing in the prompt can be left out."""
    math: MathQuestion | None = None
    """None: nothing is calculated."""
    code: CodeRoundsPlan | None = None
    """None: no program of the model is run."""


class MemoryFigures(Protocol):
    """Memory in a prompt."""

    def build_figures(self) -> dict[str, int | str]:
        """Return what the answer says of it."""


class PromptPacking(Protocol):
    """What of a prompt was packed into a budget: quotations of documents, and memory."""

    def shrink(self, prompt_tokens: int) -> GenerateRequest | None:
        """Return the request with less of it, if the engine counts more tokens than there is room for; None if not."""


def read_model_name(fields: Fields) -> ModelName:
    """Read `model` and `preset`."""
    model_id = MODEL.read(fields)
    deployment, preset = split_model(model_id, PRESET.read(fields))
    return ModelName(model_id, deployment, preset)


def has_schema(fields: Fields) -> bool:
    """Return whether a body has schemas, which take up to seconds of a processor to fit to what the engine enforces."""
    return any(fields.has(name) for name in (CHAT_TOOLS.tools.name, RESPONSE_FORMAT.name, "text"))


def parse_chat(
    fields: Fields, name: ModelName, model: ModelSettings, found: FoundSources | None = None, table: Table = CHAT
) -> GenerateRequest:
    """Parse the body of `POST /v1/chat/completions`; `found`: in documents, for it. `table`: of the body's fields."""
    messages = read_messages(fields)
    tools = read_tools(fields, model)
    schema = choose_schema(RESPONSE_FORMAT.name, RESPONSE_FORMAT.read(fields, model), tools)
    is_streamed, includes_usage = read_stream(fields)
    has_tools = tools is not None
    sampling = read_sampling(fields, name.preset, has_tools=has_tools)
    limit = read_token_limit(fields, model, CHAT_LIMITS)
    math = read_math(fields, name.preset, find_question(messages), has_tools=has_tools)
    table.refuse_rest(fields)
    instruction = tools.instruction if tools else ""
    plan = ChatPlan(messages, instruction, schema.text if schema else None, model, found)
    request = GenerateRequest(
        name,
        plan.build()[0],
        sampling,
        limit,
        is_streamed,
        includes_usage,
        has_tools,
        text_stop=read_stop(fields) if has_tools else (),
        schema_check=schema.check if schema else None,
        ignored=(*fields.list_present(REPORTED), *list_ignored(fields)),
        math=math,
    )
    return request if found is None else plan.pack(request, int(SOURCES_SHARE * model.context_tokens))


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """What the prompt of a chat is made of."""

    messages: Sequence[PromptMessage]
    instruction: str
    """Of the tools."""
    schema: bytes | None
    model: ModelSettings
    found: FoundSources | None

    def build(self, quoted: QuotedSources | None = None) -> tuple[Prompt, int]:
        """Return the prompt with these quotations, and its tokens, estimated."""
        messages = list(self.messages) if quoted is None else insert_quotations(self.messages, quoted.block)
        tokens = sum(EstimatedTokens().count(message.content) for message in messages) if quoted else 0
        return build_prompt(messages, self.instruction, self.model, self.schema), tokens

    def pack(self, request: GenerateRequest, budget: int) -> GenerateRequest:
        """Return a request with quotations of at most so many tokens."""
        assert self.found is not None
        quoted = self.found.quote(budget)
        prompt, tokens = self.build(quoted)
        packed = replace(request, prompt=prompt, knowledge=quoted)
        return replace(packed, packing=_ChatPacking(self, packed, tokens))


@dataclass(frozen=True, slots=True)
class _ChatPacking:
    """See `PromptPacking`."""

    plan: ChatPlan
    request: GenerateRequest
    tokens: int
    """Of the whole prompt, estimated."""

    def shrink(self, prompt_tokens: int) -> GenerateRequest | None:
        """See `PromptPacking`."""
        limit, context, quoted = self.request.limit, self.plan.model.context_tokens, self.request.knowledge
        assert quoted is not None
        answer = limit.tokens if limit.is_explicit else min(limit.tokens, context // 4)
        budget, saved = quoted.shrink(self.tokens, prompt_tokens, context - answer)
        return self.plan.pack(self.request, budget) if saved else None


def parse_text(fields: Fields, name: ModelName, model: ModelSettings) -> GenerateRequest:
    """Parse the body of `POST /v1/completions`: the prompt is continued, without a chat template."""
    text = _read_single_prompt(fields.get(TEXT_PROMPT.name))
    is_streamed, includes_usage = read_stream(fields)
    sampling = read_sampling(fields, name.preset)
    limit = read_token_limit(fields, model, TEXT_LIMITS)
    math = read_math(fields, name.preset, text, has_tools=False)
    TEXT.refuse_rest(fields)
    return GenerateRequest(
        name,
        Prompt(text, is_raw=True),
        sampling,
        limit,
        is_streamed,
        includes_usage,
        ignored=fields.list_present(REPORTED),
        math=math,
    )


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
    math = read_math(fields, name.preset, text, has_tools=False)
    GENERATE.refuse_rest(fields)
    prompt = Prompt(text, system, is_raw, response_schema=schema.text if schema else None)
    return GenerateRequest(
        name,
        prompt,
        sampling,
        limit,
        is_streamed,
        includes_usage=True,
        schema_check=schema.check if schema else None,
        headers=headers,
        ignored=fields.list_present(REPORTED),
        math=math,
    )


def choose_schema(param: str, schema: AnswerSchema | None, tools: ToolSet | None) -> AnswerSchema | None:
    """Return what an answer is held to: a form of its own, or calls of tools. Both at once are refused."""
    if schema is not None and tools is not None:
        raise UnsupportedFieldError(param, "cannot be held together with tools; send one of them")
    return tools.schema if tools is not None else schema


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
        raise UnsupportedFieldError(
            "prompt", "takes one text, and no token ids; send a request for each, at once if you like"
        )
    if not isinstance(value, str):
        raise InvalidFieldError("prompt", "expected a string", code="invalid_type")
    if not value:
        raise InvalidFieldError("prompt", "is empty; send at least one character", code="missing_required_parameter")
    return value
