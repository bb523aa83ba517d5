"""What `GET /v1/usage` shows, from the tenant's data."""

from datetime import date

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.access.usage import ModelUsage, UsageSummary
from r1plus_gateway.store.admin import UsageQuery, UsageRow, report_usage
from r1plus_gateway.store.clock import format_day
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.ledger import refuse_unavailable
from r1plus_gateway.store.tenant import TenantStore


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
