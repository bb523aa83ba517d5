"""What goes into a bundle, and where what comes out of one is put."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.names import API_VERSION, KIND_ENGINE
from r1plus_contract.suites.suite_files import MAX_BYTES as SUITE_FILES
from r1plus_edge.bundle.archive import Bundle
from r1plus_edge.bundle.install import NAME_DIGITS
from r1plus_edge.bundle.manifest import Part
from r1plus_edge.bundle.writer import list_folder
from r1plus_edge.errors import EdgeError
from r1plus_edge.start.preparation import check_cache_owner
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.importing.triton_server import WHEEL

ENGINE_FILE: Final = "engine.yaml"
ENGINE_FOLDER: Final = "engine"
TRITON: Final = WHEEL.replace("==", "-")
"""Name of its folder in the cache, and in the manifest."""


@dataclass(frozen=True, slots=True)
class InstalledContents:
    """Where the contents of a bundle are on this machine; None: it had none."""

    engine: Path | None
    """Folder with the engine's files."""
    catalog: Path | None
    """Folder with its R1PlusEngine."""
    suite: Path | None


def gather_engine(engine: Engine, files: Path, known: Sequence[Engine], scratch: Path) -> dict[str, Path]:
    """Return path in the bundle -> file, of an engine and of its R1PlusEngine, which is written to `scratch`.

    Raises:
        EdgeError: the files are not those that the R1PlusEngine names.
    """
    if (digest := digest_folder(files)) != engine.spec.files.sha256:
        raise EdgeError(
            f"engine {engine.name}: the files in {files} have sha256 {digest}, and its R1PlusEngine names"
            f" {engine.spec.files.sha256}; make the engine again"
        )
    parent = engine.spec.reference.inherited_from
    needed = [engine, *(one for one in known if one.name == parent)]
    documents = [
        {
            "apiVersion": API_VERSION,
            "kind": KIND_ENGINE,
            "metadata": {"name": one.name},
            "spec": one.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        for one in needed
    ]
    manifest = scratch / ENGINE_FILE
    manifest.write_text(yaml.safe_dump_all(documents, sort_keys=False, width=110), encoding="utf-8")
    return {
        f"{Part.ENGINE}/{ENGINE_FILE}": manifest,
        **list_folder(f"{Part.ENGINE}/{ENGINE_FOLDER}", files),
    }


def gather_suite(folder: Path) -> dict[str, Path]:
    """Return path in the bundle -> file, of a golden suite."""
    return {f"{Part.SUITE}/{name}": folder / name for name in SUITE_FILES if (folder / name).exists()}


def install_contents(bundle: Bundle, cache: Path) -> InstalledContents:
    """Put Triton, engine and suite of a bundle where `serve` takes them from. What is there already stays.

    Raises:
        EdgeError: its Triton is none of this release, or the cache cannot be written, or another user may.
    """
    check_cache_owner(cache)
    manifest, folder = bundle.manifest, cache / "bundles" / bundle.digest[:NAME_DIGITS]
    if Part.TRITON in bundle.parts:
        if manifest.triton != TRITON:
            raise EdgeError(
                f"{bundle.path}: has {manifest.triton}, and r1plus {manifest.software} runs {TRITON}; make it with one"
                " release"
            )
        _extract_once(bundle, Part.TRITON, cache / "tritonserver" / TRITON)
    engine = suite = None
    if Part.ENGINE in bundle.parts:
        engine = _extract_once(bundle, Part.ENGINE, folder / "engine")
    if Part.SUITE in bundle.parts:
        suite = _extract_once(bundle, Part.SUITE, folder / "suites" / manifest.suite)
    return InstalledContents(engine / ENGINE_FOLDER if engine else None, engine, suite)


def needs_catalog(engine: Path, known: Sequence[Engine]) -> bool:
    """Return whether no known engine has these files. Raises EdgeError: they are no engine's."""
    try:
        digest = digest_folder(engine)
    except ValueError as error:
        raise EdgeError(f"{engine}: {error}; make the bundle again") from error
    return all(one.spec.artifact is None or one.spec.files.sha256 != digest for one in known)


def _extract_once(bundle: Bundle, part: Part, target: Path) -> Path:
    if target.is_dir():
        return target  # Also where this user may only read.
    with _lock(target):
        if not target.is_dir():
            bundle.extract(part, target)
    return target


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Be the only one that extracts there: two at once would make one folder of their halves."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = (target.parent / f".{target.name}.lock").open("w")
    except OSError as error:
        raise EdgeError(
            f"{target}: cannot be written: {error.strerror}; name a folder that you may write with R1PLUS_CACHE"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
