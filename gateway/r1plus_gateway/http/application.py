"""The aiohttp applications: the API, and the internal one with metrics and probes."""

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Collection
from typing import Any, Final

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from r1plus_contract.gateway import DATA_PATH, DataState
from r1plus_contract.jsonable import to_jsonable
from r1plus_gateway.access.caller import AccessError, Caller
from r1plus_gateway.access.turns import Places
from r1plus_gateway.access.usage import UsageReader, UsageSummary
from r1plus_gateway.http.add_ons import AddOn, GatewayHost
from r1plus_gateway.http.administration import Administration
from r1plus_gateway.http.answer_headers import build_limit_headers
from r1plus_gateway.http.answer_schemas import FEATURES
from r1plus_gateway.http.completions.completion_forms import ChatForm, GenerateForm, TextForm
from r1plus_gateway.http.completions.completions import Completions
from r1plus_gateway.http.completions.forms import Form
from r1plus_gateway.http.completions.operating_points import OperatingPoint, classify_preset
from r1plus_gateway.http.completions.presets import PRESETS, SEPARATOR, build_unknown_model_error
from r1plus_gateway.http.errors import RequestError, convert_access_error, convert_http_error
from r1plus_gateway.http.listening.hosts import build_host_check, check_host
from r1plus_gateway.http.metrics import classify_refusal
from r1plus_gateway.http.operations import Handler, Operation, Parameter, build_document
from r1plus_gateway.http.page import PageFiles
from r1plus_gateway.http.parts import (
    HEADER_END_USER,
    HEADER_REQUEST_ID,
    create_request_id,
)
from r1plus_gateway.http.request_keys import (
    ARRIVED,
    CALLER,
    HAS_ANSWER,
    IS_BILLED,
    IS_READ,
    MODEL_NAME,
    REMAINING,
    REQUEST_ID,
)
from r1plus_gateway.settings import GatewayLimits, ModelSettings

log = logging.getLogger(__name__)

MODEL_ID: Final = Parameter(
    "model", "Id of a model, with its preset if it has one: `NAME:code`.", {"type": "string"}, is_in_path=True
)
SINGLE_HEADERS: Final = ("Authorization", HEADER_END_USER, "Content-Encoding", "Transfer-Encoding")
MOST_USAGE_READS: Final = 4
"""Of one caller at one time: reads of the store have a bound in all, and each request looks up its key by one."""


class Api:
    """The handlers of the API."""

    def __init__(self, host: GatewayHost, usage: UsageReader, add_on: AddOn) -> None:
        """Without a store there is no admin API, and nothing to say about the data."""
        self._host = host
        self._parts = host.parts
        self._store = host.store
        self._usage = usage
        self._usage_reads = Places()
        self._add_on = add_on
        self._completions = Completions(host, add_on)
        self._forms: tuple[Form, ...] = (ChatForm(add_on.sources), *add_on.forms, TextForm(), GenerateForm())
        self.is_draining = False
        self._hosts: frozenset[str] = frozenset()
        self._operations = self._list_operations()
        self._document = orjson.dumps(build_document(self._operations, add_on.components))

    def build(self, limits: GatewayLimits, hosts: Collection[str] = ()) -> web.Application:
        """Return the application. A body larger than `limits.body_bytes` at the start is refused while it is read.

        `hosts`: the only names that it answers to; empty: any.
        """
        self._hosts = frozenset(hosts)
        app = web.Application(client_max_size=limits.body_bytes, middlewares=[self._convert_errors])
        app.on_response_prepare.append(_add_headers)
        app.add_routes([operation.build_route() for operation in self._operations])
        app.add_routes(PageFiles().build_routes())
        return app

    def _list_operations(self) -> list[Operation]:
        operations = [
            *(self._describe_form(form) for form in self._forms),
            Operation("GET", "/v1/models", "List the models that you may call.", self._list_models, "Models"),
            Operation(
                "GET",
                "/v1/models/{model}",
                "Describe one model.",
                self._get_model,
                "Model",
                parameters=(MODEL_ID,),
                errors=(404,),
            ),
            Operation(
                "GET",
                "/v1/usage",
                "Your usage in this calendar month, UTC.",
                self._get_usage,
                "OwnUsage",
            ),
            Operation("GET", "/v1/key", "Describe your key, without the key.", self._get_key, "OwnKey"),
            Operation("GET", "/openapi.json", "This document.", self._get_document, "Document", is_public=True),
            Operation("GET", "/healthz", "Whether the process runs.", self.get_health, "", is_public=True),
            Operation(
                "GET", "/readyz", "Whether requests are taken.", self.get_readiness, "", errors=(503,), is_public=True
            ),
        ]
        operations += self._add_on.operations
        if self._store is not None:
            operations += Administration(
                self._store, self._host.authenticate, self._read_limits, self._parts.models.requests.revoke
            ).list_operations()
        return operations

    async def _get_document(self, _: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    def _describe_form(self, form: Form) -> Operation:
        """Return the endpoint of a form."""

        async def complete(request: web.Request) -> web.StreamResponse:
            return await self._completions.answer(request, form)

        about = form.description
        return Operation(
            "POST",
            about.path,
            about.about,
            complete,
            about.answer,
            about.events,
            body=about.body,
            errors=(404, 502),
        )

    @web.middleware
    async def _convert_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give the request its id, and turn every error into OpenAI's form. The route is matched before."""
        request[REQUEST_ID], request[ARRIVED] = create_request_id(), time.monotonic()
        try:
            _check_headers(request)
            check_host(request, self._hosts)
            # Java's client offers HTTP/2 with its requests in the clear, and takes an answer in HTTP/1.1.
            if request.headers.get("Upgrade", "h2c").lower() != "h2c":
                raise RequestError(400, "invalid_request", "Upgrade is not supported; leave the header out")
            return await handler(request)
        except RequestError as error:
            return self._refuse(request, error)
        except AccessError as error:
            return self._refuse(request, convert_access_error(error))
        except web.HTTPException as error:
            return self._refuse(request, convert_http_error(request, error))
        except ConnectionError:
            raise  # the client has left
        except Exception as error:  # noqa: BLE001 - the client gets an answer, the log where it happened
            # Without the error's message, which may quote a prompt.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("Request %s failed with %s\n%s", request[REQUEST_ID], type(error).__name__, where)
            return self._refuse(request, RequestError(500, "internal_error", "the gateway failed; report this request"))

    def _refuse(self, request: web.Request, error: RequestError) -> web.Response:
        caller = request.get(CALLER)
        if not request.get(IS_BILLED, False):
            key = caller.group_id if caller is not None else ""
            self._parts.metrics.count_request(request.get(MODEL_NAME, ""), key, classify_refusal(error))
            if caller is not None and request.get(IS_READ, False):
                read_bytes = min(request.content.total_bytes, self._read_limits().body_bytes)
                self._parts.refusals.charge(caller, error.status, read_bytes)
        if request.get(HAS_ANSWER, False):
            if request.transport is not None:
                request.transport.abort()  # a second head within the answer would be read as its text
            raise ConnectionResetError("the answer has begun, so it cannot become an error")
        return error.build_response()

    def _read_limits(self) -> GatewayLimits:
        return self._parts.read_settings().limits

    async def _list_models(self, request: web.Request) -> web.Response:
        return _respond({"object": "list", "data": self._describe_models(await self._host.authenticate(request))})

    def _describe_models(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the entries of all models that a caller may call, those of add-ons last."""
        entries = [entry for model in self._parts.models.list_for(caller) for entry in describe_model(model)]
        return [*entries, *self._add_on.describe_models(caller)]

    async def _get_model(self, request: web.Request) -> web.Response:
        model_id = request.match_info["model"]
        for entry in self._describe_models(await self._host.authenticate(request)):
            if entry["id"] == model_id:
                return _respond(entry)
        raise build_unknown_model_error(model_id)

    async def _get_usage(self, request: web.Request) -> web.Response:
        caller = await self._host.authenticate(request)
        with self._usage_reads.take(caller.group_id, MOST_USAGE_READS, _refuse_usage):
            summary = await self._usage.read_usage(caller)
        request[REMAINING] = summary.remaining
        return _respond(describe_usage(summary))

    async def _get_key(self, request: web.Request) -> web.Response:
        caller = await self._host.authenticate(request)
        models = [model.name for model in self._parts.models.list_for(caller)]
        models += [entry["id"] for entry in self._add_on.describe_models(caller)]
        return _respond(describe_caller(caller, models, self._list_features()))

    def _list_features(self) -> list[str]:
        """Return what the tenant has switched on."""
        features = self._add_on.list_features()
        return [feature for feature in FEATURES if feature in features]

    async def get_health(self, _: web.Request) -> web.Response:
        """Answer that the process runs."""
        return web.Response(text="ok\n")

    async def get_readiness(self, _: web.Request) -> web.Response:
        """Answer whether requests are taken, and for which reason not: what the reason means is not for callers.

        A model without pods answers with an error of its own.
        """
        return self._build_readiness(lambda state: state.reason.value)

    def _build_readiness(self, describe: Callable[[DataState], str]) -> web.Response:
        if self.is_draining:
            return web.Response(status=503, text="draining\n")
        if self._store is not None and not self._store.state.can_serve:
            return web.Response(status=503, text=f"{describe(self._store.state)}\n")
        return web.Response(text="ok\n")

    def _update_gauges(self) -> None:
        metrics, queue = self._parts.metrics, self._parts.models.queue
        for model in self._parts.read_settings().models:
            metrics.set_load(model.name, queue.count_running(model.name), queue.count_waiting(model.name))
        if self._store is not None:
            metrics.set_data_state(self._store.state.reason)

    def build_internal(self, address: str) -> web.Application:
        """Return the application for Prometheus and the kubelet, which listens at this address."""

        async def get_metrics(_: web.Request) -> web.Response:
            self._update_gauges()
            # In a thread: it takes as long as many events of streams.
            text = await asyncio.to_thread(self._parts.metrics.render)
            return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

        async def get_data_state(_: web.Request) -> web.Response:
            state = to_jsonable(self._store.state) if self._store is not None else {}
            return _respond(state)

        async def get_readiness(_: web.Request) -> web.Response:
            return self._build_readiness(lambda state: f"{state.reason.value}: {state.message}")

        app = web.Application(client_max_size=1024, middlewares=[build_host_check(address)])
        app.add_routes(
            [
                web.get("/metrics", get_metrics),
                web.get(DATA_PATH, get_data_state),
                web.get("/healthz", self.get_health),
                web.get("/readyz", get_readiness),
            ]
        )
        return app


def _refuse_usage() -> AccessError:
    message = f"{MOST_USAGE_READS} requests of yours read usage now; wait for one to end"
    return AccessError(429, "rate_limit_exceeded", message, retry_after=1.0)


def _check_headers(request: web.Request) -> None:
    """Refuse a header that is there twice, or says nothing, where it decides who calls, or how the body is read.

    Raises:
        RequestError: 400.
    """
    for name in SINGLE_HEADERS:
        if len(request.headers.getall(name, ())) > 1:
            raise RequestError(400, "invalid_request", f"the header {name} is there twice; send it once")
    if not request.headers.get(HEADER_END_USER, "x").strip():
        # Else the key itself would count as the person, where a program has lost a name.
        raise RequestError(
            400, "invalid_request", f"the header {HEADER_END_USER} is empty; leave it out, or send a name"
        )


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add what every answer has."""
    response.headers.pop("Server", None)
    response.headers["X-Content-Type-Options"] = "nosniff"
    if "Upgrade" in request.headers:
        response.force_close()  # what follows on this connection is not read as a request
    if (request_id := request.get(REQUEST_ID)) is None:
        return
    request[HAS_ANSWER] = True
    response.headers[HEADER_REQUEST_ID] = request_id
    if (caller := request.get(CALLER)) is not None:
        response.headers.update(build_limit_headers(caller, request.get(REMAINING)))


def _respond(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def describe_model(model: ModelSettings) -> list[dict[str, Any]]:
    """Return the entries of a model in `GET /v1/models`: itself, and each preset."""
    common = {"object": "model", "created": model.created_at, "owned_by": "r1plus"}
    about: dict[str, Any] = {
        "context_tokens": model.context_tokens,
        "default_max_new_tokens": model.max_new_tokens,
        "default_temperature": 0,
        "capabilities": [capability.value for capability in model.capabilities],
    }
    entries = [{"id": model.name, **common, "r1plus": {**about, "preset": None, "accuracy": OperatingPoint.GATED}}]
    for name, preset in PRESETS.items():
        accuracy = classify_preset(name, model)
        own = {**about, "default_temperature": preset.temperature or 0, "preset": name, "accuracy": accuracy}
        entries.append({"id": f"{model.name}{SEPARATOR}{name}", **common, "r1plus": own})
    return entries


def describe_usage(summary: UsageSummary) -> dict[str, Any]:
    """Return the answer of `GET /v1/usage`."""
    rows = [
        {
            "model": row.model,
            "requests": row.requests,
            "prompt_tokens": row.prompt_tokens,
            "completion_tokens": row.completion_tokens,
        }
        for row in summary.models
    ]
    left = summary.remaining
    return {
        "object": "usage",
        "period": "month",
        "data": rows,
        "remaining": {"requests": left.requests, "tokens": left.tokens, "budget_tokens": left.budget_tokens},
    }


def describe_caller(caller: Caller, models: list[str], features: list[str]) -> dict[str, Any]:
    """Return the answer of `GET /v1/key`: no secret is known here."""
    limits = caller.limits
    return {
        "object": "key",
        "id": caller.id,
        "kind": caller.kind.value,
        "models": models,
        "features": features,
        "scopes": sorted(caller.scopes),
        "end_user": caller.end_user or None,
        "limits": {
            "requests_per_minute": limits.requests_per_minute,
            "tokens_per_minute": limits.tokens_per_minute,
            "concurrent_requests": limits.concurrent_requests,
            "budget_tokens": limits.budget_tokens,
        },
    }
