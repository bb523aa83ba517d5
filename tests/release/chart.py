"""The chart of a release: its values name the release's own images by digest, and its bytes depend on its files alone."""

import gzip
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from devcluster.cache import binary
from devcluster.shell import output
from r1plus_cli.bundle.oci import Descriptor
from r1plus_cli.bundle.release import CHART_REPOSITORY, ArtifactKind, ReleaseArtifact
from release.images import ENGINE_NAME, ReleaseImage
from release.layout_writer import LayoutWriter

CHART_NAME = "r1plus-operator"
CHART_ENTRY = "r1plus-chart"
"""Name of the chart in the bundle: the operator's image has the chart's own."""
CONFIG_TYPE = "application/vnd.cncf.helm.config.v1+json"
CONTENT_TYPE = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_VALUES = {
    "operator": "r1plus-operator",
    "monitor": "r1plus-monitor",
    "registry": "r1plus-registry",
    "gateway": "r1plus-gateway",
    "triton": "r1plus-triton-cpu",
}
"""Field of the value `images` -> name of the image."""


def package_chart(source: Path, images: list[ReleaseImage]) -> bytes:
    """Return the packed chart (.tgz) of a folder with the digests of these images in its values."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / CHART_NAME
        shutil.copytree(source, folder)
        values = folder / "values.yaml"
        values.write_text(pin_images(values.read_text(), {image.name: image.descriptor.digest for image in images}))
        output([binary("helm"), "package", folder, "--destination", scratch])
        (packed,) = Path(scratch).glob("*.tgz")
        return _repack(packed)


def add_chart(layout: LayoutWriter, packed: bytes, version: str) -> tuple[Descriptor, ReleaseArtifact]:
    """Store a packed chart as helm pushes it."""
    metadata = json.dumps(_read_metadata(packed), sort_keys=True).encode()
    descriptor = layout.add_manifest(
        config=layout.add_blob(metadata, CONFIG_TYPE), layers=(layout.add_blob(packed, CONTENT_TYPE),)
    )
    layout.add_entry(descriptor, f"{CHART_ENTRY}:{version}")
    artifact = ReleaseArtifact(
        name=CHART_ENTRY,
        kind=ArtifactKind.CHART,
        repository=CHART_REPOSITORY,
        tag=version,
        digest=descriptor.digest,
    )
    return descriptor, artifact


def pin_images(values: str, digests: Mapping[str, str]) -> str:
    """Return values.yaml with the images of a release by digest. Its comments stay; ValueError if it lost one."""
    expected = yaml.safe_load(values)["images"]
    for field, name in _VALUES.items():
        expected[field] = f"{name}@{digests[name]}"
        values = re.sub(rf"(?m)^  {field}: .*$", f"  {field}: {expected[field]}", values, count=1)
    expected["engines"] = {
        name.removeprefix(ENGINE_NAME): f"{name}@{digest}"
        for name, digest in digests.items()
        if name.startswith(ENGINE_NAME)
    }
    lines = "".join(f"\n    {name}: {reference}" for name, reference in expected["engines"].items())
    values = re.sub(r"(?m)^  engines: \{\}$", f"  engines:{lines}", values, count=1)
    if yaml.safe_load(values)["images"] != expected:
        raise ValueError("values.yaml: images: a field is missing or stands in another form; compare release/chart.py")
    return values


def _repack(packed: Path) -> bytes:
    """Return a chart that helm has packed, with its files in order and without times and owners."""
    plain, compressed = io.BytesIO(), io.BytesIO()
    with tarfile.open(packed) as source, tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member in sorted(source, key=lambda member: member.name):
            copy = tarfile.TarInfo(member.name)
            copy.size, copy.mode = member.size, 0o644
            target.addfile(copy, source.extractfile(member))
    with gzip.GzipFile(filename="", mode="wb", fileobj=compressed, mtime=0) as stream:
        stream.write(plain.getvalue())
    return compressed.getvalue()


def _read_metadata(packed: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        stream = archive.extractfile(f"{CHART_NAME}/Chart.yaml")
        assert stream is not None
        return dict(yaml.safe_load(stream))
