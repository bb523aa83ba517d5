"""The root that came with a restored backup. It lies in the database, sealed under the root of the volume's own ring.

So a restore is one transaction: the ring, and the key of the database's file, stay those of this volume. API keys,
audit log, receipts and content go by the adopted root, so they stay valid. Used by `store.opening` and
`store.restoration`.
"""

import base64
import binascii
import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from r1plus_gateway.store.errors import CorruptError
from r1plus_gateway.store.tenant_keys import TenantKeys, derive_keys

_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class AdoptedRoot:
    """A root from elsewhere, and what has to be known of it."""

    root: bytes = field(repr=False)
    content_uid: str
    """UID of the tenant where the content was first written, to which it is bound."""
    restore_id: str
    """Of the restore that brought it."""

    def seal(self, keys: TenantKeys, tenant_uid: str) -> str:
        """Return it as table `meta` has it."""
        document = {"root": self.root.hex(), "content": self.content_uid, "restore": self.restore_id}
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(keys.adoption_key).encrypt(nonce, json.dumps(document).encode(), tenant_uid.encode())
        return base64.b64encode(nonce + sealed).decode()

    def derive_keys(self, own: TenantKeys) -> TenantKeys:
        """Return the tenant's keys: those of the database's file, and of sealing, stay the volume's own."""
        return replace(
            derive_keys(self.root),
            database_key=own.database_key,
            database_salt=own.database_salt,
            adoption_key=own.adoption_key,
        )


def open_adopted_root(text: str, own: TenantKeys, tenant_uid: str, source: str) -> AdoptedRoot:
    """Return what `seal` wrote. Raises CorruptError, which names `source`."""
    try:
        sealed = base64.b64decode(text, validate=True)
        opened = AESGCM(own.adoption_key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], tenant_uid.encode())
        document = json.loads(opened)
        return AdoptedRoot(bytes.fromhex(document["root"]), document["content"], document["restore"])
    except (InvalidTag, ValueError, KeyError, TypeError, binascii.Error) as error:
        raise CorruptError(
            f"{source}: the root that came with a restored backup does not open ({type(error).__name__}), so keys,"
            " audit log and content cannot be read. Restore the backup again, into a new volume or database"
        ) from None
