"""R1+'s own architecture for torch.hub: `torch.hub.load(DIR, "r1plus", CHECKPOINT, source="local")`.

DIR is this folder of a clone. torch.hub puts it on the path while it loads, so r1plus need not be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r1plus_model.sampling.generation import Generator

dependencies = ["torch", "safetensors", "tokenizers", "jinja2"]


def r1plus(checkpoint: str) -> Generator:
    """Return the model in the folder `checkpoint`, of R1+'s architecture or of a Llama. It generates text.

    `model.generate("What is the capital of Sweden?")` returns the answer; `model.model` is the torch module.
    """
    import sys
    from importlib.util import find_spec
    from pathlib import Path

    if find_spec("r1plus_contract") is None:
        sys.path.append(str(Path(__file__).resolve().parents[2] / "policies"))

    from r1plus_model.sampling.generation import open_generator

    return open_generator(Path(checkpoint))
