"""A stream of bytes that only the tenant's root opens: the form of backups and of keys files.

    magic ‖ length ‖ header, readable JSON ‖ frame ‖ … ‖ last frame
    frame: 4 bytes (length, and the highest bit if it is the last) ‖ AES-256-GCM of at most 64 KiB

Each stream has a key of its own, derived from the root's backup key and a salt in the header. A frame's nonce is its
number; it is bound to the header, to its number, and to whether it is the last. So nothing opens that was changed, cut,
reordered, prolonged or mixed with another stream. Written and read with bounded memory.

Called by `store.copies.backup` and `store.copies.restoration`, and by the command line, which has no key and looks at
the form only.
"""

import base64
import hashlib
import json
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FORMAT: Final = 1
FRAME_BYTES: Final = 64 * 1024
"""Plaintext of a frame, at most."""
MOST_HEADER_BYTES: Final = 64 * 1024
_MAGIC: Final = b"R1PLUS\0\1"
_LENGTH: Final = struct.Struct(">I")
_IS_LAST: Final = 1 << 31
_TAG_BYTES: Final = 16
_MOST_NAME: Final = 253
_MOST_NUMBER: Final = 1 << 36
"""Seconds since the epoch, and rows."""
_SALT_BYTES: Final = 32

Read = Callable[[int], bytes]
"""Returns so many bytes; fewer at the end only."""


class StreamKind(StrEnum):
    """What a stream holds."""

    BACKUP = "R1PlusTenantBackup"
    KEYS = "R1PlusTenantKeys"


NAMES: Final = {StreamKind.BACKUP: "backup", StreamKind.KEYS: "keys"}
"""What messages call them."""


class SealedStreamError(ValueError):
    """A stream that is not whole, not ours, or not of this kind. The message begins with what it is."""


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What a stream says of itself, readable by everybody; with the first frame it is known to be true."""

    kind: StreamKind
    id: str
    namespace: str
    tenant_uid: str
    root_id: str
    """Of the root whose key opens it: `TenantKeys.root_id`."""
    schema: str
    """The schema's revision."""
    created_at: int
    """Seconds since the epoch, in ledger time."""
    rows: int
    """How many it has: for those who show progress."""
    rotation: str = ""
    """The last rotation of data keys: an older backup's content does not open with keys that are newer than it."""
    ring: str = field(default="", repr=False)
    """In a keys file: the key ring, which a half of the Secret opens."""
    adopted_root: str = field(default="", repr=False)
    """In a keys file: the root that the tenant adopted, sealed under the ring's."""
    salt: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(_SALT_BYTES)).decode())

    def encode(self) -> bytes:
        """Return how a stream begins."""
        text = json.dumps({"format": FORMAT, **asdict(self)}).encode()
        return _MAGIC + _LENGTH.pack(len(text)) + text

    def derive_key(self, backup_key: bytes) -> bytes:
        """Return the key of this stream."""
        info = f"r1plus-gateway/stream/{self.kind.value}".encode()
        return HKDF(SHA256(), 32, salt=base64.b64decode(self.salt), info=info).derive(backup_key)


def seal(header: StreamHeader, backup_key: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a whole stream: its header, then a frame at a time."""
    head, buffer = header.encode(), bytearray()
    cipher, bound = AESGCM(header.derive_key(backup_key)), _bind(head)
    yield head
    number = 0
    for piece in pieces:
        buffer += piece
        while len(buffer) > FRAME_BYTES:  # what is left is never empty, so the last frame is known as such
            yield _seal_frame(cipher, bound, number, bytes(buffer[:FRAME_BYTES]), is_last=False)
            del buffer[:FRAME_BYTES]
            number += 1
    yield _seal_frame(cipher, bound, number, bytes(buffer), is_last=True)


class StreamReader:
    """Reads one stream, and stops behind its last frame."""

    def __init__(self, read: Read, kind: StreamKind) -> None:
        """Read the header.

        Raises:
            SealedStreamError: it is none, of another kind, or of a newer format.
        """
        self._name = NAMES[kind]
        self._read = read
        self._offset = 0
        self.head, self.header = self._read_header(kind)

    def open_frames(self, backup_key: bytes) -> Iterator[bytes]:
        """Yield what the frames hold. Raises SealedStreamError at the first that does not open."""
        try:
            cipher = AESGCM(self.header.derive_key(backup_key))
        except ValueError:
            raise self._refuse("has a header that was changed") from None
        bound = _bind(self.head)
        for number, (frame, is_last) in enumerate(self._read_frames()):
            try:
                plain = cipher.decrypt(_number(number), frame[_LENGTH.size :], bound + bytes([is_last]))
            except InvalidTag:
                at = self._offset - len(frame)
                raise self._refuse(f"was changed, or put together of parts, at or before byte {at}") from None
            yield plain

    def copy_frames(self) -> Iterator[bytes]:
        """Yield header and frames as they are, without a key. Raises SealedStreamError if the stream is cut."""
        yield self.head
        for frame, _ in self._read_frames():
            yield frame

    def require_end(self) -> None:
        """Raise SealedStreamError if something follows."""
        if self._read(1):
            raise self._refuse(f"goes on behind its end at byte {self._offset}")

    def _read_header(self, kind: StreamKind) -> tuple[bytes, StreamHeader]:
        start = self._read(len(_MAGIC) + _LENGTH.size)
        if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + _LENGTH.size:
            raise self._refuse("is not a file of r1plus tenant backup", is_file=False)
        (length,) = _LENGTH.unpack(start[len(_MAGIC) :])
        text = self._read(length) if length <= MOST_HEADER_BYTES else b""
        self._offset = len(start) + len(text)
        if len(text) < length:
            raise self._refuse("is cut within its header")
        return start + text, self._decode_header(text, kind)

    def _decode_header(self, text: bytes, kind: StreamKind) -> StreamHeader:
        try:
            document: dict[str, Any] = json.loads(text)
            version, found = document.pop("format"), StreamKind(document["kind"])
            if version > FORMAT:
                newer = f"has format {version}, newer than this program's {FORMAT}; use the newer program"
                raise self._refuse(newer, is_file=False)
            if found is not kind:
                raise self._refuse(f"is a file of {NAMES[found]}; the files were swapped", is_file=False)
            header = StreamHeader(**{**document, "kind": found})
            _check_fields(header)
        except SealedStreamError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._refuse("has a header that was changed") from None
        return header

    def _read_frames(self) -> Iterator[tuple[bytes, bool]]:
        is_last = False
        while not is_last:
            prefix = self._read(_LENGTH.size)
            length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
            is_last, length = bool(length & _IS_LAST), length & ~_IS_LAST
            is_frame = _TAG_BYTES <= length <= FRAME_BYTES + _TAG_BYTES
            if len(prefix) == _LENGTH.size and not is_frame:
                raise self._refuse(f"was changed at byte {self._offset}")
            body = self._read(length) if is_frame else b""
            self._offset += len(prefix) + len(body)
            if not is_frame or len(body) < length:
                raise self._refuse(f"is cut at byte {self._offset}")
            yield prefix + body, is_last

    def _refuse(self, problem: str, *, is_file: bool = True) -> SealedStreamError:
        remedy = "; copy it again, or take another backup" if is_file else ""
        return SealedStreamError(f"{self._name}: {problem}{remedy}")


def _check_fields(header: StreamHeader) -> None:
    """Raise ValueError for what no gateway writes: messages quote some of these."""
    names = (header.id, header.namespace, header.tenant_uid, header.root_id, header.schema, header.rotation)
    for text in (*names, header.ring, header.adopted_root, header.salt):
        if not isinstance(text, str):
            raise TypeError("another type")
    if not all(len(name) <= _MOST_NAME and name.isprintable() for name in names):
        raise ValueError("no name")
    if not all(type(number) is int and 0 <= number < _MOST_NUMBER for number in (header.created_at, header.rows)):
        raise ValueError("no number")


def _seal_frame(cipher: AESGCM, bound: bytes, number: int, plain: bytes, *, is_last: bool) -> bytes:
    sealed = cipher.encrypt(_number(number), plain, bound + bytes([is_last]))
    return _LENGTH.pack(len(sealed) | (_IS_LAST if is_last else 0)) + sealed


def _number(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _bind(head: bytes) -> bytes:
    return hashlib.sha256(head).digest()
