"""What the steps of a completion hand on: parse → admit → prepare → reserve → run → settle. Each value is frozen.

An add-on takes part in them by `ContextProvider`, `RoundsOpener` and `StoreAnswer`.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.accounting.bill import Bill
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.answers import AnswerHead, EventWriter
from r1plus_gateway.http.completions.contexts import ContextReport
from r1plus_gateway.http.completions.event_stream import EventStream
from r1plus_gateway.http.completions.forms import Form
from r1plus_gateway.http.completions.operating_points import OperatingPoint
from r1plus_gateway.http.completions.requests import GenerateRequest, ModelName
from r1plus_gateway.http.errors import FieldNames
from r1plus_gateway.http.request_keys import REQUEST_ID
from r1plus_gateway.http.schemas.code_tool import CodeCall
from r1plus_gateway.serving.generation import Generation
from r1plus_gateway.serving.pods import PodPool
from r1plus_gateway.serving.running_requests import RunningRequest
from r1plus_gateway.serving.triton_wire import Prompt
from r1plus_gateway.settings import ModelSettings

PromptCounter = Callable[[Prompt], Awaitable[int | None]]
"""Counts a prompt's tokens by the engine; None: no pod says how many."""


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """A request to generate, of a caller who may."""

    http: web.Request
    form: Form
    caller: Caller
    running: RunningRequest

    @property
    def id(self) -> str:
        """The request's id."""
        return self.http[REQUEST_ID]


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What parsing gives: a call, the fields of its body, and the model that they name."""

    call: CompletionCall
    fields: Fields
    name: ModelName
    pool: PodPool


class PromptContext(Protocol):
    """A part of one prompt that an add-on makes: planned before tokens are reserved, and entered after it."""

    @property
    def note_bytes(self) -> int:
        """Most bytes that it adds to the prompt."""

    @property
    def own_tokens(self) -> int:
        """Most tokens of what it generates itself: prompt and answer."""

    async def measure(self, model: ModelSettings, count: PromptCounter) -> "PromptContext":
        """Return it with what it costs, as the engine counts."""

    async def enter(self, prompt: Prompt, job: "ReservedDraft") -> tuple[Prompt, ContextReport]:
        """Return the prompt with it. What fails is reported, and refuses no request.

        Raises:
            CallerRevokedError: the caller was revoked meanwhile.
        """


class ContextProvider(Protocol):
    """Something that enters prompts besides what their requests say."""

    def plan(self, request: GenerateRequest, model: ModelSettings) -> PromptContext | None:
        """Return what will be done for a request; None: nothing.

        Raises:
            RequestError: it asks for what is not there.
        """


@dataclass(frozen=True, slots=True)
class Draft:
    """What preparation gives: a checked request, and what will enter its prompt."""

    call: CompletionCall
    pool: PodPool
    request: GenerateRequest
    contexts: Sequence[PromptContext]
    names: FieldNames
    """Fields of the body, for the errors of the engine."""
    point: OperatingPoint


@dataclass(frozen=True, slots=True)
class ReservedDraft:
    """What a reservation gives: a request with its limit of new tokens, and its bill."""

    draft: Draft
    request: GenerateRequest
    contexts: Sequence[PromptContext]
    bill: Bill
    prompt_tokens: int
    """The prompt's tokens as the engine has counted them; 0: not counted."""


class AnswerRounds(Protocol):
    """Several generations of one answer, with programs that run between them."""

    @property
    def calls(self) -> Sequence[CodeCall]:
        """The programs so far."""

    @property
    def is_cut(self) -> bool:
        """Whether programs used up the limit of new tokens, so that no round was left to answer."""

    @property
    def is_mixed(self) -> bool:
        """Whether pods of several revisions have answered."""

    async def finish(self, generation: Generation) -> tuple[Generation, str]:
        """Return the generation that answers, after all programs, and its text. The caller looks at its error.

        Raises:
            AccessError: a limit of the caller leaves no room for another round.
            RequestError: the context leaves none.
            CallerRevokedError: the caller was revoked while a program ran.
        """

    async def finish_stream(
        self, generation: Generation, stream: EventStream, events: EventWriter
    ) -> tuple[Generation, str]:
        """Do the same, and send the events of programs meanwhile."""


RoundsOpener = Callable[[ReservedDraft, Prompt], AnswerRounds]
"""Opens the rounds of a request with `code`; the prompt is the one that its first generation has."""
StoreAnswer = Callable[[Caller, AnswerHead, bytes], Awaitable[AnswerHead]]
"""Stores a whole answer; returns the head that says whether it was."""


async def leave_unstored(_: Caller, head: AnswerHead, __: bytes) -> AnswerHead:
    """Store nothing; see `StoreAnswer`. Nothing asks for it where no add-on stores answers."""
    return head


def refuse_rounds(_: ReservedDraft, __: Prompt) -> AnswerRounds:
    """Open no rounds; see `RoundsOpener`. No form reads such a tool where no add-on runs programs."""
    raise NotImplementedError
