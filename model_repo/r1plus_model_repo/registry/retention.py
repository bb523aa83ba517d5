"""Prunes what ended long ago, and holds each tenant to its share, in small transactions. Run by the service.

What the cluster still shows is told again within the hour, so pruning it would bring it back: the last to be told go
last, and what ended is told no more.
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

from r1plus_model_repo.registry import tables as t
from r1plus_model_repo.registry.errors import RegistryError
from r1plus_model_repo.registry.storage import Storage

log = logging.getLogger(__name__)
DAY_SECONDS: Final = 86_400.0
EVERY_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 30.0
ROWS_AT_ONCE: Final = 200
ITEMS_AT_ONCE: Final = 5000
"""At most so many in a step, but one gate or suite in any case."""
UNTOLD_SECONDS: Final = DAY_SECONDS
"""A suite that no recorded gate is of goes once it was not told for so long."""
OF_A_DEPLOYMENT: Final = (t.evaluations, t.alarms, t.rollouts, t.revisions)
OWNER_OF_ITEMS: Final = {t.evaluations: t.evaluation_items.c.evaluation_id, t.suites: t.suite_items.c.suite_id}
"""Table whose rows have items, which go with them -> column that says whose an item is."""
PrunedRows = dict[str, int]
"""Kind -> rows. Empty: there is nothing left to prune."""
Step = Callable[[Connection], PrunedRows]


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept."""

    days: int = 400
    """After the end of a deployment; 0: for ever."""
    entries: int = 5000
    """Gates of a namespace at most, and as many revisions, steps of rollouts, alarms and deployments."""
    items: int = 200_000
    """Items of a namespace's suites at most, and as many that its gates lost."""


def prune_ended(connection: Connection, before: float) -> PrunedRows:
    """Prune what is of deployments that ended before then."""
    ended = sa.select(t.deployments.c.uid).where(t.deployments.c.ended_at < before)
    for table in OF_A_DEPLOYMENT:
        rows = _rows(connection, table, table.c.deployment_uid.in_(ended))
        if pruned := _delete(connection, table, rows):
            return pruned
    return _delete(connection, t.deployments, connection.scalars(ended.limit(ROWS_AT_ONCE)).all())


def prune_suites(connection: Connection, told_before: float) -> PrunedRows:
    """Prune suites that no gate is of any more and that the operator does not tell."""
    c = t.suites.c
    unused = c.sha256.not_in(sa.select(t.evaluations.c.suite_hash))
    return _delete(connection, t.suites, _rows(connection, t.suites, unused, c.told_at < told_before))


def prune_share(connection: Connection, namespace: str, retention: Retention) -> PrunedRows:
    """Prune what one namespace has beyond its share, the longest untold first."""
    d = t.deployments.c
    uids = sa.select(d.uid).where(d.namespace == namespace)
    for table in OF_A_DEPLOYMENT:
        in_namespace = table.c.deployment_uid.in_(uids)
        if (over := _count(connection, table, in_namespace) - retention.entries) > 0:
            return _delete(connection, table, _rows(connection, table, in_namespace)[:over])
    if (over := _count(connection, t.deployments, d.namespace == namespace) - retention.entries) > 0:
        ended = sa.select(d.uid).where(d.namespace == namespace, d.ended_at.is_not(None)).order_by(d.ended_at)
        rows = connection.scalars(ended.limit(min(over, ROWS_AT_ONCE))).all()
        if pruned := _delete(connection, t.deployments, rows):
            return pruned
    gates = t.evaluations.c.deployment_uid.in_(uids)
    for table, condition in ((t.evaluations, gates), (t.suites, t.suites.c.namespace == namespace)):
        owner = OWNER_OF_ITEMS[table]
        items = sa.select(sa.func.count()).where(owner.in_(sa.select(table.c.id).where(condition)))
        if (over := (connection.scalar(items) or 0) - retention.items) > 0:
            rows = _rows(connection, table, condition, table.c.id.in_(sa.select(owner)), items=over)
            return _delete(connection, table, rows)
    return {}


def namespaces(connection: Connection) -> set[str]:
    """All of which anything is recorded."""
    query = sa.union(sa.select(t.deployments.c.namespace), sa.select(t.suites.c.namespace))
    return set(connection.scalars(query)) - {""}


def _rows(
    connection: Connection, table: sa.Table, *where: sa.ColumnElement[bool], items: int = ITEMS_AT_ONCE
) -> list[Any]:
    """Keys of as many rows as a step prunes, the longest untold first; they end with the one that completes `items`."""
    key, room = table.c.id, min(items, ITEMS_AT_ONCE)
    query = sa.select(key).where(*where).order_by(table.c.told_at, key).limit(ROWS_AT_ONCE)
    if (owner := OWNER_OF_ITEMS.get(table)) is None:
        return list(connection.scalars(query))
    size = sa.select(sa.func.count()).where(owner == key).scalar_subquery()
    chosen: list[Any] = []
    for row in connection.execute(query.add_columns(size.label("size"))):
        chosen.append(row.id)
        room -= row.size
        if room <= 0:
            break
    return chosen


def _count(connection: Connection, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table).where(where)) or 0


def _delete(connection: Connection, table: sa.Table, keys: Sequence[Any]) -> PrunedRows:
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
        pruned: prometheus_client.Counter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._retention = retention
        self._pruned = pruned
        self._clock = clock
        self._namespaces: set[str] = set()
        self._wake = asyncio.Event()

    def notice(self, namespaces: Iterable[str]) -> None:
        """Something new is recorded of these."""
        self._namespaces |= set(namespaces) - {""}
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        due = time.monotonic()
        while True:
            self._wake.clear()
            try:
                if time.monotonic() >= due:
                    await self.prune_all()
                    due = time.monotonic() + EVERY_SECONDS
                await self._prune_shares()
            except RegistryError as error:
                log.debug("Pruning goes on later: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(due - time.monotonic(), 0.0)):
                    await self._wake.wait()

    async def prune_all(self) -> None:
        """Prune all that is due. Raises RegistryError where the database cannot do it now."""
        now = self._clock()
        if self._retention.days:
            await self._repeat(partial(prune_ended, before=now - self._retention.days * DAY_SECONDS))
            await self._repeat(partial(prune_suites, told_before=now - UNTOLD_SECONDS))
        self._namespaces |= await self._storage.change(namespaces)
        await self._prune_shares()

    async def _prune_shares(self) -> None:
        while self._namespaces:
            namespace = self._namespaces.pop()  # Before its turn: what is recorded meanwhile is noticed again.
            try:
                await self._repeat(partial(prune_share, namespace=namespace, retention=self._retention))
            except RegistryError:
                self._namespaces.add(namespace)
                raise

    async def _repeat(self, step: Step) -> None:
        """One transaction after the other: requests get their turn between them."""
        total: Counter[str] = Counter()
        while pruned := await self._storage.change(step):
            total.update(pruned)
            for kind, count in pruned.items():
                self._pruned.labels(kind).inc(count)
        if total:
            log.info("Pruned %s", ", ".join(f"{count} {kind}" for kind, count in sorted(total.items())))
