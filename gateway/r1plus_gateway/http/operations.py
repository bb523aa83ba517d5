"""What an endpoint takes and answers, and its handler: routes and OpenAPI document are made of one list."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from r1plus_gateway.http.answer_schemas import COMPONENTS, Schema, refer
from r1plus_gateway.http.body.field_tables import Table
from r1plus_gateway.http.body.json_body import JSON_TYPE, MERGE_PATCH_TYPE
from r1plus_gateway.http.errors import InvalidFieldError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
JSON: Final = JSON_TYPE
FILE: Final = "application/octet-stream"
FORM: Final = "multipart/form-data"
ANY: Final = (400, 403, 421, 500)
"""What every request may get: 400 for an Upgrade; 421 and 403 for a Host or Origin that the settings do not name."""
CALLER: Final = (401, 403, 429, 503)
"""What every request with a credential may get; 429 after too many refusals, 503 while keys cannot be read."""
BODY: Final = (408, 413, 415)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a path or of the query."""

    name: str
    about: str
    schema: Schema
    is_in_path: bool = False
    is_repeatable: bool = False
    """Whether a query may have it more than once; the last one counts."""
    pattern: str = ""
    """Regular expression that a part of a path matches as a whole, or there is no such endpoint; empty: any."""

    def build(self) -> Schema:
        """Return its description."""
        return {
            "name": self.name,
            "in": "path" if self.is_in_path else "query",
            "required": self.is_in_path,
            "description": self.about,
            "schema": {**self.schema, **({"pattern": f"^{self.pattern}$"} if self.pattern else {})},
        }


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint."""

    method: str
    path: str
    about: str
    handler: Handler
    answer: str
    """Name of the answer's schema; empty for plain text, and for a file."""
    events: str = ""
    """Name of the schema of a stream's events, where it streams."""
    status: int = 200
    body: Table | None = None
    is_body_required: bool = True
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    """Besides those that follow from the rest."""
    is_public: bool = False
    is_file: bool = False
    """Whether the answer is a file, and no JSON."""
    takes_file: bool = False
    """Whether the body is one."""
    form: Schema = field(default_factory=dict)
    """Schema of a body of type multipart/form-data, where it is one."""

    @property
    def statuses(self) -> Sequence[int]:
        """All error statuses."""
        codes = {*ANY, *self.errors}
        if not self.is_public:
            codes.update(CALLER)
        if self.body is not None or self.takes_file or self.form:
            codes.update(BODY)
        return sorted(codes)

    def build_route(self) -> web.RouteDef:
        """Return the route."""
        options = {"allow_head": self.is_public} if self.method == "GET" else {}
        path = self.path
        for parameter in self.parameters:
            if parameter.pattern:
                path = path.replace(f"{{{parameter.name}}}", f"{{{parameter.name}:{parameter.pattern}}}")
        return web.RouteDef(self.method, path, self.handler, options)

    def build(self) -> Schema:
        """Return its description."""
        described: Schema = {
            "summary": self.about,
            "operationId": self._name(),
            "parameters": [parameter.build() for parameter in self.parameters],
            "responses": {
                str(self.status): self._build_answer(),
                **{str(status): self._build_error(status) for status in self.statuses},
            },
        }
        if self.body is not None:
            types = (JSON, MERGE_PATCH_TYPE) if self.method == "PATCH" else (JSON,)
            content = {name: {"schema": self.body.build_schema()} for name in types}
            described["requestBody"] = {"required": self.is_body_required, "content": content}
        if self.takes_file:
            described["requestBody"] = {"required": True, "content": _FILE_CONTENT}
        if self.form:
            described["requestBody"] = {"required": True, "content": {FORM: {"schema": self.form}}}
        if self.is_public:
            described["security"] = []
        return described

    def _name(self) -> str:
        words = [word.strip("{}") for word in self.path.split("/") if word]
        return "_".join([self.method.lower(), *words]).replace(".", "_")

    def _build_error(self, status: int) -> Schema:
        plain: Schema = {} if self.answer or self.is_file else {"text/plain": {}}
        return {"description": HTTPStatus(status).phrase, "content": {JSON: {"schema": refer("Error")}, **plain}}

    def _build_answer(self) -> Schema:
        content: Schema = {JSON: {"schema": refer(self.answer)}} if self.answer else {"text/plain": {}}
        if self.is_file:
            content = dict(_FILE_CONTENT)
        if self.events:
            content["text/event-stream"] = {"schema": _build_event(self.events)}
        headers = {} if self.is_public else _HEADERS
        return {"description": HTTPStatus(self.status).phrase, "content": content, "headers": headers}


_FILE_CONTENT: Final[Schema] = {FILE: {"schema": {"type": "string", "format": "binary"}}}
_HEADERS: Final[Mapping[str, Any]] = {
    "x-request-id": {"description": "Name it when you report a problem.", "schema": {"type": "string"}},
}


def _build_event(name: str) -> Schema:
    """Return the schema of one event of a stream, which is how OpenAPI 3.1 describes a stream."""
    parts = {"contentMediaType": JSON, "contentSchema": {"anyOf": [refer(name), refer("Error")]}}
    data = {"anyOf": [{"const": "[DONE]"}, {"type": "string", "not": {"const": "[DONE]"}, **parts}]}
    about = f"With `stream: true`: one event. Its data is a {name}, an Error, or `[DONE]`, which ends a whole answer."
    return {"type": "object", "description": about, "properties": {"data": data}, "required": ["data"]}


def read_query(request: web.Request, parameters: Iterable[Parameter]) -> dict[str, str]:
    """Return the parameters of the query.

    Raises:
        InvalidFieldError: one is not known, is empty or not printable, or is there twice.
    """
    known = {parameter.name: parameter for parameter in parameters if not parameter.is_in_path}
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            raise InvalidFieldError(name[:80], f"is not a known parameter; known are {', '.join(sorted(known))}")
        if not value or not value.isprintable():
            raise InvalidFieldError(name, "is empty, or has control characters; leave it out")
        if name in values and not known[name].is_repeatable:
            raise InvalidFieldError(name, "is there twice; send it once")
        values[name] = value
    return values


def build_document(operations: Iterable[Operation], components: Mapping[str, Schema]) -> Schema:
    """Return the OpenAPI document; `components`: schemas of add-ons.

    It names no model, no key and no limit of this tenant: anyone may read it.
    """
    paths: dict[str, Schema] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = operation.build()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "r1plus gateway",
            "version": "v1",
            "description": "docs/reference/gateway.md describes it in words.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {**COMPONENTS, **components},
        },
    }
