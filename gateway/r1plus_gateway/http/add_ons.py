"""What an add-on brings to a gateway, and what it works with. `assembly` finds those that are installed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.accounting.admission import Holds, SearchTurns
from r1plus_gateway.http.answer_schemas import Schema
from r1plus_gateway.http.body.bodies import BodyBudget
from r1plus_gateway.http.completions.contexts import SourceProvider
from r1plus_gateway.http.completions.forms import Form
from r1plus_gateway.http.completions.preparation import MissingCalculator
from r1plus_gateway.http.completions.steps import (
    ContextProvider,
    RoundsOpener,
    StoreAnswer,
    leave_unstored,
    refuse_rounds,
)
from r1plus_gateway.http.operations import Operation
from r1plus_gateway.http.parts import GatewayParts, authenticate
from r1plus_gateway.store.tenant import TenantStore


@dataclass(frozen=True, slots=True)
class GatewayHost:
    """What a gateway gives to its add-ons."""

    parts: GatewayParts
    store: TenantStore | None
    """The tenant's data; None: nothing is stored."""
    holds: Holds
    searches: SearchTurns = field(default_factory=SearchTurns)
    bodies: BodyBudget = field(default_factory=BodyBudget)

    async def authenticate(self, request: web.Request) -> Caller:
        """Return the caller of a request. Raises AccessError."""
        return await authenticate(self.parts, request)


def _list_nothing(_: Caller) -> Sequence[dict[str, Any]]:
    return ()


@dataclass(frozen=True, slots=True)
class AddOn:
    """What an add-on brings; without values, what a gateway has that has none."""

    operations: Sequence[Operation] = ()
    """Routes that do not generate."""
    forms: Sequence[Form] = ()
    """Routes that generate."""
    components: Mapping[str, Schema] = field(default_factory=dict)
    """Schemas of the answers of both."""
    contexts: Sequence[ContextProvider] = (MissingCalculator(),)
    sources: SourceProvider | None = None
    """What chats search; None: their field for it is unknown."""
    open_rounds: RoundsOpener = refuse_rounds
    store_answer: StoreAnswer = leave_unstored
    list_features: Callable[[], frozenset[str]] = frozenset
    """Returns what the tenant has switched on, of `answer_schemas.FEATURES`."""
    describe_models: Callable[[Caller], Sequence[dict[str, Any]]] = _list_nothing
    """Returns entries of `GET /v1/models` for what does not generate and is named as a model is."""


AddOnRunner = Callable[[GatewayHost], AbstractAsyncContextManager[AddOn]]
"""Runs an add-on for as long as its gateway serves."""


def run_without_add_on(_: GatewayHost) -> AbstractAsyncContextManager[AddOn]:
    """Run a gateway that has no add-on."""
    return nullcontext(AddOn())
