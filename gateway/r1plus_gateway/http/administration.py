"""The admin API: keys, usage, and verification of the audit log. Only for the tenant's admin ServiceAccount.

A secret is in exactly one answer: that of the request which made it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from typing import Any, Final

import orjson
from aiohttp import web

from r1plus_gateway.access.api_keys import KeyRecord
from r1plus_gateway.access.caller import AccessError, Caller, CallerKind, Limits
from r1plus_gateway.http.errors import InvalidFieldError, RequestError
from r1plus_gateway.http.fields import Fields
from r1plus_gateway.http.json_body import read_object
from r1plus_gateway.store import admin
from r1plus_gateway.store.clock import format_day
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.key_records import LIMITS, MOST_LIMIT, MOST_MODELS, KeySpec
from r1plus_gateway.store.ledger import refuse_unavailable
from r1plus_gateway.store.tenant import TenantStore

BODY_SECONDS: Final = 10.0
LONGEST_LIFE_SECONDS: Final = 100 * 365 * 86400
DEFAULT_DAYS: Final = 31
"""Of usage, where the request names no first day."""
ONLY_ADMINS: Final = (
    "only tokens of ServiceAccount r1plus-gateway-admin of the tenant's namespace reach the admin API; use `r1plus key`"
    " or `r1plus usage`, which make one"
)

Authenticate = Callable[[web.Request], Awaitable[Caller]]
AdminHandler = Callable[[web.Request, Caller], Awaitable[web.Response]]


class Administration:
    """The handlers of the admin API."""

    def __init__(self, store: TenantStore, authenticate: Authenticate) -> None:
        self._store = store
        self._authenticate = authenticate

    def build_routes(self) -> Sequence[web.RouteDef]:
        """Return the routes. Each handler runs for admins only."""
        return [
            web.post("/v1/admin/keys", self._guard(self._create_key)),
            web.get("/v1/admin/keys", self._guard(self._list_keys), allow_head=False),
            web.post("/v1/admin/keys/{id}/rotate", self._guard(self._rotate_key)),
            web.delete("/v1/admin/keys/{id}", self._guard(self._revoke_key)),
            web.get("/v1/admin/usage", self._guard(self._report_usage), allow_head=False),
            web.get("/v1/admin/audit", self._guard(self._verify_audit), allow_head=False),
        ]

    def _guard(self, handler: AdminHandler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            caller = await self._authenticate(request)
            if caller.kind is not CallerKind.ADMIN:
                raise AccessError(403, "admin_only", ONLY_ADMINS)
            try:
                return await handler(request, caller)
            except StoreError as error:
                raise refuse_unavailable(error) from error
            except LookupError as error:
                raise RequestError(404, "key_not_found", f"{error}; GET /v1/admin/keys lists them") from error
            except ValueError as error:
                raise RequestError(400, "invalid_value", str(error)) from error

        return handle

    async def _create_key(self, request: web.Request, caller: Caller) -> web.Response:
        fields = Fields(await read_object(request, BODY_SECONDS))
        spec = _read_spec(fields, self._store.clock.read())
        return _respond(_describe_issued(await admin.create_key(self._store, caller, spec)), 201)

    async def _list_keys(self, _: web.Request, __: Caller) -> web.Response:
        records = await admin.list_keys(self._store)
        return _respond({"object": "list", "data": [describe_key(record) for record in records]})

    async def _rotate_key(self, request: web.Request, caller: Caller) -> web.Response:
        grace: float | None = None
        if request.can_read_body:
            fields = Fields(await read_object(request, BODY_SECONDS))
            grace = fields.read_number("grace_seconds", 0, admin.LONGEST_GRACE_SECONDS)
            fields.refuse_rest()
        seconds = admin.GRACE_SECONDS if grace is None else grace
        return _respond(
            _describe_issued(await admin.rotate_key(self._store, caller, request.match_info["id"], seconds))
        )

    async def _revoke_key(self, request: web.Request, caller: Caller) -> web.Response:
        return _respond(describe_key(await admin.revoke_key(self._store, caller, request.match_info["id"])))

    async def _report_usage(self, request: web.Request, _: Caller) -> web.Response:
        today = date.fromisoformat(format_day(self._store.clock.read()))
        report = await admin.report_usage(self._store, _read_usage_query(request, today))
        budgets = [{**asdict(row), "left_tokens": row.left_tokens} for row in report.budgets]
        rows = [asdict(row) for row in report.rows]
        return _respond({"object": "usage", "data": rows, "budgets": budgets, "is_cut": report.is_cut})

    async def _verify_audit(self, _: web.Request, __: Caller) -> web.Response:
        report = await admin.verify_audit(self._store)
        head = {"seq": report.head.seq, "mac": report.head.mac.hex()}
        return _respond({"object": "audit", "records": report.records, "head": head, "problem": report.problem or None})


def describe_key(record: KeyRecord) -> dict[str, Any]:
    """Return a key as the admin API shows it: no secret, and nothing that is made from one. Times: epoch seconds."""
    return {
        "object": "api_key",
        "id": record.id,
        "name": record.name,
        "models": None if record.models is None else sorted(record.models),
        "scopes": sorted(record.scopes),
        "limits": asdict(record.limits),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "previous_expires_at": record.previous_expires_at,
    }


def _describe_issued(issued: admin.IssuedKey) -> dict[str, Any]:
    return {**describe_key(issued.record), "key": issued.key.encode()}


def _read_spec(fields: Fields, now: float) -> KeySpec:
    """Read what is asked for. `models` absent is all of the tenant's; `expires_in_seconds` absent is never."""
    limits = fields.read_object("limits")
    values = {name: limits.read_integer(name, 0, MOST_LIMIT) for name in LIMITS} if limits else {}
    if limits:
        limits.refuse_rest()
    models = _read_names(fields, "models") if fields.has("models") else None
    spec = KeySpec(fields.read_string("name"), models, _read_names(fields, "scopes"), Limits(**values))
    seconds = fields.read_number("expires_in_seconds", 0, LONGEST_LIFE_SECONDS, is_low_open=True)
    fields.refuse_rest()
    return spec if seconds is None else replace(spec, expires_at=now + seconds)


def _read_names(fields: Fields, name: str) -> frozenset[str]:
    values = fields.read_list(name, MOST_MODELS)
    for position, value in enumerate(values):
        if not isinstance(value, str):
            raise fields.build_type_error(f"{name}[{position}]", "a string", value)
    return frozenset(values)


def _read_usage_query(request: web.Request, today: date) -> admin.UsageQuery:
    query = request.query
    known = {"first", "last", "key", "model", "end_user"}
    if unknown := sorted(query.keys() - known):
        raise InvalidFieldError(unknown[0][:80], f"is not a known parameter; known are {', '.join(sorted(known))}")
    first = _read_day(query.get("first", ""), "first", today - timedelta(days=DEFAULT_DAYS))
    last = _read_day(query.get("last", ""), "last", today)
    if first > last:
        raise InvalidFieldError("first", f"{first} is after last, {last}")
    key = query.get("key", "")
    kind = CallerKind.API_KEY.value if key else ""
    return admin.UsageQuery(first, last, kind, key, query.get("model", ""), query.get("end_user"))


def _read_day(text: str, name: str, default: date) -> date:
    if not text:
        return default
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidFieldError(name, f"{text!r:.40} is not a day (UTC), such as 2026-11-27") from None


def _respond(value: Any, status: int = 200) -> web.Response:
    # A key is in some of these: no cache may keep it.
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json", headers=headers)
