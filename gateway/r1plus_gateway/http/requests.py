"""The three forms of a request: chat and text completions as OpenAI has them, and the native `generate`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.fields import IGNORED, Fields
from r1plus_gateway.http.json_body import Json
from r1plus_gateway.http.messages import build_prompt, read_messages
from r1plus_gateway.http.presets import split_model
from r1plus_gateway.http.sampling_fields import TokenLimit, read_sampling, read_token_limit
from r1plus_gateway.http.schemas import read_response_format
from r1plus_gateway.http.tools import read_tools
from r1plus_gateway.serving.triton_wire import Prompt, Sampling
from r1plus_gateway.settings import ModelSettings


class Form(StrEnum):
    """Which endpoint is called; the value is the object's name in whole answers."""

    CHAT = "chat.completion"
    TEXT = "text_completion"
    GENERATE = "generation"


@dataclass(frozen=True, slots=True)
class ModelName:
    """The model that a request names."""

    id: str
    """As in the request, with its preset: answers repeat it."""
    deployment: str
    preset: str


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A request whose fields are all checked."""

    form: Form
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


Parser = Callable[[Fields, ModelName, ModelSettings], GenerateRequest]


def read_model_name(fields: Fields) -> ModelName:
    """Read `model` and `preset`."""
    model_id = fields.read_string("model")
    if not model_id:
        raise InvalidFieldError("model", "is missing", code="missing_required_parameter")
    deployment, preset = split_model(model_id, fields.read_string("preset"))
    return ModelName(model_id, deployment, preset)


def parse_chat(fields: Fields, name: ModelName, model: ModelSettings) -> GenerateRequest:
    """Parse the body of `POST /v1/chat/completions`."""
    messages = read_messages(fields)
    schema = read_response_format(fields, model)
    tools = read_tools(fields, model)
    if schema is not None and tools is not None:
        raise UnsupportedFieldError("response_format", "cannot be held together with tools; send one of them")
    is_streamed, includes_usage = _read_stream(fields)
    sampling = read_sampling(fields, name.preset)
    limit = read_token_limit(fields, model, "max_tokens", "max_completion_tokens")
    fields.refuse_rest(IGNORED)
    instruction = tools.instruction if tools else ""
    prompt = build_prompt(messages, instruction, model, tools.schema if tools else schema)
    return GenerateRequest(
        Form.CHAT, name, prompt, sampling, limit, is_streamed, includes_usage, has_tools=tools is not None
    )


def parse_text(fields: Fields, name: ModelName, model: ModelSettings) -> GenerateRequest:
    """Parse the body of `POST /v1/completions`: the prompt is continued, without a chat template."""
    text = _read_single_prompt(fields.get("prompt"))
    is_streamed, includes_usage = _read_stream(fields)
    sampling = read_sampling(fields, name.preset)
    limit = read_token_limit(fields, model, "max_tokens")
    fields.refuse_rest(IGNORED)
    return GenerateRequest(Form.TEXT, name, Prompt(text, is_raw=True), sampling, limit, is_streamed, includes_usage)


def parse_generate(fields: Fields, name: ModelName, model: ModelSettings) -> GenerateRequest:
    """Parse the body of `POST /v1/generate`: `length` is the former name of `max_new_tokens`."""
    text = fields.read_text("prompt")
    if not text:
        raise InvalidFieldError("prompt", "is missing or empty", code="missing_required_parameter")
    system = fields.read_text("system") or ""
    is_raw = fields.read_flag("raw_prompt")
    if is_raw and system:
        raise InvalidFieldError("system", "has no place in a raw prompt; leave it out")
    schema = read_response_format(fields, model)
    is_streamed = fields.read_flag("stream")
    sampling = read_sampling(fields, name.preset)
    headers = {"Deprecation": "true"} if fields.has("length") else {}
    limit = read_token_limit(fields, model, "max_new_tokens", "length")
    fields.refuse_rest(IGNORED)
    prompt = Prompt(text, system, is_raw, response_schema=schema)
    return GenerateRequest(
        Form.GENERATE, name, prompt, sampling, limit, is_streamed, includes_usage=True, headers=headers
    )


def _read_stream(fields: Fields) -> tuple[bool, bool]:
    is_streamed = fields.read_flag("stream")
    options = fields.read_object("stream_options")
    if options is None:
        return is_streamed, False
    if not is_streamed:
        raise InvalidFieldError("stream_options", "needs stream: true")
    includes_usage = options.read_flag("include_usage")
    options.refuse_rest(("include_obfuscation",))
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
