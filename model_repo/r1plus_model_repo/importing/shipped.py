"""An engine of the shipped catalogs as `r1plus engine import` would write it: for an image, or to be applied.

Called by `r1plus engine make`. The files come out of a cache, where they are made once, and match the catalog's digest.
"""

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import yaml

from r1plus_contract import names
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine, EngineSpec
from r1plus_model_repo.importing.demo_engines import MAKERS, SAME_FILES, find_folder_name
from r1plus_model_repo.importing.engine import CONTAINERFILE, CONTAINERFILE_TEMPLATE, ENGINE, MANIFEST, ImportResult
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.package.folders import lock_folder, stage_folder
from r1plus_model_repo.importing.package.placement import place_files
from r1plus_model_repo.importing.packaged_engines import EngineBuild

SHIPPED: Path = Path(catalog.__file__).parent


def list_shipped() -> tuple[Engine, ...]:
    """Return the engines of all shipped catalogs that can be made here, by name."""
    folders = (SHIPPED, *sorted(path for path in SHIPPED.iterdir() if any(path.glob("*.yaml"))))
    engines = {engine.name: engine for folder in folders for engine in load_catalog(folder)}
    return tuple(engine for name, engine in sorted(engines.items()) if name in MAKERS or name in SAME_FILES)


def build_shipped_engine(name: str, cache: Path, progress: Callable[[str], None]) -> tuple[EngineSpec, EngineBuild]:
    """Make the files of an engine in `cache`, if they are not there; return what the catalog says of it, and them.

    Raises:
        ImportingError: there is no such engine, its weights cannot be had, or its bytes differ from the catalog's.
    """
    engines = {engine.name: engine for engine in list_shipped()}
    if name not in engines:
        raise ImportingError(
            f"{name!r:.80}: is no shipped engine that can be made here; there are {', '.join(engines)}"
        )
    folder_name = find_folder_name(name)
    build = import_module(MAKERS[folder_name]).build_engines(cache, progress, [folder_name])[folder_name]
    spec = engines[name].spec
    if build.sha256 != spec.files.sha256:
        raise ImportingError(
            f"{name}: sha256 of the files is {build.sha256}, the catalog has {spec.files.sha256}: another version of"
            " OpenVINO or gguf converted it; install the locked versions, and remove " + str(build.folder)
        )
    return spec, build


def make_shipped_engine(
    name: str, out: Path, cache: Path, image: str | None, progress: Callable[[str], None]
) -> ImportResult:
    """Make OUT/NAME: engine/, engine.yaml and Containerfile. What was fetched and converted stays in `cache`.

    Raises:
        ImportingError: as `build_shipped_engine`, or OUT/NAME is there.
    """
    target = out / name
    if target.exists():
        raise ImportingError(f"{target}: already exists; remove it, or give another --out")
    if out.exists() and not out.is_dir():
        raise ImportingError(f"--out: {out} is no folder; give one, or a name that is free")
    spec, build = build_shipped_engine(name, cache, progress)
    fields = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    fields["artifact"]["image"] = image or spec.files.source
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_ENGINE,
        "metadata": {"name": name},
        "spec": fields,
    }
    with lock_folder(out), stage_folder(target) as part:
        place_files(build.folder, tuple(sorted(path.name for path in build.folder.iterdir())), part / ENGINE)
        (part / MANIFEST).write_text(yaml.safe_dump(body, sort_keys=False, width=110), encoding="utf-8")
        shutil.copyfile(CONTAINERFILE_TEMPLATE, part / CONTAINERFILE)
    return ImportResult(target, build.sha256, fields["artifact"]["image"], ())
