"""Engines on this machine, and where their files and all else that takes long to make are kept."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from r1plus_contract.engine.delivery import digest_folder
from r1plus_edge.base_folders import find_cache_home, find_data_home
from r1plus_edge.errors import EdgeError, EdgeRequestError
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.importing.demo_engines import MAKERS, find_folder_name

ENV_CACHE: Final = "R1PLUS_CACHE"


def find_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where what takes long to make is kept: $R1PLUS_CACHE, else r1plus in the user's cache folder."""
    if environ.get(ENV_CACHE):
        return Path(environ[ENV_CACHE])
    return find_cache_home(environ) / "r1plus"


def find_default_data(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the data folder that is used without --data."""
    return find_data_home(environ) / "r1plus" / "edge"


def select_engines(wanted: str, engines: Sequence[Engine]) -> tuple[tuple[Engine, ...], Path | None]:
    """Return the engines that `--engine` admits, and the folder that it names, if it does.

    It is the name of an engine of the catalog, or a folder with the files of one.

    Raises:
        EdgeRequestError: it is neither.
    """
    if not wanted:
        return tuple(engines), None
    if by_name := tuple(engine for engine in engines if engine.name == wanted):
        return by_name, None
    folder = Path(wanted)
    if not folder.is_dir():
        known = ", ".join(sorted(engine.name for engine in engines if engine.spec.artifact is not None))
        raise EdgeRequestError(f"--engine {wanted}: no engine of this name, and no folder; the catalog has {known}")
    try:
        digest = digest_folder(folder)
    except ValueError as error:
        raise EdgeRequestError(
            f"--engine {wanted}: {error}; name the folder that `r1plus engine import` made"
        ) from error
    matches = tuple(one for one in engines if one.spec.artifact is not None and one.spec.files.sha256 == digest)
    if not matches:
        raise EdgeRequestError(
            f"--engine {wanted}: no engine of the catalog has these files (sha256 {digest}); give its R1PlusEngine with"
            " --catalog"
        )
    return matches, folder.absolute()


def find_embedding_files(name: str, cache: Path) -> Path:
    """Return the folder in the cache that an embedding engine has, or gets when it is made or put there."""
    return cache / "engines" / name


def find_made_engine(engine: Engine, cache: Path) -> Path:
    """Return the folder in the cache that an engine has, or gets when it is made.

    Raises:
        EdgeError: it is not there, and it is none that can be made here.
    """
    folder = cache / "engines" / find_folder_name(engine.name)
    if folder.name not in MAKERS and not folder.is_dir():
        raise EdgeError(
            f"engine {engine.name}: its files are not on this machine, and it is none that can be made here; name their"
            f" folder with --engine, or put them into {folder}"
        )
    return folder
