"""R1+'s own architecture for torch.hub: `torch.hub.load(DIR, "r1plus", CHECKPOINT, source="local")`.

DIR is this folder. torch.hub puts it on the path while it loads, so r1plus need not be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r1plus_model.generation import Generator

dependencies = ["torch", "safetensors", "tokenizers", "jinja2"]


def r1plus(checkpoint: str) -> Generator:
    """Return the model in the folder `checkpoint`, of R1+'s architecture or of a Llama. It generates text.

    `model.generate("What is the capital of Sweden?")` returns the answer; `model.model` is the torch module.
    """
    from pathlib import Path

    from r1plus_model.generation import open_generator

    return open_generator(Path(checkpoint))
