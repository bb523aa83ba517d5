"""The API server's HTTP: a request's bytes in, status and bytes out. Watches are served by `watches`."""

import base64
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from r1plus_operator.api.rbac import TOKEN_ISSUER_URLS
from r1plus_operator.runtime.errors import ApiError, NotFoundError
from r1plus_operator.runtime.resources import Resource
from r1plus_operator.runtime.transport import HttpAnswer, HttpRequest
from support.simulation import refusals, selectors
from support.simulation.server import SimulatedApiServer
from support.simulation.store import Record
from support.simulation.traits import Traits, build_traits
from support.simulation.watches import WatchRequest

Object = dict[str, Any]
_DISCOVERY, _JWKS = TOKEN_ISSUER_URLS
_DOCUMENTS: dict[str, Object] = {
    _DISCOVERY: {"issuer": "https://kubernetes.default.svc.cluster.local", "jwks_uri": _JWKS},
    _JWKS: {"keys": [{"kty": "EC", "kid": "simulated", "crv": "P-256", "x": "AA", "y": "AA", "alg": "ES256"}]},
}


@dataclass(frozen=True, slots=True)
class Route:
    """What a path addresses; `name` is empty for a collection."""

    resource: Resource
    namespace: str | None
    name: str
    subresource: str


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request whose path and query have been read. `route` is None for a document that is no object."""

    method: str
    path: str
    route: Route | None
    query: dict[str, str]

    @property
    def is_watch(self) -> bool:
        """Whether it asks for a stream."""
        return self.query.get("watch") == "true"

    @property
    def plural(self) -> str:
        """The kind that it is about; empty for a document that is no object."""
        return self.route.resource.plural if self.route else ""

    @property
    def name(self) -> str:
        """The object that it is about; empty for a collection."""
        return self.route.name if self.route else ""

    @property
    def verb(self) -> str:
        """As RBAC names it."""
        if self.method == "GET":
            if self.is_watch:
                return "watch"
            return "get" if self.route is None or self.route.name else "list"
        return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[self.method]


def parse(request: HttpRequest) -> ParsedRequest:
    """Read method, path and query."""
    path, _, query = request.target.partition("?")
    return ParsedRequest(request.method, path, parse_path(path), _parse_query(query))


@lru_cache(maxsize=1024)
def _parse_query(query: str) -> dict[str, str]:
    return dict(parse_qsl(query))


@lru_cache(maxsize=4096)
def parse_path(path: str) -> Route | None:
    """Return what a path addresses; None if it is of no kind that the table has."""
    steps = [unquote(step) for step in path.split("/")[1:]]
    if steps[0] == "api" and len(steps) > 2:
        group, version, rest = "", steps[1], steps[2:]
    elif steps[0] == "apis" and len(steps) > 3:
        group, version, rest = steps[1], steps[2], steps[3:]
    else:
        return None
    if rest[0] == "namespaces" and len(rest) > 2:
        resource = _find_resource(group, version, rest[2])
        if resource is not None:
            return _build_route(resource, rest[1], rest[3:])
    resource = _find_resource(group, version, rest[0])
    return _build_route(resource, None, rest[1:]) if resource is not None else None


def _build_route(resource: Resource, namespace: str | None, rest: list[str]) -> Route:
    return Route(resource, namespace, rest[0] if rest else "", rest[1] if len(rest) > 1 else "")


def _find_resource(group: str, version: str, plural: str) -> Resource | None:
    return _by_path().get((group, version, plural))


@lru_cache(maxsize=1)
def _by_path() -> dict[tuple[str, str, str], Resource]:
    return {(one.group, one.version, one.plural): one for one in build_traits()}


class HttpApi:
    """Answers of one server."""

    def __init__(self, server: SimulatedApiServer) -> None:
        self._server = server
        self._pages: dict[str, tuple[int, list[Record]]] = {}

    def answer(self, request: HttpRequest, parsed: ParsedRequest, user: str, agent: str) -> HttpAnswer:
        """Carry out a request, whatever becomes of it."""
        try:
            return HttpAnswer(*self._carry_out(request, parsed, user, agent))
        except ApiError as error:
            return build_refusal(error)

    def build_watch(self, request: HttpRequest, parsed: ParsedRequest) -> WatchRequest:
        """Return what a request asks to be sent; raise ApiError if it is refused."""
        route = self._require_route(parsed)
        query = parsed.query
        return WatchRequest(
            self._server.find_traits(route.resource),
            route.namespace,
            int(query.get("resourceVersion") or self._server.version),
            float(query.get("timeoutSeconds", 1800)),
            query.get("labelSelector", ""),
            selectors.parse_fields(query.get("fieldSelector", "")).get("metadata.name", ""),
            query.get("allowWatchBookmarks") == "true",
            "PartialObjectMetadata" in request.headers.get("Accept", ""),
        )

    @staticmethod
    def _require_route(parsed: ParsedRequest) -> Route:
        if parsed.route is None:
            raise _page_not_found()
        return parsed.route

    def _carry_out(
        self, request: HttpRequest, parsed: ParsedRequest, user: str, agent: str
    ) -> tuple[int, dict[str, str], bytes]:
        if parsed.path in _DOCUMENTS:
            return 200, {}, orjson.dumps(_DOCUMENTS[parsed.path])
        route = self._require_route(parsed)
        traits = self._server.find_traits(route.resource)
        if request.method == "GET":
            return 200, {}, self._read(route, request) if route.name else self._list(traits, route, request, parsed)
        body = orjson.loads(request.body) if request.body else {}
        manager = parsed.query.get("fieldManager") or agent.split("/")[0]
        return self._write(request, route, body, manager, user, is_forced=parsed.query.get("force") == "true")

    def _write(
        self, request: HttpRequest, route: Route, body: Any, manager: str, user: str, *, is_forced: bool
    ) -> tuple[int, dict[str, str], bytes]:
        server, resource, sub = self._server, route.resource, route.subresource
        if request.method == "POST":
            if sub:
                body.setdefault("metadata", {}).update(name=route.name, namespace=route.namespace)
            made = server.create(resource, _address(body, route), user=user, field_manager=manager, subresource=sub)
            return 201, {}, self._encode(made)
        if request.method == "PUT":
            sent = _address(body, route)
            return (
                200,
                {},
                self._encode(server.replace(resource, sent, user=user, field_manager=manager, subresource=sub)),
            )
        if request.method == "DELETE":
            gone = server.delete(
                resource,
                route.namespace,
                route.name,
                user=user,
                uid=(body.get("preconditions") or {}).get("uid"),
                version=(body.get("preconditions") or {}).get("resourceVersion"),
                grace_seconds=body.get("gracePeriodSeconds"),
                propagation=body.get("propagationPolicy", "Background"),
            )
            return 200, {}, self._encode(gone)
        content_type = request.headers.get("Content-Type", "")
        if content_type == "application/apply-patch+yaml":
            known = server.read(resource, route.namespace, route.name)
            config = _address(body, route)
            done = server.apply(resource, config, field_manager=manager, force=is_forced, user=user, subresource=sub)
            return 200 if known else 201, {}, self._encode(done)
        done = server.patch(
            resource, route.namespace, route.name, body, content_type, user=user, field_manager=manager, subresource=sub
        )
        return 200, {}, self._encode(done)

    def _encode(self, obj: Object) -> bytes:
        """Return an object's JSON, as the store has it if it is stored."""
        meta = obj.get("metadata") or {}
        resource = _by_kind().get((obj.get("apiVersion"), obj.get("kind")))
        record = (
            self._server.store.get(resource, (meta.get("namespace") or "", meta.get("name", ""))) if resource else None
        )
        return record.text if record is not None and record.obj is obj else orjson.dumps(obj)

    def _read(self, route: Route, request: HttpRequest) -> bytes:
        record = self._server.store.get(route.resource, (route.namespace or "", route.name))
        if record is None:
            raise refusals.not_found(route.resource, route.name)
        return record.metadata_text if "PartialObjectMetadata" in request.headers.get("Accept", "") else record.text

    def _list(self, traits: Traits, route: Route, request: HttpRequest, parsed: ParsedRequest) -> bytes:
        query, store = parsed.query, self._server.store
        limit = int(query.get("limit", 0))
        is_partial = "PartialObjectMetadata" in request.headers.get("Accept", "")
        if token := query.get("continue"):
            version, records = self._resume(token)
        else:
            version, records = store.version, self._select(route, query)
        meta: Object = {"resourceVersion": str(version)}
        rest = records[limit:] if limit else []
        if rest:
            meta["continue"] = self._keep_page(version, rest)
            if "labelSelector" not in query and "fieldSelector" not in query:
                meta["remainingItemCount"] = len(rest)
            records = records[:limit]
        if is_partial:
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
            texts = [record.metadata_text for record in records]
        else:
            head = {"kind": traits.list_kind, "apiVersion": traits.resource.api_version, "metadata": meta}
            texts = [record.item_text if traits.schema is None else record.text for record in records]
        return b'%b,"items":[%b]}' % (orjson.dumps(head)[:-1], b",".join(texts))

    def _select(self, route: Route, query: dict[str, str]) -> list[Record]:
        fields = selectors.parse_fields(query.get("fieldSelector", ""))
        matches = selectors.parse_labels(query.get("labelSelector", ""))
        namespace = route.namespace or fields.get("metadata.namespace")
        if name := fields.get("metadata.name"):
            if namespace or not route.resource.is_namespaced:
                record = self._server.store.get(route.resource, (namespace or "", name))
                records = [record] if record else []
            else:
                records = [
                    one
                    for one in self._server.store.list_records(route.resource)
                    if one.obj["metadata"]["name"] == name
                ]
        else:
            records = self._server.store.list_records(route.resource, namespace)
        if matches is None:
            return records
        return [record for record in records if matches(record.obj["metadata"].get("labels") or {})]

    def _keep_page(self, version: int, rest: list[Record]) -> str:
        """Keep the rest of a list until its history is compacted; return the token that resumes it."""
        first = rest[0].obj["metadata"]
        start = f"{first.get('namespace', '')}/{first['name']}"
        text = orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start, "n": len(self._pages)})
        token = base64.urlsafe_b64encode(text).decode().rstrip("=")
        compacted = self._server.store.compacted
        self._pages = {one: page for one, page in self._pages.items() if page[0] >= compacted}
        self._pages[token] = version, rest
        return token

    def _resume(self, token: str) -> tuple[int, list[Record]]:
        page = self._pages.get(token)
        if page is None or page[0] < self._server.store.compacted:
            raise refusals.expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list"
                " without the continue parameter."
            )
        return page


def build_refusal(error: ApiError) -> HttpAnswer:
    """Return the answer that is this error."""
    if error.reason == "Unknown" and error.status == 404:
        return HttpAnswer(404, {}, b"404 page not found\n")
    headers = {} if error.retry_after is None else {"Retry-After": str(int(error.retry_after))}
    return HttpAnswer(error.status, headers, refusals.build_status(error))


def _page_not_found() -> ApiError:
    return NotFoundError(404, "Unknown", "404 page not found")


def _address(body: Object, route: Route) -> Object:
    """Return an object with the address of its URL."""
    meta = body.setdefault("metadata", {})
    if route.namespace:
        meta.setdefault("namespace", route.namespace)
    if route.name:
        meta.setdefault("name", route.name)
    if route.namespace and meta["namespace"] != route.namespace:
        raise refusals.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    return body


@lru_cache(maxsize=1)
def _by_kind() -> dict[tuple[Any, Any], Resource]:
    return {(one.api_version, one.kind): one for one in build_traits()}
