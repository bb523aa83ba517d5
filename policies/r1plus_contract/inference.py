"""The tensors of the served model: what clients, the prober and the backend agree on.

Every backend of the catalog serves one decoupled model under MODEL_NAME. All inputs have shape [1] and are optional,
but a request has either PROMPT or MESSAGES. One request is answered by a stream of responses. Each has a piece of text
(whole UTF-8 characters) and the token counts, the last one also FINISH_REASON. An error is a Triton error response,
never text. A revision that was made before MESSAGES needs PROMPT and refuses what is newer (docs/calling.md).
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MODEL_NAME: Final = "r1plus"

PROMPT: Final = "text_input"
"""BYTES: the user's message. The chat template of the tokenizer is applied unless RAW_PROMPT is true."""
SYSTEM: Final = "system"
"""BYTES: system message."""
RAW_PROMPT: Final = "raw_prompt"
"""BOOL: send the prompt as it is, without a chat template."""
MAX_NEW_TOKENS: Final = "max_new_tokens"
"""INT32 >= 1; default 512, or less where the context ends before."""
TEMPERATURE: Final = "temperature"
"""FP32 >= 0; 0 (the default) is greedy."""
TOP_P: Final = "top_p"
"""FP32 in (0, 1]."""
REPETITION_PENALTY: Final = "repetition_penalty"
"""FP32 > 0."""
SEED: Final = "seed"
"""UINT64: repeats a sampled answer, as long as the batch has the same other requests (another batch rounds
otherwise)."""
STOP: Final = "stop"
"""BYTES: a JSON array of strings; generation ends before the first that appears."""
MESSAGES: Final = "messages"
"""BYTES: a JSON array of objects with `role` (a `Role`) and `content` (text), instead of PROMPT, SYSTEM, RAW_PROMPT."""
COUNT_ONLY: Final = "count_only"
"""BOOL: answer with PROMPT_TOKENS alone; nothing is generated."""
RESPONSE_SCHEMA: Final = "response_schema"
"""BYTES: a JSON schema; the answer is JSON that it describes."""
GRAMMAR: Final = "grammar"
"""BYTES: a grammar in EBNF whose rule `root` describes the answer."""

TEXT: Final = "text_output"
"""BYTES: the next piece of the answer; may be empty in the last response."""
FINISH_REASON: Final = "finish_reason"
"""BYTES: a `FinishReason`, in the last response; empty before."""
PROMPT_TOKENS: Final = "prompt_tokens"
"""INT32, in every response, so that an answer that is cut can be billed; formerly only in the last."""
COMPLETION_TOKENS: Final = "completion_tokens"
"""INT32: tokens generated so far."""

USAGE_OF: Final = "usage_of"
"""Request parameter, with COUNT_ONLY: answer with the tokens that the engine has counted for the request of this id,
once that has ended. So a stream that was cut is billed exactly. An older image refuses: there is no prompt."""

SCHEMA_OWNER: Final = "schema_owner"
"""Request parameter: who asks for RESPONSE_SCHEMA or GRAMMAR, so that each has a share of the memory for compiled ones.
Requests without it share one part. Only the gateway is trusted to set it."""
GATEWAY_OWNER: Final = "gateway"
"""Owner of the grammars that the gateway writes itself; those of its callers begin with CALLER_PREFIX."""
CALLER_PREFIX: Final = "caller:"

DEFAULT_MAX_NEW_TOKENS: Final = 512
MOST_MESSAGES: Final = 10_000
"""Most messages of one request; also at most one for each token of the context."""
MOST_REQUEST_ID_CHARACTERS: Final = 128
"""Characters of Triton's request id that errors and the log repeat."""
MOST_PROMPT_BYTES_PER_TOKEN: Final = 16
"""Most bytes of prompt and system message together for each token of the context: text has about 4."""
MOST_TOKEN_BYTES: Final = 256
"""Most bytes of one token: the longest in use are 128 spaces."""
QUEUE_FULL: Final = "QueueFull"
"""First word of the error of a request when the engine's queue was full: nothing was computed, retry."""
SCHEMA_MEMORY_FULL: Final = "SchemaMemoryFull"
"""First word of the error of a request whose schema or grammar finds no memory: nothing was computed, retry later."""
_NOT_LOADED: Final = ("unknown model", "not at ready state", "stopped accepting", "server is not ready")
"""What Triton says while no model is there to answer: at the start, at its end, between two versions."""


def is_not_loaded(message: str) -> bool:
    """Return whether Triton's error says that no model is there to answer now."""
    return any(sign in message.casefold() for sign in _NOT_LOADED)


_ENGINE_HANGS: Final = re.compile(r"stub process .* is not healthy", re.IGNORECASE)
"""What Triton's Python backend says of a request while the engine's process does not answer it, after 2 to 3 s."""


def is_engine_hanging(message: str) -> bool:
    """Return whether Triton's error says that the engine's process has not taken the request."""
    return _ENGINE_HANGS.search(message) is not None


_INPUTS: Final = frozenset(
    {
        PROMPT,
        SYSTEM,
        RAW_PROMPT,
        MAX_NEW_TOKENS,
        TEMPERATURE,
        TOP_P,
        REPETITION_PENALTY,
        SEED,
        STOP,
        MESSAGES,
        COUNT_ONLY,
        RESPONSE_SCHEMA,
        GRAMMAR,
    }
)
_REJECTED: Final = "the engine rejects "
_REFUSAL: Final = re.compile(r"([a-z_]+)((?:\.|\[).*?)?: (.*)", re.DOTALL)
"""An input, the place in it, and the reason. A place with ": " in a name ends there."""
_EXCESS: Final = re.compile(
    r"prompt has (\d+) tokens; with (\d+) new tokens? that is \d+, more than the context of (\d+);"
)
_PLACE: Final = re.compile(r"([a-z_]+)[.\[:]")
"""Beginning of a message about an input, or a place in it: `response_schema.properties.a: ...`."""


def is_refusal(message: str) -> bool:
    """Return whether the error of a stream says that the request is invalid: it begins with the input that is wrong."""
    place = _PLACE.match(message)
    return (place is not None and place[1] in _INPUTS) or message.startswith(_REJECTED)


def split_refusal(message: str) -> tuple[str, str, str]:
    """Return the input that a refusal is about, the place in it, such as `.properties.a`, and the reason.

    The input is empty if the refusal names none.
    """
    match = _REFUSAL.fullmatch(message)
    return (match[1], match[2] or "", match[3]) if match is not None and match[1] in _INPUTS else ("", "", message)


@dataclass(frozen=True, slots=True)
class ContextExcess:
    """Why a prompt and its answer do not fit the context, in tokens."""

    prompt_tokens: int
    new_tokens: int
    context: int

    def explain(self, remedy: str) -> str:
        """Return the reason, which `read_context_excess` reads again."""
        tokens = "token" if self.new_tokens == 1 else "tokens"
        return (
            f"prompt has {self.prompt_tokens} tokens; with {self.new_tokens} new {tokens} that is"
            f" {self.prompt_tokens + self.new_tokens}, more than the context of {self.context}; {remedy}"
        )


def read_context_excess(reason: str) -> ContextExcess | None:
    """Return what a refusal says of the context; None if it is about something else."""
    match = _EXCESS.match(reason)
    return None if match is None else ContextExcess(int(match[1]), int(match[2]), int(match[3]))


class Role(StrEnum):
    """Who speaks in a message. A chat template may know fewer."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
