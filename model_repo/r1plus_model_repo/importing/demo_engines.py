"""Names of the engines that can be made of packages, without the libraries that they are made with."""

from typing import Final

MAKERS: Final = {
    "smollm2-full-f16": "r1plus_model_repo.importing.smollm2",
    "smollm2-lite-q8-0": "r1plus_model_repo.importing.smollm2",
    "smollm2-edge-q4-1": "r1plus_model_repo.importing.smollm2",
    "smollm2-full-q4-1": "r1plus_model_repo.importing.smollm2",
    "qwen-full-q4-k-m": "r1plus_model_repo.importing.qwen",
    "qwen-lite-q8-0": "r1plus_model_repo.importing.qwen",
    "qwen-lite-q4-1": "r1plus_model_repo.importing.qwen",
}
"""Engine -> the module that makes its folder."""
DEMO_EMBEDDING_ENGINE: Final = "all-minilm-l6-v2"
"""What `embedding.minilm` makes."""
SAME_FILES: Final = {"qwen-edge-smollm2-f16": "smollm2-full-f16"}
"""Engine of the catalog -> the engine whose files it serves under another tier."""


def find_folder_name(engine: str) -> str:
    """Return the name of the folder that has the engine's files."""
    return SAME_FILES.get(engine, engine)
