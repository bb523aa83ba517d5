"""Small bundles: sound ones by the real writer, and others that an attacker or a bad copy makes of them."""

import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from r1plus_contract.suites.suite_files import SuiteSignature, write_signature
from r1plus_edge.bundle.install import switch_current
from r1plus_edge.bundle.manifest import (
    END,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    BundleManifest,
    Host,
    build_header,
    build_padding,
    build_signed_bytes,
    encode_manifest,
)
from r1plus_edge.bundle.writer import Signer, describe_file, write_bundle
from r1plus_operator.observe.suite_signature import KeyPair, generate_key

HOST: Final = Host("x86_64", "3.11")
MANIFEST: Final = BundleManifest("0.1.0", "x86_64", "3.11", (), engine="tiny", suite="tiny-v1", triton="triton-1")
CONTENTS: Final = {
    "engine/engine.yaml": b"kind: R1PlusEngine\n",
    "engine/engine/openvino_model.bin": bytes(range(256)) * 5,
    "suite/suite.json": b"{}",
    "triton/bin/tritonserver": b"#!/bin/sh\n",
    "wheels/r1plus-0.1.0-py3-none-any.whl": b"PK" * 300,
    f"wheels/{'x' * 120}.whl": b"PK" * 10,
}
Member = tuple[tarfile.TarInfo, bytes]


def build_signer(key: KeyPair) -> Signer:
    """Return who signs with a key."""
    return Signer(key.public, key.sign)


def make_sources(folder: Path) -> dict[str, Path]:
    """Write the files of a small bundle below a folder; return path in the bundle -> file."""
    for path, content in CONTENTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / "triton/bin/tritonserver").chmod(0o755)
    return {path: folder / path for path in CONTENTS}


def write_release(root: Path, version: str) -> Path:
    """Let `current` below `root` name an environment that has nothing but the version of its r1plus; return the link."""
    environment = root / "installed"
    (environment / f"lib/python3.11/site-packages/r1plus-{version}.dist-info").mkdir(parents=True)
    return switch_current(root, environment)


def make_bundle(folder: Path, key: KeyPair | None = None, manifest: BundleManifest = MANIFEST) -> tuple[Path, KeyPair]:
    """Write a small bundle with every part; return it, and the key that signed it."""
    key, out = key or generate_key(), folder / "small.tar"
    write_bundle(out, make_sources(folder / "sources"), manifest, build_signer(key))
    return out, key


def build_manifest(folder: Path) -> BundleManifest:
    """Return the manifest of the small bundle."""
    sources = make_sources(folder / "sources")
    return replace(MANIFEST, files=tuple(describe_file(path, sources[path]) for path in sorted(sources)))


def build_members(manifest: BundleManifest) -> list[Member]:
    """Return the files of the small bundle as tar members, in the manifest's order."""
    members = []
    for file in manifest.files:
        member = tarfile.TarInfo(file.path)
        member.size, member.mode = len(CONTENTS[file.path]), 0o755 if file.is_executable else 0o644
        members.append((member, CONTENTS[file.path]))
    return members


def write_tar(
    out: Path,
    manifest: bytes | BundleManifest,
    members: Sequence[Member],
    key: KeyPair,
    alter_signature: Callable[[SuiteSignature], SuiteSignature] = lambda signature: signature,
) -> Path:
    """Write a bundle with these members, whatever the manifest says of them. The manifest is signed."""
    encoded = manifest if isinstance(manifest, bytes) else encode_manifest(manifest)
    signature = SuiteSignature(key.public, build_signer(key).sign(build_signed_bytes(encoded)))
    heads = {MANIFEST_FILE: encoded, SIGNATURE_FILE: write_signature(alter_signature(signature)).encode()}
    pieces = [build_header(name, len(data)) + data + build_padding(len(data)) for name, data in heads.items()]
    for member, content in members:
        header = member.tobuf(tarfile.GNU_FORMAT if member.mtime == 0 else tarfile.PAX_FORMAT)
        pieces.append(header + content + build_padding(len(content)))
    out.write_bytes(b"".join(pieces) + END)
    return out
