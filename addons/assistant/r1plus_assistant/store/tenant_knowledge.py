"""What callers do with the tenant's knowledge, and the ingestion for them: reads in a thread, changes in the writer."""

import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_assistant.store.knowledge_reader import KnowledgeReader
from r1plus_assistant.store.knowledge_writer import KnowledgeWriter
from r1plus_assistant.store.tenant_content import READS_AT_ONCE, WRITES_AT_ONCE, take_step
from r1plus_gateway.access.caller import AccessError, Caller
from r1plus_gateway.access.turns import Turns
from r1plus_gateway.store.content.content import ContentLimits
from r1plus_gateway.store.content.knowledge import IngestionState
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.readers import ReadKind
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.ledger.ledger import refuse_unavailable
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure_records import match_shown

log = logging.getLogger(__name__)
T = TypeVar("T")
MOST_PENDING: Final = 20
"""Files of each caller that one look for work returns."""


class DeletionListener(Protocol):
    """What keeps something of the knowledge in memory, and forgets what was deleted."""

    def forget_owners(self, is_erased: Callable[[Owner], bool]) -> None:
        """Forget all of the owners that were erased."""

    async def drop_deleted(self, owner: Owner) -> None:
        """Forget what an owner has deleted. Raises StoreError."""


class TenantKnowledge:
    """The knowledge of all callers. Each step sees that of one owner, and what its caller shares with it."""

    def __init__(self, store: TenantStore, read_limits: Callable[[], ContentLimits]) -> None:
        self._store = store
        self._read_limits = read_limits
        self._readers = Turns()
        self._writers = Turns()
        self._listeners: list[DeletionListener] = []

    def notify(self, listener: DeletionListener) -> None:
        """Tell a listener what is deleted, and what is erased."""
        self._listeners.append(listener)
        self._store.erasure_listeners.append(listener.forget_owners)

    @property
    def is_enabled(self) -> bool:
        """Whether the tenant's policy lets knowledge be stored."""
        return self._store.config.has_knowledge

    def identify(self, caller: Caller) -> Owner:
        """Return whose knowledge a caller's is. Raises AccessError 503 while the data are not open."""
        try:
            return self._store.cipher.identify(caller)
        except StoreError as error:
            raise refuse_unavailable(error) from error

    async def read(
        self, owner: Owner, step: Callable[[KnowledgeReader], T], *, kind: ReadKind = ReadKind.SHORT, line: str = ""
    ) -> T:
        """Run a step on one consistent snapshot.

        A caller has one of each kind at a time, so callers take turns. `line`: what waits for none of its others.

        Raises:
            AccessError: 503 while the data cannot be read.
            UnreadableContentError: what is stored does not decrypt.
        """
        try:
            cipher, now, over_by = self._store.cipher, self._store.clock.read(), self._store.retention.estimate()
            async with self._readers.wait(f"{_name_line(owner)} {line or kind.value}", READS_AT_ONCE):
                return await self._store.read(
                    lambda connection: step(KnowledgeReader(connection, cipher, owner, now, over_by)), kind=kind
                )
        except StoreError as error:
            raise refuse_unavailable(error) from error

    async def write(self, owner: Owner, step: Callable[[KnowledgeWriter], T]) -> T:
        """Run a step in one transaction. A step that refuses has changed nothing.

        Raises:
            AccessError: 503 while the data cannot be written.
            ContentLimitError: there is no room.
            UnreadableContentError: what is stored does not decrypt.
        """
        try:
            cipher, limits, over_by = self._store.cipher, self._read_limits(), self._store.retention.estimate()
            async with self._writers.wait(_name_line(owner), WRITES_AT_ONCE):
                return await self._store.write(
                    lambda ledger: take_step(
                        step, KnowledgeWriter(ledger.connection, cipher, owner, ledger.now, over_by, limits)
                    )
                )
        except StoreError as error:
            raise refuse_unavailable(error) from error

    async def delete(self, owner: Owner, step: Callable[[KnowledgeWriter], bool]) -> bool:
        """Run a step that deletes, and then delete what it left, in parts between which others write.

        What is not deleted when this ends early goes by the store's own rounds.

        Raises:
            AccessError: 503 while the data cannot be written; nothing was deleted.
        """
        is_found = await self.write(owner, step)
        try:
            for listener in self._listeners:
                await listener.drop_deleted(owner)
        except StoreError as error:
            log.warning("Indexes of what was deleted are dropped later: %s", error)
        await self.drop_deleted(owner)
        return is_found

    async def drop_deleted(self, owner: Owner) -> None:
        """Delete what an owner has deleted and was too large for one transaction."""
        is_done = False
        try:
            while await self.write(owner, lambda one: one.drop_deleted()):
                pass
            is_done = True
        except AccessError as error:
            log.warning("What was deleted goes later: %s", error)
        finally:
            if not is_done:  # its caller has left, too
                self._store.prune_soon()

    async def list_pending(self, most: int = MOST_PENDING) -> list[tuple[str, str, Owner]]:
        """Return files that are to be read, so many of each caller: vector store, file, owner; the oldest first.

        Of a caller's end users with many files each has its oldest among them.

        Raises:
            StoreError: the data cannot be read.
        """
        return await self._store.read(lambda one: _list_pending(one, self._store.retention.estimate(), most))

    async def list_changed(self, versions: Mapping[str, int]) -> dict[str, set[str] | None]:
        """Return the ids of what is searched in vector stores whose version is another; None where one is gone.

        Raises StoreError.
        """
        return await self._store.read(lambda one: _list_changed(one, self._store.retention.estimate(), versions))


def _list_changed(connection: Connection, now: float, versions: Mapping[str, int]) -> dict[str, set[str] | None]:
    changed: dict[str, set[str] | None] = {}
    stores, files = t.vector_stores.c, t.vector_store_files.c
    for store_id, version in versions.items():
        is_there = (
            stores.id == store_id,
            sa.or_(stores.expires_at.is_(None), stores.expires_at > now),
            match_shown(t.vector_stores, None),
        )
        present = connection.scalar(sa.select(stores.version).where(*is_there))
        if present is None:
            changed[store_id] = None
        elif present != version:
            is_file = (files.vector_store_id == store_id, files.state == IngestionState.COMPLETED)
            changed[store_id] = set(connection.scalars(sa.select(files.id).where(*is_file)))
    return changed


def _name_line(owner: Owner) -> str:
    return f"{owner.caller_kind} {owner.caller_id}"


def _list_pending(connection: Connection, now: float, most: int) -> list[tuple[str, str, Owner]]:
    """Return what is to be read, without what has expired or was deleted, and is only there until it is pruned."""
    files, stores = t.vector_store_files.c, t.vector_stores.c
    joined = t.vector_store_files.join(t.vector_stores, stores.id == files.vector_store_id).join(
        t.files, t.files.c.id == files.file_id
    )
    is_there = [sa.or_(ends.is_(None), ends > now) for ends in (stores.expires_at, t.files.c.expires_at)]
    names = [stores[name] for name in t.OWNER]
    order = (files.created_at, files.id)
    place = sa.func.row_number().over(partition_by=names, order_by=order)
    pending = (
        sa.select(stores.id.label("store_id"), files.file_id, *names, *order, place.label("place"))
        .select_from(joined)
        .where(files.state == IngestionState.IN_PROGRESS, *is_there, match_shown(t.vector_stores, None))
        .subquery()
    )
    caller = (pending.c.caller_kind, pending.c.caller_id)
    fair = (pending.c.place, pending.c.created_at, pending.c.id)
    ranked = sa.select(pending, sa.func.row_number().over(partition_by=caller, order_by=fair).label("rank")).subquery()
    r = ranked.c
    found = sa.select(r.store_id, r.file_id, *(r[name] for name in t.OWNER)).where(r.rank <= most)
    rows = connection.execute(found.order_by(r.created_at, r.id))
    return [(store_id, file_id, Owner(*own)) for store_id, file_id, *own in rows]
