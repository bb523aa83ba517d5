"""What one owner may read of the tenant's knowledge, in one transaction.

It is the owner's own, and what its caller has uploaded without an end user: a knowledge base is an application's.
Another owner's id finds nothing. Called with the connection of `TenantStore.read` or `write`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
import sqlalchemy as sa

from r1plus_assistant.store.owner_reader import OwnerReader
from r1plus_gateway.store.content.content import Listed, ListPage
from r1plus_gateway.store.content.content_books import match_owner
from r1plus_gateway.store.content.knowledge import (
    Chunk,
    ChunkBatch,
    FileBatch,
    FileState,
    Ingestion,
    IngestionProblem,
    IngestionState,
    StoredFile,
    VectorStore,
    VectorStoreFile,
)
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.upkeep.erasure_records import match_shown

_MOST_NAMED: Final = 256


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a vector store that expires was last used, and what time it is."""

    used_at: float
    now: float


class KnowledgeReader(OwnerReader):
    """Reads the knowledge that one owner may see."""

    def find_file(self, file_id: str) -> StoredFile | None:
        """Return a whole file. Raises UnreadableContentError."""
        row = self._find_row(t.files, file_id)
        return None if row is None or row.state != FileState.WHOLE else self._make_file(row)

    def list_files(self, page: ListPage, purpose: str = "") -> Listed[StoredFile] | None:
        """Return whole files by the time they were made; None if `page.after` is none of them."""
        c, files = t.files.c, list[StoredFile]()
        conditions = [c.state == FileState.WHOLE]
        if purpose:
            conditions.append(sa.or_(c.purpose == purpose, c.purpose.is_(None)))
        rest: ListPage | None = page
        while rest is not None and len(files) <= page.limit:
            rows = self._list_rows(t.files, rest, *conditions)
            if rows is None:
                return None
            read = [self._make_file(row) for row in rows]  # of an earlier release the purpose is encrypted
            files += [file for file in read if not purpose or file.purpose == purpose]
            rest = replace(page, after=rows[-1].id) if len(rows) > page.limit else None
        return Listed(files[: page.limit], len(files) > page.limit)

    def read_part(self, file_id: str, position: int) -> bytes | None:
        """Return a part of a file; None behind the last one. Raises UnreadableContentError."""
        owner = self._find_owner(t.files, file_id)
        c = t.file_parts.c
        row = self.connection.execute(
            sa.select(t.file_parts).where(c.file_id == file_id, c.position == position)
        ).one_or_none()
        if owner is None or row is None:
            return None
        return self._decrypt(row, "file_parts", owner, row.content)

    def find_vector_store(self, store_id: str) -> VectorStore | None:
        """Return a vector store. Raises UnreadableContentError."""
        row = self._find_row(t.vector_stores, store_id)
        return None if row is None else self._add_counts([self._make_store(row)])[0]

    def list_vector_stores(self, page: ListPage) -> Listed[VectorStore] | None:
        """Return vector stores by the time they were made; None if `page.after` is none of them."""
        rows = self._list_rows(t.vector_stores, page)
        if rows is None:
            return None
        stores = self._add_counts([self._make_store(row) for row in rows[: page.limit]])
        return Listed(stores, len(rows) > page.limit)

    def find_store_file(self, store_id: str, file_id: str) -> VectorStoreFile | None:
        """Return a file of a vector store. Raises UnreadableContentError."""
        owner, c = self._find_owner(t.vector_stores, store_id), t.vector_store_files.c
        is_file = (c.vector_store_id == store_id, c.file_id == file_id)
        row = self.connection.execute(sa.select(t.vector_store_files).where(*is_file)).one_or_none()
        return None if owner is None or row is None else self._make_store_files([row], owner)[0]

    def list_store_files(
        self, store_id: str, page: ListPage, state: IngestionState | None = None, batch_id: str = ""
    ) -> Listed[VectorStoreFile] | None:
        """Return files of a vector store by the time they were added; None if `page.after` is none of them.

        `batch_id`: only those of this batch.
        """
        owner, c = self._find_owner(t.vector_stores, store_id), t.vector_store_files.c
        if owner is None:
            return None
        statement = sa.select(t.vector_store_files).where(c.vector_store_id == store_id)
        if state is not None:
            statement = statement.where(c.state == state)
        if batch_id:
            statement = statement.where(c.batch_id == batch_id)
        if page.after:
            after = self.find_store_file(store_id, page.after)
            if after is None:
                return None
            place = (sa.tuple_(c.created_at, c.id), sa.tuple_(sa.literal(after.created_at), sa.literal(after.id)))
            statement = statement.where(place[0] > place[1] if page.is_ascending else place[0] < place[1])
        order = (c.created_at, c.id) if page.is_ascending else (c.created_at.desc(), c.id.desc())
        rows = self.connection.execute(statement.order_by(*order).limit(page.limit + 1)).all()
        return Listed(self._make_store_files(rows[: page.limit], owner), len(rows) > page.limit)

    def find_batch(self, store_id: str, batch_id: str) -> FileBatch | None:
        """Return a batch of files, of which at least one is in the vector store."""
        c = t.vector_store_files.c
        is_batch = (c.vector_store_id == store_id, c.batch_id == batch_id)
        found = sa.select(c.state, sa.func.count(), sa.func.min(c.created_at)).where(*is_batch).group_by(c.state)
        rows = self.connection.execute(found).all()
        if not rows or self._find_owner(t.vector_stores, store_id) is None:
            return None
        counts = {IngestionState(state): count for state, count, _ in rows}
        return FileBatch(batch_id, store_id, min(row[2] for row in rows), counts)

    def list_searchable(self, store_id: str) -> list[VectorStoreFile] | None:
        """Return all files of a vector store whose chunks are complete; None without the vector store."""
        owner, c = self._find_owner(t.vector_stores, store_id), t.vector_store_files.c
        if owner is None:
            return None
        is_file = (c.vector_store_id == store_id, c.state == IngestionState.COMPLETED)
        rows = self.connection.execute(sa.select(t.vector_store_files).where(*is_file).order_by(c.created_at, c.id))
        return self._make_store_files(rows.all(), owner)

    def read_version(self, store_id: str) -> int | None:
        """Return the version of what a search in a vector store finds; None without one."""
        row = self._find_row(t.vector_stores, store_id)
        return None if row is None else int(row.version)

    def find_store_owner(self, store_id: str) -> Owner | None:
        """Return whose a vector store is: this owner's, or what its caller shares with it; None without one."""
        return self._find_owner(t.vector_stores, store_id)

    def count_chunks(self, store_id: str) -> int:
        """Return the chunks of all files of a vector store."""
        c = t.vector_store_files.c
        return int(self.connection.scalar(sa.select(sa.func.sum(c.chunks)).where(c.vector_store_id == store_id)) or 0)

    def read_batches(self, file: VectorStoreFile, after: int = -1, most: int = 64) -> list[ChunkBatch]:
        """Return the next batches of a file's chunks. Raises UnreadableContentError."""
        owner, c = self._find_owner(t.vector_stores, file.vector_store_id), t.chunk_batches.c
        if owner is None:
            return []
        is_batch = (c.vector_store_file_id == file.id, c.position > after)
        rows = self.connection.execute(sa.select(t.chunk_batches).where(*is_batch).order_by(c.position).limit(most))
        return [self._make_batch(row, owner) for row in rows]

    def read_chunk(self, file: VectorStoreFile, batch: int, index: int) -> Chunk | None:
        """Return one chunk of a file; None if it is not there any more. Raises UnreadableContentError."""
        found = self.read_batches(file, batch - 1, 1)
        is_there = bool(found) and found[0].position == batch and index < len(found[0].chunks)
        return found[0].chunks[index] if is_there else None

    def find_expiry(self, store_id: str) -> Expiry | None:
        """Return when a vector store that expires was last used; None for any other."""
        row = self._find_row(t.vector_stores, store_id)
        return None if row is None or row.expires_at is None else Expiry(row.used_at, self.now)

    def _match_visible(self, table: sa.Table) -> tuple[Any, ...]:
        """Return the conditions that a row is this owner's, or its caller's, is not erased, and has not expired."""
        c, owner = table.c, self.owner
        is_own = (c.caller_kind == owner.caller_kind, c.caller_id == owner.caller_id)
        ends = {owner.end_user, ""}
        is_there = sa.or_(c.expires_at.is_(None), c.expires_at > self.over_by)
        return (*is_own, c.end_user.in_(sorted(ends)), is_there, match_shown(table, owner))

    def _match_own(self, table: sa.Table) -> tuple[Any, ...]:
        """Return the conditions that a row is this owner's own, and is not erased."""
        return (*match_owner(table, self.owner), match_shown(table, self.owner))

    def _find_row(self, table: sa.Table, row_id: str) -> Any:
        return self.connection.execute(
            sa.select(table).where(table.c.id == row_id, *self._match_visible(table))
        ).one_or_none()

    def _find_owner(self, table: sa.Table, row_id: str) -> Owner | None:
        c = table.c
        names = [c[name] for name in t.OWNER]
        row = self.connection.execute(
            sa.select(*names).where(c.id == row_id, *self._match_visible(table))
        ).one_or_none()
        return None if row is None else Owner(*row)

    def _list_rows(self, table: sa.Table, page: ListPage, *conditions: Any) -> Sequence[Any] | None:
        c = table.c
        statement = sa.select(table).where(*self._match_visible(table), *conditions)
        if page.after:
            after = self._find_row(table, page.after)
            if after is None:
                return None
            place = (sa.tuple_(c.created_at, c.id), sa.tuple_(sa.literal(after.created_at), sa.literal(after.id)))
            statement = statement.where(place[0] > place[1] if page.is_ascending else place[0] < place[1])
        order = (c.created_at, c.id) if page.is_ascending else (c.created_at.desc(), c.id.desc())
        return self.connection.execute(statement.order_by(*order).limit(page.limit + 1)).all()

    def _make_file(self, row: Any) -> StoredFile:
        about = orjson.loads(self._decrypt(row, "files", _read_owner(row), row.attributes))
        is_shared = not row.end_user
        return StoredFile(row.id, about["name"], about["purpose"], row.bytes, row.created_at, row.expires_at, is_shared)

    def _make_store(self, row: Any) -> VectorStore:
        about = orjson.loads(self._decrypt(row, "vector_stores", _read_owner(row), row.attributes))
        return VectorStore(
            row.id,
            about["name"],
            about["description"],
            about["attributes"],
            row.created_at,
            row.used_at,
            about["expires_days"],
            row.expires_at,
            row.version,
            is_shared=not row.end_user,
        )

    def _add_counts(self, stores: list[VectorStore]) -> list[VectorStore]:
        """Return the stores with the numbers of their files and chunks."""
        files, batches, ids = t.vector_store_files.c, t.chunk_batches.c, [store.id for store in stores]
        counts: dict[str, dict[IngestionState, int]] = {}
        states = sa.select(files.vector_store_id, files.state, sa.func.count()).where(files.vector_store_id.in_(ids))
        for store_id, state, count in self.connection.execute(states.group_by(files.vector_store_id, files.state)):
            counts.setdefault(store_id, {})[IngestionState(state)] = count
        joined = t.chunk_batches.join(t.vector_store_files, files.id == batches.vector_store_file_id)
        sums = sa.select(
            files.vector_store_id, sa.func.sum(sa.func.length(batches.content)), sa.func.sum(batches.chunks)
        )
        found = self.connection.execute(
            sums.select_from(joined).where(files.vector_store_id.in_(ids)).group_by(files.vector_store_id)
        )
        sizes = {store_id: (int(size), int(chunks)) for store_id, size, chunks in found}
        return [
            replace(store, counts=counts.get(store.id, {}), bytes=size, chunks=chunks)
            for store in stores
            for size, chunks in [sizes.get(store.id, (0, 0))]
        ]

    def _make_store_files(self, rows: Sequence[Any], owner: Owner) -> list[VectorStoreFile]:
        c, sizes = t.chunk_batches.c, {}
        ids = [row.id for row in rows]
        for start in range(0, len(ids), _MOST_NAMED):
            sums = sa.select(c.vector_store_file_id, sa.func.count(), sa.func.sum(sa.func.length(c.content)))
            named = c.vector_store_file_id.in_(ids[start : start + _MOST_NAMED])
            for name, count, size in self.connection.execute(sums.where(named).group_by(c.vector_store_file_id)):
                sizes[name] = (count, int(size))
        files = []
        for row in rows:
            batches, size = sizes.get(row.id, (0, 0))
            about = decode_ingestion(self._decrypt(row, "vector_store_files", owner, row.content))
            place = (row.id, row.vector_store_id, row.file_id, row.created_at)
            files.append(VectorStoreFile(*place, IngestionState(row.state), row.chunks, batches, size, about))
        return files

    def _make_batch(self, row: Any, owner: Owner) -> ChunkBatch:
        return ChunkBatch.decode(row.position, row.engine, self._decrypt(row, "chunk_batches", owner, row.content))

    def _decrypt(self, row: Any, table: str, owner: Owner, content: bytes) -> bytes:
        return self.cipher.decrypt(self._keys.open(row.key_id, owner), table, row.id, bytes(content))


def encode_ingestion(ingestion: Ingestion) -> bytes:
    """Return what is encrypted of an ingestion."""
    return orjson.dumps(ingestion)


def decode_ingestion(data: bytes) -> Ingestion:
    """Return what `encode_ingestion` was called on."""
    values = orjson.loads(data)
    problem = values["problem"]
    values["problem"] = None if problem is None else IngestionProblem(**problem)
    values["unreadable"] = [IngestionProblem(**one) for one in values["unreadable"]]
    return Ingestion(**values)


def _read_owner(row: Any) -> Owner:
    return Owner(row.caller_kind, row.caller_id, row.end_user)
