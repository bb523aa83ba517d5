"""Engine folders: made beside, named when they are whole. For the demo's engines and for `r1plus engine import`."""

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

FACTS = "engine.json"
RECIPE = 2
"""Raised whenever the same sources would give other bytes; folders of an older recipe are made again."""


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Be the only one who makes engines in `out`; ImportingError where somebody is at it."""
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ImportingError(f"{out}: another import is at work there; wait for it, or give another --out") from error
    finally:
        os.close(folder)


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target` when the context is left without an error, and nothing otherwise."""
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
def scratch(target: Path) -> Iterator[Path]:
    """An empty folder on `target`'s file system, gone with the context."""
    folder = target.with_name(f".part-scratch-{target.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def from_gguf(
    weights: Path, workspace: Path, engine: Path, facts: Mapping[str, Any], sha256: str | None = None
) -> None:
    """Convert `weights` into the folder `engine`, with its provenance; `workspace` is for the way, and goes.

    `sha256`: what was read and vouched for; ImportingError if the file is another by now.
    """
    convert(weights, workspace, engine, sha256)
    shutil.rmtree(workspace)
    seal(engine, facts)


def seal(engine: Path, facts: Mapping[str, Any]) -> None:
    """Write the provenance beside the files, and make all of them readable for the user of any pod."""
    (engine / FACTS).write_text(dump(facts), encoding="utf-8")
    for path in engine.iterdir():
        path.chmod(0o644)


def dump(facts: Mapping[str, Any]) -> str:
    """Provenance as text: the same facts are the same bytes, since the engine's digest covers them."""
    return json.dumps(facts, indent=2, sort_keys=True) + "\n"


def converter() -> dict[str, str]:
    """What converts, with versions."""
    return {package: version(package) for package in ("gguf", "openvino", "openvino-genai")}
