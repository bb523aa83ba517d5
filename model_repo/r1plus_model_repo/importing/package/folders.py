"""Engine folders: made under another name and renamed when complete.

For the demo's engines and `r1plus engine import`.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.openvino.ir import convert

FACTS_FILE = "engine.json"
RECIPE = 2
"""Increased when the same sources give other bytes; folders of an older recipe are made again."""


@contextlib.contextmanager
def lock_folder(out: Path) -> Iterator[None]:
    """Hold the lock for making engines in `out`. Raise ImportingError if another process holds it."""
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ImportingError(f"{out}: another import is running there; wait for it, or give another --out") from error
    finally:
        os.close(folder)


@contextlib.contextmanager
def stage_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` if the block ends without an error, and is removed otherwise."""
    part = target.with_name(f".part-{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if target.exists():
            shutil.rmtree(target)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def create_scratch(target: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of `target`, and remove it at the end."""
    folder = target.with_name(f".part-scratch-{target.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def convert_gguf(
    weights: Path, workspace: Path, engine: Path, facts: Mapping[str, Any], sha256: str | None = None
) -> None:
    """Convert `weights` into the folder `engine`, with its provenance; `workspace` is removed.

    `sha256` is the digest of the weights when they were read. Raise ImportingError if they have changed.
    """
    convert(weights, workspace, engine, sha256)
    shutil.rmtree(workspace)
    write_facts(engine, facts)


def write_facts(engine: Path, facts: Mapping[str, Any]) -> None:
    """Write the provenance next to the files, and make all of them readable for the user of any pod."""
    (engine / FACTS_FILE).write_text(dump_facts(facts), encoding="utf-8")
    for path in engine.iterdir():
        path.chmod(0o644)


def dump_facts(facts: Mapping[str, Any]) -> str:
    """Return the provenance as text. The same facts give the same bytes, since the engine's digest covers them."""
    return json.dumps(facts, indent=2, sort_keys=True) + "\n"


def list_converter_versions() -> dict[str, str]:
    """Return the packages that convert, with their versions."""
    return {package: version(package) for package in ("gguf", "openvino", "openvino-genai")}
