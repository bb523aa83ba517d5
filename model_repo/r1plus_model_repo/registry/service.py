"""The HTTP service: facts in from the operator, histories out to whoever may read the CR that they are of.

    POST /v1/facts                                 the operator alone
    GET  /v1/namespaces/NS/deployments/NAME        who may get that R1PlusDeployment
    GET  /v1/evaluations?namespace=&name=&items=1  who may get it, or list those of the namespace, or of all
    GET  /v1/engines                               who may list R1PlusEngines
    GET  /healthz /readyz /metrics                 anybody whom the walls let in

What has ended, and what was in another namespace of that name, is shown to those only who may get R1PlusDeployments in
every namespace: a namespace of the same name may be another tenant's by now. Errors are `{"error": ...}`: 400 what was
sent, 401 and 403 who sent it, 503 try again, 507 the volume is full.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from r1plus_contract import names
from r1plus_contract.connections import ConnectionLimits
from r1plus_contract.history import (
    AUDIENCE,
    MOST_BODY_BYTES,
    MOST_LISTED,
    Evaluations,
    Facts,
    Histories,
    Receipt,
    RecordedEngines,
)
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_model_repo.registry.checks import checked
from r1plus_model_repo.registry.errors import DocumentError, FullError, UnavailableError
from r1plus_model_repo.registry.retention import Pruner
from r1plus_model_repo.registry.reviews import Access, User
from r1plus_model_repo.registry.storage import Storage

log = logging.getLogger(__name__)
RETRY_SECONDS: Final = 5
MOST_WITH_ITEMS: Final = 50
"""Evaluations in one answer that tells every item."""
DEPLOYMENTS, ENGINES = "r1plusdeployments", "r1plusengines"
_MAKE_TOKEN: Final = (
    "`r1plus history` makes one, as does"
    f" `kubectl -n NAMESPACE create token {names.REGISTRY_READER} --audience {AUDIENCE}`"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _RefusedError(Exception):
    """An answer other than what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Reviewer(Protocol):
    """Who says whose a token is and what its bearer may; `reviews.Reviews`."""

    async def user(self, token: str) -> User | None:
        """Who bears it; None where nobody does. Raises UnavailableError."""

    async def may(self, user: User, access: Access) -> bool:
        """Whether they may. Raises UnavailableError."""

    async def namespace_uid(self, name: str) -> str:
        """Which namespace of that name there is now; empty: none. Raises UnavailableError."""


class Instruments:
    """The service's metrics."""

    def __init__(self, storage: Storage) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "r1plus_registry_requests_total",
            "Requests, by path and status.",
            ["path", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "r1plus_registry_request_duration_seconds", "How long they took.", ["path"], registry=self.registry
        )
        self.facts = Counter(
            "r1plus_registry_facts_total", "Facts recorded that were new, by kind.", ["kind"], registry=self.registry
        )
        self.pruned = Counter(
            "r1plus_registry_pruned_total",
            "Rows pruned since they ended long ago, or beyond a namespace's share, by table.",
            ["table"],
            registry=self.registry,
        )
        usable = Gauge(
            "r1plus_registry_database_usable", "1 while the database answers, else 0.", registry=self.registry
        )
        usable.set_function(lambda: not storage.problem)


@dataclass(frozen=True, slots=True)
class Service:
    """The handlers, and what they stand on."""

    storage: Storage
    reviews: Reviewer
    writer: str
    instruments: Instruments
    pruner: Pruner

    def application(self) -> web.Application:
        """With its routes."""
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[self._outer])
        app.add_routes(
            [
                web.post("/v1/facts", self.record),
                web.get("/v1/namespaces/{namespace}/deployments/{name}", self.history),
                web.get("/v1/evaluations", self.evaluations),
                web.get("/v1/engines", self.engines),
                web.get("/healthz", _healthz),
                web.get("/readyz", self.readyz),
                web.get("/metrics", self.metrics),
            ]
        )
        return app

    async def record(self, request: web.Request) -> web.Response:
        """A delivery, recorded whole or not at all."""
        user = await self._user(request)
        if user.name != self.writer:
            raise _RefusedError(403, f"{user.name} may not record: only the operator, {self.writer}, may")
        try:
            # Of a newer operator too: what this program does not know of a report it does not keep.
            facts = checked(loads(Facts, await request.read(), tolerant=True))
            recorded = await self.storage.record(facts)
        except (ContractError, DocumentError) as error:
            raise _RefusedError(400, str(error)) from error
        for kind, count in recorded.items():
            self.instruments.facts.labels(kind).inc(count)
        if recorded:
            self.pruner.notice({d.namespace for d in facts.deployments} | {s.namespace for s in facts.suites})
        return _answer(Receipt(recorded))

    async def history(self, request: web.Request) -> web.Response:
        """All that is recorded of one name."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        user = await self._user(request)
        await self._require(user, Access("get", DEPLOYMENTS, namespace, name))
        ended = await self._sees_what_has_ended(user)
        of = None if ended else await self.reviews.namespace_uid(namespace)
        return _answer(Histories(await self.storage.read(lambda r: r.histories(namespace, name, ended=ended, of=of))))

    async def evaluations(self, request: web.Request) -> web.Response:
        """Gates and their figures, the newest first."""
        namespace, name = request.query.get("namespace") or None, request.query.get("name") or None
        if name and not namespace:
            raise _RefusedError(400, "name: needs namespace beside it")
        items = request.query.get("items", "") in ("1", "true")
        user = await self._user(request)
        verb = "get" if name else "list"
        await self._require(user, Access(verb, DEPLOYMENTS, namespace or "", name or ""))
        ended = await self._sees_what_has_ended(user)
        of = None if ended or namespace is None else await self.reviews.namespace_uid(namespace)
        most = MOST_WITH_ITEMS if items else MOST_LISTED
        found = await self.storage.read(
            lambda r: r.evaluations(namespace, name, ended=ended, items=items, most=most, of=of)
        )
        return _answer(Evaluations(found))

    async def engines(self, request: web.Request) -> web.Response:
        """Every engine that was ever on offer."""
        await self._require(await self._user(request), Access("list", ENGINES))
        return _answer(RecordedEngines(await self.storage.read(lambda r: r.engines())))

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether the database can be used."""
        problem = await self.storage.check()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(
            body=generate_latest(self.instruments.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _user(self, request: web.Request) -> User:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _RefusedError(401, f"a bearer token is needed; {_MAKE_TOKEN}")
        user = await self.reviews.user(token.strip())
        if user is None:
            raise _RefusedError(
                401,
                f"the API server knows nobody by this token at the audience {AUDIENCE}: it has ended, or is not for the"
                f" registry, which takes no user's own; {_MAKE_TOKEN}",
            )
        return user

    async def _require(self, user: User, access: Access) -> None:
        if not await self.reviews.may(user, access):
            raise _RefusedError(403, f"{user.name} may not {access}, so not read its history either")

    async def _sees_what_has_ended(self, user: User) -> bool:
        return await self.reviews.may(user, Access("get", DEPLOYMENTS))

    @property
    def _outer(self) -> Any:
        """Around every request: errors as documents, and figures."""

        @web.middleware
        async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
            started, route = time.perf_counter(), request.match_info.route.resource
            path = route.canonical if route is not None else "other"
            response = await self._guarded(request, handler)
            self.instruments.requests.labels(path, response.status).inc()
            self.instruments.seconds.labels(path).observe(time.perf_counter() - started)
            return response

        return outer

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _require_texts(request)
            return await handler(request)
        except UnavailableError as error:
            again = {"Retry-After": str(RETRY_SECONDS)}
            status = 507 if isinstance(error, FullError) else 503
            return web.Response(text=_text(str(error)), status=status, content_type="application/json", headers=again)
        except _RefusedError as error:
            return web.Response(text=_text(str(error)), status=error.status, content_type="application/json")
        except web.HTTPException as error:
            return web.Response(text=_text(error.reason), status=error.status, content_type="application/json")
        except Exception:
            log.exception("Request failed: %s %s", request.method, request.path)
            text = _text("the registry failed; its log says why")
            return web.Response(text=text, status=500, content_type="application/json")


class BoundedRunner(ConnectionLimits, web.AppRunner):
    """A runner whose connections and unfinished requests are bounded."""


def _require_texts(request: web.Request) -> None:
    """Refuse what no PostgreSQL can look for, whatever the database is."""
    for name, value in (*request.match_info.items(), *request.query.items()):
        if "\0" in value:
            raise _RefusedError(400, f"{name!r:.60}: holds a NUL character, which no name does")


async def _healthz(_: web.Request) -> web.Response:
    """That the process answers; the database's troubles end without a restart."""
    return web.Response(text="ok")


def _answer(value: object) -> web.Response:
    return web.Response(text=dumps(value), content_type="application/json")


def _text(message: str) -> str:
    return dumps({"error": message})
