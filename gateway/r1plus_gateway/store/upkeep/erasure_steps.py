"""An erasure in parts, between which others write: first all keys are destroyed, then rows are deleted.

A row whose key is destroyed is not seen any more (`erasure_records.match_shown`). What is small goes in one
transaction. What a gateway has begun goes on in the rounds of any other.
"""

import itertools
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.access.caller import CallerKind
from r1plus_gateway.store.administration.audit import AuditRecord
from r1plus_gateway.store.content.content import ENTRY_BYTES
from r1plus_gateway.store.content.content_books import add_size
from r1plus_gateway.store.content.knowledge_books import add_knowledge
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.ledger.repository import LedgerRepository
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope

ERASE_ACTION: Final = "erase_content"
COUNTS: Final = ("conversations", "items", "responses", "memories", "files", "vector_stores", "chunks")
"""Columns of `erasures`, and fields of a receipt."""


@dataclass(frozen=True, slots=True)
class ErasureStep:
    """How much of an erasure one transaction does: requests wait for it."""

    keys: int = 1000
    rows: int = 256
    bytes: int = 4 * 2**20
    """Of ciphertext, or one row."""


DEFAULT_STEP: Final = ErasureStep()


@dataclass(frozen=True, slots=True)
class _Source:
    """A table of content, and where its rows' owner is found. `count`: what a receipt calls the rows, if it does."""

    content: sa.Column[Any]
    owner: sa.Table
    place: sa.FromClause
    count: str = ""

    @property
    def table(self) -> Any:
        return self.content.table


_STORE_FILES: Final = t.vector_store_files.join(
    t.vector_stores, t.vector_stores.c.id == t.vector_store_files.c.vector_store_id
)
_SOURCES: Final = (
    _Source(
        t.conversation_items.c.content,
        t.conversations,
        t.conversation_items.join(t.conversations, t.conversations.c.id == t.conversation_items.c.conversation_id),
        "items",
    ),
    _Source(t.conversations.c.attributes, t.conversations, t.conversations, "conversations"),
    _Source(t.responses.c.content, t.responses, t.responses, "responses"),
    _Source(t.memories.c.content, t.memories, t.memories, "memories"),
    _Source(
        t.chunk_batches.c.content,
        t.vector_stores,
        _STORE_FILES.join(t.chunk_batches, t.chunk_batches.c.vector_store_file_id == t.vector_store_files.c.id),
        "chunks",
    ),
    _Source(t.vector_store_files.c.content, t.vector_stores, _STORE_FILES),
    _Source(t.vector_stores.c.attributes, t.vector_stores, t.vector_stores, "vector_stores"),
    _Source(t.file_parts.c.content, t.files, t.file_parts.join(t.files, t.files.c.id == t.file_parts.c.file_id)),
    _Source(t.files.c.attributes, t.files, t.files, "files"),
)
"""In the order of deletion: a row goes before the one that names its owner."""


def begin_erasure(
    ledger: LedgerRepository, admin_id: str, scope: ErasureScope, pseudonym: str, step: ErasureStep = DEFAULT_STEP
) -> str:
    """Begin an erasure, or one again whose receipt nobody got, and do its first part; return its id."""
    c = t.erasures.c
    whose = {"caller_kind": scope.caller_kind, "caller_id": scope.caller_id, "end_user": pseudonym}
    is_same = (*(c[name] == value for name, value in whose.items()), c.claimed_at.is_(None))
    begun = {"requested_by": admin_id, "erased_at": ledger.now, "seq": None, "finished_at": None}
    erasure_id = ledger.connection.scalar(sa.select(c.id).where(*is_same).limit(1))
    if erasure_id is None:
        erasure_id = f"erasure_{secrets.token_hex(16)}"
        row = {"id": erasure_id, **whose, **begun, "claimed_at": None, **dict.fromkeys(COUNTS, 0)}
        ledger.connection.execute(sa.insert(t.erasures), [row])
    else:  # What was stored since is erased, too.
        ledger.connection.execute(sa.update(t.erasures).where(c.id == erasure_id).values(begun))
    continue_erasure(ledger, erasure_id, step)
    return erasure_id


def continue_erasure(ledger: LedgerRepository, erasure_id: str, step: ErasureStep = DEFAULT_STEP) -> bool:
    """Do the next part of an erasure; return whether there is more."""
    erasure = _read(ledger.connection, erasure_id)
    if erasure.finished_at is not None:
        return False
    if erasure.seq is None:
        if _destroy_keys(ledger.connection, erasure, step.keys):
            return True
        _record(ledger, erasure)
    if _delete_rows(ledger.connection, erasure, step):
        return True
    _update(ledger.connection, erasure_id, finished_at=ledger.now)
    return False


def continue_erasures(ledger: LedgerRepository, step: ErasureStep = DEFAULT_STEP) -> bool:
    """Do the next part of the oldest erasure that has not ended; return whether there may be more."""
    erasure_id = find_unfinished(ledger.connection)
    if erasure_id is None:
        return False
    continue_erasure(ledger, erasure_id, step)
    return True


def find_unfinished(connection: Connection) -> str | None:
    """Return the id of the oldest erasure that has not ended; None if all have."""
    c = t.erasures.c
    found: str | None = connection.scalar(sa.select(c.id).where(c.finished_at.is_(None)).order_by(c.erased_at).limit(1))
    return found


def claim_erasure(ledger: LedgerRepository, erasure_id: str) -> dict[str, Any] | None:
    """Return what a receipt says of an erasure; None while it has not ended.

    Once it is claimed, the next erasure of the same owner is another one.
    """
    erasure, keys = _read(ledger.connection, erasure_id), t.erased_keys.c
    if erasure.finished_at is None:
        return None
    _update(ledger.connection, erasure_id, claimed_at=ledger.now)
    own = sa.select(keys.id).where(keys.erasure_id == erasure_id).order_by(keys.id)
    return {
        "id": erasure_id,
        "scope": _describe(erasure),
        "end_user": erasure.end_user,
        "erased_at": int(erasure.erased_at),
        "requested_by": erasure.requested_by,
        **{name: getattr(erasure, name) for name in COUNTS},
        "data_keys": list(ledger.connection.scalars(own)),
    }


def _read(connection: Connection, erasure_id: str) -> Any:
    return connection.execute(sa.select(t.erasures).where(t.erasures.c.id == erasure_id)).one()


def _update(connection: Connection, erasure_id: str, **values: Any) -> None:
    connection.execute(sa.update(t.erasures).where(t.erasures.c.id == erasure_id).values(values))


def _describe(erasure: Any) -> str:
    """Return whose content it is, without the end user's id."""
    return "end user" if erasure.end_user else f"{erasure.caller_kind} {erasure.caller_id}"


def _match(table: sa.Table, erasure: Any) -> list[Any]:
    names = ["end_user"] if erasure.end_user else ["caller_kind", "caller_id"]
    return [table.c[name] == getattr(erasure, name) for name in names]


def _destroy_keys(connection: Connection, erasure: Any, most: int) -> bool:
    """Destroy some data keys; return whether there may be more."""
    c = t.data_keys.c
    ids = connection.scalars(sa.select(c.id).where(*_match(t.data_keys, erasure)).limit(most)).all()
    if ids:
        connection.execute(sa.insert(t.erased_keys), [{"id": one, "erasure_id": erasure.id} for one in ids])
        connection.execute(sa.delete(t.data_keys).where(c.id.in_(ids)))
    return len(ids) == most


def _record(ledger: LedgerRepository, erasure: Any) -> None:
    """Say in the audit log that nothing opens the content any more."""
    ledger.append_audit(
        AuditRecord(
            ledger.now,
            ERASE_ACTION,
            caller_kind=CallerKind.ADMIN.value,
            caller_id=erasure.requested_by,
            end_user=erasure.end_user,
            subject=erasure.id,
            outcome=_describe(erasure),
        )
    )
    _update(ledger.connection, erasure.id, erased_at=ledger.now, seq=ledger.head.seq)


def _delete_rows(connection: Connection, erasure: Any, step: ErasureStep) -> bool:
    """Delete rows that no key opens, and count them off; return whether there may be more."""
    rows, size = step.rows, step.bytes
    for source in _SOURCES:
        found = _find_rows(connection, source, erasure, rows)
        totals = itertools.accumulate(row.size for row in found)
        part = [row for row, total in zip(found, totals, strict=True) if total <= size]
        if found and not part and size == step.bytes:
            part = list(found[:1])
        _delete(connection, source, part)
        if source.count and part:
            count = sum(row.chunks for row in part) if source.count == "chunks" else len(part)
            _update(connection, erasure.id, **{source.count: t.erasures.c[source.count] + count})
        rows, size = rows - len(part), size - sum(row.size for row in part)
        if rows <= 0 or size <= 0 or len(part) < len(found):
            return True
    return False


def _find_rows(connection: Connection, source: _Source, erasure: Any, most: int) -> Sequence[Any]:
    keys, owner = t.data_keys.c, source.owner.c
    is_readable = sa.exists(sa.select(keys.id).where(keys.id == owner.key_id))
    chunks = t.chunk_batches.c.chunks if source.count == "chunks" else sa.literal(0)
    columns = (sa.func.length(source.content).label("size"), chunks.label("chunks"), *(owner[name] for name in t.OWNER))
    found = sa.select(source.table.c.id, *columns).select_from(source.place)
    return connection.execute(found.where(*_match(source.owner, erasure), ~is_readable).limit(most)).all()


def _delete(connection: Connection, source: _Source, rows: Sequence[Any]) -> None:
    if not rows:
        return
    connection.execute(sa.delete(source.table).where(source.table.c.id.in_([row.id for row in rows])))
    sizes: defaultdict[Owner, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        owned = sizes[Owner(*(getattr(row, name) for name in t.OWNER))]
        owned[0] += row.size + ENTRY_BYTES
        owned[1] += row.chunks
    for owner, (size, chunks) in sizes.items():
        if source.owner in (t.files, t.vector_stores):
            add_knowledge(connection, owner, -size, -chunks)
        else:
            add_size(connection, owner, -size)
