"""The tenant's keys: two halves, the key ring that they open, and what is derived from its root.

    half in a Secret ‖ half on the volume -- HKDF --> wrapping key -- AES-256-GCM --> root -- HKDF --> database key,
                                               peppers, audit key, receipt key, wrapping key of data keys

Neither a backup of etcd, which keeps Secrets, nor a snapshot of the volume opens the data alone. The root is random and
wrapped, so rotating the Secret's half wraps it again and changes no key that data were written with. The Secret holds
one half, or two while it is rotated (`half-1`, `half-2`); the ring has a wrap for each half that the Secret holds.
While the root itself is rotated (`store.keys.root_rotation`) the ring of a volume has the next one as well.

The ring lies on the volume (`key-ring.json`), or in the database where replicas share one. Called by `store.tenant`.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from r1plus_contract.atomic_files import sync
from r1plus_contract.remedies import Remedy
from r1plus_gateway.store.database.volume_errors import translate_os_error
from r1plus_gateway.store.errors import ConfigError, CorruptError, ForeignTenantError, KeyLostError, WrongKeyError

HALF_BYTES: Final = 32
HALF_PREFIX: Final = "half-"
MOST_HALVES: Final = 2
RING_FILE: Final = "key-ring.json"
_FORMAT: Final = 1
_PENDING_FORMAT: Final = 2
"""With a pending root, which a gateway of before would lose."""
_NONCE_BYTES: Final = 12
_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class TenantKeys:
    """Keys of one tenant, 32 bytes each unless it says otherwise; no representation shows them."""

    database_key: bytes = field(repr=False)
    database_salt: bytes = field(repr=False)
    """16 bytes, the first of the database's file: a file with others was not made with this key."""
    pepper: bytes = field(repr=False)
    """For the MACs of API keys."""
    end_user_pepper: bytes = field(repr=False)
    """For the pseudonyms of end users."""
    audit_key: bytes = field(repr=False)
    end_user_wrapping_key: bytes = field(repr=False)
    """Wraps the data key of each owner, which content is encrypted with."""
    former_wrapping_key: bytes = field(repr=False)
    """Has wrapped the data keys of before a rotation of the root; empty: there was none."""
    receipt_key: bytes = field(repr=False)
    """Ed25519, signs receipts of erasures."""
    backup_key: bytes = field(repr=False)
    """The keys of backups and keys files are derived from it."""
    adoption_key: bytes = field(repr=False)
    """Seals a root that came with a restored backup: `store.keys.adopted_root`."""

    @property
    def root_id(self) -> str:
        """What names the root without showing it: 16 hexadecimal digits."""
        return _derive(self.backup_key, "root-id/1", 8).hex()

    def compute_key_mac(self, message: bytes) -> bytes:
        """Return the MAC of an API key's secret."""
        return hmac.digest(self.pepper, message, hashlib.sha256)

    def compute_pseudonym(self, end_user: str) -> str:
        """Return what is stored of an end user's id: 32 hexadecimal digits; empty for none."""
        if not end_user:
            return ""
        return hmac.digest(self.end_user_pepper, end_user.encode(errors="surrogatepass"), hashlib.sha256).hex()[:32]


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The root, wrapped once per half of the Secret. `wraps` is from the id of a pair of halves to nonce and text."""

    tenant_uid: str
    volume_half: bytes = field(repr=False)
    wraps: Mapping[str, bytes] = field(repr=False)
    has_database: bool = False
    """Whether a database was made with it: then one that is missing is lost, not new."""
    pending: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Wraps of the root that replaces this one; empty: none does."""

    def encode(self) -> str:
        """Return the ring as JSON; it opens nothing without a half of the Secret."""
        document: dict[str, Any] = {
            "format": _PENDING_FORMAT if self.pending else _FORMAT,
            "tenant": self.tenant_uid,
            "half": _encode_bytes(self.volume_half),
            "wraps": _encode_wraps(self.wraps),
            "hasDatabase": self.has_database,
        }
        if self.pending:
            document["pending"] = _encode_wraps(self.pending)
        return json.dumps(document, indent=1) + "\n"


def read_halves(folder: Path) -> dict[str, bytes]:
    """Return the halves that the Secret's folder has, by file name.

    Raises:
        KeyLostError: there is none.
        ConfigError: one is not 64 hexadecimal digits, or there are more than two.
        StoreError: the folder cannot be read now.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.startswith(HALF_PREFIX))
    except FileNotFoundError:
        paths = []
    except OSError as error:
        raise translate_os_error(error, folder) from error
    if not paths:
        raise KeyLostError(
            f"{folder} has no half of the tenant key, so the tenant's data cannot be read", Remedy.RESTORE_KEY
        )
    if len(paths) > MOST_HALVES:
        names = ", ".join(path.name for path in paths)
        raise ConfigError(
            f"{folder} has {len(paths)} halves ({names}), at most {MOST_HALVES} are valid at a time",
            Remedy.REMOVE_OLD_KEY,
        )
    return {path.name: _read_half(path) for path in paths}


def make_half() -> str:
    """Return a new half for the Secret, as its file has it."""
    return secrets.token_hex(HALF_BYTES)


def create_ring(tenant_uid: str, halves: Mapping[str, bytes]) -> KeyRing:
    """Return a new ring with a new root."""
    ring = KeyRing(tenant_uid, secrets.token_bytes(HALF_BYTES), {})
    return replace(ring, wraps=_wrap_root(ring, {}, secrets.token_bytes(HALF_BYTES), halves))


def add_pending_root(ring: KeyRing, halves: Mapping[str, bytes]) -> KeyRing:
    """Return the ring with a new root that is to replace its own."""
    return replace(ring, pending=_wrap_root(ring, {}, secrets.token_bytes(HALF_BYTES), halves))


def promote_pending_root(ring: KeyRing) -> KeyRing:
    """Return the ring with its pending root as its own; the one before is gone."""
    return replace(ring, wraps=ring.pending, pending={})


def open_ring(ring: KeyRing, tenant_uid: str, halves: Mapping[str, bytes]) -> tuple[TenantKeys, KeyRing]:
    """Return the keys, and the ring with a wrap for exactly the halves of the Secret; it is to be stored if it differs.

    Raises:
        ForeignTenantError: the ring is another tenant's.
        WrongKeyError: no half opens it.
    """
    if ring.tenant_uid != tenant_uid:
        raise ForeignTenantError(
            f"The data belong to tenant {ring.tenant_uid}, and this gateway serves {tenant_uid}; nothing was read",
            Remedy.RESTORE_TENANT,
        )
    roots = find_roots(ring, halves)
    if not roots:
        raise WrongKeyError("the Secret was replaced", Remedy.RESTORE_USED_KEY, halves=", ".join(sorted(halves)))
    renewed = replace(ring, wraps=_wrap_root(ring, ring.wraps, roots[0], halves))
    if len(roots) > 1:
        renewed = replace(renewed, pending=_wrap_root(ring, ring.pending, roots[1], halves))
    return derive_keys(roots[0]), renewed


def decode_ring(text: str, source: str) -> KeyRing:
    """Return the ring in `text`. Raises CorruptError, which names `source`."""
    try:
        document: dict[str, Any] = json.loads(text)
        if document["format"] not in (_FORMAT, _PENDING_FORMAT):
            raise ValueError("unknown format")
        return KeyRing(
            str(document["tenant"]),
            _decode_bytes(document["half"]),
            _decode_wraps(document["wraps"]),
            document["hasDatabase"] is True,
            _decode_wraps(document["pending"]) if document["format"] == _PENDING_FORMAT else {},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptError(
            f"{source}: is not a key ring ({type(error).__name__}), so the tenant's data cannot be read",
            Remedy.REPLACE_RING,
        ) from None


def read_ring(path: Path) -> KeyRing | None:
    """Return the ring of a file; None if there is no file. Raises CorruptError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        text = ""
    return decode_ring(text, str(path))


def write_ring(path: Path, ring: KeyRing) -> None:
    """Replace the file at once: a crash leaves the old ring or the new one. Raises OSError."""
    scratch = path.with_suffix(".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(ring.encode())
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    sync(path.parent)


def _read_half(path: Path) -> bytes:
    try:
        half = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        half = b""
    if len(half) != HALF_BYTES:
        raise ConfigError(
            f"{path}: is not {2 * HALF_BYTES} hexadecimal digits, so it is no half of a tenant key", Remedy.REPLACE_KEY
        )
    return half


def find_roots(ring: KeyRing, halves: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """Return the root, and the pending one behind it; nothing if no half opens the ring.

    `open_ring` also asks whose ring it is.
    """
    root = _unwrap_root(ring, ring.wraps, halves)
    if root is None:
        return ()
    pending = _unwrap_root(ring, ring.pending, halves)
    return (root,) if pending is None else (root, pending)


def _unwrap_root(ring: KeyRing, wraps: Mapping[str, bytes], halves: Mapping[str, bytes]) -> bytes | None:
    for half in halves.values():
        wrap = wraps.get(_identify_pair(ring, half))
        if wrap is None:
            continue
        try:
            return AESGCM(_derive_wrapping_key(ring, half)).decrypt(
                wrap[:_NONCE_BYTES], wrap[_NONCE_BYTES:], ring.tenant_uid.encode()
            )
        except (InvalidTag, ValueError):  # ValueError: shorter than a nonce and a tag
            continue
    return None


def _wrap_root(
    ring: KeyRing, before: Mapping[str, bytes], root: bytes, halves: Mapping[str, bytes]
) -> Mapping[str, bytes]:
    """Return a wrap for each half; those of `before` are kept."""
    wraps = {}
    for half in halves.values():
        pair = _identify_pair(ring, half)
        wrap = before.get(pair)
        if wrap is None:
            nonce = secrets.token_bytes(_NONCE_BYTES)
            wrap = nonce + AESGCM(_derive_wrapping_key(ring, half)).encrypt(nonce, root, ring.tenant_uid.encode())
        wraps[pair] = wrap
    return wraps


def _identify_pair(ring: KeyRing, half: bytes) -> str:
    return _derive(half + ring.volume_half, f"pair/{ring.tenant_uid}", 8).hex()


def _derive_wrapping_key(ring: KeyRing, half: bytes) -> bytes:
    return _derive(half + ring.volume_half, f"wrapping-key/{ring.tenant_uid}")


def derive_keys(root: bytes) -> TenantKeys:
    """Return the keys of a root."""
    return TenantKeys(
        database_key=_derive(root, "database-key/1"),
        database_salt=_derive(root, "database-salt/1", _SALT_BYTES),
        pepper=_derive(root, "pepper/1"),
        end_user_pepper=_derive(root, "end-user-pepper/1"),
        audit_key=_derive(root, "audit-key/1"),
        end_user_wrapping_key=_derive(root, "end-user-wrapping-key/1"),
        former_wrapping_key=b"",
        receipt_key=_derive(root, "receipt-key/1"),
        backup_key=_derive(root, "backup-key/1"),
        adoption_key=_derive(root, "adoption-key/1"),
    )


def _derive(secret: bytes, purpose: str, length: int = HALF_BYTES) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=f"r1plus-gateway/{purpose}".encode()).derive(secret)


def _encode_wraps(wraps: Mapping[str, bytes]) -> dict[str, str]:
    return {name: _encode_bytes(wrap) for name, wrap in sorted(wraps.items())}


def _decode_wraps(wraps: Mapping[Any, str]) -> dict[str, bytes]:
    return {str(name): _decode_bytes(wrap) for name, wrap in wraps.items()}


def _encode_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _decode_bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
