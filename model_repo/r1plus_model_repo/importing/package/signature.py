"""`model.sig` of an engine, verified by `engine_fetch.signature` and by `model_signing verify key`."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.engine.delivery import build_listing, parse_listing
from r1plus_contract.engine.engine_fetch import SIGNATURE_FILE
from r1plus_model_repo.engine_fetch.signature import (
    HASHES,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    compute_root_digest,
    encode_envelope,
)
from r1plus_model_repo.importing.errors import ImportingError

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def sign(folder: Path, key: Path) -> Path:
    """Write FOLDER/model.sig over FOLDER/engine.

    Raise ImportingError if the key is unsuitable or there is no engine.
    """
    engine, target = folder / "engine", folder / SIGNATURE_FILE
    if not engine.is_dir():
        raise ImportingError(f"{engine}: no such folder; give the folder that `r1plus engine import` wrote")
    private = _load_private_key(key)
    payload = json.dumps(build_statement(engine, folder.resolve().name)).encode()
    signature = private.sign(encode_envelope(payload), ec.ECDSA(HASHES[private.curve.key_size]))
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": hashlib.sha256(public).hexdigest()}, "tlogEntries": []}
    bundle = {"mediaType": BUNDLE_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
    replace_text(target, json.dumps(bundle))
    return target


def build_statement(engine: Path, name: str) -> dict[str, Any]:
    """Return the statement to sign: every file with its sha256."""
    digests = dict(sorted(parse_listing(build_listing(engine)).items()))
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": compute_root_digest(list(digests.values()))}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in digests.items()],
        },
    }


def _load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        private_key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ImportingError(f"{path}: not a private key in PEM without a password: {error}") from error
    if not isinstance(private_key, ec.EllipticCurvePrivateKey) or private_key.curve.key_size not in HASHES:
        raise ImportingError(
            f"{path}: the key is not on curve P-256, P-384 or P-521;"
            " openssl ecparam -name prime256v1 -genkey -noout -out signing.pem makes one"
        )
    return private_key
