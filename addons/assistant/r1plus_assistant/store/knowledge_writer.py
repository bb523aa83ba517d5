"""Changes of the knowledge of one owner, in one transaction with the books. Called with that of `TenantStore.write`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_assistant.store.content_writer import make_id
from r1plus_assistant.store.knowledge_limits import require_bytes, require_chunks
from r1plus_assistant.store.knowledge_reader import KnowledgeReader, decode_ingestion, encode_ingestion
from r1plus_gateway.store.content.content import ENTRY_BYTES, ContentLimitError, ContentLimits
from r1plus_gateway.store.content.content_books import measure_new_owner
from r1plus_gateway.store.content.knowledge import (
    DELETED_AT,
    MOST_FILES,
    ChunkBatch,
    FileState,
    Ingestion,
    IngestionProblem,
    IngestionState,
    StoredFile,
    VectorStore,
    VectorStoreFile,
)
from r1plus_gateway.store.content.knowledge_books import (
    add_knowledge,
    delete_files,
    delete_store_files,
    delete_vector_stores,
    has_many_batches,
    is_large_file,
    is_large_store,
    mark_changed,
)
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import ContentCipher, DataKey, Owner
from r1plus_gateway.store.upkeep.retention import prune_knowledge

_DAY = 86400.0
_MOST_NAMED: Final = 256
"""Ids in one statement."""


class KnowledgeWriter(KnowledgeReader):
    """Changes the knowledge of one owner: its own only. What raises ContentLimitError has stored nothing."""

    def __init__(
        self,
        connection: Connection,
        cipher: ContentCipher,
        owner: Owner,
        now: float,
        over_by: float,
        limits: ContentLimits,
    ) -> None:
        """Take a connection that writes; the times are as a reader's."""
        super().__init__(connection, cipher, owner, now, over_by)
        self._limits = limits

    def begin_file(self, name: str) -> str:
        """Store a file without content, which nobody sees yet; return its id. Raises ContentLimitError."""
        file_id, about = make_id("file"), _encode_about(name, "")
        row = self._seal("files", "attributes", file_id, about)
        self._grow([row["attributes"]])
        state = {
            "created_at": self.now,
            "expires_at": None,
            "state": FileState.UPLOADING.value,
            "bytes": 0,
        }
        self.connection.execute(sa.insert(t.files), [row | self._own() | state])
        return file_id

    def append_part(self, file_id: str, position: int, content: bytes) -> bool:
        """Add the next part of a file that is being uploaded; return whether there is one. Raises ContentLimitError."""
        c, is_open = t.files.c, self._match_open(file_id)
        if not self.connection.execute(
            sa.update(t.files).where(*is_open).values(bytes=c.bytes + len(content))
        ).rowcount:
            return False
        row = self._seal("file_parts", "content", make_id("part"), content)
        self._grow([row["content"]])
        self.connection.execute(sa.insert(t.file_parts), [row | {"file_id": file_id, "position": position}])
        return True

    def finish_file(self, file_id: str, name: str, purpose: str, expires_after: float | None) -> StoredFile | None:
        """Let a whole file be seen; `expires_after`: seconds. None if it is gone. Raises ContentLimitError."""
        is_open = self._match_open(file_id)
        before = self.connection.scalar(sa.select(t.files.c.attributes).where(*is_open))
        if before is None:
            return None
        row = self._seal("files", "attributes", file_id, _encode_about(name, purpose))
        self._grow([row["attributes"]], replaced=bytes(before), is_progress=True)
        expires_at = None if expires_after is None else self.now + expires_after
        state = {"state": FileState.WHOLE.value, "expires_at": expires_at, "purpose": purpose}
        self.connection.execute(sa.update(t.files).where(*is_open).values(row | state))
        return self.find_file(file_id)

    def drop_upload(self, file_id: str) -> bool:
        """Delete what there is of a file that was not finished; return whether there was one.

        A large one goes by `drop_deleted`.
        """
        if self.connection.scalar(sa.select(t.files.c.id).where(*self._match_open(file_id))) is None:
            return False
        if is_large_file(self.connection, file_id, self._limits.deletion):
            self._hide(t.files, file_id)
        else:
            delete_files(self.connection, [(file_id, self.owner)])
        return True

    def delete_file(self, file_id: str) -> bool:
        """Delete a file of this owner, also from its vector stores; return whether there was one.

        A large one is not seen any more, and goes by `drop_deleted`.
        """
        if not self._is_visible_own(t.files, file_id):
            return False
        if not is_large_file(self.connection, file_id, self._limits.deletion):
            delete_files(self.connection, [(file_id, self.owner)])
            return True
        c = t.vector_store_files.c
        rows = self.connection.execute(sa.select(c.id, c.vector_store_id).where(c.file_id == file_id)).all()
        for row in rows:
            self._hide_store_files([row.id])
        mark_changed(self.connection, [row.vector_store_id for row in rows])
        self._hide(t.files, file_id)
        return True

    def drop_deleted(self) -> bool:
        """Delete a part of what this owner has deleted and is too large for one transaction; return if there is more.

        Whoever stops to call it leaves the rest to `prune_knowledge`.
        """
        return prune_knowledge(self.connection, self.now, self.owner, self._limits.deletion)

    def create_vector_store(
        self, name: str, description: str, attributes: Mapping[str, str], expires_days: int | None
    ) -> VectorStore:
        """Store a vector store without files. Raises ContentLimitError."""
        store = VectorStore(
            make_id("vs"),
            name,
            description,
            dict(attributes),
            self.now,
            self.now,
            expires_days,
            None if expires_days is None else self.now + expires_days * _DAY,
            1,
            is_shared=not self.owner.end_user,
        )
        row = self._seal_store(store)
        self._grow([row["attributes"]])
        times = {"created_at": self.now, "used_at": self.now, "expires_at": store.expires_at}
        self.connection.execute(sa.insert(t.vector_stores), [row | {**self._own(), **times, "version": 1}])
        return store

    def change_vector_store(self, store: VectorStore) -> VectorStore | None:
        """Give a vector store another name, description, metadata and expiry; None if it is not this owner's."""
        is_own = (t.vector_stores.c.id == store.id, *self._match_own(t.vector_stores))
        before = self.connection.scalar(sa.select(t.vector_stores.c.attributes).where(*is_own))
        if before is None:
            return None
        expires_at = None if store.expires_days is None else self.now + store.expires_days * _DAY
        row = self._seal_store(store)
        self._grow([row["attributes"]], replaced=bytes(before))
        times = {"used_at": self.now, "expires_at": expires_at}
        self.connection.execute(sa.update(t.vector_stores).where(*is_own).values(row | times))
        return self.find_vector_store(store.id)

    def touch_vector_store(self, store_id: str) -> None:
        """Let the time of a vector store begin again: it was used."""
        store = self.find_vector_store(store_id)
        if store is not None and store.expires_days is not None:
            times = {"used_at": self.now, "expires_at": self.now + store.expires_days * _DAY}
            self.connection.execute(sa.update(t.vector_stores).where(t.vector_stores.c.id == store_id).values(times))

    def delete_vector_store(self, store_id: str) -> bool:
        """Delete a vector store of this owner; its files stay. Return whether there was one.

        A large one is not seen any more, and goes by `drop_deleted`.
        """
        if not self._is_visible_own(t.vector_stores, store_id):
            return False
        if is_large_store(self.connection, store_id, self._limits.deletion):
            self._hide(t.vector_stores, store_id)
        else:
            delete_vector_stores(self.connection, [(store_id, self.owner)])
        return True

    def change_store_file(self, store_id: str, file_id: str, attributes: Mapping[str, Any]) -> VectorStoreFile | None:
        """Give a file of a vector store other attributes; None unless both are this owner's."""
        file = self.find_store_file(store_id, file_id)
        if file is None or not self._is_own(t.vector_stores, store_id):
            return None
        c = t.vector_store_files.c
        before = self.connection.execute(sa.select(c.content).where(c.id == file.id)).scalar_one()
        ingestion = replace(file.ingestion, attributes=dict(attributes))
        row = self._seal("vector_store_files", "content", file.id, encode_ingestion(ingestion))
        self._grow([row["content"]], replaced=bytes(before))
        self.connection.execute(sa.update(t.vector_store_files).where(c.id == file.id).values(row))
        mark_changed(self.connection, [store_id])
        return self.find_store_file(store_id, file_id)

    def add_store_file(self, store_id: str, file_id: str, ingestion: Ingestion) -> VectorStoreFile | None:
        """Let a file be read into a vector store. One that is there already is read again.

        Return None unless both are this owner's. Raises ContentLimitError.
        """
        if self.add_store_files(store_id, {file_id: ingestion}):
            return None
        return self.find_store_file(store_id, file_id)

    def add_store_files(self, store_id: str, ingestions: Mapping[str, Ingestion], batch_id: str = "") -> str:
        """Let files be read into a vector store, by their ids. One that is there already is read again.

        Return the id of what is not this owner's, and then nothing was added; empty: all were. Raises
        ContentLimitError.
        """
        if not self._is_visible_own(t.vector_stores, store_id):
            return store_id
        visible = self._find_visible_files(list(ingestions))
        unknown = next((file_id for file_id in ingestions if file_id not in visible), "")
        if unknown:
            return unknown
        c = t.vector_store_files.c
        self._remove_store_files(store_id, list(ingestions))
        count = self.connection.scalar(sa.select(sa.func.count()).where(c.vector_store_id == store_id)) or 0
        if count + len(ingestions) > MOST_FILES:
            raise ContentLimitError(
                f"{count} files are in the vector store, and {len(ingestions)} more exceed {MOST_FILES}; make another"
                " vector store"
            )
        rows, key = [], self._keys.get_newest(self.owner, self.now)
        for file_id, ingestion in ingestions.items():
            row = self._seal("vector_store_files", "content", make_id("vsf"), encode_ingestion(ingestion), key)
            place = {"vector_store_id": store_id, "file_id": file_id, "created_at": self.now}
            state = {"state": IngestionState.IN_PROGRESS.value, "chunks": 0, "batch_id": batch_id or None}
            rows.append(row | place | state)
        self._grow([row["content"] for row in rows])
        self.connection.execute(sa.insert(t.vector_store_files), rows)
        self.touch_vector_store(store_id)
        return ""

    def cancel_batch(self, store_id: str, batch_id: str) -> bool:
        """Read no further files of a batch; return whether there is one in a vector store of this owner.

        What was read of a file goes; a large part of one by `drop_deleted`. Files that were read stay.
        """
        c = t.vector_store_files.c
        is_batch = (c.vector_store_id == store_id, c.batch_id == batch_id)
        rows = self.connection.execute(sa.select(t.vector_store_files).where(*is_batch)).all()
        if not rows or not self._is_visible_own(t.vector_stores, store_id):
            return False
        begun = [row for row in rows if row.state == IngestionState.IN_PROGRESS and row.chunks]
        self._remove_store_files(store_id, [row.file_id for row in begun])
        if begun:  # without their chunks they are as large as before
            key = self._keys.get_newest(self.owner, self.now)
            again = [self._seal_again(row, key) for row in begun]
            self._grow([row["content"] for row in again], is_limited=False)
            self.connection.execute(sa.insert(t.vector_store_files), again)
        is_open = (*is_batch, c.state == IngestionState.IN_PROGRESS)
        cancelled = {"state": IngestionState.CANCELLED.value}
        self.connection.execute(sa.update(t.vector_store_files).where(*is_open).values(cancelled))
        return True

    def remove_store_file(self, store_id: str, file_id: str) -> bool:
        """Delete a file from a vector store of this owner, with its chunks; return whether it was there.

        A large one is not seen any more, and goes by `drop_deleted`.
        """
        if not self._is_visible_own(t.vector_stores, store_id):
            return False
        return self._remove_store_files(store_id, [file_id]) > 0

    def finish_ingestion(self, file: VectorStoreFile, ingestion: Ingestion, batches: int) -> bool:
        """Say that a file was read to its end, in so many batches.

        Return False if it is not wanted any more, or another reader's chunks are there. Raises ContentLimitError.
        """
        before = self._find_wanted(file)
        if before is None or not self._goes_on(before, ingestion, batches):
            return False
        return self.update_ingestion(file, ingestion, IngestionState.COMPLETED)

    def update_ingestion(self, file: VectorStoreFile, ingestion: Ingestion, state: IngestionState) -> bool:
        """Say how far a file was read; return whether it is still wanted. Raises ContentLimitError.

        Attributes stay as they are stored: they may have changed while the file was read.
        """
        before = self._find_wanted(file)
        if before is None:
            return False
        ingestion = replace(ingestion, attributes=self._read_ingestion(before).attributes)
        row = self._seal("vector_store_files", "content", file.id, encode_ingestion(ingestion))
        self._grow([row["content"]], replaced=bytes(before.content), is_progress=True)
        changed = sa.update(t.vector_store_files).where(t.vector_store_files.c.id == file.id)
        self.connection.execute(changed.values(row | {"state": state.value}))
        if state is IngestionState.COMPLETED:
            mark_changed(self.connection, [file.vector_store_id])
        return True

    def fail_ingestion(self, file: VectorStoreFile, problem: IngestionProblem) -> bool:
        """Say why a file cannot be read, in place of its chunks; return whether it was wanted. That needs no room."""
        before = self._find_wanted(file)
        if before is None:
            return False
        self.clear_batches(file)
        ingestion = replace(self._read_ingestion(before), problem=problem)
        row = self._seal("vector_store_files", "content", file.id, encode_ingestion(ingestion))
        self._grow([row["content"]], replaced=bytes(before.content), is_limited=False)
        failed = sa.update(t.vector_store_files).where(t.vector_store_files.c.id == file.id)
        self.connection.execute(failed.values(row | {"state": IngestionState.FAILED.value}))
        return True

    def append_batch(self, file: VectorStoreFile, batch: ChunkBatch, ingestion: Ingestion) -> bool:
        """Store the next chunks of a file, and how far it was read.

        Return False if it is not wanted any more, or these chunks do not follow those that are there: another
        replica has stored them, or has begun again with another reader.

        Raises:
            ContentLimitError: there is no room, or the key or the tenant has as many chunks as it may.
        """
        before = self._find_wanted(file)
        if before is None or not self._goes_on(before, ingestion, batch.position):
            return False
        count = len(batch.chunks)
        require_chunks(self.connection, self.owner, self._limits, count)
        row = self._seal("chunk_batches", "content", make_id("cb"), batch.encode())
        self._grow([row["content"]], chunks=count)
        place = {"vector_store_file_id": file.id, "position": batch.position, "chunks": count, "engine": batch.engine}
        self.connection.execute(sa.insert(t.chunk_batches), [row | place])
        c = t.vector_store_files.c
        grown = sa.update(t.vector_store_files).where(c.id == file.id).values(chunks=c.chunks + count)
        self.connection.execute(grown)
        return self.update_ingestion(file, ingestion, IngestionState.IN_PROGRESS)

    def clear_batches(self, file: VectorStoreFile) -> None:
        """Delete what was read of a file, so that it is read from its beginning."""
        c = t.chunk_batches.c
        is_batch = c.vector_store_file_id == file.id
        sums = sa.select(sa.func.count(), sa.func.sum(sa.func.length(c.content)), sa.func.sum(c.chunks))
        count, size, chunks = self.connection.execute(sums.where(is_batch)).one()
        if not count or self._find_wanted(file) is None:
            return
        self.connection.execute(sa.delete(t.chunk_batches).where(is_batch))
        is_file = t.vector_store_files.c.id == file.id
        self.connection.execute(sa.update(t.vector_store_files).where(is_file).values(chunks=0))
        add_knowledge(self.connection, self.owner, -int(size) - count * ENTRY_BYTES, -int(chunks))

    def replace_vectors(self, file: VectorStoreFile, batch: ChunkBatch) -> bool:
        """Store other vectors of a batch; return whether it is still there. Raises ContentLimitError."""
        c = t.chunk_batches.c
        is_batch = (c.vector_store_file_id == file.id, c.position == batch.position)
        before = self.connection.execute(sa.select(c.id, c.content).where(*is_batch)).one_or_none()
        if before is None or not self._is_own(t.vector_stores, file.vector_store_id):
            return False
        row = self._seal("chunk_batches", "content", before.id, batch.encode())
        self._grow([row["content"]], replaced=bytes(before.content), is_progress=True)
        self.connection.execute(sa.update(t.chunk_batches).where(*is_batch).values(row | {"engine": batch.engine}))
        return True

    def mark_changed(self, store_id: str) -> None:
        """Give a vector store a new version."""
        mark_changed(self.connection, [store_id])

    def _find_visible_files(self, ids: Sequence[str]) -> set[str]:
        """Return those of these files that are this owner's, whole or not, and were not deleted before."""
        c, found = t.files.c, set[str]()
        is_there = (*self._match_own(t.files), sa.or_(c.expires_at.is_(None), c.expires_at != DELETED_AT))
        for start in range(0, len(ids), _MOST_NAMED):
            named = c.id.in_(ids[start : start + _MOST_NAMED])
            found.update(self.connection.scalars(sa.select(c.id).where(named, *is_there)))
        return found

    def _remove_store_files(self, store_id: str, file_ids: Sequence[str]) -> int:
        """Delete files from a vector store of this owner, with their chunks; return how many were there.

        Large ones are not seen any more, and go by `drop_deleted`.
        """
        c, ids = t.vector_store_files.c, list[str]()
        for start in range(0, len(file_ids), _MOST_NAMED):
            named = c.file_id.in_(file_ids[start : start + _MOST_NAMED])
            ids += self.connection.scalars(sa.select(c.id).where(c.vector_store_id == store_id, named))
        if not ids:
            return 0
        if has_many_batches(self.connection, ids, self._limits.deletion):
            self._hide_store_files(ids)
        else:
            delete_store_files(self.connection, ids, self.owner)
        mark_changed(self.connection, [store_id])
        return len(ids)

    def _seal_again(self, row: Any, key: DataKey) -> dict[str, Any]:
        """Return a file of a vector store as a new row, as it was before it was read."""
        ingestion = reset_ingestion(self._read_ingestion(row), "")
        sealed = self._seal("vector_store_files", "content", make_id("vsf"), encode_ingestion(ingestion), key)
        kept = {name: getattr(row, name) for name in ("vector_store_id", "file_id", "created_at", "state", "batch_id")}
        return sealed | kept | {"chunks": 0}

    def _find_wanted(self, file: VectorStoreFile) -> Any:
        """Return the row of a file that is being read into a vector store of this owner; None if it is not any more."""
        c = t.vector_store_files.c
        row = self.connection.execute(
            sa.select(t.vector_store_files).where(c.id == file.id, c.state == IngestionState.IN_PROGRESS)
        ).one_or_none()
        return row if row is not None and self._is_visible_own(t.vector_stores, file.vector_store_id) else None

    def _read_ingestion(self, row: Any) -> Ingestion:
        return decode_ingestion(self._decrypt(row, "vector_store_files", self.owner, row.content))

    def _goes_on(self, row: Any, ingestion: Ingestion, batches: int) -> bool:
        """Return whether so many batches of a file are there, all by the reader of this ingestion."""
        is_batch = t.chunk_batches.c.vector_store_file_id == row.id
        if self.connection.scalar(sa.select(sa.func.count()).where(is_batch)) != batches:
            return False
        return not batches or self._read_ingestion(row).reader == ingestion.reader

    def _is_own(self, table: sa.Table, row_id: str) -> bool:
        own = (table.c.id == row_id, *self._match_own(table))
        return self.connection.scalar(sa.select(table.c.id).where(*own)) is not None

    def _is_visible_own(self, table: sa.Table, row_id: str) -> bool:
        """Return whether a row is this owner's and was not deleted before."""
        is_deleted = table.c.expires_at == DELETED_AT
        own = (table.c.id == row_id, *self._match_own(table), sa.or_(table.c.expires_at.is_(None), ~is_deleted))
        return self.connection.scalar(sa.select(table.c.id).where(*own)) is not None

    def _hide(self, table: sa.Table, row_id: str) -> None:
        self.connection.execute(sa.update(table).where(table.c.id == row_id).values(expires_at=DELETED_AT))

    def _hide_store_files(self, ids: Sequence[str]) -> None:
        """Move files of a vector store into a new one that no caller sees: that takes no longer for large ones."""
        store = VectorStore(make_id("vs"), "", "", {}, self.now, self.now, None, DELETED_AT, 1, is_shared=False)
        row = self._seal_store(store)
        self._grow([row["attributes"]], is_limited=False)
        times = {"created_at": self.now, "used_at": self.now, "expires_at": DELETED_AT}
        self.connection.execute(sa.insert(t.vector_stores), [row | {**self._own(), **times, "version": 1}])
        c = t.vector_store_files.c
        moved = {"vector_store_id": store.id, "state": IngestionState.CANCELLED.value}
        for start in range(0, len(ids), _MOST_NAMED):
            named = c.id.in_(ids[start : start + _MOST_NAMED])
            self.connection.execute(sa.update(t.vector_store_files).where(named).values(moved))

    def _match_open(self, file_id: str) -> tuple[Any, ...]:
        c = t.files.c
        is_open = (c.state == FileState.UPLOADING, c.expires_at.is_(None))
        return (c.id == file_id, *is_open, *self._match_own(t.files))

    def _own(self) -> dict[str, str]:
        return {name: getattr(self.owner, name) for name in t.OWNER}

    def _seal_store(self, store: VectorStore) -> dict[str, Any]:
        names = ("name", "description", "attributes", "expires_days")
        about = orjson.dumps({name: getattr(store, name) for name in names})
        return self._seal("vector_stores", "attributes", store.id, about)

    def _seal(self, table: str, column: str, row_id: str, content: bytes, key: DataKey | None = None) -> dict[str, Any]:
        """Return what is stored of a row. `key`: the newest, where it was looked up before."""
        key = key or self._keys.get_newest(self.owner, self.now)
        return {"id": row_id, "key_id": key.id, column: self.cipher.encrypt(key, table, row_id, content)}

    def _grow(
        self,
        contents: Sequence[bytes],
        *,
        replaced: bytes | None = None,
        chunks: int = 0,
        is_limited: bool = True,
        is_progress: bool = False,
    ) -> None:
        """Count new content, or one that replaces another. Raises ContentLimitError where there is no room.

        `is_progress`: of an upload or an ingestion, not of what a caller says.
        """
        size = sum(len(content) + ENTRY_BYTES for content in contents)
        if replaced is not None:
            size -= len(replaced) + ENTRY_BYTES
        if size > 0 and is_limited:
            size_with_owner = size + measure_new_owner(self.connection, self.owner)
            require_bytes(self.connection, self.owner, self._limits, size_with_owner, is_progress=is_progress)
        add_knowledge(self.connection, self.owner, size, chunks)


def _encode_about(name: str, purpose: str) -> bytes:
    return orjson.dumps({"name": name, "purpose": purpose})


def reset_ingestion(ingestion: Ingestion, reader: str) -> Ingestion:
    """Return an ingestion that begins, by this reader."""
    return replace(ingestion, reader=reader, pages=0, problem=None, unreadable=())
