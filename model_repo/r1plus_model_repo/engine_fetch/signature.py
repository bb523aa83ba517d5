"""Signatures of an engine in the OpenSSF Model Signing format, version 1.0, with an elliptic curve key.

`model.sig` is a Sigstore bundle: a DSSE envelope around an in-toto statement that lists every file with its sha256.
This module verifies what `model_signing sign key` writes; `model_signing verify key` verifies what `r1plus engine sign`
writes. Certificates and keyless signatures are not accepted: they need an external service, which a Job cannot reach.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from r1plus_contract.engine.engine_fetch import FillRefusal
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.sigstore import STATEMENT_TYPE, read_bundle

MAX_BYTES = 4 * 2**20
"""Largest bundle to read: 4096 files with long names take less."""
PREDICATE_TYPE = "https://model_signing/signature/v1.0"


def verify(bundle: bytes, files: Mapping[str, str], keys: Sequence[str]) -> None:
    """Check that one of these public keys (PEM) signed exactly these files (path -> sha256).

    Raises:
        FillError: the signature does not match, or the bundle cannot be read.
    """
    try:
        signed = read_bundle(bundle)
        is_signed = signed.is_signed_by(keys)
    except ValueError as error:
        raise _signature_error(str(error)) from error
    if not is_signed:
        raise _signature_error("none of the keys in the chart's delivery.trustedKeys made it")
    try:
        signed_digests = _read_digests(json.loads(signed.payload))
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise _signature_error(f"it cannot be read: {error!r:.200}") from error
    _compare(signed_digests, files)


def compute_root_digest(digests: Sequence[str]) -> str:
    """Return the digest of a statement: sha256 over these digests, in their order."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _read_digests(statement: dict[str, Any]) -> dict[str, str]:
    """Return path -> sha256 as the statement lists them."""
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise _signature_error(f"its statement is {statement['predicateType']!r:.80}, not {PREDICATE_TYPE}")
    predicate, (subject,) = statement["predicate"], statement["subject"]
    if predicate["serialization"]["method"] != "files":
        raise _signature_error("it lists parts of files; sign with the method `files`")
    resources = predicate["resources"]
    if any(resource["algorithm"] != "sha256" for resource in resources):
        raise _signature_error("it lists digests other than sha256; sign with sha256")
    if compute_root_digest([resource["digest"] for resource in resources]) != subject["digest"]["sha256"]:
        raise _signature_error("its subject is not the digest of its list")
    return {str(resource["name"]): str(resource["digest"]) for resource in resources}


def _compare(signed: Mapping[str, str], actual: Mapping[str, str]) -> None:
    """Check that the signed files and the actual files are the same: an unlisted file is not signed."""
    for path in sorted(signed.keys() | actual.keys()):
        if path not in signed:
            raise _signature_error(f"{path:.200}: it does not list this file")
        if signed[path] != actual.get(path):
            raise _signature_error(f"{path:.200}: the file changed after signing, or is missing")


def _signature_error(reason: str) -> FillError:
    text = (
        f"model.sig: {reason}; sign the engine again (r1plus engine sign), or see the chart's delivery.requireSignature"
    )
    return FillError(FillRefusal.SIGNATURE_INVALID, text)
