"""The images of a release: those that the project ships and the demonstration's engines, from their OCI archives."""

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from devcluster.images import builder
from devcluster.images.recipe import Image
from devcluster.steps import Steps
from e2e.parts import ENGINE_PREFIX, build_embedding_engine, make_engines
from r1plus_cli.bundle.layout import name_blob
from r1plus_cli.bundle.oci import Descriptor, Manifest, Platform
from r1plus_cli.bundle.release import ArtifactKind, ReleaseArtifact
from r1plus_model_repo.importing.smollm2 import RECIPES
from release.layout_writer import LayoutWriter

ENGINE_NAME = "r1plus-engine-"
"""Before an engine's name, in the name of its image: registries with one level of names take it."""
PLATFORM = Platform(os="linux", architecture="amd64")


@dataclass(frozen=True, slots=True)
class ReleaseImage:
    """An image of a release."""

    name: str
    """Repository below the registry that it is pushed to."""
    archive: Path
    """Its OCI archive."""
    descriptor: Descriptor
    """Of its manifest."""

    def list_artifact(self, version: str) -> ReleaseArtifact:
        """Return its entry in the lock."""
        return ReleaseArtifact(
            name=self.name,
            kind=ArtifactKind.IMAGE,
            repository=self.name,
            tag=version,
            digest=self.descriptor.digest,
            platforms=(f"{PLATFORM.os}/{PLATFORM.architecture}",),
        )


def build_images(steps: Steps) -> list[ReleaseImage]:
    """Build what the cache lacks."""
    engines = make_engines(steps, RECIPES)
    steps.expect(builder.PRODUCT_STEPS + len(engines) + 2)
    images = {f"r1plus-{name}": image for name, image in builder.product_images(steps).items()}
    for name, engine in engines.items():
        images[ENGINE_NAME + name] = builder.engine_image(name, engine.folder, steps)
    for name, image in build_embedding_engine(steps).items():
        images[ENGINE_NAME + name.removeprefix(ENGINE_PREFIX)] = image
    return [ReleaseImage(name, image.archive, _read_descriptor(image)) for name, image in sorted(images.items())]


def add_image(layout: LayoutWriter, image: ReleaseImage, version: str) -> None:
    """Copy an image into a layout. The bytes of its manifest stay, so its digest does."""
    with tarfile.open(image.archive) as archive:

        def read(descriptor: Descriptor) -> bytes:
            stream = archive.extractfile(name_blob(descriptor.digest))
            assert stream is not None
            return stream.read()

        manifest = read(image.descriptor)
        for blob in Manifest.model_validate_json(manifest).blobs:
            layout.add_blob(read(blob), blob.media_type)
        layout.add_blob(manifest, image.descriptor.media_type)
    layout.add_entry(image.descriptor, f"{image.name}:{version}")


def _read_descriptor(image: Image) -> Descriptor:
    with tarfile.open(image.archive) as archive:
        stream = archive.extractfile("index.json")
        assert stream is not None
        (entry,) = json.load(stream)["manifests"]
    descriptor = Descriptor.model_validate(entry)
    return descriptor.model_copy(update={"annotations": {}, "platform": PLATFORM})
