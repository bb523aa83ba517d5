"""A small signed release, whole or with one thing changed."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from r1plus_cli.bundle.oci import Platform
from r1plus_cli.bundle.release import LOCK_NAME, LOCK_TYPE, ArtifactKind, ReleaseArtifact, ReleaseFile, ReleaseLock
from r1plus_contract.engine.delivery import hash_file
from r1plus_model_repo.engine_fetch.sigstore import encode_public_key
from release.layout_writer import LayoutWriter
from release.statements import add_statement

VERSION = "0.1.0"
SIGNING_KEY = ec.derive_private_key(4711, ec.SECP256R1())
FOREIGN_KEY = ec.derive_private_key(4712, ec.SECP256R1())
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk with its public key (PEM)."""

    path: Path
    keys: list[str] = field(default_factory=lambda: [encode_public_key(SIGNING_KEY.public_key())])


def read_members(path: Path) -> dict[str, bytes]:
    """Return the files of a tar."""
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isreg()}  # type: ignore[union-attr]


def write_members(path: Path, members: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> None:
    """Write a tar; `kind` is the type of its last member."""
    with tarfile.open(path, "w") as archive:
        for position, (name, data) in enumerate(members):
            member = tarfile.TarInfo(name)
            if position == len(members) - 1 and kind != tarfile.REGTYPE:
                member.type, member.linkname = kind, "/etc/passwd"
            else:
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_release(
    folder: Path,
    *,
    key: ec.EllipticCurvePrivateKey = SIGNING_KEY,
    image_key: ec.EllipticCurvePrivateKey | None = None,
    edit_lock: Callable[[bytes], bytes] = lambda lock: lock,
    content: bytes = b"a layer",
) -> Bundle:
    """Write a release of one image for two platforms, one chart and one wheel."""
    layout = LayoutWriter(folder / "layout")
    platforms = []
    for architecture in ("amd64", "arm64"):
        config = layout.add_blob(b'{"architecture":"%s","os":"linux"}' % architecture.encode(), CONFIG_TYPE)
        layers = (layout.add_blob(content, LAYER_TYPE), layout.add_blob(architecture.encode(), LAYER_TYPE))
        manifest = layout.add_manifest(config=config, layers=layers)
        platforms.append(manifest.model_copy(update={"platform": Platform(os="linux", architecture=architecture)}))
    image = layout.add_index(tuple(platforms))
    chart = layout.add_manifest(
        layers=(layout.add_blob(b"a chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),)
    )
    layout.add_entry(image, f"r1plus-operator:{VERSION}")
    layout.add_entry(chart, f"r1plus-chart:{VERSION}")
    for subject in (image, chart):
        add_statement(layout, subject, image_key or key)
    layout.add_file("wheels/r1plus-0.1.0-py3-none-any.whl", b"a wheel")
    wheel = folder / "layout/wheels/r1plus-0.1.0-py3-none-any.whl"
    artifacts = (
        ReleaseArtifact(name="r1plus-operator", kind=ArtifactKind.IMAGE, repository="r1plus-operator", tag=VERSION, digest=image.digest,
                 platforms=("linux/amd64", "linux/arm64")),
        ReleaseArtifact(name="r1plus-chart", kind=ArtifactKind.CHART, repository="charts/r1plus-operator", tag=VERSION,
                 digest=chart.digest),
    )  # fmt: skip
    files = (ReleaseFile(name=f"wheels/{wheel.name}", digest=f"sha256:{hash_file(wheel)}", size=wheel.stat().st_size),)
    lock = ReleaseLock(version=VERSION, artifacts=artifacts, files=files)
    data = layout.add_blob(edit_lock(lock.model_dump_json().encode()), LOCK_TYPE)
    entry = layout.add_manifest(layers=(data,), artifact_type=LOCK_TYPE)
    layout.add_entry(entry, f"{LOCK_NAME}:{VERSION}")
    add_statement(layout, entry, key)
    layout.write(folder / "bundle.oci.tar")
    return Bundle(folder / "bundle.oci.tar")
