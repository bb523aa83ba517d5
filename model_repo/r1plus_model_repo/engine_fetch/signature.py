"""Who vouches for an engine: the OpenSSF Model Signing format, version 1.0, with an elliptic curve key.

`model.sig` is a Sigstore bundle: a DSSE envelope around an in-toto statement that lists every file with its sha256.
What `model_signing sign key` writes is verified here, and what `r1plus engine sign` writes by `model_signing verify
key`. Certificates and keyless signatures are not taken: they ask somebody outside, and a Job has no way there.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from r1plus_contract.engine_fetch import FillRefusal
from r1plus_model_repo.engine_fetch.errors import FillError

MAX_BYTES = 4 * 2**20
"""Of a bundle: 4096 files with long names are less."""
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
HASHES: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
"""Bits of a key's curve -> what it signs."""


def verify(bundle: bytes, files: Mapping[str, str], keys: Sequence[str]) -> None:
    """The engine's files (path -> sha256) are exactly those that one of these public keys (PEM) has signed.

    Raises:
        FillError: they are not, or the bundle is none.
    """
    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise _invalid(f"its payload is {envelope['payloadType']!r:.80}, not {PAYLOAD_TYPE}")
        if not any(_signed(public_key(key), payload, signature) for key in keys):
            raise _invalid("it is of none of the keys in the chart's delivery.trustedKeys")
        said = _digests(json.loads(payload))
    except (KeyError, IndexError, TypeError, ValueError, binascii.Error, RecursionError) as error:
        raise _invalid(f"it cannot be read: {error!r:.200}") from error
    _compare(said, files)


def root_digest(digests: Sequence[str]) -> str:
    """The statement's one digest: sha256 over all of these, in their order."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def enveloped(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def public_key(pem: str) -> ec.EllipticCurvePublicKey:
    """A key on one of the curves that the format knows; ValueError for any other."""
    try:
        found = serialization.load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(f"no public key: {error}") from error
    if not isinstance(found, ec.EllipticCurvePublicKey) or found.curve.key_size not in HASHES:
        raise ValueError("no public key on curve P-256, P-384 or P-521")
    return found


def _signed(key: ec.EllipticCurvePublicKey, payload: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, enveloped(payload), ec.ECDSA(HASHES[key.curve.key_size]))
    except InvalidSignature:
        return False
    return True


def _digests(statement: dict[str, Any]) -> dict[str, str]:
    """Path -> sha256, as a statement lists them."""
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise _invalid(f"its statement is {statement['predicateType']!r:.80}, not {PREDICATE_TYPE}")
    predicate, (subject,) = statement["predicate"], statement["subject"]
    if predicate["serialization"]["method"] != "files":
        raise _invalid("it lists parts of files; sign with the method `files`")
    listed = predicate["resources"]
    if any(resource["algorithm"] != "sha256" for resource in listed):
        raise _invalid("it lists other digests than sha256; sign with sha256")
    if root_digest([resource["digest"] for resource in listed]) != subject["digest"]["sha256"]:
        raise _invalid("its subject is not the digest of what it lists")
    return {str(resource["name"]): str(resource["digest"]) for resource in listed}


def _compare(said: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Every file is listed, and every listed one is there: what a signer ignored nobody vouches for."""
    for path in sorted(said.keys() | found.keys()):
        if path not in said:
            raise _invalid(f"{path:.200}: it does not list this file")
        if said[path] != found.get(path):
            raise _invalid(f"{path:.200}: it is of another content than was signed, or missing")


def _invalid(why: str) -> FillError:
    text = f"model.sig: {why}; sign the engine anew (r1plus engine sign), or see the chart's delivery.requireSignature"
    return FillError(FillRefusal.SIGNATURE_INVALID, text)
