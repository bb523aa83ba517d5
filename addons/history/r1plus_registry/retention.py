"""Pruning of old facts and enforcement of each tenant's share, in small transactions. Run by the service.

The operator reports everything in the cluster every hour, so pruning that would bring it back. Facts whose last report
is oldest go first; facts of ended deployments are no longer reported.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import prometheus_client
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_registry import tables as t
from r1plus_registry.errors import RegistryError
from r1plus_registry.storage import Storage

log = logging.getLogger(__name__)
DAY_SECONDS: Final = 86_400.0
EVERY_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 30.0
ROWS_AT_ONCE: Final = 200
ITEMS_AT_ONCE: Final = 5000
"""Limits per step, but at least one gate or suite."""
UNREPORTED_SECONDS: Final = DAY_SECONDS
"""A suite without a recorded gate is pruned when it was not reported for this long."""
DEPLOYMENT_TABLES: Final = (t.evaluations, t.alarms, t.rollouts, t.revisions)
OWNER_OF_ITEMS: Final = {t.evaluations: t.evaluation_items.c.evaluation_id, t.suites: t.suite_items.c.suite_id}
"""Table whose rows own items, deleted with them -> column with the owner of an item."""
PrunedRows = dict[str, int]
"""Kind -> rows. Empty: nothing is left to prune."""
Step = Callable[[Connection], PrunedRows]


@dataclass(frozen=True, slots=True)
class Retention:
    """Limits on what is kept."""

    days: int = 400
    """Days after the end of a deployment; 0: forever."""
    entries: int = 5000
    """Limit of gates per namespace; the same limit holds for revisions, rollout steps, alarms and deployments."""
    items: int = 200_000
    """Limit of suite items per namespace; the same limit holds for items lost by its gates."""


def prune_ended(connection: Connection, before: float) -> PrunedRows:
    """Prune what belongs to deployments that ended before this time."""
    ended_uids = sa.select(t.deployments.c.uid).where(t.deployments.c.ended_at < before)
    for table in DEPLOYMENT_TABLES:
        rows = _select_rows(connection, table, table.c.deployment_uid.in_(ended_uids))
        if pruned_rows := _delete_rows(connection, table, rows):
            return pruned_rows
    return _delete_rows(connection, t.deployments, connection.scalars(ended_uids.limit(ROWS_AT_ONCE)).all())


def prune_suites(connection: Connection, reported_before: float) -> PrunedRows:
    """Prune suites without a recorded gate that the operator no longer reports."""
    c = t.suites.c
    unused = c.sha256.not_in(sa.select(t.evaluations.c.suite_hash))
    return _delete_rows(connection, t.suites, _select_rows(connection, t.suites, unused, c.told_at < reported_before))


def prune_share(connection: Connection, namespace: str, retention: Retention) -> PrunedRows:
    """Prune what exceeds the share of one namespace, oldest report first."""
    d = t.deployments.c
    uids = sa.select(d.uid).where(d.namespace == namespace)
    for table in DEPLOYMENT_TABLES:
        in_namespace = table.c.deployment_uid.in_(uids)
        if (excess := _count_rows(connection, table, in_namespace) - retention.entries) > 0:
            return _delete_rows(connection, table, _select_rows(connection, table, in_namespace)[:excess])
    if (excess := _count_rows(connection, t.deployments, d.namespace == namespace) - retention.entries) > 0:
        ended_query = sa.select(d.uid).where(d.namespace == namespace, d.ended_at.is_not(None)).order_by(d.ended_at)
        rows = connection.scalars(ended_query.limit(min(excess, ROWS_AT_ONCE))).all()
        if pruned_rows := _delete_rows(connection, t.deployments, rows):
            return pruned_rows
    gates = t.evaluations.c.deployment_uid.in_(uids)
    for table, condition in ((t.evaluations, gates), (t.suites, t.suites.c.namespace == namespace)):
        owner = OWNER_OF_ITEMS[table]
        items = sa.select(sa.func.count()).where(owner.in_(sa.select(table.c.id).where(condition)))
        if (excess := (connection.scalar(items) or 0) - retention.items) > 0:
            rows = _select_rows(connection, table, condition, table.c.id.in_(sa.select(owner)), items=excess)
            return _delete_rows(connection, table, rows)
    return {}


def list_namespaces(connection: Connection) -> set[str]:
    """Return all namespaces with recorded facts."""
    query = sa.union(sa.select(t.deployments.c.namespace), sa.select(t.suites.c.namespace))
    return set(connection.scalars(query)) - {""}


def _select_rows(
    connection: Connection, table: sa.Table, *where: sa.ColumnElement[bool], items: int = ITEMS_AT_ONCE
) -> list[Any]:
    """Return the keys of the rows to prune in one step, oldest report first, up to the row that completes `items`."""
    key, room = table.c.id, min(items, ITEMS_AT_ONCE)
    query = sa.select(key).where(*where).order_by(table.c.told_at, key).limit(ROWS_AT_ONCE)
    if (owner := OWNER_OF_ITEMS.get(table)) is None:
        return list(connection.scalars(query))
    size = sa.select(sa.func.count()).where(owner == key).scalar_subquery()
    keys: list[Any] = []
    for row in connection.execute(query.add_columns(size.label("size"))):
        keys.append(row.id)
        room -= row.size
        if room <= 0:
            break
    return keys


def _count_rows(connection: Connection, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table).where(where)) or 0


def _delete_rows(connection: Connection, table: sa.Table, keys: Sequence[Any]) -> PrunedRows:
    if not keys:
        return {}
    (key,) = table.primary_key.columns
    return {table.name: connection.execute(sa.delete(table).where(key.in_(keys))).rowcount}


class Pruner:
    """Prunes every hour, and a namespace's share soon after something of it was recorded."""

    def __init__(
        self,
        storage: Storage,
        retention: Retention,
        pruned_counter: prometheus_client.Counter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._retention = retention
        self._pruned_counter = pruned_counter
        self._clock = clock
        self._namespaces: set[str] = set()
        self._wake = asyncio.Event()

    def mark_dirty(self, list_namespaces: Iterable[str]) -> None:
        """Mark namespaces with new facts."""
        self._namespaces |= set(list_namespaces) - {""}
        self._wake.set()

    async def run(self) -> None:
        """Prune regularly. Never returns."""
        due = time.monotonic()
        while True:
            self._wake.clear()
            try:
                if time.monotonic() >= due:
                    await self.prune_all()
                    due = time.monotonic() + EVERY_SECONDS
                await self._prune_shares()
            except RegistryError as error:
                log.debug("Pruning failed and is retried later: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(due - time.monotonic(), 0.0)):
                    await self._wake.wait()

    async def prune_all(self) -> None:
        """Prune everything that is due. Raise RegistryError if the database cannot do it now."""
        now = self._clock()
        if self._retention.days:
            await self._run_until_done(partial(prune_ended, before=now - self._retention.days * DAY_SECONDS))
            await self._run_until_done(partial(prune_suites, reported_before=now - UNREPORTED_SECONDS))
        self._namespaces |= await self._storage.transact(list_namespaces)
        await self._prune_shares()

    async def _prune_shares(self) -> None:
        while self._namespaces:
            namespace = self._namespaces.pop()  # Removed first: facts recorded meanwhile mark it again.
            try:
                await self._run_until_done(partial(prune_share, namespace=namespace, retention=self._retention))
            except RegistryError:
                self._namespaces.add(namespace)
                raise

    async def _run_until_done(self, step: Step) -> None:
        """Run transactions until nothing is left; requests run between them."""
        total: Counter[str] = Counter()
        while pruned_rows := await self._storage.transact(step):
            total.update(pruned_rows)
            for kind, count in pruned_rows.items():
                self._pruned_counter.labels(kind).inc(count)
        if total:
            log.info("Pruned %s", ", ".join(f"{count} {kind}" for kind, count in sorted(total.items())))
