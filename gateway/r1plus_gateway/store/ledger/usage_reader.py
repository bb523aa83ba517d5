"""What `GET /v1/usage` and the metrics show, from the tenant's data."""

from collections.abc import Collection
from datetime import date
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.access.caller import Caller, CallerKind
from r1plus_gateway.access.usage import KeyBudget, ModelUsage, UsageSummary
from r1plus_gateway.store.administration.admin import UsageQuery, UsageRow, report_usage
from r1plus_gateway.store.clock import format_day, format_month
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.ledger.ledger import refuse_unavailable
from r1plus_gateway.store.tenant import TenantStore

MOST_BUDGETS: Final = 300
"""Keys whose budgets are read for the metrics, by id."""


class StoreUsage:
    """Implements `UsageReader`."""

    def __init__(self, store: TenantStore) -> None:
        self._store = store

    async def read_usage(self, caller: Caller) -> UsageSummary:
        """Return the caller's usage of this month, as `UsageReader` says."""
        today = date.fromisoformat(format_day(self._store.clock.read()))
        query = UsageQuery(today.replace(day=1), today, caller.kind.value, caller.id)
        try:
            report = await report_usage(self._store, query)
            remaining = await self._store.write(lambda ledger: ledger.read_remaining(caller))
        except StoreError as error:
            raise refuse_unavailable(error) from error
        return UsageSummary(_sum_by_model(report.rows), remaining)


def _sum_by_model(rows: tuple[UsageRow, ...]) -> tuple[ModelUsage, ...]:
    sums: dict[str, ModelUsage] = {}
    for row in rows:
        before = sums.get(row.model, ModelUsage(row.model, 0, 0, 0))
        sums[row.model] = ModelUsage(
            row.model,
            before.requests + row.requests,
            before.prompt_tokens + row.prompt_tokens,
            before.completion_tokens + row.completion_tokens,
        )
    return tuple(sums[model] for model in sorted(sums))


async def read_key_budgets(store: TenantStore, keys: Collection[str]) -> list[KeyBudget]:
    """Return which of these API keys are valid, and the budgets of all that are valid and have one.

    Raises StoreError.
    """
    now = store.clock.read()
    return await store.read(lambda connection: _read_key_budgets(connection, keys, now))


def _read_key_budgets(connection: Connection, keys: Collection[str], now: float) -> list[KeyBudget]:
    c = t.api_keys.c
    is_valid = (c.revoked_at.is_(None), sa.or_(c.expires_at.is_(None), c.expires_at > now))
    valid = connection.scalars(sa.select(c.id).where(c.id.in_(sorted(keys)), *is_valid))
    budgets = {name: KeyBudget(name) for name in valid}
    statement = (
        sa.select(c.id, c.budget_tokens)
        .where(c.budget_tokens.is_not(None), *is_valid)
        .order_by(c.id)
        .limit(MOST_BUDGETS)
    )
    limits: dict[str, int] = {row.id: row.budget_tokens for row in connection.execute(statement)}
    month = format_month(now)
    used = _sum_by_key(connection, t.budgets, t.budgets.c.used_tokens, month, limits)
    reserved = _sum_by_key(connection, t.reservations, t.reservations.c.tokens, month, limits)
    for name, limit in limits.items():
        left = limit - used.get(name, 0) - reserved.get(name, 0)
        budgets[name] = KeyBudget(name, limit, max(0, left))
    return list(budgets.values())


def _sum_by_key(
    connection: Connection, table: sa.Table, column: sa.Column[int], month: str, keys: Collection[str]
) -> dict[str, int]:
    c = table.c
    statement = (
        sa.select(c.caller_id, sa.func.sum(column).label("total"))
        .where(c.month == month, c.caller_kind == CallerKind.API_KEY.value, c.caller_id.in_(list(keys)))
        .group_by(c.caller_id)
    )
    return {row.caller_id: int(row.total) for row in connection.execute(statement)}
