"""Writes an OCI image layout as a plain tar that has the same bytes for the same content."""

import json
import tarfile
from pathlib import Path
from typing import Any

from r1plus_cli.bundle.layout import name_blob
from r1plus_cli.bundle.oci import EMPTY_TYPE, INDEX_TYPE, MANIFEST_TYPE, REF_NAME, Descriptor, describe


class LayoutWriter:
    """A layout on disk below a folder, to be written as one tar."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: list[Descriptor] = []

    def add_blob(self, data: bytes, media_type: str) -> Descriptor:
        """Store a blob."""
        descriptor = describe(data, media_type)
        target = self._place(name_blob(descriptor.digest))
        target.write_bytes(data)
        return descriptor

    def add_manifest(
        self,
        *,
        config: Descriptor | None = None,
        layers: tuple[Descriptor, ...],
        artifact_type: str | None = None,
        subject: Descriptor | None = None,
        annotations: dict[str, str] | None = None,
    ) -> Descriptor:
        """Store an image manifest; without a config it is an artifact's."""
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE}
        if artifact_type is not None:
            document["artifactType"] = artifact_type
        document["config"] = _dump(config or self.add_blob(b"{}", EMPTY_TYPE))
        document["layers"] = [_dump(layer) for layer in layers]
        if subject is not None:
            document["subject"] = _dump(subject.model_copy(update={"annotations": {}}))
        if annotations:
            document["annotations"] = annotations
        return self.add_blob(_encode(document), MANIFEST_TYPE)

    def add_index(self, manifests: tuple[Descriptor, ...]) -> Descriptor:
        """Store the index of an image for several platforms."""
        document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [_dump(one) for one in manifests]}
        return self.add_blob(_encode(document), INDEX_TYPE)

    def add_entry(self, descriptor: Descriptor, reference: str | None = None) -> None:
        """List a manifest in index.json, by name or as a referrer."""
        annotations = {REF_NAME: reference} if reference is not None else {}
        self._entries.append(descriptor.model_copy(update={"annotations": annotations}))

    def add_file(self, name: str, data: bytes) -> None:
        """Store a file beside the layout."""
        self._place(name).write_bytes(data)

    def write(self, target: Path) -> None:
        """Write the tar: names in order, no times, no owners."""
        self._place("oci-layout").write_bytes(_encode({"imageLayoutVersion": "1.0.0"}))
        entries = [_dump(entry) for entry in self._entries]
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}
        self._place("index.json").write_bytes(_encode(index))
        write_tar(self._folder, target)

    def _place(self, name: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def write_tar(folder: Path, target: Path) -> None:
    """Write the files of a folder as a tar that has the same bytes for the same files."""
    partial = target.with_name(f".{target.name}.part")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as stream:
                archive.addfile(member, stream)
    partial.replace(target)


def _dump(descriptor: Descriptor) -> dict[str, Any]:
    fields = descriptor.model_dump(by_alias=True, exclude_none=True)
    return {name: value for name, value in fields.items() if value != {}}


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
