"""The books of knowledge: which part of what owners have stored is of files and vector stores, and how many chunks.

What is deleted is counted off in the same transaction. Used by `knowledge_writer`, `retention` and `erasure`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.content.content import ENTRY_BYTES, DeletionStep
from r1plus_gateway.store.content.content_books import add_size, match_owner
from r1plus_gateway.store.content.knowledge import DELETED_AT, KnowledgeSize
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import Owner

_MOST_NAMED: Final = 256


@dataclass(frozen=True, slots=True)
class DeletedKnowledge:
    """Rows that were deleted."""

    files: int = 0
    vector_stores: int = 0
    chunks: int = 0


def read_caller_knowledge(connection: Connection, owner: Owner) -> KnowledgeSize:
    """Return the knowledge of an owner's caller, with that of all its end users."""
    c = t.knowledge_sizes.c
    sums = sa.select(sa.func.sum(c.bytes), sa.func.sum(c.chunks))
    row = connection.execute(sums.where(c.caller_kind == owner.caller_kind, c.caller_id == owner.caller_id)).one()
    return KnowledgeSize(int(row[0] or 0), int(row[1] or 0))


def read_owner_bytes(connection: Connection, owner: Owner) -> int:
    """Return the bytes of an owner's knowledge, without that of its caller's other end users."""
    sizes = t.knowledge_sizes
    return int(connection.scalar(sa.select(sizes.c.bytes).where(*match_owner(sizes, owner))) or 0)


def count_owner_chunks(connection: Connection, owner: Owner) -> int:
    """Return the chunks of an owner, without those of its caller's other end users."""
    sizes = t.knowledge_sizes
    return int(connection.scalar(sa.select(sizes.c.chunks).where(*match_owner(sizes, owner))) or 0)


def count_tenant_chunks(connection: Connection) -> int:
    """Return the chunks of all owners."""
    return int(connection.scalar(sa.select(sa.func.sum(t.knowledge_sizes.c.chunks))) or 0)


def add_knowledge(connection: Connection, owner: Owner, size: int, chunks: int) -> None:
    """Count knowledge that an owner has stored, or has no longer; also as content."""
    c, is_own = t.knowledge_sizes.c, match_owner(t.knowledge_sizes, owner)
    values = {"bytes": c.bytes + size, "chunks": c.chunks + chunks}
    if not connection.execute(sa.update(t.knowledge_sizes).where(*is_own).values(values)).rowcount:
        own = {name: getattr(owner, name) for name in t.OWNER}
        connection.execute(sa.insert(t.knowledge_sizes), [own | {"bytes": size, "chunks": chunks}])
    if size < 0:
        connection.execute(sa.delete(t.knowledge_sizes).where(*is_own, c.bytes <= 0))
    add_size(connection, owner, size)


def delete_store_files(connection: Connection, ids: Sequence[str], owner: Owner) -> int:
    """Delete files from their vector stores, with their chunks, and count them off. Return how many chunks went."""
    count = 0
    for start in range(0, len(ids), _MOST_NAMED):
        named = ids[start : start + _MOST_NAMED]
        files, batches = t.vector_store_files.c, t.chunk_batches.c
        is_file, is_batch = files.id.in_(named), batches.vector_store_file_id.in_(named)
        size = _measure(connection, files.content, is_file)
        chunks = _delete_batches(connection, is_batch, owner)
        connection.execute(sa.delete(t.vector_store_files).where(is_file))
        add_knowledge(connection, owner, -size, 0)
        count += chunks
    return count


def delete_files(connection: Connection, files: Sequence[tuple[str, Owner]]) -> DeletedKnowledge:
    """Delete files with their parts, also from the vector stores that they are in."""
    chunks = 0
    for file_id, owner in files:
        c = t.vector_store_files.c
        found = connection.execute(sa.select(c.id, c.vector_store_id).where(c.file_id == file_id)).all()
        chunks += delete_store_files(connection, [row.id for row in found], owner)
        mark_changed(connection, [row.vector_store_id for row in found])
        is_file = t.files.c.id == file_id
        _delete_parts(connection, t.file_parts.c.file_id == file_id, owner)
        size = _measure(connection, t.files.c.attributes, is_file)
        connection.execute(sa.delete(t.files).where(is_file))
        add_knowledge(connection, owner, -size, 0)
    return DeletedKnowledge(files=len(files), chunks=chunks)


def delete_vector_stores(connection: Connection, stores: Sequence[tuple[str, Owner]]) -> DeletedKnowledge:
    """Delete vector stores with the chunks in them; their files stay."""
    chunks = 0
    for store_id, owner in stores:
        c = t.vector_store_files.c
        ids = connection.scalars(sa.select(c.id).where(c.vector_store_id == store_id)).all()
        chunks += delete_store_files(connection, ids, owner)
        is_store = t.vector_stores.c.id == store_id
        size = _measure(connection, t.vector_stores.c.attributes, is_store)
        connection.execute(sa.delete(t.vector_stores).where(is_store))
        add_knowledge(connection, owner, -size, 0)
    return DeletedKnowledge(vector_stores=len(stores), chunks=chunks)


def is_large_file(connection: Connection, file_id: str, step: DeletionStep) -> bool:
    """Return whether a file has more than one transaction should delete, with what vector stores have of it."""
    c = t.vector_store_files.c
    ids = connection.scalars(sa.select(c.id).where(c.file_id == file_id)).all()
    parts = sa.select(sa.func.count()).where(t.file_parts.c.file_id == file_id)
    return (connection.scalar(parts) or 0) > step.parts or has_many_batches(connection, ids, step)


def is_large_store(connection: Connection, store_id: str, step: DeletionStep) -> bool:
    """Return whether a vector store has more than one transaction should delete."""
    c = t.vector_store_files.c
    ids = connection.scalars(sa.select(c.id).where(c.vector_store_id == store_id).limit(step.batches + 1)).all()
    return len(ids) > step.batches or has_many_batches(connection, ids, step)


def has_many_batches(connection: Connection, ids: Sequence[str], step: DeletionStep) -> bool:
    """Return whether files of vector stores have more batches than one transaction should delete."""
    c, count = t.chunk_batches.c, 0
    for start in range(0, len(ids), _MOST_NAMED):
        named = c.vector_store_file_id.in_(ids[start : start + _MOST_NAMED])
        count += connection.scalar(sa.select(sa.func.count()).where(named)) or 0
    return count > step.batches


def shrink_file(connection: Connection, file_id: str, owner: Owner, step: DeletionStep) -> bool:
    """Delete the next part of a file that nobody sees any more; return whether there is more of it."""
    if not is_large_file(connection, file_id, step):
        delete_files(connection, [(file_id, owner)])
        return False
    # Else an upload that took too long would go on, and end as a file without the parts that are gone.
    connection.execute(sa.update(t.files).where(t.files.c.id == file_id).values(expires_at=DELETED_AT))
    c, parts = t.vector_store_files.c, t.file_parts.c
    found = connection.execute(sa.select(c.id, c.vector_store_id).where(c.file_id == file_id).limit(1)).one_or_none()
    if found is not None:
        if not _shrink_store_file(connection, found.id, owner, step):
            mark_changed(connection, [found.vector_store_id])
        return True
    ids = connection.scalars(sa.select(parts.id).where(parts.file_id == file_id).limit(step.parts)).all()
    _delete_parts(connection, parts.id.in_(ids), owner)
    return True


def shrink_vector_store(connection: Connection, store_id: str, owner: Owner, step: DeletionStep) -> bool:
    """Delete the next part of a vector store that nobody sees any more; return whether there is more of it."""
    c = t.vector_store_files.c
    if not is_large_store(connection, store_id, step):
        delete_vector_stores(connection, [(store_id, owner)])
        return False
    ids = connection.scalars(sa.select(c.id).where(c.vector_store_id == store_id).limit(step.batches)).all()
    if small := _take_small(connection, ids, step):
        delete_store_files(connection, small, owner)
    else:
        _shrink_store_file(connection, ids[0], owner, step)
    return True


def _take_small(connection: Connection, ids: Sequence[str], step: DeletionStep) -> list[str]:
    """Return as many of these files of vector stores as one transaction should delete; none if the first is large."""
    c, counts = t.chunk_batches.c, dict[str, int]()
    for start in range(0, len(ids), _MOST_NAMED):
        named = c.vector_store_file_id.in_(ids[start : start + _MOST_NAMED])
        found = sa.select(c.vector_store_file_id, sa.func.count()).where(named).group_by(c.vector_store_file_id)
        counts.update((row_id, int(count)) for row_id, count in connection.execute(found))
    totals = itertools.accumulate(counts.get(row_id, 0) for row_id in ids)
    return [row_id for row_id, total in zip(ids, totals, strict=True) if total <= step.batches]


def _shrink_store_file(connection: Connection, row_id: str, owner: Owner, step: DeletionStep) -> bool:
    """Delete some chunks of a file of a vector store, the last ones first, or the file; return whether it is there."""
    c = t.chunk_batches.c
    last = sa.select(c.id).where(c.vector_store_file_id == row_id).order_by(c.position.desc())
    ids = connection.scalars(last.limit(step.batches)).all()
    if len(ids) < step.batches:
        delete_store_files(connection, [row_id], owner)
        return False
    chunks, files = _delete_batches(connection, c.id.in_(ids), owner), t.vector_store_files.c
    connection.execute(sa.update(t.vector_store_files).where(files.id == row_id).values(chunks=files.chunks - chunks))
    return True


def _delete_batches(connection: Connection, condition: Any, owner: Owner) -> int:
    c = t.chunk_batches.c
    size = _measure(connection, c.content, condition)
    chunks = int(connection.scalar(sa.select(sa.func.sum(c.chunks)).where(condition)) or 0)
    connection.execute(sa.delete(t.chunk_batches).where(condition))
    add_knowledge(connection, owner, -size, -chunks)
    return chunks


def _delete_parts(connection: Connection, condition: Any, owner: Owner) -> None:
    size = _measure(connection, t.file_parts.c.content, condition)
    connection.execute(sa.delete(t.file_parts).where(condition))
    add_knowledge(connection, owner, -size, 0)


def mark_changed(connection: Connection, store_ids: Sequence[str]) -> None:
    """Give vector stores a new version: indexes of the one before are no longer right."""
    c = t.vector_stores.c
    for start in range(0, len(store_ids), _MOST_NAMED):
        named = c.id.in_(store_ids[start : start + _MOST_NAMED])
        connection.execute(sa.update(t.vector_stores).where(named).values(version=c.version + 1))


def _measure(connection: Connection, column: Any, condition: Any) -> int:
    """Return what rows count in the books."""
    count, size = connection.execute(
        sa.select(sa.func.count(), sa.func.sum(sa.func.length(column))).where(condition)
    ).one()
    return int(size or 0) + int(count) * ENTRY_BYTES
