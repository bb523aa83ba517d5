"""The chart of a release names the release's own images by digest."""

import io
import tarfile
from pathlib import Path

import pytest
import yaml

from devcluster.cache import binary
from r1plus_cli.bundle.oci import Descriptor
from release.chart import package_chart, pin_images
from release.images import ReleaseImage

CHART = Path(__file__).parents[3] / "charts" / "r1plus-operator"
VALUES = (CHART / "values.yaml").read_text()
NAMES = ("r1plus-operator", "r1plus-monitor", "r1plus-registry", "r1plus-gateway", "r1plus-triton-cpu")
DIGESTS = {name: f"sha256:{number:064x}" for number, name in enumerate((*NAMES, "r1plus-engine-smollm2-full-f16"))}


def test_every_image_is_named_by_digest_and_comments_stay() -> None:
    pinned = pin_images(VALUES, DIGESTS)
    images = yaml.safe_load(pinned)["images"]
    named = {images[field] for field in ("operator", "monitor", "registry", "gateway", "triton")}
    assert named == {f"{name}@{DIGESTS[name]}" for name in NAMES}
    engine = "r1plus-engine-smollm2-full-f16"
    assert images["engines"] == {"smollm2-full-f16": f"{engine}@{DIGESTS[engine]}"}
    assert [line for line in VALUES.splitlines() if "#" in line and line not in pinned.splitlines()] == []


def test_nothing_but_the_images_changes() -> None:
    before, after = yaml.safe_load(VALUES), yaml.safe_load(pin_images(VALUES, DIGESTS))
    assert {**after, "images": before["images"]} == before


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(VALUES.replace("  gateway: ", "  gate: "), id="a field has another name"),
        pytest.param(VALUES.replace("  engines: {}", "  engines:\n    a: b"), id="engines are no empty map"),
        pytest.param(VALUES.replace("  triton: ", "  triton: >-\n    "), id="a value stands on a line of its own"),
    ],
)
def test_values_in_another_form_are_refused(values: str) -> None:
    with pytest.raises(ValueError, match=r"values\.yaml: images: a field is missing"):
        pin_images(values, DIGESTS)


@pytest.mark.skipif(not binary("helm").exists(), reason="helm is not in the cache; make test builds it")
def test_the_packed_chart_has_the_same_bytes_whenever_it_is_made(tmp_path: Path) -> None:
    images = [
        ReleaseImage(name, tmp_path, Descriptor(media_type="x", digest=digest, size=1))
        for name, digest in DIGESTS.items()
    ]
    packed = package_chart(CHART, images)
    assert package_chart(CHART, images) == packed
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = archive.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
    assert any(member.name.startswith("r1plus-operator/crds/") for member in members)
