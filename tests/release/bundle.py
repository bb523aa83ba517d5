"""Writes a release: images, chart, wheels, CRDs and schemas in one bundle, each with signed statements about it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from devcluster.cache import log_dir
from devcluster.images.sources import ROOT
from devcluster.steps import Steps
from r1plus_cli.bundle.layout import FILE_FOLDERS
from r1plus_cli.bundle.oci import Descriptor
from r1plus_cli.bundle.release import (
    LOCK_NAME,
    LOCK_TYPE,
    PROVENANCE_PREDICATE,
    SBOM_PREDICATE,
    ReleaseArtifact,
    ReleaseFile,
    ReleaseLock,
)
from r1plus_contract.engine.delivery import hash_file
from r1plus_edge.bundle.software import read_wheel_version
from release.chart import add_chart, package_chart
from release.images import add_image, build_images
from release.layout_writer import LayoutWriter
from release.predicates import Source, describe_build, list_packages
from release.statements import add_statement
from release.wheels import gather_wheels

CHART = ROOT / "charts" / "r1plus-operator"


class ReleaseWriter:
    """Writes the bundle of the version that the sources have."""

    STEPS = 5
    """Steps beside those of the images."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, source: Source) -> None:
        self._key, self._source = key, source
        self.version = ""

    def write(self, out: Path, steps: Steps) -> Path:
        """Write r1plus-VERSION.oci.tar into `out` and return its path."""
        log = log_dir() / "release.log"
        images = build_images(steps)
        with tempfile.TemporaryDirectory(prefix=".release-", dir=out) as scratch:
            layout = LayoutWriter(Path(scratch))
            with steps.step("wheels", log=log) as step:
                gather_wheels(step, Path(scratch) / "wheels")
                self.version = read_wheel_version(Path(scratch) / "wheels")
            artifacts = []
            with steps.step("contents of the images", log=log) as step:
                for image in images:
                    step.progress(image.name)
                    add_image(layout, image, self.version)
                    self._state(layout, image.descriptor, list_packages(image, self.version, self._source))
                    artifacts.append(image.list_artifact(self.version))
            with steps.step("chart", log=log):
                descriptor, chart = add_chart(layout, package_chart(CHART, images), self.version)
                self._state(layout, descriptor)
                artifacts.append(chart)
            with steps.step("schemas and licences", log=log):
                _add_files(layout)
            with steps.step("bundle", log=log):
                self._add_lock(layout, tuple(artifacts), _list_files(Path(scratch)))
                target = out / f"r1plus-{self.version}.oci.tar"
                layout.write(target)
        return target

    def _state(self, layout: LayoutWriter, subject: Descriptor, packages: dict[str, Any] | None = None) -> None:
        """Sign an artifact, its provenance, and the list of its packages where there is one."""
        add_statement(layout, subject, self._key)
        build = describe_build(self.version, self._source)
        add_statement(layout, subject, self._key, PROVENANCE_PREDICATE, build)
        if packages is not None:
            add_statement(layout, subject, self._key, SBOM_PREDICATE, packages)

    def _add_lock(
        self, layout: LayoutWriter, artifacts: tuple[ReleaseArtifact, ...], files: tuple[ReleaseFile, ...]
    ) -> None:
        lock = ReleaseLock(version=self.version, artifacts=artifacts, files=files)
        data = layout.add_blob(lock.model_dump_json().encode(), LOCK_TYPE)
        entry = layout.add_manifest(layers=(data,), artifact_type=LOCK_TYPE)
        layout.add_entry(entry, f"{LOCK_NAME}:{self.version}")
        self._state(layout, entry)


def _add_files(layout: LayoutWriter) -> None:
    """Store the CRDs, JSON schemas of the objects and of the chart's values, and licences."""
    for file in sorted((CHART / "crds").glob("*.yaml")):
        layout.add_file(f"crds/{file.name}", file.read_bytes())
        for document in yaml.safe_load_all(file.read_text()):
            for name, schema in _list_schemas(document):
                layout.add_file(f"schemas/{name}", json.dumps(schema, indent=2, sort_keys=True).encode())
    layout.add_file("schemas/values.schema.json", (CHART / "values.schema.json").read_bytes())
    layout.add_file("licenses/r1plus.txt", (ROOT / "LICENSE").read_bytes())


def _list_schemas(crd: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the schema of each version of a CRD, by the file name that kubeconform looks for."""
    kind = crd["spec"]["names"]["kind"].lower()
    versions = crd["spec"]["versions"]
    return [(f"{kind}_{one['name']}.json", one["schema"]["openAPIV3Schema"]) for one in versions]


def _list_files(folder: Path) -> tuple[ReleaseFile, ...]:
    """Return the files beside the layout, for the lock."""
    paths = sorted(path for name in FILE_FOLDERS for path in (folder / name).iterdir())
    return tuple(
        ReleaseFile(
            name=path.relative_to(folder).as_posix(), digest=f"sha256:{hash_file(path)}", size=path.stat().st_size
        )
        for path in paths
    )
