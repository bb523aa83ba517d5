"""What an administrator does: keys, usage, and verification of the audit log. The admin API and the CLI call these.

Each action that changes something leaves a record in the audit log, in the same transaction.
"""

from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.access.api_keys import ApiKey, KeyRecord, compute_secret_mac, mint_key
from r1plus_gateway.access.caller import Caller, CallerKind
from r1plus_gateway.store.administration import key_records
from r1plus_gateway.store.administration.audit import (
    AuditHead,
    AuditRecord,
    AuditReport,
    OutsideHead,
    decode_head,
    open_base,
    read_head_file,
    verify_chain,
)
from r1plus_gateway.store.administration.key_records import KeyChange, KeySpec
from r1plus_gateway.store.clock import format_month
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.readers import ReadKind
from r1plus_gateway.store.keys.key_rotation import (
    MOST_OWNERS,
    KeyRotation,
    begin_rotation,
    read_rotation,
    request_rotation,
)
from r1plus_gateway.store.ledger.repository import LedgerRepository, MetaName
from r1plus_gateway.store.tenant import TenantStore

GRACE_SECONDS: Final = 24 * 3600.0
"""How long the old secret of a rotated key is valid, unless told otherwise."""
LONGEST_GRACE_SECONDS: Final = 30 * 86400.0
MOST_ROWS: Final = 10_000


class KeyRevokedError(ValueError):
    """The key is revoked; that cannot be undone."""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key with its secret, which is shown this once."""

    record: KeyRecord
    key: ApiKey


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which usage is reported: of days from `first` to `last`; empty fields are all."""

    first: date
    last: date
    caller_kind: str = ""
    caller_id: str = ""
    model: str = ""
    end_user: str | None = None
    """The id of an end user, not its pseudonym."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one caller used of one model on one day (UTC)."""

    caller_kind: str
    caller_id: str
    model: str
    day: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    unsettled_tokens: int


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """What one caller used of the current month's budget. `limit_tokens` None: no budget, or not an API key."""

    caller_kind: str
    caller_id: str
    month: str
    used_tokens: int
    reserved_tokens: int
    limit_tokens: int | None

    @property
    def left_tokens(self) -> int | None:
        """Tokens that are left; None without a budget."""
        if self.limit_tokens is None:
            return None
        return max(0, self.limit_tokens - self.used_tokens - self.reserved_tokens)


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage by caller, model and day, and what is left of budgets."""

    rows: tuple[UsageRow, ...]
    budgets: tuple[BudgetRow, ...]
    is_cut: bool = False
    """Whether there are more rows than are returned."""


async def create_key(store: TenantStore, admin: Caller, spec: KeySpec) -> IssuedKey:
    """Make a key. Raises ValueError, which names every wrong field, and StoreError."""
    key = mint_key()
    mac = compute_secret_mac(key, store.require_data().keys.compute_key_mac)

    def create(ledger: LedgerRepository) -> KeyRecord:
        key_records.check_spec(spec, ledger.now)
        record = KeyRecord(
            id=key.id,
            name=spec.name,
            secret_mac=mac,
            previous_mac=None,
            previous_expires_at=None,
            models=spec.models,
            scopes=spec.scopes,
            limits=spec.limits,
            created_at=ledger.now,
            expires_at=spec.expires_at,
            revoked_at=None,
        )
        key_records.insert_record(ledger.connection, record)
        append_action(ledger, admin, "create_key", key.id)
        return record

    return IssuedKey(await store.write(create), key)


async def list_keys(store: TenantStore) -> list[KeyRecord]:
    """Return all keys, revoked and expired ones as well, the newest first. Raises StoreError."""
    return await store.read(key_records.list_records)


async def rotate_key(store: TenantStore, admin: Caller, key_id: str, grace_seconds: float = GRACE_SECONDS) -> IssuedKey:
    """Give a key a new secret; the one before is valid for a while, and any older one no more.

    Id, limits, budget and usage stay. Raises LookupError, KeyRevokedError, ValueError for a wrong grace, StoreError.
    """
    if not 0 <= grace_seconds <= LONGEST_GRACE_SECONDS:
        raise ValueError(f"grace: {grace_seconds:g} s is not between 0 and {LONGEST_GRACE_SECONDS:g} s")
    key = mint_key(key_id)
    mac = compute_secret_mac(key, store.require_data().keys.compute_key_mac)

    def rotate(ledger: LedgerRepository) -> KeyRecord | None:
        record = key_records.find_record(ledger.connection, key_id)
        if record is None:
            return None
        if record.revoked_at is not None:
            raise KeyRevokedError(f"Key {key_id} is revoked, so it cannot be rotated; create a new one")
        record = replace(
            record,
            secret_mac=mac,
            previous_mac=record.secret_mac,
            previous_expires_at=ledger.now + grace_seconds,
        )
        key_records.replace_record(ledger.connection, record)
        append_action(ledger, admin, "rotate_key", key_id)
        return record

    return IssuedKey(_require(await store.write(rotate), key_id), key)


async def update_key(store: TenantStore, admin: Caller, key_id: str, change: KeyChange) -> KeyRecord:
    """Change limits, models, scopes or end of a key; the next request is admitted by them, in every replica.

    Raises LookupError, KeyRevokedError, ValueError that names every wrong field, StoreError.
    """

    def update(ledger: LedgerRepository) -> KeyRecord | None:
        record = key_records.find_record(ledger.connection, key_id)
        if record is None:
            return None
        if record.revoked_at is not None:
            raise KeyRevokedError(f"Key {key_id} is revoked, so it cannot be changed; create a new one")
        changed = key_records.change_record(record, change, ledger.now)
        if changed != record:
            key_records.replace_record(ledger.connection, changed)
            append_action(ledger, admin, "update_key", key_id, key_records.describe_change(record, changed))
        return changed

    return _require(await store.write(update), key_id)


async def revoke_key(store: TenantStore, admin: Caller, key_id: str) -> KeyRecord:
    """Revoke a key, with its previous secret: from now on it is refused. Raises LookupError, StoreError."""

    def revoke(ledger: LedgerRepository) -> KeyRecord | None:
        record = key_records.find_record(ledger.connection, key_id)
        if record is None or record.revoked_at is not None:
            return record
        record = replace(record, revoked_at=ledger.now)
        key_records.replace_record(ledger.connection, record)
        append_action(ledger, admin, "revoke_key", key_id)
        return record

    return _require(await store.write(revoke), key_id)


async def report_usage(store: TenantStore, query: UsageQuery) -> UsageReport:
    """Return usage by caller, model and day, and the current month's budgets. Raises StoreError."""
    keys, month = store.require_data().keys, format_month(store.clock.read())
    pseudonym = None if query.end_user is None else keys.compute_pseudonym(query.end_user)

    def read(connection: Connection) -> UsageReport:
        rows = _read_usage(connection, query, pseudonym)
        budgets = _read_budgets(connection, query, month)
        return UsageReport(tuple(rows[:MOST_ROWS]), tuple(budgets), len(rows) > MOST_ROWS)

    return await store.read(read)


async def verify_audit(store: TenantStore, head: AuditHead | None = None) -> AuditReport:
    """Verify the whole audit log against its stored heads, and against one that the caller has kept.

    Raises StoreError.
    """
    data, folder = store.require_data(), store.config.folder
    key, kept = data.keys.audit_key, [head] if head else []
    try:
        # Read before the snapshot: a head that is stored later may be newer than it.
        outside = read_head_file(folder) if folder else None
    except (OSError, ValueError) as error:
        return AuditReport(0, AuditHead(), f"the head that is stored on the volume cannot be read: {error}")
    is_current = outside is not None and outside.restore_id == data.restore_id
    if outside is not None and is_current:
        kept.append(outside.head)

    def verify(connection: Connection) -> AuditReport:
        stored = {row.name: row.value for row in connection.execute(sa.select(t.meta))}
        head_text, base_text = stored.get(MetaName.AUDIT_HEAD), stored.get(MetaName.AUDIT_BASE)
        try:
            base = open_base(key, base_text)
            own = decode_head(head_text) if head_text else AuditHead()
        except ValueError as error:
            return AuditReport(0, AuditHead(), f"what the database says of the log cannot be trusted: {error}")
        report = verify_chain(connection, key, base, own, *kept)
        if outside is not None and not is_current and not report.problem:
            return replace(report, problem=_compare_restores(outside, report))
        return report

    return await store.read(verify, kind=ReadKind.AUDIT)


def _compare_restores(outside: OutsideHead, report: AuditReport) -> str:
    """Return what is wrong with a head of another restore than the database's; nothing if it is of before that."""
    if not outside.restore_id or outside.restore_id in {note.restore_id for note in report.restores}:
        return ""
    return (
        f"the head that is stored on the volume is of {outside.restore_id}, which the log does not have: the database"
        " was put back to an earlier state"
    )


async def confirm_time(store: TenantStore, admin: Caller) -> float:
    """Go on with the time of this machine's clock, which is right; return by how many seconds ledger time goes back.

    Retention, which waits where a clock is far ahead, goes by it from now on. Limits per minute start again, and a
    month that was left may be entered again. Raises StoreError.
    """

    def reset(ledger: LedgerRepository) -> float:
        seconds = store.clock.seconds_ahead
        ledger.reset_time(store.clock)
        store.retention.confirm(ledger)
        append_action(ledger, admin, "confirm_time", f"{seconds:.0f}s")
        return seconds

    seconds = await store.write(reset)
    store.prune_soon()
    return seconds


async def rotate_data_keys(store: TenantStore, admin: Caller) -> KeyRotation:
    """Give each owner's content a new data key, and return how much is to be encrypted again.

    Owners get theirs in several transactions, each with its audit record, so that requests do not wait for all of them.
    If one fails, the others get theirs later. Raises StoreError.
    """
    return await make_data_keys(store, admin, is_due=False)


async def make_data_keys(store: TenantStore, admin: Caller, *, is_due: bool) -> KeyRotation:
    """Do as `rotate_data_keys`; only for owners that are due a new key already, if `is_due`. Raises StoreError."""
    cipher, is_first = store.cipher, True

    def begin(ledger: LedgerRepository) -> int:
        if is_first and not is_due:
            request_rotation(ledger.connection)
        owners = begin_rotation(ledger.connection, cipher, ledger.now)
        if owners or is_first:
            append_action(ledger, admin, "rotate_data_keys", f"{owners} owners")
        return owners

    try:
        while await store.write(begin) == MOST_OWNERS:
            is_first = False
    finally:
        store.resume_rotation()
    return await report_data_keys(store)


async def report_data_keys(store: TenantStore) -> KeyRotation:
    """Return how far a rotation of data keys is. No look-up of a key waits for this. Raises StoreError."""
    return await store.read(read_rotation, kind=ReadKind.AUDIT)


def append_action(ledger: LedgerRepository, admin: Caller, action: str, subject: str, outcome: str = "") -> None:
    """Leave a record of an administrator's action in the audit log."""
    record = AuditRecord(ledger.now, action, caller_kind=admin.kind.value, caller_id=admin.id, subject=subject)
    ledger.append_audit(replace(record, outcome=outcome))


def _require(record: KeyRecord | None, key_id: str) -> KeyRecord:
    if record is None:
        raise LookupError(f"No key has the id {key_id!r:.40}")
    return record


def _read_usage(connection: Connection, query: UsageQuery, pseudonym: str | None) -> list[UsageRow]:
    c = t.usage.c
    sums = [
        sa.func.sum(column).label(column.name)
        for column in (c.requests, c.prompt_tokens, c.completion_tokens, c.unsettled_tokens)
    ]
    group = (c.day, c.caller_kind, c.caller_id, c.model)
    statement = (
        sa.select(*group, *sums)
        .where(c.day >= query.first.isoformat(), c.day <= query.last.isoformat(), *_match_caller(c, query))
        .group_by(*group)
        .order_by(*group)
        .limit(MOST_ROWS + 1)
    )
    if query.model:
        statement = statement.where(c.model == query.model)
    if pseudonym is not None:
        statement = statement.where(c.end_user == pseudonym)
    rows = connection.execute(statement).mappings()
    return [UsageRow(**{name: _to_int(value) for name, value in row.items()}) for row in rows]


def _to_int(value: Any) -> Any:
    """Return PostgreSQL's sums, which are decimals, as integers."""
    return value if isinstance(value, str) else int(value)


def _read_budgets(connection: Connection, query: UsageQuery, month: str) -> list[BudgetRow]:
    limits = {
        (CallerKind.API_KEY.value, row.id): row.budget_tokens
        for row in connection.execute(sa.select(t.api_keys.c.id, t.api_keys.c.budget_tokens))
    }
    used = _sum_by_caller(connection, query, t.budgets, t.budgets.c.used_tokens, month)
    reserved = _sum_by_caller(connection, query, t.reservations, t.reservations.c.tokens, month)
    asked = {key for key in limits if _is_asked(key, query)}
    return [
        BudgetRow(kind, name, month, used.get((kind, name), 0), reserved.get((kind, name), 0), limits.get((kind, name)))
        for kind, name in sorted(asked | set(used) | set(reserved))
    ]


def _sum_by_caller(
    connection: Connection, query: UsageQuery, table: sa.Table, column: sa.Column[int], month: str
) -> dict[tuple[str, str], int]:
    c = table.c
    statement = (
        sa.select(c.caller_kind, c.caller_id, sa.func.sum(column).label("total"))
        .where(c.month == month, *_match_caller(c, query))
        .group_by(c.caller_kind, c.caller_id)
    )
    return {(row.caller_kind, row.caller_id): int(row.total) for row in connection.execute(statement)}


def _match_caller(columns: Any, query: UsageQuery) -> list[Any]:
    pairs = ((columns.caller_kind, query.caller_kind), (columns.caller_id, query.caller_id))
    return [column == value for column, value in pairs if value]


def _is_asked(caller: tuple[str, str], query: UsageQuery) -> bool:
    return query.caller_kind in ("", caller[0]) and query.caller_id in ("", caller[1])
