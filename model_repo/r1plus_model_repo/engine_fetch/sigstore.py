"""Sigstore bundles v0.3 around a DSSE envelope, signed by an elliptic curve key.

`model_signing sign key` and `cosign sign --key` write this form, and their `verify` reads it. Certificates and keyless
signatures are not accepted: they need an external service, which a private network does not reach.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
HASHES: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
"""Bits of a key's curve -> the hash that it signs."""


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """The payload of a bundle with its signature, not verified yet."""

    payload: bytes
    """The in-toto statement as JSON, as it was signed."""
    signature: bytes
    """The first signature of the envelope (DER)."""

    def is_signed_by(self, keys: Sequence[str]) -> bool:
        """Return whether one of these public keys (PEM) made the signature. Raise ValueError for an unreadable key."""
        return any(_is_valid(load_public_key(key), self) for key in keys)


def read_bundle(bundle: bytes) -> SignedStatement:
    """Return the statement and signature of a bundle. Raise ValueError with the reason if it is not one."""
    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        payload_type = envelope["payloadType"]
    except (KeyError, IndexError, TypeError, ValueError, binascii.Error, RecursionError) as error:
        raise ValueError(f"it cannot be read: {error!r:.200}") from error
    if payload_type != PAYLOAD_TYPE:
        raise ValueError(f"its payload is {payload_type!r:.80}, not {PAYLOAD_TYPE}")
    return SignedStatement(payload, signature)


def sign_statement(statement: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the bundle (JSON) of a statement. The same statement and key give the same bytes (RFC 6979)."""
    payload = json.dumps(statement).encode()
    algorithm = ec.ECDSA(HASHES[key.curve.key_size], deterministic_signing=True)
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(key.sign(encode_envelope(payload), algorithm)).decode(), "keyid": ""}],
    }
    hint = hashlib.sha256(encode_public_key(key.public_key()).encode()).hexdigest()
    material = {"publicKey": {"hint": hint}, "tlogEntries": []}
    return json.dumps({"mediaType": BUNDLE_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()


def encode_envelope(payload: bytes) -> bytes:
    """Return the bytes to sign: the pre-authentication encoding of DSSE."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def encode_public_key(key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key as PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def load_public_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Load a public key (PEM) on one of the supported curves. Raise ValueError for any other."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(f"not a public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.key_size not in HASHES:
        raise ValueError("not a public key on curve P-256, P-384 or P-521")
    return key


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load a private key (PEM without a password) on a supported curve. Raise ValueError for any other file."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path}: not a private key in PEM without a password: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.key_size not in HASHES:
        raise ValueError(
            f"{path}: the key is not on curve P-256, P-384 or P-521;"
            " openssl ecparam -name prime256v1 -genkey -noout -out signing.pem makes one"
        )
    return key


def _is_valid(key: ec.EllipticCurvePublicKey, signed: SignedStatement) -> bool:
    try:
        key.verify(signed.signature, encode_envelope(signed.payload), ec.ECDSA(HASHES[key.curve.key_size]))
    except InvalidSignature:
        return False
    return True
