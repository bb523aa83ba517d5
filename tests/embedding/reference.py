"""Vectors of the shipped embedding engine as the reference implementation has them.

transformers with JAX, in an environment of its own: PyPI's torch for Linux brings gigabytes for GPUs. `PYTHONPATH=tests
python -m embedding.reference` writes the golden sample that `make test` compares with.
"""

import base64
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from conformance.environments import prepare
from devcluster.cache import cache_dir, log_dir
from devcluster.shell import run
from r1plus_model_repo.importing.embedding.minilm import MODEL
from r1plus_model_repo.importing.source import fetch_folder
from support.embedding.texts import list_texts

SCRIPT: Final = Path(__file__).with_name("reference_script.py")
GOLDEN: Final = Path(__file__).parents[1] / "golden" / "embedding" / "all-minilm-l6-v2.json"
EVERY: Final = 9
"""Of the texts, the golden sample has each ninth."""


def compute_reference(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return (texts, dimensions), each of length 1."""
    model = fetch_folder(MODEL, cache_dir() / "engines" / ".source" / "all-MiniLM-L6-v2", lambda line: None)
    python = prepare("transformers") / "python"
    with tempfile.TemporaryDirectory(prefix="r1plus-reference-") as name:
        given, out = Path(name) / "texts.json", Path(name) / "vectors.json"
        given.write_text(json.dumps(list(texts)))
        run([python, SCRIPT, model, given, out], log=log_dir() / "reference-embeddings.log")
        return decode(json.loads(out.read_text()))


def decode(vectors: Sequence[str]) -> NDArray[np.float32]:
    """Return vectors from base64."""
    return np.stack([np.frombuffer(base64.b64decode(one), "<f4") for one in vectors])


def read_golden() -> tuple[list[str], NDArray[np.float32]]:
    """Return the sample's texts and vectors."""
    sample = json.loads(GOLDEN.read_text())
    return [entry["text"] for entry in sample], decode([entry["vector"] for entry in sample])


def write_golden() -> None:
    """Write the sample."""
    texts = list_texts()[::EVERY]
    vectors = compute_reference(texts)
    sample = [
        {"text": text, "vector": base64.b64encode(vector.astype("<f4").tobytes()).decode()}
        for text, vector in zip(texts, vectors, strict=True)
    ]
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(sample, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
