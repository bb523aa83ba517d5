"""The HTTP service: it takes facts from the operator and returns histories to users who may read the CR.

    POST /v1/facts                                 only the operator
    GET  /v1/namespaces/NS/deployments/NAME        users who may get that R1PlusDeployment
    GET  /v1/evaluations?namespace=&name=&items=1  users who may get it, or list those of the namespace, or of all
    GET  /v1/engines                               users who may list R1PlusEngines
    GET  /healthz /readyz /metrics                 any client that the network policies admit

Ended deployments, and those of an earlier namespace of that name, need the right to get R1PlusDeployments in every
namespace: a namespace of the same name may belong to another tenant now. Errors are `{"error": ...}`: 400 invalid
request, 401 and 403 user, 503 try again, 507 the volume is full.
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
from r1plus_contract.process.connections import BoundedConnection, ConnectionLimits
from r1plus_registry.checks import check_facts
from r1plus_registry.errors import DocumentError, RegistryFullError, RegistryUnavailableError
from r1plus_registry.retention import Pruner
from r1plus_registry.reviews import AccessRequest, User
from r1plus_registry.storage import Storage

log = logging.getLogger(__name__)
RETRY_SECONDS: Final = 5
MOST_WITH_ITEMS: Final = 50
"""Limit of evaluations in a response with items."""
DEPLOYMENTS, ENGINES = "r1plusdeployments", "r1plusengines"
_MAKE_TOKEN: Final = (
    "`r1plus history` makes one, as does"
    f" `kubectl -n NAMESPACE create token {names.REGISTRY_READER} --audience {AUDIENCE}`"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _RejectionError(Exception):
    """An error response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Reviewer(Protocol):
    """Authentication and authorization; see `reviews.Reviews`."""

    async def authenticate(self, token: str, peer: str) -> User | None:
        """Return the user of a token, or None; `peer`: who sent it. Raise UnavailableError."""

    async def can_access(self, user: User, access: AccessRequest) -> bool:
        """Return whether the user has this access. Raise UnavailableError."""

    async def get_namespace_uid(self, name: str, user: User) -> str:
        """Return the uid of the namespace that has this name now; empty: none. Raise UnavailableError."""


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
    """The handlers and their dependencies."""

    storage: Storage
    reviews: Reviewer
    writer: str
    instruments: Instruments
    pruner: Pruner

    def build_application(self) -> web.Application:
        """Build the application with its routes."""
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[self._middleware])
        app.add_routes(
            [
                web.post("/v1/facts", self.post_facts),
                web.get("/v1/namespaces/{namespace}/deployments/{name}", self.get_history),
                web.get("/v1/evaluations", self.get_evaluations),
                web.get("/v1/engines", self.get_engines),
                web.get("/healthz", _get_healthz),
                web.get("/readyz", self.get_readyz),
                web.get("/metrics", self.get_metrics),
            ]
        )
        return app

    async def post_facts(self, request: web.Request) -> web.Response:
        """Record a delivery, completely or not at all."""
        user = await self._authenticate(request)
        if user.name != self.writer:
            raise _RejectionError(403, f"{user.name} may not record facts; only the operator may ({self.writer})")
        try:
            # Tolerant for a newer operator: unknown fields are dropped.
            facts = check_facts(loads(Facts, await request.read(), tolerant=True))
            new_counts = await self.storage.record(facts)
        except (ContractError, DocumentError) as error:
            raise _RejectionError(400, str(error)) from error
        for kind, count in new_counts.items():
            self.instruments.facts.labels(kind).inc(count)
        if new_counts:
            self.pruner.mark_dirty({d.namespace for d in facts.deployments} | {s.namespace for s in facts.suites})
        return _build_json_response(Receipt(new_counts))

    async def get_history(self, request: web.Request) -> web.Response:
        """Return everything recorded of one name."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        user = await self._authenticate(request)
        await self._authorize(user, AccessRequest("get", DEPLOYMENTS, namespace, name))
        include_ended = await self._can_see_ended(user)
        namespace_uid = None if include_ended else await self.reviews.get_namespace_uid(namespace, user)
        return _build_json_response(
            Histories(
                await self.storage.read(
                    lambda r: r.read_histories(
                        namespace, name, include_ended=include_ended, namespace_uid=namespace_uid
                    ),
                    user.name,
                )
            )
        )

    async def get_evaluations(self, request: web.Request) -> web.Response:
        """Return gates and their figures, newest first."""
        namespace, name = request.query.get("namespace") or None, request.query.get("name") or None
        if name and not namespace:
            raise _RejectionError(400, "name: add the parameter namespace")
        items = request.query.get("items", "") in ("1", "true")
        user = await self._authenticate(request)
        verb = "get" if name else "list"
        await self._authorize(user, AccessRequest(verb, DEPLOYMENTS, namespace or "", name or ""))
        include_ended = await self._can_see_ended(user)
        namespace_uid = (
            None if include_ended or namespace is None else await self.reviews.get_namespace_uid(namespace, user)
        )
        limit = MOST_WITH_ITEMS if items else MOST_LISTED
        evaluations = await self.storage.read(
            lambda r: r.read_evaluations(
                namespace, name, include_ended=include_ended, items=items, limit=limit, namespace_uid=namespace_uid
            ),
            user.name,
        )
        return _build_json_response(Evaluations(evaluations))

    async def get_engines(self, request: web.Request) -> web.Response:
        """Return every engine that was ever in the catalog."""
        user = await self._authenticate(request)
        await self._authorize(user, AccessRequest("list", ENGINES))
        return _build_json_response(RecordedEngines(await self.storage.read(lambda r: r.read_engines(), user.name)))

    async def get_readyz(self, _: web.Request) -> web.Response:
        """Return whether the database can be used."""
        problem = await self.storage.find_problem()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def get_metrics(self, _: web.Request) -> web.Response:
        """Return the metrics for Prometheus."""
        return web.Response(
            body=generate_latest(self.instruments.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _authenticate(self, request: web.Request) -> User:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _RejectionError(401, f"a bearer token is needed; {_MAKE_TOKEN}")
        user = await self.reviews.authenticate(token.strip(), request.remote or "")
        if user is None:
            raise _RejectionError(
                401,
                f"the API server does not accept this token for the audience {AUDIENCE}: it has expired, or"
                " was not made"
                f" for the registry; {_MAKE_TOKEN}",
            )
        return user

    async def _authorize(self, user: User, access: AccessRequest) -> None:
        if not await self.reviews.can_access(user, access):
            raise _RejectionError(
                403, f"{user.name} may not {access}, so they may not read its history; ask for that right"
            )

    async def _can_see_ended(self, user: User) -> bool:
        return await self.reviews.can_access(user, AccessRequest("get", DEPLOYMENTS))

    @property
    def _middleware(self) -> Any:
        """Middleware for every request: errors as JSON, and metrics."""

        @web.middleware
        async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
            start, route = time.perf_counter(), request.match_info.route.resource
            path = route.canonical if route is not None else "other"
            response = await self._handle(request, handler)
            self.instruments.requests.labels(path, response.status).inc()
            self.instruments.seconds.labels(path).observe(time.perf_counter() - start)
            return response

        return outer

    async def _handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _reject_nul(request)
            return await handler(request)
        except RegistryUnavailableError as error:
            headers = {"Retry-After": str(RETRY_SECONDS)}
            status = 507 if isinstance(error, RegistryFullError) else 503
            return web.Response(
                text=_format_error(str(error)), status=status, content_type="application/json", headers=headers
            )
        except _RejectionError as error:
            return web.Response(text=_format_error(str(error)), status=error.status, content_type="application/json")
        except web.HTTPException as error:
            return web.Response(text=_format_error(error.reason), status=error.status, content_type="application/json")
        except Exception:
            log.exception("Request failed: %s %s", request.method, request.path)
            text = _format_error("internal error of the registry; see its log")
            return web.Response(text=text, status=500, content_type="application/json")


class _Connection(BoundedConnection, web.RequestHandler):
    """One client's connection."""


class RegistryRunner(ConnectionLimits, web.AppRunner):
    """A runner with limits on connections and unfinished requests."""

    protocol = _Connection


def _reject_nul(request: web.Request) -> None:
    """Reject NUL characters, which PostgreSQL cannot search for, with any database."""
    for name, value in (*request.match_info.items(), *request.query.items()):
        if "\0" in value:
            raise _RejectionError(400, f"{name!r:.60}: has a NUL character, which is not valid in a name")


async def _get_healthz(_: web.Request) -> web.Response:
    """Return that the process responds; database problems end without a restart."""
    return web.Response(text="ok")


def _build_json_response(value: object) -> web.Response:
    return web.Response(text=dumps(value), content_type="application/json")


def _format_error(message: str) -> str:
    return dumps({"error": message})
