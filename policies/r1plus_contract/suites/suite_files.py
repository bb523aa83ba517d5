"""The files of a golden suite, and what its signature covers: the same in a folder, a manifest and a ConfigMap.

`suite.json` and `items.jsonl` are the suite. `reference.jsonl` (recorded answers of the reference with the scores they
got), `baseline.json` (what the reference reached) and `suite.sig` are optional.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.monitor.settings import ITEMS_FILE, REFERENCE_FILE, SUITE_FILE
from r1plus_contract.suites.suite import MAX_SUITE_BYTES, SuiteError

BASELINE_FILE: Final = "baseline.json"
SIGNATURE_FILE: Final = "suite.sig"
ED25519: Final = "Ed25519"
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

MAX_BYTES: Final[Mapping[str, int]] = {
    SUITE_FILE: 16 * 1024,
    ITEMS_FILE: MAX_SUITE_BYTES,
    REFERENCE_FILE: 32 * 1024,
    BASELINE_FILE: 48 * 1024,
    SIGNATURE_FILE: 1024,
}
"""Together they stay below 1 MiB, the most that a ConfigMap holds."""


@dataclass(frozen=True, slots=True)
class SuiteFiles:
    """The texts of the files; an optional file that is absent is empty."""

    header: str
    items: str
    reference: str = ""
    baseline: str = ""
    signature: str = ""

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> "SuiteFiles":
        """Take texts by file name, as a ConfigMap's `data` has them; other keys are ignored."""
        return cls(
            *(texts.get(name, "") for name in (SUITE_FILE, ITEMS_FILE, REFERENCE_FILE, BASELINE_FILE, SIGNATURE_FILE))
        )

    def texts(self) -> dict[str, str]:
        """Return the texts by file name, absent ones left out."""
        by_name = {
            SUITE_FILE: self.header,
            ITEMS_FILE: self.items,
            REFERENCE_FILE: self.reference,
            BASELINE_FILE: self.baseline,
            SIGNATURE_FILE: self.signature,
        }
        return {name: text for name, text in by_name.items() if text}

    def find_oversized(self) -> list[str]:
        """Return a line for each file beyond its limit; call it before anything is parsed."""
        sizes = {name: len(text.encode(errors="surrogatepass")) for name, text in self.texts().items()}
        return [
            f"{name}: {size} bytes, at most {MAX_BYTES[name]} are allowed: a ConfigMap holds no more; make it smaller"
            for name, size in sizes.items()
            if size > MAX_BYTES[name]
        ]

    def build_signed_bytes(self) -> bytes:
        """Return what is signed: the sha256 of every file but the signature, as two lines of `sha256sum` print it."""
        signed_files = ((SUITE_FILE, self.header), (ITEMS_FILE, self.items), (REFERENCE_FILE, self.reference))
        lines = [f"{_hash_text(text)}  {name}\n" for name, text in (*signed_files, (BASELINE_FILE, self.baseline))]
        return f"r1plus golden suite 1\n{''.join(lines)}".encode()

    def digest(self) -> str:
        """Return the sha256, 64 hex digits, of what is signed: shipped suites are trusted by it."""
        return hashlib.sha256(self.build_signed_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class SuiteSignature:
    """`suite.sig`. To trust the key is to trust the suite; the key that it names is not trusted by itself."""

    public_key: str
    """32 bytes in base64, as `spec.accuracy.suiteKeys` and the chart's `suites.trustedKeys` list them."""
    signature: str
    """64 bytes in base64, over `SuiteFiles.build_signed_bytes()`."""
    algorithm: str = ED25519


def read_signature(text: str, file: str = SIGNATURE_FILE) -> SuiteSignature:
    """Read a signature; SuiteError names the field of the `file`."""
    try:
        signature = loads(SuiteSignature, text)
    except ContractError as error:
        raise SuiteError(f"{file}: {error}") from error
    if signature.algorithm != ED25519:
        raise SuiteError(f"{file}: algorithm: {signature.algorithm!r:.40} is not {ED25519}")
    for field, value, size in (
        ("publicKey", signature.public_key, PUBLIC_KEY_BYTES),
        ("signature", signature.signature, SIGNATURE_BYTES),
    ):
        if decode_base64(value, size) is None:
            raise SuiteError(f"{file}: {field}: {value!r:.100} is not {size} bytes in base64")
    return signature


def write_signature(signature: SuiteSignature) -> str:
    """Return the text of `suite.sig`."""
    return dumps(signature) + "\n"


def decode_base64(text: str, size: int) -> bytes | None:
    """Decode exactly `size` bytes in canonical base64; otherwise None."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if len(data) == size and base64.b64encode(data).decode() == text else None


def key_id(public_key: str) -> str:
    """Return a short name of a public key, for people: the first 16 hex digits of its sha256."""
    data = decode_base64(public_key, PUBLIC_KEY_BYTES)
    return hashlib.sha256(data).hexdigest()[:16] if data else "no key"


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
