"""API keys: `r1p_<id>_<secret>_<checksum>`, made, parsed and verified without ever keeping a secret.

The id finds the key's record, the checksum tells a typing error (and a scanner for leaked secrets) without a look-up,
and of the secret only an HMAC under the tenant's pepper is stored. Called by the authenticator and the store.
"""

import hmac
import re
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from r1plus_gateway.access.caller import Caller, CallerKind, Limits

PREFIX: Final = "r1p_"
SCOPE_END_USERS: Final = "end-users"
"""The key may name the person on whose behalf it calls."""
SCOPES: Final = frozenset({SCOPE_END_USERS})
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 12
_SECRET_LENGTH: Final = 43
"""62^43 is 256 bits."""
_CHECKSUM_LENGTH: Final = 6
_KEY: Final = re.compile(
    rf"{PREFIX}(?P<id>[0-9A-Za-z]{{{_ID_LENGTH}}})_(?P<secret>[0-9A-Za-z]{{{_SECRET_LENGTH}}})"
    rf"_(?P<checksum>[0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)
KEY_LENGTH: Final = len(PREFIX) + _ID_LENGTH + 1 + _SECRET_LENGTH + 1 + _CHECKSUM_LENGTH
_NO_MAC: Final = bytes(32)
"""Compared where a record has no MAC; that it should match is as unlikely as a guess of the key."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key with its secret, which no representation shows."""

    id: str
    secret: str = field(repr=False)

    def encode(self) -> str:
        """Return the key as its owner sends it."""
        body = f"{PREFIX}{self.id}_{self.secret}"
        return f"{body}_{_compute_checksum(body)}"


_DECOY: Final = ApiKey("0" * _ID_LENGTH, "0" * _SECRET_LENGTH)
"""Stands for a malformed key, so that it takes the same steps as an unknown one."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is stored of a key. Times are seconds since the epoch; None is never."""

    id: str
    name: str
    secret_mac: bytes = field(repr=False)
    previous_mac: bytes | None = field(repr=False)
    """Of the secret before the last rotation, valid until `previous_expires_at`."""
    previous_expires_at: float | None
    models: frozenset[str] | None
    scopes: frozenset[str]
    limits: Limits
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    @property
    def caller(self) -> Caller:
        """The caller that this key authenticates."""
        return Caller(CallerKind.API_KEY, self.id, models=self.models, scopes=self.scopes, limits=self.limits)


class KeyFinder(Protocol):
    """Where records are, and the pepper that their MACs are made with. The store implements it."""

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """Return the record of an id. Raises AccessError (503) while the store cannot be read."""

    def compute_key_mac(self, message: bytes) -> bytes:
        """Return HMAC-SHA256 of the message under the tenant's pepper. Raises AccessError (503) without a pepper."""


def mint_key(key_id: str = "") -> ApiKey:
    """Return a new key, or a new secret for the key `key_id`."""
    return ApiKey(key_id or _draw(_ID_LENGTH), _draw(_SECRET_LENGTH))


def parse_key(text: str) -> ApiKey | None:
    """Return the key in `text`; None if it is not exactly of the form, or its checksum is wrong."""
    match = _KEY.fullmatch(text) if len(text) == KEY_LENGTH else None
    if match is None:
        return None
    key = ApiKey(match["id"], match["secret"])
    return key if hmac.compare_digest(key.encode(), text) else None


def compute_secret_mac(key: ApiKey, compute_mac: Callable[[bytes], bytes]) -> bytes:
    """Return what is stored of the key's secret; it is bound to the id."""
    return compute_mac(f"api-key\0{key.id}\0{key.secret}".encode())


async def verify_key(text: str, finder: KeyFinder, now: float) -> KeyRecord | None:
    """Return the record of a valid key, else None.

    A malformed, an unknown, an expired and a revoked key take the same steps as a valid one: one look-up, one HMAC,
    two comparisons.
    """
    parsed = parse_key(text)
    key = parsed or _DECOY
    record = await finder.find_key(key.id)
    mac = compute_secret_mac(key, finder.compute_key_mac)
    is_current = hmac.compare_digest(mac, record.secret_mac if record else _NO_MAC)
    is_previous = hmac.compare_digest(mac, (record and record.previous_mac) or _NO_MAC)
    if record is None or parsed is None:
        return None
    is_secret_valid = is_current or (is_previous and _is_before(now, record.previous_expires_at))
    has_expired = not _is_before(now, record.expires_at)
    return record if is_secret_valid and not has_expired and record.revoked_at is None else None


def _is_before(now: float, end: float | None) -> bool:
    return end is None or now < end


def _draw(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _compute_checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    while number:
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits.rjust(_CHECKSUM_LENGTH, _ALPHABET[0])
