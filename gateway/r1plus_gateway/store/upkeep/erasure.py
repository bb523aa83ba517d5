"""Erasure of an owner's content, with a signed receipt: rows are deleted, and so are the keys that opened them.

A copy of the database from before, such as a backup, keeps the ciphertext. Without the data keys, which no backup of
content has, nobody can read it. `docs/tenant-data.md` says what that proves, and what it does not.
"""

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.ledger.repository import LedgerRepository
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from r1plus_gateway.store.upkeep.erasure_steps import (
    DEFAULT_STEP,
    ErasureStep,
    begin_erasure,
    claim_erasure,
    continue_erasure,
)

log = logging.getLogger(__name__)
ERASURE_SECONDS: Final = 120.0
"""Longest wait for a part of an erasure: the last one gives the receipt away."""


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


async def erase(
    store: TenantStore, admin: Caller, scope: ErasureScope, step: ErasureStep = DEFAULT_STEP
) -> ErasureReceipt:
    """Destroy the keys of content and delete it, in parts; then empty what the database keeps of deleted rows.

    Erasing what is not there gives a receipt of nothing. What is not done when this ends early goes on in the store's
    rounds; who erases the same again gets the receipt of all of it. Raises StoreError.
    """
    data = store.require_data()
    pseudonym = data.keys.compute_pseudonym(scope.end_user)

    def begin(ledger: LedgerRepository) -> tuple[str, dict[str, Any] | None]:
        erasure_id = begin_erasure(ledger, admin.id, scope, pseudonym, step)
        return erasure_id, claim_erasure(ledger, erasure_id)

    def go_on(ledger: LedgerRepository) -> dict[str, Any] | None:
        continue_erasure(ledger, erasure_id, step)
        return claim_erasure(ledger, erasure_id)

    def forget() -> None:
        store.forget_owners(lambda owner: scope.has(owner, pseudonym))

    try:
        erasure_id, values = await store.write(begin, ERASURE_SECONDS)
        forget()
        while values is None:
            values = await store.write(go_on, ERASURE_SECONDS)
    finally:  # also where no answer came in time: it may have been written
        forget()
    try:
        await store.empty_log()
    except StoreError as error:
        log.warning("Log of the database still has what was erased, and is emptied later: %s", error)
    return sign_receipt({**values, "tenant_uid": store.config.tenant_uid}, data.keys.receipt_key)


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
