"""An engine's files: the model, the tokenizer, and `engine.json`, which says what they are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.embedder import MOST_DIMENSIONS
from r1plus_contract.engine.delivery import digest_folder

MODEL, TOKENIZER, FACTS = "openvino_model.xml", "tokenizer.json", "engine.json"
REMEDY: Final = "make the engine with r1plus engine import --kind embedding"
MOST_FACTS_BYTES: Final = 64 * 1024
MOST_TOKENS: Final = 8192


class EngineFilesError(RuntimeError):
    """A folder that holds no engine, or another one; the message says what to do."""


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """An engine that can be loaded."""

    folder: Path
    identity: str
    """NAME@sha256:DIGEST."""
    dimensions: int
    most_tokens: int


def read_engine_files(folder: Path, name: str, sha256: str = "") -> EngineFiles:
    """Read what an engine is, and compute its digest.

    Args:
        folder: with its files.
        name: of the R1PlusEngine.
        sha256: the digest that it must have; empty: any.

    Raises:
        EngineFilesError: a file is missing or not understood, or the digest differs.
    """
    try:
        digest = digest_folder(folder)
        facts = _read_facts(folder / FACTS)
    except OSError as error:
        raise EngineFilesError(f"{error.filename}: {error.strerror}; mount the engine's files there") from error
    except ValueError as error:
        raise EngineFilesError(f"{folder}: {error}; {REMEDY}") from error
    if missing := [part for part in (MODEL, TOKENIZER) if not (folder / part).is_file()]:
        raise EngineFilesError(f"{folder}: {', '.join(missing)} missing; {REMEDY}")
    if sha256 and digest != sha256:
        raise EngineFilesError(f"{folder}: sha256 is {digest}, expected {sha256}; deliver the engine's files again")
    return EngineFiles(folder, f"{name}@sha256:{digest}", *facts)


def _read_facts(path: Path) -> tuple[int, int]:
    """Return dimensions and most tokens.

    Raises:
        ValueError: the file is not that of an embedding engine.
    """
    if path.stat().st_size > MOST_FACTS_BYTES:
        raise ValueError(f"{FACTS}: more than {MOST_FACTS_BYTES} bytes")
    facts = json.loads(path.read_bytes())
    shape = facts.get("embedding") if isinstance(facts, dict) else None
    if not shape or not isinstance(shape, dict):
        raise ValueError(f"{FACTS}: embedding: missing, so this is no embedding engine")
    limits = {"dimensions": MOST_DIMENSIONS, "mostTokens": MOST_TOKENS}
    for key, most in limits.items():
        if type(shape.get(key)) is not int or not 1 <= shape[key] <= most:
            raise ValueError(f"{FACTS}: embedding.{key}: {shape.get(key)!r:.40} is not between 1 and {most}")
    return shape["dimensions"], shape["mostTokens"]
