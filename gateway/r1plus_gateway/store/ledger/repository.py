"""Reservations, usage and audit records of one transaction. Used inside a unit of work, by one writer.

What a batch reads more than once (counters, budgets) is read once, and what it writes is written at its end in one
statement per table: a batch of many requests costs little more than one.
"""

import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.access.caller import (
    AccessError,
    AnswerEvidence,
    Caller,
    Limits,
    Outcome,
    Remaining,
    Reservation,
    TokenUsage,
)
from r1plus_gateway.store.administration.audit import AuditChain, AuditHead, AuditRecord, decode_head, seal_base
from r1plus_gateway.store.clock import LedgerClock, format_day, format_month
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.errors import RestoringError
from r1plus_gateway.store.keys.tenant_keys import TenantKeys
from r1plus_gateway.store.ledger import statements
from r1plus_gateway.store.ledger.admission import (
    INSUFFICIENT_QUOTA,
    Demand,
    Standing,
    charge_refusal,
    check_demand,
    compute_remaining,
    leak,
)

UNSETTLED: Final = "unsettled"
"""Outcome of a request whose gateway crashed."""
MOST_TOKENS: Final = 2**53
MOST_TEXT: Final = 253
MOST_PRUNED: Final = 1000
"""Audit records that one transaction removes: requests wait for it."""
CallerKey = tuple[str, str]


class MetaName(StrEnum):
    """Names of single values in the table `meta`."""

    TENANT = "tenant_uid"
    KEY_RING = "key_ring"
    LEDGER_TIME = "ledger_time"
    AUDIT_HEAD = "audit_head"
    AUDIT_BASE = "audit_base"
    CONTENT_DAYS = "content_days"
    RETENTION_TIME = "retention_seen"
    """What retention goes by, as JSON (`retention_clock`); a backup has it."""
    EARLIER_RETENTION_TIME = "retention_time"
    """The same, as an earlier release has stored it, which takes no other from a backup: read where that is all."""
    CONFIRMATION = "time_confirmation"
    """Names the last confirmation that clocks are right: each replica's ledger time goes back to its own."""
    ROTATION = "data_key_rotation"
    """Names the last rotation of data keys that has ended: keys of another one do not open what it has encrypted."""
    ROTATION_DUE = "data_key_rotation_due"
    """A rotation of data keys has begun, and not every owner has a new one: the last one that has, as JSON."""
    ADOPTED_ROOT = "adopted_root"


OWN_META: Final = (
    MetaName.TENANT,
    MetaName.KEY_RING,
    MetaName.ADOPTED_ROOT,
    MetaName.EARLIER_RETENTION_TIME,
    MetaName.CONFIRMATION,
)
"""What says whose database it is, with which keys, and by whose clocks: in no backup. A restore changes the root and
drops the earlier time."""


@dataclass(slots=True)
class _CallerState:
    """What limits ask of one caller: of the minute at a time, of its running requests, and of the current month."""

    requests: float
    tokens: float
    updated_at: float
    running: int
    reserved_tokens: int
    used_tokens: int


@dataclass(slots=True)
class _UsageSum:
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unsettled_tokens: int = 0


class LedgerRepository:
    """The ledger, over one writing transaction."""

    def __init__(
        self, connection: Connection, keys: TenantKeys, clock: LedgerClock, instance: str, adopted_root: str = ""
    ) -> None:
        """Take the keys, and the sealed root that they come from if it was adopted.

        Raises:
            RestoringError: a backup was restored, or the root rotated, since: the keys are others now.
        """
        self.connection = connection
        self._keys = keys
        self._instance = instance
        self._upserts = statements.build_upserts(connection.dialect.name)
        stored: dict[str, str] = {row.name: row.value for row in connection.execute(statements.SELECT_META)}
        if stored.get(MetaName.ADOPTED_ROOT, "") != adopted_root:
            raise RestoringError("The tenant's data were restored, or their root rotated, and are opened again; wait")
        self.seen_at = float(stored.get(MetaName.LEDGER_TIME, "0"))
        """The newest ledger time that was stored before this transaction; 0: none was."""
        clock.follow(self.seen_at, stored.get(MetaName.CONFIRMATION, ""))
        self.now = clock.read()
        self._month, self._day = format_month(self.now), format_day(self.now)
        head = stored.get(MetaName.AUDIT_HEAD)
        self._chain = AuditChain(keys.audit_key, decode_head(head) if head else AuditHead())
        self._callers: dict[CallerKey, _CallerState] = {}
        self._changed_counters: set[CallerKey] = set()
        self._budget_sums: dict[tuple[str, str, str], int] = defaultdict(int)
        self._new: dict[str, dict[str, Any]] = {}
        self._settled: dict[str, Any] = {}
        self._usage: dict[tuple[str, str, str, str, str], _UsageSum] = defaultdict(_UsageSum)
        self._audit: list[dict[str, Any]] = []

    @property
    def head(self) -> AuditHead:
        """The newest audit record, once this transaction is committed."""
        return self._chain.head

    def reserve(self, request_id: str, caller: Caller, model: str, tokens: int) -> Reservation:
        """Set tokens aside. Raises AccessError (429), and ValueError for a request id that runs already."""
        if not 0 <= tokens <= MOST_TOKENS:
            raise ValueError(f"tokens: {tokens} is not between 0 and 2^53")
        check_text("request_id", request_id)
        check_text("model", model)
        key = (caller.kind.value, caller.id)
        if request_id in self._new or self._find_reservation(request_id) is not None:
            raise ValueError(f"request_id: {request_id} is in use by a request that runs")
        standing = self._find_standing(key, caller.limits)
        try:
            check_demand(caller, Demand(tokens, self._month), standing)
        except AccessError as error:
            if error.code == INSUFFICIENT_QUOTA and caller.limits.requests_per_minute is not None:
                charged = charge_refusal(caller.limits, standing)
                self._set_counters(key, caller.limits, charged.requests, charged.tokens)
            raise
        self._add_reservation(key, caller, request_id, model, tokens)
        after = Standing(
            requests=standing.requests + 1,
            tokens=standing.tokens + tokens,
            running=standing.running + 1,
            used_tokens=standing.used_tokens,
            reserved_tokens=standing.reserved_tokens + tokens,
        )
        self._set_counters(key, caller.limits, after.requests, after.tokens)
        return Reservation(request_id, caller, model, tokens, compute_remaining(caller.limits, after))

    def extend(self, reservation: Reservation, tokens: int, used: int) -> Reservation:
        """Set more tokens aside for a request that runs, and has used so many.

        After a month's end the whole request counts in the new month, whose budget has to have room for it.

        Raises:
            AccessError: 429; or 503 if the request is not recorded any more, as after a restore.
        """
        row = self._find_reservation(reservation.request_id)
        if row is None:
            message = "This request is not recorded any more, as after a restore of the tenant's data; send it again"
            raise AccessError(503, "data_unavailable", message)
        key, limits = (row.caller_kind, row.caller_id), reservation.caller.limits
        standing = self._find_standing(key, limits)
        # The request itself was admitted, and runs: only its tokens can be too many.
        reserved = standing.reserved_tokens + (0 if row.month == self._month else row.tokens)
        others = replace(
            standing, requests=standing.requests - 1, running=standing.running - 1, reserved_tokens=reserved
        )
        check_demand(reservation.caller, Demand(tokens, self._month), others)
        self._remove_reservation(row)
        reserved_at = _date_unused(row, limits, used, self.now)
        changes = {"month": self._month, "tokens": row.tokens + tokens, "reserved_at": reserved_at}
        self._add_row({**_list_columns(row), **changes})
        self._set_counters(key, limits, standing.requests, standing.tokens + tokens)
        after = replace(standing, tokens=standing.tokens + tokens, reserved_tokens=reserved + tokens)
        remaining = compute_remaining(limits, after)
        return replace(reservation, tokens=row.tokens + tokens, remaining=remaining)

    def settle(
        self, reservation: Reservation, usage: TokenUsage, outcome: Outcome, evidence: AnswerEvidence | None
    ) -> bool:
        """Replace the reservation by what was used. Return False, and change nothing, if it was settled before."""
        row = self._find_reservation(reservation.request_id)
        if row is None:
            return False
        prompt_tokens, completion_tokens = max(0, usage.prompt_tokens), max(0, usage.completion_tokens)
        self._remove_reservation(row)
        self._return_tokens(row, reservation.caller.limits, row.tokens - prompt_tokens - completion_tokens)
        record = replace(
            self._describe(row),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            outcome=outcome.value,
        )
        if evidence is not None:
            record = replace(
                record,
                revision=_clip(evidence.revision),
                engine_digest=_clip(evidence.engine_digest),
                verdict=_clip(evidence.verdict),
            )
        self._record(row, record)
        return True

    def read_remaining(self, caller: Caller) -> Remaining:
        """Return what the caller has left now."""
        key = (caller.kind.value, caller.id)
        return compute_remaining(caller.limits, self._find_standing(key, caller.limits))

    def void(self, request_id: str, limits: Limits) -> None:
        """Remove the reservation of a request that never began; nothing was used."""
        row = self._find_reservation(request_id)
        if row is not None:
            self._remove_reservation(row)
            self._return_tokens(row, limits, row.tokens)

    def list_other_instances(self) -> Sequence[str]:
        """Return the gateways that have reservations, without this one."""
        c = t.reservations.c
        return self.connection.scalars(sa.select(c.instance).where(c.instance != self._instance).distinct()).all()

    def settle_orphans(self, instances: Sequence[str]) -> int:
        """Settle the reservations of gateways that are gone as used in full. Return their number."""
        rows = list_reservations(self.connection, instances)
        return sum(self._settle_orphan(row, None) for row in rows)

    def settle_orphan(self, request_id: str, usage: TokenUsage | None) -> bool:
        """Settle a reservation of a gateway that is gone; `usage` None: as used in full.

        Return False, and change nothing, if it was settled before.
        """
        row = self._find_reservation(request_id)
        return row is not None and self._settle_orphan(row, usage)

    def _settle_orphan(self, row: Any, usage: TokenUsage | None) -> bool:
        if row.request_id in self._settled:
            return False
        self._remove_reservation(row)
        record = replace(self._describe(row), outcome=UNSETTLED)
        if usage is None:
            record = replace(record, unsettled_tokens=row.tokens)
        else:
            record = replace(record, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
        self._record(row, record)
        return True

    def append_audit(self, record: AuditRecord) -> None:
        """Append a record to the audit log."""
        self._audit.append(self._chain.append(record))

    def prune_audit(self, before: float, most: int = MOST_PRUNED) -> int:
        """Remove the oldest audit records from before a time, at most so many and never the newest; return how many."""
        c = t.audit.c
        oldest = self.connection.scalar(sa.select(sa.func.min(c.seq)))
        if oldest is None:
            return 0
        kept = self.connection.scalar(sa.select(c.seq).where(c.at >= before).order_by(c.seq).limit(1))
        newest = self.connection.scalar(sa.select(sa.func.max(c.seq)))
        last = min((newest if kept is None else kept) - 1, oldest + most - 1)
        if last < oldest:
            return 0
        mac = self.connection.execute(sa.select(c.mac).where(c.seq == last)).scalar_one()
        self.connection.execute(sa.delete(t.audit).where(c.seq <= last))
        write_meta(self.connection, MetaName.AUDIT_BASE, seal_base(self._keys.audit_key, AuditHead(last, bytes(mac))))
        self.append_audit(AuditRecord(self.now, "prune_audit", subject=f"{oldest}-{last}"))
        return int(last - oldest + 1)

    def beat(self) -> None:
        """Say that this gateway runs."""
        self.connection.execute(self._upserts.beat, {"id": self._instance, "seen_at": self.now, "beats": 1})

    def forget_instances(self, instances: Sequence[str]) -> None:
        """Remove gateways that are gone."""
        self.connection.execute(sa.delete(t.instances).where(t.instances.c.id.in_(instances)))

    def forget_other_instances(self) -> None:
        """Remove all gateways but this one, which is the only user of its file."""
        self.connection.execute(sa.delete(t.instances).where(t.instances.c.id != self._instance))

    def reset_time(self, clock: LedgerClock) -> None:
        """Take ledger time back to the wall clock's, for all replicas: an administrator says that it is right."""
        confirmation = secrets.token_hex(8)
        write_meta(self.connection, MetaName.CONFIRMATION, confirmation)
        clock.reset(confirmation)
        self.now = clock.read()

    def flush(self) -> None:
        """Write what the batch collected; called once, before the commit."""
        execute = self.connection.execute
        if self._settled:
            execute(statements.DELETE_RESERVATION, _join([{"settled_id": one} for one in self._settled]))
        if self._new:
            execute(statements.INSERT_RESERVATION, _join(list(self._new.values())))
        if self._changed_counters:
            execute(self._upserts.counters, _join([self._make_counters_row(key) for key in self._changed_counters]))
        if self._budget_sums:
            rows = [
                {"caller_kind": kind, "caller_id": name, "month": month, "used_tokens": tokens}
                for (kind, name, month), tokens in self._budget_sums.items()
            ]
            execute(self._upserts.budgets, _join(rows))
        if self._usage:
            execute(self._upserts.usage, _join([_make_usage_row(*item) for item in self._usage.items()]))
        meta = [{"name": MetaName.LEDGER_TIME.value, "value": repr(self.now)}]
        if self._audit:
            execute(statements.INSERT_AUDIT, _join(self._audit))
            meta.append({"name": MetaName.AUDIT_HEAD.value, "value": self._chain.head.encode()})
        execute(self._upserts.meta, _join(meta))

    def _make_counters_row(self, key: CallerKey) -> dict[str, Any]:
        state = self._callers[key]
        row = {"caller_kind": key[0], "caller_id": key[1], "requests": state.requests, "tokens": state.tokens}
        return row | {"updated_at": state.updated_at}

    def _find_reservation(self, request_id: str) -> Any:
        if request_id in self._new:  # By a request that left before it was admitted.
            return SimpleNamespace(**self._new[request_id])
        if request_id in self._settled:
            return None
        return self.connection.execute(statements.SELECT_RESERVATION, {"wanted": request_id}).one_or_none()

    def _add_reservation(self, key: CallerKey, caller: Caller, request_id: str, model: str, tokens: int) -> None:
        self._add_row(
            {
                "request_id": request_id,
                "caller_kind": key[0],
                "caller_id": key[1],
                "end_user": self._keys.compute_pseudonym(caller.end_user),
                "model": model,
                "month": self._month,
                "tokens": tokens,
                "reserved_at": self.now,
                "instance": self._instance,
            }
        )

    def _add_row(self, row: dict[str, Any]) -> None:
        self._new[row["request_id"]] = row
        if state := self._callers.get((row["caller_kind"], row["caller_id"])):
            state.running += 1
            state.reserved_tokens += row["tokens"]

    def _remove_reservation(self, row: Any) -> None:
        if self._new.pop(row.request_id, None) is None:
            self._settled[row.request_id] = row
        if state := self._callers.get((row.caller_kind, row.caller_id)):
            state.running -= 1
            state.reserved_tokens -= row.tokens if row.month == self._month else 0

    def _describe(self, row: Any) -> AuditRecord:
        return AuditRecord(
            self.now,
            "request",
            caller_kind=row.caller_kind,
            caller_id=row.caller_id,
            end_user=row.end_user,
            subject=row.request_id,
            model=row.model,
        )

    def _record(self, row: Any, record: AuditRecord) -> None:
        """Count what a request used, in the month that it was reserved in and on today's day; append its record."""
        tokens = record.prompt_tokens + record.completion_tokens + record.unsettled_tokens
        self._budget_sums[row.caller_kind, row.caller_id, row.month] += tokens
        total = self._usage[row.caller_kind, row.caller_id, row.model, self._day, row.end_user]
        total.requests += 1
        total.prompt_tokens += record.prompt_tokens
        total.completion_tokens += record.completion_tokens
        total.unsettled_tokens += record.unsettled_tokens
        self.append_audit(record)

    def _find_standing(self, key: CallerKey, limits: Limits) -> Standing:
        if limits == Limits():
            return Standing(0.0, 0.0, 0, 0, 0)
        state = self._find_caller(key)
        elapsed = self.now - state.updated_at
        return Standing(
            requests=leak(state.requests, limits.requests_per_minute, elapsed),
            tokens=leak(state.tokens, limits.tokens_per_minute, elapsed),
            running=state.running,
            used_tokens=state.used_tokens + self._budget_sums.get((*key, self._month), 0),
            reserved_tokens=state.reserved_tokens,
        )

    def _find_caller(self, key: CallerKey) -> _CallerState:
        if key not in self._callers:
            values = {"kind": key[0], "name": key[1], "month": self._month}
            row = self.connection.execute(statements.SELECT_CALLER, values).one()
            # Not written yet: what this batch has reserved and settled so far.
            new = [one for one in self._new.values() if (one["caller_kind"], one["caller_id"]) == key]
            settled = [one for one in self._settled.values() if (one.caller_kind, one.caller_id) == key]
            reserved = int(row.reserved_tokens or 0) + sum(one["tokens"] for one in new)
            self._callers[key] = _CallerState(
                requests=row.requests or 0.0,
                tokens=row.tokens or 0.0,
                updated_at=self.now if row.updated_at is None else row.updated_at,
                running=row.running + len(new) - len(settled),
                reserved_tokens=reserved - sum(one.tokens for one in settled if one.month == self._month),
                used_tokens=int(row.used_tokens or 0),
            )
        return self._callers[key]

    def _set_counters(self, key: CallerKey, limits: Limits, requests: float, tokens: float) -> None:
        if limits.requests_per_minute is None and limits.tokens_per_minute is None:
            return
        state = self._find_caller(key)
        state.requests, state.tokens, state.updated_at = requests, tokens, self.now
        self._changed_counters.add(key)

    def _return_tokens(self, row: Any, limits: Limits, unused: int) -> None:
        """Give unused tokens back to the limit per minute, less what has leaked since they were reserved."""
        if limits.tokens_per_minute is None:
            return
        key = (row.caller_kind, row.caller_id)
        standing = self._find_standing(key, limits)
        returned = leak(unused, limits.tokens_per_minute, self.now - row.reserved_at) if unused > 0 else unused
        self._set_counters(key, limits, standing.requests, max(0.0, standing.tokens - returned))


def list_reservations(connection: Connection, instances: Sequence[str]) -> Sequence[Any]:
    """Return the reservations of gateways, as rows."""
    return connection.execute(sa.select(t.reservations).where(t.reservations.c.instance.in_(instances))).all()


def _date_unused(row: Any, limits: Limits, used: int, now: float) -> float:
    """Return a time since which as much would have leaked as has leaked of what a request has reserved and not used.

    What it reserves now has not leaked yet, and of what it has used nothing is given back.
    """
    if not limits.tokens_per_minute:
        return float(row.reserved_at)
    return float(max(row.reserved_at, now - max(0, row.tokens - used) * 60 / limits.tokens_per_minute))


def _list_columns(row: Any) -> dict[str, Any]:
    """Return a reservation, stored or new, by the names of its columns."""
    return {name: getattr(row, name) for name in t.reservations.c.keys()}  # noqa: SIM118 - no mapping


def read_meta(connection: Connection, name: MetaName) -> str | None:
    """Return a single value; None if there is none."""
    value: str | None = connection.scalar(sa.select(t.meta.c.value).where(t.meta.c.name == name.value))
    return value


def write_meta(connection: Connection, name: MetaName, value: str) -> None:
    """Store a single value, in a transaction of its caller."""
    upsert = statements.build_upserts(connection.dialect.name).meta
    connection.execute(upsert, [{"name": name.value, "value": value}])


def check_text(field_name: str, text: str) -> None:
    """Raise ValueError if PostgreSQL could not store or index a text."""
    if not text or len(text) > MOST_TEXT or not text.isprintable():
        raise ValueError(f"{field_name}: must have 1 to {MOST_TEXT} printable characters")


def _clip(text: str) -> str:
    printable = "".join(one if one.isprintable() else "?" for one in text[:MOST_TEXT])
    return printable.encode(errors="replace").decode()


def _make_usage_row(key: tuple[str, str, str, str, str], total: _UsageSum) -> dict[str, Any]:
    row = dict(zip(("caller_kind", "caller_id", "model", "day", "end_user"), key, strict=True))
    return row | {name: getattr(total, name) for name in statements.USAGE_SUMS}


def _join(rows: list[dict[str, Any]]) -> Any:
    """Return a single row as itself: PostgreSQL's driver takes more exchanges for a list."""
    return rows[0] if len(rows) == 1 else rows
