"""The way of one request from its body to its answer: parse → admit → prepare → reserve → run → settle.

Each step takes and gives frozen values (`steps`). Bills are settled where their reservation ends, on every path.
"""

from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web

from r1plus_gateway.access.caller import AccessError, Caller, CallerKind
from r1plus_gateway.http.accounting.refusals import convert_refusals
from r1plus_gateway.http.add_ons import AddOn, GatewayHost
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.forms import Form
from r1plus_gateway.http.completions.preparation import prepare
from r1plus_gateway.http.completions.presets import build_unknown_model_error
from r1plus_gateway.http.completions.requests import read_model_name
from r1plus_gateway.http.completions.reservations import Reservations, count_most_waiting
from r1plus_gateway.http.completions.runs import Runs
from r1plus_gateway.http.completions.steps import CompletionCall, ModelCall
from r1plus_gateway.http.parts import authenticate
from r1plus_gateway.http.request_keys import MODEL_NAME

ADMINISTERS_ONLY: Final = (
    "ServiceAccount r1plus-gateway-admin administers and does not generate: no budget holds its tokens. Call with an"
    " API key, which `r1plus key create` makes, or with a token of another ServiceAccount."
)


class Completions:
    """Answers the requests that generate."""

    def __init__(self, host: GatewayHost, add_on: AddOn) -> None:
        parts = self._parts = host.parts
        self._searches = host.searches
        self._holds = host.holds
        self._contexts = add_on.contexts
        self._reservations = Reservations(parts)
        self._runs = Runs(parts, add_on.open_rounds, add_on.store_answer, host.holds)
        self.bodies = host.bodies

    async def answer(self, http: web.Request, form: Form) -> web.StreamResponse:
        """Answer one request of this form.

        Raises:
            RequestError: it is refused, or failed before anything was sent.
        """
        with convert_refusals(self._parts, self._holds, http):
            caller = await self._authenticate(http)
            limits = self._parts.read_settings().limits
            with self._parts.models.requests.track(caller.group_id) as running:
                async with self.bodies.read(http, caller, limits) as body, AsyncExitStack() as turn:
                    target = self._parse(CompletionCall(http, form, caller, running), body.fields)
                    await self._admit(target, turn)
                    draft = await prepare(self._contexts, target)
                    self._check_room(target)
                    reserving = self._reservations.reserve(draft, turn.aclose)
                    answer = self._runs.answer_stream if draft.request.is_streamed else self._runs.answer_whole
                    return await answer(reserving, body.release)

    async def _authenticate(self, http: web.Request) -> Caller:
        """Return a caller that may generate, and whose last refusal does not hold any more."""
        caller = await authenticate(self._parts, http)
        if caller.kind is CallerKind.ADMIN:
            raise AccessError(403, "admin_not_allowed", ADMINISTERS_ONLY)
        self._holds.check(caller)
        return caller

    def _parse(self, call: CompletionCall, fields: Fields) -> ModelCall:
        """Return the model that a body names."""
        name = read_model_name(fields)
        pool = self._parts.models.find(name.deployment, call.caller)
        if pool is None:
            raise build_unknown_model_error(name.id)
        call.http[MODEL_NAME] = pool.model.name
        return ModelCall(call, fields, name, pool)

    async def _admit(self, target: ModelCall, turn: AsyncExitStack) -> None:
        """Wait until it is this caller's turn to search; refuse what finds no room in the model's queue.

        `turn`: ends when the request is reserved.
        """
        call = target.call
        if call.form.has_search(target.fields):
            most_waiting = count_most_waiting(self._parts, target.pool)
            await turn.enter_async_context(self._searches.wait(call.caller, most_waiting))
        self._holds.check(call.caller)
        self._check_room(target)

    def _check_room(self, target: ModelCall) -> None:
        self._parts.models.queue.check_room(target.pool.model.name, target.call.caller.group_id)
