"""Who vouches for an engine. `signed/` was signed by `model_signing sign key` 1.1.1, which also verified what we sign."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from r1plus_contract.engine.delivery import build_listing, parse_listing
from r1plus_contract.engine.engine_fetch import EXIT_PERMANENT, FillRefusal
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.signature import verify
from r1plus_model_repo.engine_fetch.sigstore import HASHES, encode_envelope, load_public_key
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.package.signature import sign

SIGNED = Path(__file__).parent / "signed"
TRUSTED = (SIGNED / "signing.pub").read_text()
Json = dict[str, Any]


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[bytes, str]:
    """Private and public."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An engine with somebody else's signature."""
    shutil.copytree(SIGNED, tmp_path / "bank-lite")
    return tmp_path / "bank-lite"


def check(folder: Path, *keys: str) -> None:
    verify((folder / "model.sig").read_bytes(), parse_listing(build_listing(folder / "engine")), keys or (TRUSTED,))


def refused(folder: Path, *keys: str) -> str:
    with pytest.raises(FillError) as raised:
        check(folder, *keys)
    assert (raised.value.reason, raised.value.exit_code) == (FillRefusal.SIGNATURE_INVALID, EXIT_PERMANENT)
    return str(raised.value)


def test_what_model_signing_signs_is_believed(folder: Path) -> None:
    check(folder)
    _, other = pem(ec.generate_private_key(ec.SECP256R1()))
    check(folder, other, TRUSTED)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_what_we_sign_is_believed_under_its_key_alone(folder: Path, curve: ec.EllipticCurve) -> None:
    private, public = pem(ec.generate_private_key(curve))
    (folder / "key.pem").write_bytes(private)
    assert sign(folder, folder / "key.pem") == folder / "model.sig"
    check(folder, public)
    assert "none of the keys" in refused(folder)


ALTERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another byte": (
        lambda e: (e / "sub" / "weights.bin").write_bytes(b"Weights"),
        "sub/weights.bin: the file changed after signing",
    ),
    "a file more": (lambda e: (e / "more").write_text(""), "more: it does not list this file"),
    "a file that git would ignore": (lambda e: (e / ".gitignore").write_text("*"), ".gitignore: it does not list"),
    "a file less": (
        lambda e: (e / "openvino_model.xml").unlink(),
        "openvino_model.xml: the file changed after signing",
    ),
    "another name": (lambda e: (e / "openvino_model.xml").rename(e / "a.xml"), "a.xml: it does not list"),
}


@pytest.mark.parametrize(("alter", "why"), ALTERED.values(), ids=ALTERED.keys())
def test_every_file_counts(folder: Path, alter: Callable[[Path], object], why: str) -> None:
    alter(folder / "engine")
    assert why in refused(folder)


def test_without_keys_nobody_is_believed(folder: Path) -> None:
    with pytest.raises(FillError, match="none of the keys"):
        verify((folder / "model.sig").read_bytes(), parse_listing(build_listing(folder / "engine")), ())


def resigned(folder: Path, change: Callable[[Json], object]) -> str:
    """A statement with a change, properly signed; the public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    bundle = json.loads((folder / "model.sig").read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    signature = key.sign(encode_envelope(payload), ec.ECDSA(HASHES[256]))
    bundle["dsseEnvelope"] |= {
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    (folder / "model.sig").write_text(json.dumps(bundle))
    return pem(key)[1]


STATEMENTS: dict[str, tuple[Callable[[Json], object], str]] = {
    "of another type": (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "its statement is"),
    "of parts of files": (lambda s: s["predicate"]["serialization"].update(method="shards"), "parts of files"),
    "of other digests": (lambda s: s["predicate"]["resources"][0].update(algorithm="blake2b"), "digests other than"),
    "of another subject": (lambda s: s["subject"][0]["digest"].update(sha256="0" * 64), "its subject is not"),
    "of no subject": (lambda s: s.update(subject=[]), "cannot be read"),
    "of nothing": (lambda s: s.clear(), "cannot be read"),
}


@pytest.mark.parametrize(("change", "why"), STATEMENTS.values(), ids=STATEMENTS.keys())
def test_a_sound_signature_under_another_statement_is_none(
    folder: Path, change: Callable[[Json], object], why: str
) -> None:
    assert why in refused(folder, resigned(folder, change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"dsseEnvelope": {}}', "[" * 100_000, '{"dsseEnvelope": 3}'])
def test_what_is_no_bundle_is_told(folder: Path, text: str) -> None:
    (folder / "model.sig").write_text(text)
    assert "cannot be read" in refused(folder)


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
def test_a_bundle_that_was_tampered_with_is_refused(folder: Path, field: str) -> None:
    bundle = json.loads((folder / "model.sig").read_text())
    envelope = bundle["dsseEnvelope"]
    if field == "signatures":
        raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
        raw[-1] ^= 1
        envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    elif field == "payload":
        envelope["payload"] = base64.b64encode(base64.b64decode(envelope["payload"]) + b" ").decode()
    else:
        envelope["payloadType"] = "text/plain"
    (folder / "model.sig").write_text(json.dumps(bundle))
    refused(folder)


@pytest.mark.parametrize("text", ["", "nothing", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load_public_key(text)


def test_a_key_of_another_kind_is_told(tmp_path: Path, folder: Path) -> None:
    private, public = pem(rsa.generate_private_key(65537, 2048))
    with pytest.raises(ValueError, match="curve P-256"):
        load_public_key(public)
    (tmp_path / "rsa.pem").write_bytes(private)
    with pytest.raises(ImportingError, match="openssl ecparam"):
        sign(folder, tmp_path / "rsa.pem")


def test_signing_tells_what_is_missing(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ImportingError, match="not a private key"):
        sign(folder, tmp_path / "absent.pem")
    with pytest.raises(ImportingError, match="no such folder"):
        sign(tmp_path, tmp_path / "absent.pem")
