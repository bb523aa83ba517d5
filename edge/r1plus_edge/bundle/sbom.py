"""The bill of materials of a bundle: CycloneDX 1.6 in JSON, made of what is in it and of nothing else.

No time and no random number: the same contents give the same document.
"""

import email.message
import email.parser
import hashlib
import json
import re
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

from r1plus_edge.bundle.manifest import BundleFile, BundleManifest, Part
from r1plus_edge.bundle.writer import describe_file
from r1plus_edge.errors import EdgeError

SPEC_VERSION: Final = "1.6"
ROOT: Final = "r1plus-bundle"
_LICENSE_CLASSIFIER: Final = "License :: OSI Approved :: "
Json = dict[str, Any]


def build_sbom(manifest: BundleManifest, sources: Mapping[str, Path]) -> bytes:
    """Return the document for these files (path in the bundle -> file).

    Raises:
        EdgeError: a wheel has no metadata.
    """
    files = [describe_file(path, sources[path]) for path in sorted(sources)]
    wheels = {file: _read_metadata(sources[file.path]) for file in files if file.path.startswith(f"{Part.WHEELS}/")}
    packages = [_describe_wheel(file, metadata) for file, metadata in wheels.items()]
    named = (
        (Part.TRITON, "application", manifest.triton),
        (Part.ENGINE, "machine-learning-model", manifest.engine),
        (Part.SUITE, "data", manifest.suite),
    )
    others = [_describe_part(part, kind, name, files) for part, kind, name in named if name]
    components = sorted(packages + others, key=lambda one: str(one["bom-ref"]))
    references = [one["bom-ref"] for one in components]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": ROOT,
                "name": ROOT,
                "version": manifest.software,
                "properties": [{"name": "r1plus:architecture", "value": manifest.architecture}],
            }
        },
        "components": components,
        "dependencies": [{"ref": ROOT, "dependsOn": references}, *_list_dependencies(list(wheels.values()))],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, hashlib.sha256(_dump(document)).hexdigest())
    return _dump({**document, "serialNumber": serial.urn})


def _dump(document: Json) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _read_metadata(wheel: Path) -> email.message.Message:
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
            return email.parser.Parser().parsestr(archive.read(name).decode())
    except (zipfile.BadZipFile, StopIteration, UnicodeDecodeError) as error:
        raise EdgeError(f"{wheel}: is no wheel with metadata; remove it and make the bundle again") from error


def _describe_wheel(file: BundleFile, metadata: email.message.Message) -> Json:
    component: Json = {
        "type": "library",
        "bom-ref": _refer(metadata),
        "name": normalise(str(metadata["Name"])),
        "version": str(metadata["Version"]),
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        "properties": [{"name": "r1plus:path", "value": file.path}],
    }
    if normalise(str(metadata["Name"])) != "r1plus":
        component["purl"] = _refer(metadata)
    if expression := metadata["License-Expression"]:
        component["licenses"] = [{"expression": str(expression)}]
    elif names := [one.rpartition(" :: ")[2] for one in _list_classifiers(metadata)]:
        component["licenses"] = [{"license": {"name": name}} for name in sorted(names)]
    return component


def _list_classifiers(metadata: email.message.Message) -> list[str]:
    return [str(one) for one in metadata.get_all("Classifier", []) if str(one).startswith(_LICENSE_CLASSIFIER)]


def _describe_part(part: Part, kind: str, name: str, files: Sequence[BundleFile]) -> Json:
    own = [file for file in files if file.path.startswith(f"{part.value}/")]
    return {
        "type": kind,
        "bom-ref": f"{part.value}:{name}",
        "name": name,
        "components": [
            {
                "type": "file",
                "bom-ref": file.path,
                "name": file.path,
                "hashes": [{"alg": "SHA-256", "content": file.sha256}],
            }
            for file in own
        ],
    }


def _list_dependencies(packages: Sequence[email.message.Message]) -> list[Json]:
    """Return who needs which of the packages; those of extras only where the package is this project's."""
    by_name = {normalise(str(one["Name"])): one for one in packages}
    return [
        {"ref": _refer(one), "dependsOn": sorted(_refer(by_name[name]) for name in _list_needs(one) & by_name.keys())}
        for _, one in sorted(by_name.items())
    ]


def _list_needs(metadata: email.message.Message) -> set[str]:
    needs, own = set(), normalise(str(metadata["Name"]))
    extras = [str(extra) for extra in metadata.get_all("Provides-Extra", [])] if own == "r1plus" else []
    for text in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(str(text))
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            needs.add(normalise(requirement.name))
    return needs - {own}


def normalise(name: str) -> str:
    """Return the normal form of a package's name, as PyPI has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _refer(metadata: email.message.Message) -> str:
    return f"pkg:pypi/{normalise(str(metadata['Name']))}@{metadata['Version']}"
