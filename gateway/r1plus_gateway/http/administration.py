"""The admin API: keys, usage, audit log, erasure, backup. Only for the tenant's admin ServiceAccount.

A secret is in exactly one answer: that of the request which made it.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from typing import Any, Final

from aiohttp import web

from r1plus_gateway.access.api_keys import SCOPES, KeyRecord
from r1plus_gateway.access.authenticator import can_name_end_user
from r1plus_gateway.access.caller import AccessError, Caller, CallerKind, Limits
from r1plus_gateway.http.body.field_tables import (
    IntegerField,
    ListField,
    NumberField,
    ObjectField,
    StringField,
    Table,
)
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import read_object
from r1plus_gateway.http.copies import FOR_RESTORE, Copies
from r1plus_gateway.http.errors import InvalidFieldError, RequestError
from r1plus_gateway.http.operations import Operation, Parameter, read_query
from r1plus_gateway.http.private_answers import respond
from r1plus_gateway.settings import GatewayLimits
from r1plus_gateway.store.administration import admin
from r1plus_gateway.store.administration.key_records import (
    LIMITS,
    MODEL_NAME,
    MOST_LIMIT,
    MOST_MODELS,
    KeyChange,
    KeySpec,
)
from r1plus_gateway.store.clock import format_day
from r1plus_gateway.store.copies.copy_thread import CopyRunningError
from r1plus_gateway.store.copies.restoration import NotNewError
from r1plus_gateway.store.errors import FullError, StoreError
from r1plus_gateway.store.keys.key_rotation import KeyRotation
from r1plus_gateway.store.keys.root_rotation import RotationRunningError, rotate_root
from r1plus_gateway.store.ledger.ledger import refuse_unavailable
from r1plus_gateway.store.ledger.repository import MOST_TEXT
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase, get_public_key
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope

BODY_SECONDS: Final = 10.0
LONGEST_LIFE_SECONDS: Final = 100 * 365 * 86400
DEFAULT_DAYS: Final = 31
"""Of usage, where the request names no first day."""
ONLY_ADMINS: Final = (
    "only tokens of ServiceAccount r1plus-gateway-admin of the tenant's namespace reach the admin API; use `r1plus key`"
    " or `r1plus usage`, which make one"
)

_MODEL: Final = {"type": "string", "pattern": MODEL_NAME}
NAME: Final = StringField("name", most=MOST_TEXT, is_required=True)
MODELS: Final = ListField("models", MOST_MODELS, _MODEL, least=1)
SCOPE_NAMES: Final = ListField("scopes", MOST_MODELS, {"enum": sorted(SCOPES)})
LIMIT_FIELDS: Final = tuple(IntegerField(name, 0, MOST_LIMIT) for name in LIMITS)
KEY_LIMITS: Final = ObjectField("limits", Table(LIMIT_FIELDS))
LIFE: Final = NumberField("expires_in_seconds", 1, LONGEST_LIFE_SECONDS)
KEY_BODY: Final = Table((NAME, MODELS, SCOPE_NAMES, KEY_LIMITS, LIFE))
CHANGE_BODY: Final = Table((MODELS, SCOPE_NAMES, KEY_LIMITS, LIFE))
GRACE: Final = NumberField("grace_seconds", 0, admin.LONGEST_GRACE_SECONDS)
ROTATION_BODY: Final = Table((GRACE,))
KEY_ID: Final = Parameter("id", "The key's id.", {"type": "string", "minLength": 1}, is_in_path=True)
END_USER: Final = StringField("end_user")
ERASED_KEY: Final = StringField("key")
ACCOUNT: Final = StringField("service_account")
ERASURE_BODY: Final = Table((END_USER, ERASED_KEY, ACCOUNT))
_DAY_FORM: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DAY: Final = {"type": "string", "format": "date"}
_NAME: Final = {"type": "string", "minLength": 1}
USAGE_QUERY: Final = (
    Parameter("first", f"The first day, UTC; {DEFAULT_DAYS} days ago without it.", _DAY),
    Parameter("last", "The last day, UTC; today without it.", _DAY),
    Parameter("key", "Of one key, by its id.", _NAME),
    Parameter("model", "Of one model.", _NAME),
    Parameter("end_user", "Of one end user.", _NAME),
)

Authenticate = Callable[[web.Request], Awaitable[Caller]]
AdminHandler = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]


class Administration:
    """The handlers of the admin API."""

    def __init__(
        self,
        store: TenantStore,
        authenticate: Authenticate,
        read_limits: Callable[[], GatewayLimits],
        on_revoked: Callable[[str], object],
    ) -> None:
        """`on_revoked` is called with the id of a key that has been revoked."""
        self._store = store
        self._on_revoked = on_revoked
        self._authenticate = authenticate
        self._copies = Copies(store, read_limits)

    def list_operations(self) -> Sequence[Operation]:
        """Return the endpoints. Each handler runs for admins only."""
        keys, key = "/v1/admin/keys", "/v1/admin/keys/{id}"
        named: dict[str, Any] = {"parameters": (KEY_ID,), "errors": (404,)}
        create, rotate = self._guard(self._create_key), self._guard(self._rotate_key)
        usage = self._guard(self._report_usage)
        return [
            Operation("POST", keys, "Make a key.", create, "IssuedKey", status=201, body=KEY_BODY),
            Operation("GET", keys, "List all keys.", self._guard(self._list_keys), "Keys"),
            Operation(
                "POST",
                f"{key}/rotate",
                "Give a key a new secret.",
                rotate,
                "IssuedKey",
                body=ROTATION_BODY,
                is_body_required=False,
                parameters=(KEY_ID,),
                errors=(404, 409),
            ),
            Operation(
                "PATCH",
                key,
                "Change a key, as a JSON merge patch: what is absent stays, and null takes a bound away.",
                self._guard(self._update_key),
                "Key",
                body=CHANGE_BODY,
                parameters=(KEY_ID,),
                errors=(404, 409),
            ),
            Operation("DELETE", key, "Revoke a key; its answers end.", self._guard(self._revoke_key), "Key", **named),
            Operation("GET", "/v1/admin/usage", "Usage by day.", usage, "UsageReport", parameters=USAGE_QUERY),
            Operation("GET", "/v1/admin/audit", "Verify the audit log.", self._guard(self._verify_audit), "Audit"),
            *self._list_content_operations(),
            *self._list_copy_operations(),
        ]

    def _list_content_operations(self) -> Sequence[Operation]:
        return [
            Operation(
                "POST",
                "/v1/admin/erasures",
                "Erase what was stored for one end user, with every key, or for one key or ServiceAccount.",
                self._guard(self._erase),
                "ErasureReceipt",
                status=201,
                body=ERASURE_BODY,
            ),
            Operation(
                "GET",
                "/v1/admin/data-keys",
                "Describe the keys of content.",
                self._guard(self._report_data_keys),
                "DataKeys",
            ),
            Operation(
                "POST",
                "/v1/admin/data-keys/rotate",
                "Give the content of each caller and end user a new key.",
                self._guard(self._rotate_data_keys),
                "DataKeys",
            ),
            Operation(
                "POST",
                "/v1/admin/root/rotate",
                "Give the tenant a new root, and the content of each caller and end user a new key.",
                self._guard(self._rotate_root),
                "Root",
                errors=(409,),
            ),
            Operation(
                "GET",
                "/v1/admin/receipt-key",
                "What receipts of erasures are verified with.",
                self._guard(self._get_receipt_key),
                "ReceiptKey",
            ),
            Operation(
                "POST",
                "/v1/admin/time/confirm",
                "Go on with the time of this machine's clock, which is right.",
                self._guard(self._confirm_time),
                "LedgerTime",
            ),
        ]

    def _list_copy_operations(self) -> Sequence[Operation]:
        copies, path = self._copies, "/v1/admin"
        sent: dict[str, Any] = {"is_file": True, "errors": (409,)}
        taken: dict[str, Any] = {"takes_file": True, "errors": (409,)}
        backup, keys = self._guard(copies.send_backup), self._guard(copies.send_keys)
        return [
            Operation("GET", f"{path}/backup", "Copy all but the keys.", backup, "", **sent),
            Operation("GET", f"{path}/backup-keys", "Copy the wrapped keys.", keys, "", **sent),
            Operation(
                "POST",
                f"{path}/backup-checks",
                "Read a keys file and its backup, one after the other, to their ends, and change nothing.",
                self._guard(copies.check),
                "Restore",
                parameters=(FOR_RESTORE,),
                **taken,
            ),
            Operation(
                "POST",
                f"{path}/restores",
                "Restore a keys file and its backup, one after the other, into data that are new.",
                self._guard(copies.restore),
                "Restore",
                status=201,
                **taken,
            ),
        ]

    def _guard(self, handler: AdminHandler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            caller = await self._authenticate(request)
            if caller.kind is not CallerKind.ADMIN:
                raise AccessError(403, "admin_only", ONLY_ADMINS)
            try:
                return await handler(request, caller)
            except StoreError as error:
                raise refuse_unavailable(error) from error
            except LookupError as error:
                raise RequestError(404, "key_not_found", f"{error}; GET /v1/admin/keys lists them") from error
            except admin.KeyRevokedError as error:
                raise RequestError(409, "key_revoked", str(error)) from error
            except CopyRunningError as error:
                raise RequestError(409, "copy_running", str(error)) from error
            except RotationRunningError as error:
                raise RequestError(409, "rotation_running", str(error)) from error
            except NotNewError as error:
                raise RequestError(409, "data_in_use", str(error)) from error
            except ValueError as error:
                # The store's messages begin with the field.
                raise RequestError(400, "invalid_value", str(error), param=str(error).partition(":")[0]) from error

        return handle

    async def _create_key(self, request: web.Request, caller: Caller) -> web.Response:
        fields = Fields(await read_object(request, BODY_SECONDS))
        spec = _read_spec(fields, self._store.clock.read())
        return respond(_describe_issued(await admin.create_key(self._store, caller, spec)), 201)

    async def _list_keys(self, _: web.Request, __: Caller) -> web.Response:
        records = await admin.list_keys(self._store)
        return respond({"object": "list", "data": [describe_key(record) for record in records]})

    async def _rotate_key(self, request: web.Request, caller: Caller) -> web.Response:
        grace: float | None = None
        if request.can_read_body:
            fields = Fields(await read_object(request, BODY_SECONDS))
            grace = GRACE.read(fields)
            ROTATION_BODY.refuse_rest(fields)
        seconds = admin.GRACE_SECONDS if grace is None else grace
        return respond(_describe_issued(await admin.rotate_key(self._store, caller, _read_id(request), seconds)))

    async def _update_key(self, request: web.Request, caller: Caller) -> web.Response:
        key_id = _read_id(request)
        fields = Fields(await read_object(request, BODY_SECONDS))
        change = _read_change(fields, self._store.clock.read())
        return respond(describe_key(await admin.update_key(self._store, caller, key_id, change)))

    async def _revoke_key(self, request: web.Request, caller: Caller) -> web.Response:
        record = await admin.revoke_key(self._store, caller, _read_id(request))
        self._on_revoked(record.id)
        return respond(describe_key(record))

    async def _report_usage(self, request: web.Request, _: Caller) -> web.Response:
        today = date.fromisoformat(format_day(self._store.clock.read()))
        report = await admin.report_usage(self._store, _read_usage_query(request, today))
        budgets = [{**asdict(row), "left_tokens": row.left_tokens} for row in report.budgets]
        rows = [asdict(row) for row in report.rows]
        return respond({"object": "usage", "data": rows, "budgets": budgets, "is_cut": report.is_cut})

    async def _verify_audit(self, _: web.Request, __: Caller) -> web.Response:
        report = await admin.verify_audit(self._store)
        head = {"seq": report.head.seq, "mac": report.head.mac.hex()}
        answer = {"object": "audit", "records": report.records, "head": head, "problem": report.problem or None}
        return respond({**answer, "restores": [asdict(note) for note in report.restores]})

    async def _rotate_data_keys(self, _: web.Request, caller: Caller) -> web.Response:
        return respond(_describe_rotation(await admin.rotate_data_keys(self._store, caller)))

    async def _report_data_keys(self, _: web.Request, __: Caller) -> web.Response:
        return respond(_describe_rotation(await admin.report_data_keys(self._store)))

    async def _rotate_root(self, _: web.Request, caller: Caller) -> web.Response:
        try:
            rotation = await rotate_root(self._store, caller)
        except FullError as error:
            raise RequestError(409, "volume_full", f"{error}; then call again") from error
        return respond({"object": "root", "id": rotation.root_id, **asdict(rotation.data_keys)})

    async def _confirm_time(self, _: web.Request, caller: Caller) -> web.Response:
        seconds = await admin.confirm_time(self._store, caller)
        now = self._store.clock.read()
        return respond({"object": "ledger_time", "now": now, "seconds_taken_back": max(0.0, seconds)})

    async def _get_receipt_key(self, _: web.Request, __: Caller) -> web.Response:
        return respond({"object": "receipt_key", "public_key": get_public_key(self._store)})

    async def _erase(self, request: web.Request, caller: Caller) -> web.Response:
        scope = _read_scope(Fields(await read_object(request, BODY_SECONDS)))
        receipt = await erase(self._store, caller, scope)
        return respond(asdict(receipt), 201)


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


def _describe_rotation(rotation: KeyRotation) -> dict[str, Any]:
    return {"object": "data_keys", **asdict(rotation)}


def _describe_issued(issued: admin.IssuedKey) -> dict[str, Any]:
    return {**describe_key(issued.record), "key": issued.key.encode()}


def _read_id(request: web.Request) -> str:
    """Return the key's id. Raises LookupError for what no database should be asked for."""
    key_id = request.match_info["id"]
    if not key_id.isprintable():
        raise LookupError(f"No key has the id {key_id!r:.40}")
    return key_id


def _read_spec(fields: Fields, now: float) -> KeySpec:
    """Read what is asked for. `models` absent is all of the tenant's; `expires_in_seconds` absent is never."""
    limits = KEY_LIMITS.read(fields)
    values = {field.name: field.read(limits) for field in LIMIT_FIELDS} if limits else {}
    if limits:
        KEY_LIMITS.table.refuse_rest(limits)
    models = _read_names(fields, MODELS) if fields.has(MODELS.name) else None
    spec = KeySpec(NAME.read(fields), models, _read_names(fields, SCOPE_NAMES), Limits(**values))
    seconds = LIFE.read(fields)
    KEY_BODY.refuse_rest(fields)
    return spec if seconds is None else replace(spec, expires_at=now + seconds)


def _read_change(fields: Fields, now: float) -> KeyChange:
    """Read what is changed: only the fields that the body has. Raises InvalidFieldError for a body without any."""
    values: dict[str, Any] = {}
    if fields.names(MODELS.name):
        values["models"] = _read_names(fields, MODELS) if fields.has(MODELS.name) else None
    if fields.names(SCOPE_NAMES.name):
        values["scopes"] = _read_names(fields, SCOPE_NAMES)
    if fields.names(LIFE.name):
        seconds = LIFE.read(fields)
        values["expires_at"] = None if seconds is None else now + seconds
    named = KEY_LIMITS.read(fields)
    limits: dict[str, int | None] = {}
    if fields.names(KEY_LIMITS.name):
        limits = {field.name: field.read(named) if named else None for field in LIMIT_FIELDS}
    if named:
        limits = {name: value for name, value in limits.items() if named.names(name)}
        KEY_LIMITS.table.refuse_rest(named)
    CHANGE_BODY.refuse_rest(fields)
    if not values and not limits:
        raise InvalidFieldError(
            KEY_LIMITS.name,
            f"nothing is named that changes; send one of {', '.join(sorted(CHANGE_BODY.names))}",
            code="missing_required_parameter",
        )
    return KeyChange(values, limits)


def _read_scope(fields: Fields) -> ErasureScope:
    """Read whose content is erased. Raises InvalidFieldError unless exactly one is named."""
    end_user, key, account = END_USER.read(fields), ERASED_KEY.read(fields), ACCOUNT.read(fields)
    ERASURE_BODY.refuse_rest(fields)
    named = [name for name, value in (("end_user", end_user), ("key", key), ("service_account", account)) if value]
    if len(named) != 1:
        problem = f"{', '.join(named)} are named" if named else "nobody is named"
        raise InvalidFieldError(
            named[-1] if named else END_USER.name,
            f"{problem}; send one of end_user, key (an id) and service_account (NAMESPACE/NAME)",
        )
    if end_user:
        if not can_name_end_user(end_user):
            # Else the receipt would attest an erasure of nothing, where a space came along with a name.
            message = f"no end user has the name {end_user!r:.80}: it begins or ends with a space, or has more bytes"
            raise InvalidFieldError(END_USER.name, f"{message} or other characters than the header may have")
        return ErasureScope(end_user=end_user)
    if key:
        return ErasureScope(caller_kind=CallerKind.API_KEY.value, caller_id=key)
    return ErasureScope(caller_kind=CallerKind.SERVICE_ACCOUNT.value, caller_id=account)


def _read_names(fields: Fields, field: ListField) -> frozenset[str]:
    values = field.read(fields)
    for position, value in enumerate(values):
        if not isinstance(value, str):
            raise fields.build_type_error(f"{field.name}[{position}]", "a string", value)
    return frozenset(values)


def _read_usage_query(request: web.Request, today: date) -> admin.UsageQuery:
    query = read_query(request, USAGE_QUERY)
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
        # It would take other forms of a day as well, such as 20261127.
        if _DAY_FORM.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidFieldError(name, f"{text!r:.40} is not a day (UTC), such as 2026-11-27")
