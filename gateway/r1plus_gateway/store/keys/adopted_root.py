"""A root that is not the ring's own: that of a restored backup, or that of before a rotation of the root.

It lies in the database, sealed under the ring's root, which gives the keys of the database's file and of sealing. So a
restore, and a rotation, is one transaction. What cannot be computed again (API keys, pseudonyms, audit log, receipts)
goes by the sealed root. Data keys and backups go by it, too, until the root was rotated.

Used by `store.database.opening`, `store.copies.restoration` and `store.keys.root_rotation`.
"""

import base64
import binascii
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from r1plus_contract.remedies import Remedy
from r1plus_gateway.store.errors import CorruptError
from r1plus_gateway.store.keys.tenant_keys import TenantKeys, derive_keys

_NONCE_BYTES: Final = 12
_KEPT = "identityRoot"
"""Names the root after a rotation: a gateway of before that finds no `root` refuses, and misreads nothing."""


@dataclass(frozen=True, slots=True)
class AdoptedRoot:
    """Roots from elsewhere or from before, and what has to be known of them."""

    root: bytes = field(repr=False)
    """Of the peppers, the audit key and the receipt key."""
    content_uid: str
    """UID of the tenant where the content was first written, to which it is bound."""
    restore_id: str
    """Of the restore that brought it; empty: none did."""
    content_root: bytes = field(repr=False)
    """Of data keys and backups; empty: the ring's own, since it was rotated here."""
    former_root: bytes = field(default=b"", repr=False)
    """Of data keys that were made before the last rotation of the root; empty: there was none."""

    def seal(self, keys: TenantKeys, tenant_uid: str) -> str:
        """Return it as table `meta` has it."""
        document = {"content": self.content_uid, "restore": self.restore_id}
        if self.content_root == self.root and not self.former_root:
            document["root"] = self.root.hex()
        else:
            roots = {_KEPT: self.root, "contentRoot": self.content_root, "formerRoot": self.former_root}
            document |= {name: root.hex() for name, root in roots.items()}
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(keys.adoption_key).encrypt(nonce, json.dumps(document).encode(), tenant_uid.encode())
        return base64.b64encode(nonce + sealed).decode()

    def derive_keys(self, own: TenantKeys) -> TenantKeys:
        """Return the tenant's keys: those of the database's file, and of sealing, stay the ring's own."""
        content = derive_keys(self.content_root) if self.content_root else own
        return replace(
            derive_keys(self.root),
            database_key=own.database_key,
            database_salt=own.database_salt,
            adoption_key=own.adoption_key,
            end_user_wrapping_key=content.end_user_wrapping_key,
            former_wrapping_key=derive_keys(self.former_root).end_user_wrapping_key if self.former_root else b"",
            backup_key=content.backup_key,
        )


@dataclass(frozen=True, slots=True)
class OpenRoots:
    """The ring's root that the data go by, and what is sealed under it."""

    own: bytes = field(repr=False)
    adopted: AdoptedRoot | None

    def derive_keys(self) -> TenantKeys:
        """Return the tenant's keys."""
        own = derive_keys(self.own)
        return own if self.adopted is None else self.adopted.derive_keys(own)


def open_roots(roots: Sequence[bytes], text: str, tenant_uid: str, source: str) -> OpenRoots:
    """Return which of the ring's roots the data go by, and the root that is sealed in `text`; none in an empty one.

    `roots` are those of `tenant_keys.find_roots`: the data go by a pending one from the moment when theirs is sealed
    under it. Raises CorruptError, which names `source`.
    """
    if not text:
        return OpenRoots(roots[0], None)
    problem: Exception | None = None
    for root in roots:
        try:
            return OpenRoots(root, _open(text, derive_keys(root), tenant_uid))
        except (InvalidTag, ValueError, KeyError, TypeError, binascii.Error) as error:
            problem = error
    raise CorruptError(
        f"{source}: the root that came with a restored backup, or was rotated, does not open"
        f" ({type(problem).__name__}), so keys, audit log and content cannot be read",
        Remedy.RESTORE_DATABASE_AND_RING,
    )


def _open(text: str, own: TenantKeys, tenant_uid: str) -> AdoptedRoot:
    sealed = base64.b64decode(text, validate=True)
    opened = AESGCM(own.adoption_key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], tenant_uid.encode())
    document: Mapping[str, Any] = json.loads(opened)
    if _KEPT not in document:
        root = bytes.fromhex(document["root"])
        return AdoptedRoot(root, document["content"], document["restore"], root)
    root, content_root, former_root = (bytes.fromhex(document[name]) for name in (_KEPT, "contentRoot", "formerRoot"))
    return AdoptedRoot(root, document["content"], document["restore"], content_root, former_root)
