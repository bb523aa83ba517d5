"""Ed25519 signatures over a golden suite's files. The command line signs; both command line and operator verify.

Verification says *who* signed, not whether that key is trusted: the plan decides that, from the chart's keys and those
that the deployment names. So a suite is verified once, when it is read, and not in every pass.
"""

import base64
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from r1plus_contract.suites.suite import SuiteError
from r1plus_contract.suites.suite_files import (
    SIGNATURE_FILE,
    SuiteFiles,
    SuiteSignature,
    key_id,
    read_signature,
    write_signature,
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key to sign suites with."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> str:
        """The public key: 32 bytes in base64."""
        raw = self.private.public_key().public_bytes_raw()
        return base64.b64encode(raw).decode()

    def sign(self, message: bytes) -> str:
        """Return the signature of a message: 64 bytes in base64."""
        return base64.b64encode(self.private.sign(message)).decode()

    def encode_pem(self) -> bytes:
        """Encode the private key as PKCS #8, unencrypted: the file's mode protects it."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def generate_key() -> KeyPair:
    """Generate a key from the system's randomness."""
    return KeyPair(Ed25519PrivateKey.generate())


def read_key(pem: bytes, passphrase: bytes | None = None) -> KeyPair:
    """Read a private key from PEM, encrypted if there is a `passphrase`; raise ValueError if it is none."""
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a private key in PEM: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"not an Ed25519 key but {type(key).__name__.lstrip('_')}; make one: r1plus suite keygen")  # noqa: TRY004
    return KeyPair(key)


def sign(files: SuiteFiles, key: KeyPair) -> SuiteFiles:
    """Return the suite signed by the key; an earlier signature is replaced."""
    return replace(files, signature=write_signature(SuiteSignature(key.public, key.sign(files.build_signed_bytes()))))


def find_signer(files: SuiteFiles) -> str:
    """Return the public key whose signature these files have; empty if they have none.

    Raises:
        SuiteError: the signature does not fit, since a file was altered after signing.
    """
    if not files.signature:
        return ""
    signature = read_signature(files.signature)
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signature.public_key))
        key.verify(base64.b64decode(signature.signature), files.build_signed_bytes())
    except (InvalidSignature, ValueError) as error:
        raise SuiteError(
            f"{SIGNATURE_FILE}: the signature by key {key_id(signature.public_key)} does not fit: a file was altered"
            " after it was signed; sign the suite again"
        ) from error
    return signature.public_key
