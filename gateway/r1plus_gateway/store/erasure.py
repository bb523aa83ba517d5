"""Erasure of an owner's content, with a signed receipt: rows are deleted, and so are the keys that opened them.

A copy of the database from before, such as a backup, keeps the ciphertext. Without the data keys, which no backup of
content has, nobody can read it. `docs/tenant-data.md` says what that proves, and what it does not.
"""

import base64
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson
import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy.engine import Connection

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.store import tables as t
from r1plus_gateway.store.audit import AuditRecord
from r1plus_gateway.store.content_books import add_total
from r1plus_gateway.store.erasure_records import ErasureScope, record_erasure
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.repository import LedgerRepository
from r1plus_gateway.store.tenant import TenantStore

log = logging.getLogger(__name__)
ERASE_ACTION: Final = "erase_content"
ERASURE_SECONDS: Final = 120.0
"""Longest wait for an erasure: its receipt would be lost, and a second one would be of nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureReceipt:
    """What was erased, signed by the tenant's receipt key."""

    object: str = "erasure_receipt"
    id: str
    tenant_uid: str
    scope: str
    end_user: str
    """The pseudonym; empty for a caller's content."""
    erased_at: int
    """Seconds since the epoch, in ledger time."""
    requested_by: str
    conversations: int
    items: int
    responses: int
    memories: int
    files: int
    vector_stores: int
    chunks: int
    data_keys: Sequence[str]
    """Ids of the keys that were destroyed."""
    public_key: str
    """Ed25519, base64. Compare it with the one that the tenant published before."""
    signature: str
    """Ed25519 over `encode_receipt`, base64."""


async def erase(store: TenantStore, admin: Caller, scope: ErasureScope) -> ErasureReceipt:
    """Delete content and destroy its keys, in one transaction; then empty what the database keeps of deleted rows.

    Erasing what is not there gives a receipt of nothing. Once the rows are deleted there is a receipt, also if the log
    can only be emptied later. Raises StoreError.
    """
    data = store.require_data()
    pseudonym = data.keys.compute_pseudonym(scope.end_user)

    def run(ledger: LedgerRepository) -> dict[str, Any]:
        values = _erase(ledger.connection, scope, pseudonym)
        values |= {
            "id": f"erasure_{secrets.token_hex(16)}",
            "tenant_uid": store.config.tenant_uid,
            "scope": scope.describe(),
            "end_user": pseudonym,
            "erased_at": int(ledger.now),
            "requested_by": admin.id,
        }
        ledger.append_audit(
            AuditRecord(
                ledger.now,
                ERASE_ACTION,
                caller_kind=admin.kind.value,
                caller_id=admin.id,
                end_user=pseudonym,
                subject=values["id"],
                outcome=scope.describe(),
            )
        )
        record_erasure(ledger.connection, values["id"], scope, pseudonym, ledger.now, ledger.head.seq)
        return values

    try:
        values = await store.write(run, ERASURE_SECONDS)
    finally:  # also where no answer came in time: it may have been written
        store.forget_owners(lambda owner: scope.has(owner, pseudonym))
    try:
        await store.empty_log()
    except StoreError as error:
        log.warning("Log of the database still has what was erased, and is emptied later: %s", error)
    return sign_receipt(values, data.keys.receipt_key)


def get_public_key(store: TenantStore) -> str:
    """Return what receipts of this tenant are verified with: Ed25519, base64. Raises StoreError."""
    return _encode_public_key(Ed25519PrivateKey.from_private_bytes(store.require_data().keys.receipt_key))


def sign_receipt(values: Mapping[str, Any], private_key: bytes) -> ErasureReceipt:
    """Return a receipt of these values with its signature."""
    key = Ed25519PrivateKey.from_private_bytes(private_key)
    unsigned = ErasureReceipt(**values, public_key=_encode_public_key(key), signature="")
    signature = key.sign(encode_receipt(asdict(unsigned)))
    return replace(unsigned, signature=base64.b64encode(signature).decode())


def encode_receipt(receipt: Mapping[str, Any]) -> bytes:
    """Return what is signed: all fields but the signature, as JSON with sorted keys and no spaces."""
    return orjson.dumps({**receipt, "signature": ""}, option=orjson.OPT_SORT_KEYS)


def verify_receipt(receipt: Mapping[str, Any], public_key: str) -> bool:
    """Return whether a receipt was signed with the tenant's key and not changed since."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(str(receipt["signature"]), validate=True), encode_receipt(receipt))
    except (InvalidSignature, ValueError, KeyError, TypeError):
        return False
    return receipt.get("public_key") == public_key


def _encode_public_key(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def _erase(connection: Connection, scope: ErasureScope, pseudonym: str) -> dict[str, Any]:
    def matches(table: sa.Table) -> list[Any]:
        c = table.c
        if pseudonym:
            return [c.end_user == pseudonym]
        return [c.caller_kind == scope.caller_kind, c.caller_id == scope.caller_id]

    own = sa.select(t.conversations.c.id).where(*matches(t.conversations))
    items = sa.delete(t.conversation_items).where(t.conversation_items.c.conversation_id.in_(own))
    keys = sa.select(t.data_keys.c.id).where(*matches(t.data_keys)).order_by(t.data_keys.c.id)
    erased: dict[str, Any] = {
        "items": connection.execute(items).rowcount,
        "conversations": connection.execute(sa.delete(t.conversations).where(*matches(t.conversations))).rowcount,
        "responses": connection.execute(sa.delete(t.responses).where(*matches(t.responses))).rowcount,
        "memories": connection.execute(sa.delete(t.memories).where(*matches(t.memories))).rowcount,
        "data_keys": list(connection.scalars(keys)),
    }
    erased |= _erase_knowledge(connection, matches)
    sizes, c = matches(t.content_sizes), t.content_sizes.c
    callers = sa.select(c.caller_kind, c.caller_id, sa.func.sum(c.bytes)).where(*sizes)
    for kind, name, size in connection.execute(callers.group_by(c.caller_kind, c.caller_id)).all():
        add_total(connection, kind, name, -int(size))
    for table in (t.data_keys, t.content_sizes, t.knowledge_sizes):
        connection.execute(sa.delete(table).where(*matches(table)))
    return erased


def _erase_knowledge(connection: Connection, matches: Callable[[sa.Table], list[Any]]) -> dict[str, int]:
    """Delete files and vector stores; their sizes go with those of all content."""
    files, stores = t.files.c, t.vector_stores.c
    own_files = sa.select(files.id).where(*matches(t.files))
    own_stores = sa.select(stores.id).where(*matches(t.vector_stores))
    read = sa.select(t.vector_store_files.c.id).where(t.vector_store_files.c.vector_store_id.in_(own_stores))
    batches = t.chunk_batches.c
    is_chunk = batches.vector_store_file_id.in_(read)
    chunks = connection.scalar(sa.select(sa.func.sum(batches.chunks)).where(is_chunk)) or 0
    connection.execute(sa.delete(t.chunk_batches).where(is_chunk))
    connection.execute(sa.delete(t.vector_store_files).where(t.vector_store_files.c.vector_store_id.in_(own_stores)))
    connection.execute(sa.delete(t.file_parts).where(t.file_parts.c.file_id.in_(own_files)))
    return {
        "files": connection.execute(sa.delete(t.files).where(*matches(t.files))).rowcount,
        "vector_stores": connection.execute(sa.delete(t.vector_stores).where(*matches(t.vector_stores))).rowcount,
        "chunks": int(chunks),
    }
