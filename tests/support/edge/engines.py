"""Engines for `serve`: a newer build, and one that answers wrongly, with an R1PlusEngine that promises otherwise."""

import shutil
from pathlib import Path

import yaml

from r1plus_contract.engine.delivery import digest_folder
from r1plus_model_repo import catalog

SHIPPED = Path(catalog.__file__).parent / "smollm2.yaml"
NAME = "smollm2-edge-broken"
NEWER = "smollm2-edge-newer"


def write_broken(sound: Path, folder: Path) -> tuple[Path, Path]:
    """Write a copy of the edge tier's engine with a fifth of its weights changed; return its folder and its catalog.

    `sound`: folder of the engine that is shipped.
    """
    files = folder / "engine"
    shutil.copytree(sound, files)
    weights = files / "openvino_model.bin"
    data = bytearray(weights.read_bytes())
    begin, end = len(data) // 2, len(data) * 7 // 10
    data[begin:end] = data[begin:end].translate(bytes(byte ^ 0x11 for byte in range(256)))
    weights.write_bytes(data)
    return files, write_catalog(files, folder / "catalog")


def write_newer(sound: Path, folder: Path) -> tuple[Path, Path]:
    """Write another build of an engine, which answers as it does; return its folder and its catalog."""
    files = folder / "engine"
    shutil.copytree(sound, files)
    (files / "NOTICE").write_text("Another build\n")
    return files, write_catalog(files, folder / "catalog", NEWER)


def write_catalog(files: Path, folder: Path, name: str = NAME) -> Path:
    """Write the R1PlusEngine of an engine's files, a version after the shipped one; return the catalog's folder."""
    documents = yaml.safe_load_all(SHIPPED.read_text())
    engine = next(one for one in documents if one["metadata"]["name"] == "smollm2-edge-q4-1")
    engine["metadata"]["name"] = name
    engine["spec"]["version"] = "1.0.1"
    engine["spec"]["artifact"]["sha256"] = digest_folder(files)
    folder.mkdir(exist_ok=True)
    (folder / "engines.yaml").write_text(yaml.safe_dump(engine))
    return folder
