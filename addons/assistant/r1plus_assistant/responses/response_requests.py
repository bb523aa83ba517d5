"""The body of `POST /v1/responses`. Its prompt is the one that a chat of the same messages has."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from r1plus_assistant.code.code_interpreter import CALL as CODE_CALL
from r1plus_assistant.code.code_interpreter import ECHO as CODE_ECHO
from r1plus_assistant.code.code_interpreter import TOOL as CODE_TOOL
from r1plus_assistant.conversations.indexed_history import IndexedHistory, Recollection
from r1plus_assistant.files.file_search import TOOL as FILE_SEARCH_TOOL
from r1plus_assistant.files.file_search import FoundPassages
from r1plus_assistant.knowledge.quotation import QuotedPassages, pack_passages, shrink_quotations
from r1plus_assistant.responses.response_items import INPUT, Item, build_messages, quote_outputs
from r1plus_assistant.responses.response_memory import (
    KEEP,
    LONG_TERM,
    MEMORY,
    RECALL,
    MemoryOptions,
    MemoryUse,
    plan_memories,
    read_memory_options,
    recall_messages,
)
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.body.field_tables import (
    FlagField,
    ListField,
    ObjectField,
    OtherField,
    StringField,
    Table,
    TextField,
    choose,
)
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.body.metadata import METADATA
from r1plus_gateway.http.completions.estimated_tokens import EstimatedTokens
from r1plus_gateway.http.completions.math_fields import read_math
from r1plus_gateway.http.completions.messages import PromptMessage, build_prompt, find_question, insert_quotations
from r1plus_gateway.http.completions.requests import (
    COMMON,
    REPORTED,
    SOURCES_SHARE,
    STREAM_OPTIONS,
    GenerateRequest,
    ModelName,
    StorageRequest,
    choose_schema,
    read_stream,
)
from r1plus_gateway.http.completions.sampling_fields import (
    TokenLimit,
    build_limit_fields,
    read_sampling,
    read_stop,
    read_token_limit,
)
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.schemas.code_tool import KIND as CODE_KIND
from r1plus_gateway.http.schemas.code_tool import CodeTool
from r1plus_gateway.http.schemas.schemas import TEXT_FORMAT, AnswerSchema, SchemaCheck
from r1plus_gateway.http.schemas.tools import FLAT_TOOLS, read_tools
from r1plus_gateway.serving.triton_wire import Prompt, Sampling
from r1plus_gateway.settings import ModelSettings
from r1plus_gateway.store.content.content import StoredMemory

MOST_TOOL_BYTES: Final = 256 * 1024
"""Also of tools that may not be called, which no schema bounds."""
INSTRUCTIONS: Final = TextField("instructions")
STORE: Final = FlagField("store")
TEXT_CONFIG: Final = ObjectField("text", Table((TEXT_FORMAT,), unsupported={"verbosity": ("medium",)}))
REASONING: Final = ObjectField(
    "reasoning", Table((), unsupported={"effort": ("none",), "summary": (), "generate_summary": ()})
)
RESULTS_INCLUDED: Final = "file_search_call.results"
INCLUDABLE: Final = (
    "reasoning.encrypted_content",
    RESULTS_INCLUDED,
    "web_search_call.results",
    "web_search_call.action.sources",
    f"{CODE_CALL}.outputs",
    "computer_call_output.output.image_url",
    "message.input_image.image_url",
)
"""Parts of items that may be asked for: results of searches. Outputs of programs are always there, others never."""
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
PREVIOUS: Final = StringField("previous_response_id", most=128)
_ID: Final = {"type": "string", "minLength": 1, "maxLength": 128}
CONVERSATION: Final = OtherField(
    "conversation", {"anyOf": [_ID, {"type": "object", "properties": {"id": _ID}, "required": ["id"]}]}
)
UNSUPPORTED: Final[Mapping[str, tuple[Json, ...]]] = {
    "truncation": ("disabled",),
    "background": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "prompt": (),
    "context_management": (),
    "moderation": (),
}
"""Fields that are not supported -> values that ask for nothing, besides null."""
TOOLS_AND_SEARCH: Final = ListField(
    FLAT_TOOLS.tools.name, FLAT_TOOLS.tools.most, choose([FLAT_TOOLS.tool, FILE_SEARCH_TOOL, CODE_TOOL])
)
TOOL_CHOICE: Final = OtherField(
    FLAT_TOOLS.choice.name,
    {
        "anyOf": [
            FLAT_TOOLS.choice.build_schema(),
            {"type": "object", "properties": {"type": {"enum": ["file_search", CODE_KIND]}}, "required": ["type"]},
        ]
    },
)
RESPONSE: Final = Table(
    (
        *COMMON,
        INPUT,
        INSTRUCTIONS,
        TEXT_CONFIG,
        TOOLS_AND_SEARCH,
        TOOL_CHOICE,
        REASONING,
        INCLUDE,
        METADATA,
        STORE,
        PREVIOUS,
        CONVERSATION,
        MEMORY,
        STREAM_OPTIONS,
        *LIMITS,
    ),
    IGNORED,
    UNSUPPORTED,
    REPORTED,
)


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a request continues: a response, or a conversation, or neither."""

    previous_id: str = ""
    conversation_id: str = ""
    items: Sequence[Item] = ()
    """All that was said before, the oldest first, without earlier instructions: those do not carry over. With memory
    none: see `recollection`."""
    is_storing: bool = False
    """Whether the tenant's policy lets responses be stored."""
    remembered: Sequence[StoredMemory] = ()
    """What the user said in other conversations, where the request asks for it; the oldest first."""
    recollection: Recollection | None = None
    """All of it, as memory reads it; None without memory."""
    audit_seq: int = 0
    """Number of the newest audit record before anything stored was read for the request."""


ContinuationReader = Callable[[Fields, ModelSettings, Caller], Awaitable[Continuation]]
NOTHING: Final = Continuation()


async def refuse_continuation(fields: Fields, _: ModelSettings, __: Caller) -> Continuation:
    """Return nothing to continue, for a gateway without stored content.

    Raises:
        UnsupportedFieldError: the request continues something.
    """
    for name in (PREVIOUS.name, CONVERSATION.name):
        if fields.has(name):
            message = "no response is stored, so none can be continued; send the whole conversation in input"
            raise UnsupportedFieldError(name, message)
    return NOTHING


def read_continuation_names(fields: Fields) -> tuple[str, str]:
    """Return the ids of the response and of the conversation that a request continues; empty: none.

    Raises:
        InvalidFieldError: both are named, or one is no id.
    """
    previous, conversation = PREVIOUS.read(fields), fields.get(CONVERSATION.name)
    name = conversation.get("id") if isinstance(conversation, dict) else conversation
    if conversation is None:
        return previous, ""
    if not isinstance(name, str) or not 1 <= len(name) <= 128:
        raise fields.build_type_error(CONVERSATION.name, "an id, or an object with one", conversation)
    if previous:
        raise InvalidFieldError(CONVERSATION.name, "cannot be continued together with a response; send one of them")
    return "", name


@dataclass(frozen=True, slots=True)
class _TextConfig:
    """What `text` asks for."""

    schema: AnswerSchema | None
    format: Mapping[str, Json]
    """As the answer repeats it."""


def parse_response(
    fields: Fields,
    name: ModelName,
    model: ModelSettings,
    earlier: Continuation = NOTHING,
    found: FoundPassages | None = None,
    code: CodeTool | None = None,
) -> GenerateRequest:
    """Parse a body that continues something earlier, without the tools `file_search` and `code_interpreter`.

    `found`: what the one has found; `code`: what is asked of the other.
    """
    items = INPUT.read(fields)
    options = read_memory_options(fields, model)
    instructions = INSTRUCTIONS.read(fields)
    text = _read_text_config(fields, model)
    tools = read_tools(fields, model, FLAT_TOOLS, code)
    schema = choose_schema("text.format", text.schema, tools)
    includes_results = RESULTS_INCLUDED in _read_include(fields)
    metadata = METADATA.read(fields)
    storage = _read_storage(fields, earlier, items, options)
    is_streamed, _ = read_stream(fields)
    if (reasoning := REASONING.read(fields)) is not None:
        REASONING.table.refuse_rest(reasoning)
    has_tools = tools is not None
    sampling = read_sampling(fields, name.preset, has_tools=has_tools)
    limit = read_token_limit(fields, model, LIMITS)
    math = read_math(fields, name.preset, find_question(build_messages(items)), has_tools=has_tools)
    RESPONSE.refuse_rest(fields)
    echo = {
        "instructions": instructions or None,
        "text": {"format": text.format},
        "metadata": metadata,
        **_echo_tools(fields, found, code, schema.check if schema else None),
        **_echo_sampling(sampling, limit),
        **_echo_storage(earlier, storage),
    }
    tool_text, schema_text = tools.instruction if tools else "", schema.text if schema else None
    plan = _PromptPlan(earlier.items, items, instructions or "", tool_text, schema_text, earlier.recollection, found)
    knowledge_budget = None if found is None else int(SOURCES_SHARE * model.context_tokens)
    built = plan.build(model, None if options is None else options.budget, knowledge_budget)
    request = GenerateRequest(
        name,
        built.prompt,
        sampling,
        limit,
        is_streamed,
        has_tools=has_tools,
        text_stop=read_stop(fields) if has_tools else (),
        schema_check=schema.check if schema else None,
        ignored=fields.list_present(REPORTED),
        echo=echo,
        storage=storage,
        includes_results=includes_results,
        math=math,
        code=tools.code if tools else None,
    )
    return _add_packing(request, _ResponsePacking(built, plan, model, request))


def _add_packing(request: GenerateRequest, packing: "_ResponsePacking") -> GenerateRequest:
    """Return a request with what says how its prompt was packed, if it was."""
    built = packing.built
    is_packed = built.memory is not None or built.knowledge is not None
    return replace(
        request,
        prompt=built.prompt,
        memory=built.memory,
        knowledge=built.knowledge,
        packing=packing if is_packed else None,
    )


@dataclass(frozen=True, slots=True)
class _BuiltPrompt:
    """A prompt, and what was packed into it."""

    prompt: Prompt
    memory: MemoryUse | None
    knowledge: QuotedPassages | None
    tokens: int
    """Estimated, of all messages."""


@dataclass(frozen=True, slots=True)
class _PromptPlan:
    """What a prompt is made of."""

    earlier: Sequence[Item]
    items: Sequence[Item]
    instructions: str
    """Of the request."""
    instruction: str
    """Of the tools."""
    schema: bytes | None
    recollection: Recollection | None
    found: FoundPassages | None

    def build(self, model: ModelSettings, budget: int | None, knowledge_budget: int | None) -> _BuiltPrompt:
        """Return the prompt.

        `budget`: tokens of memory, instead of all that was said before; `knowledge_budget`: tokens of quotations.
        """
        use, quoted, counter = None, None, EstimatedTokens()
        items = quote_outputs(self.items, model.context_tokens)
        if budget is None:
            messages = build_messages([*quote_outputs(self.earlier, model.context_tokens), *items])
        else:
            recollection = self.recollection or IndexedHistory().view()
            messages, use = recall_messages(recollection, items, budget)
        if self.instructions:
            messages = [PromptMessage("system", self.instructions), *messages]
        if self.found is not None and knowledge_budget is not None:
            quoted = pack_passages(self.found.result, self.found.question, knowledge_budget, counter)
            messages = insert_quotations(messages, quoted.block)
        tokens = sum(counter.count(message.content) for message in messages) if use or quoted else 0
        prompt = build_prompt(messages, self.instruction, model, self.schema, param=INPUT.name)
        return _BuiltPrompt(prompt, use, quoted, tokens)


@dataclass(frozen=True, slots=True)
class _ResponsePacking:
    """See `PromptPacking`. Quotations of documents give way before memory does."""

    built: _BuiltPrompt
    plan: _PromptPlan
    model: ModelSettings
    request: GenerateRequest

    def shrink(self, prompt_tokens: int) -> GenerateRequest | None:
        """See `PromptPacking`."""
        limit, context, built = self.request.limit, self.model.context_tokens, self.built
        answer = limit.tokens if limit.is_explicit else min(limit.tokens, context // 4)
        most = context - answer
        knowledge_budget, saved = None, 0
        if built.knowledge is not None:
            knowledge_budget, saved = shrink_quotations(built.knowledge, built.tokens, prompt_tokens, most)
        budget = None
        if built.memory is not None:
            use = replace(built.memory, estimated_tokens=built.tokens)
            smaller = use.find_smaller_budget(prompt_tokens - saved, most)
            budget = built.memory.memory.budget if smaller is None else smaller
            if smaller is None and not saved:
                return None
        elif not saved:
            return None
        built = self.plan.build(self.model, budget, knowledge_budget)
        return _add_packing(self.request, replace(self, built=built))


def _read_storage(
    fields: Fields, earlier: Continuation, items: Sequence[Item], memory: MemoryOptions | None
) -> StorageRequest | None:
    """Return what is stored with the answer. Without `store` a response is, as OpenAI has it, if the policy lets it.

    Raises:
        InvalidFieldError: what the user says is to be kept, and nothing is to be stored.
    """
    is_wanted = STORE.read(fields) if fields.has(STORE.name) else True
    keeps_response = is_wanted and earlier.is_storing
    keeps_memories = memory is not None and memory.keeps
    if not keeps_response and not earlier.conversation_id:
        if keeps_memories:
            message = f"{KEEP} stores what the user says, and store is false; send {RECALL}, or leave store out"
            raise InvalidFieldError(f"{MEMORY.name}.{LONG_TERM.name}", message)
        return None
    changes = plan_memories(earlier.remembered, items) if keeps_memories else None
    return StorageRequest(
        items, earlier.previous_id, earlier.conversation_id, keeps_response, changes, earlier.audit_seq
    )


def _echo_storage(earlier: Continuation, storage: StorageRequest | None) -> dict[str, Any]:
    conversation = {"conversation": {"id": earlier.conversation_id}} if earlier.conversation_id else {}
    return {
        "store": storage is not None and storage.keeps_response,
        "previous_response_id": earlier.previous_id or None,
        **conversation,
    }


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
    is_held = schema is None or schema.check is None
    return _TextConfig(schema, {**{name: form.get(name) for name in names}, "strict": is_held})


def _read_include(fields: Fields) -> list[Json]:
    included = INCLUDE.read(fields)
    for position, item in enumerate(included):
        if item not in INCLUDABLE:
            raise UnsupportedFieldError(f"{INCLUDE.name}[{position}]", f"{item!r:.80} is not supported; leave it out")
    return included


def _echo_tools(
    fields: Fields, found: FoundPassages | None, code: CodeTool | None, check: SchemaCheck | None
) -> dict[str, Any]:
    """Return tools and choice, which have been read, as the answer repeats them. A tool is strict if all is enforced.

    Raises:
        InvalidFieldError: the tools are too large to be repeated in several events.
    """
    choice = fields.get(FLAT_TOOLS.choice.name) or "auto"
    checked = (check and check.arguments) or {}
    tools = [
        {
            "type": "function",
            "name": tool["name"],
            "description": tool.get("description"),
            "parameters": tool.get("parameters"),
            "strict": tool["name"] not in checked,
        }
        for tool in fields.get(FLAT_TOOLS.tools.name) or []
    ]
    if (size := len(orjson.dumps(tools))) > MOST_TOOL_BYTES:
        raise InvalidFieldError(FLAT_TOOLS.tools.name, f"{size} bytes exceed {MOST_TOOL_BYTES}; send fewer")
    if code is not None and code.is_forced:
        choice = {"type": CODE_KIND}
    elif not isinstance(choice, str):
        choice = {"type": "function", "name": choice["name"]}
    return {
        "tools": [*tools, *([found.search.echo] if found else []), *([CODE_ECHO] if code else [])],
        "tool_choice": choice,
        **({"max_tool_calls": code.most_runs} if code else {}),
    }


def _echo_sampling(sampling: Sampling, limit: TokenLimit) -> dict[str, Any]:
    """Return what holds; the engine's defaults are temperature 0 and all tokens."""
    return {
        "temperature": sampling.temperature or 0,
        "top_p": 1 if sampling.top_p is None else sampling.top_p,
        "max_output_tokens": limit.requested,
    }
