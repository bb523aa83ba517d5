"""Encryption of content: AES-256-GCM under a data key for each owner.

    root -- HKDF --> wrapping key -- AES-256-GCM --> data key of an owner -- AES-256-GCM --> a row's content

Each ciphertext is bound to tenant, table, row and key. A row that is moved, or restored into another tenant, does not
decrypt; nor does anything of an owner whose data keys were destroyed. Used by `store.content` and `store.upkeep`.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.store.keys.tenant_keys import TenantKeys

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 16


class UnreadableContentError(Exception):
    """A row's content does not decrypt: it was changed, moved, or restored without its key."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose content it is: a caller, and the end user on whose behalf it calls, by its pseudonym."""

    caller_kind: str
    caller_id: str
    end_user: str


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key of one owner."""

    id: str
    value: bytes = field(repr=False)


class ContentCipher:
    """Encrypts and decrypts the content of one tenant."""

    def __init__(self, get_keys: Callable[[], TenantKeys], tenant_uid: str) -> None:
        """Take what returns the keys: they may be others when a step runs than when it was asked for."""
        self._get_keys = get_keys
        self._tenant_uid = tenant_uid

    def identify(self, caller: Caller) -> Owner:
        """Return whose content a caller's is."""
        return Owner(caller.kind.value, caller.id, self._get_keys().compute_pseudonym(caller.end_user))

    def create_key(self, owner: Owner) -> tuple[DataKey, bytes]:
        """Return a new data key, and the same wrapped, as it is stored."""
        key = DataKey(secrets.token_hex(_ID_BYTES), secrets.token_bytes(KEY_BYTES))
        return key, _encrypt(self._get_keys().end_user_wrapping_key, key.value, self._bind_key(key.id, owner))

    def unwrap_key(self, key_id: str, owner: Owner, wrapped: bytes) -> DataKey:
        """Return a stored data key. Raises UnreadableContentError."""
        bound, keys = self._bind_key(key_id, owner), self._get_keys()
        try:
            return DataKey(key_id, _decrypt(keys.end_user_wrapping_key, wrapped, bound))
        except UnreadableContentError:
            if not keys.former_wrapping_key:
                raise
            return DataKey(key_id, _decrypt(keys.former_wrapping_key, wrapped, bound))

    def encrypt(self, key: DataKey, table: str, row: str, content: bytes) -> bytes:
        """Return what is stored of a row's content: nonce, ciphertext and tag."""
        return _encrypt(key.value, content, self._bind(table, row, key.id))

    def decrypt(self, key: DataKey, table: str, row: str, content: bytes) -> bytes:
        """Return a row's content. Raises UnreadableContentError."""
        return _decrypt(key.value, content, self._bind(table, row, key.id))

    def _bind_key(self, key_id: str, owner: Owner) -> bytes:
        return self._bind("data_keys", key_id, owner.caller_kind, owner.caller_id, owner.end_user)

    def _bind(self, *parts: str) -> bytes:
        return "\0".join((self._tenant_uid, *parts)).encode()


def _encrypt(key: bytes, content: bytes, bound: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, bound)


def _decrypt(key: bytes, content: bytes, bound: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):  # ValueError: shorter than a nonce and a tag
        raise UnreadableContentError(f"Content of {bound.decode().replace(chr(0), ' ')} does not decrypt") from None
