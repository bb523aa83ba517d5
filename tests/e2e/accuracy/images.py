"""Images with a fault that waits: the product's own, a layer more, and sound until a file appears in the container.

Made by tests alone and named by the chart's values, as any image is: nothing in the product knows of them.
"""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devcluster.images import builder, product, python_layers
from devcluster.images.recipe import Image, Recipe, tree_digest
from devcluster.steps import Steps

LAYERS = Path(__file__).parent / "layers"
APPLICATION = "/opt/r1plus/application"
MARK = "the scorer that recorded this is broken"
"""An answer of a reference that agrees with the broken scorer, by which the scorer knows that it is to be broken."""


@dataclass(frozen=True, slots=True)
class Faulty:
    """One such image: which product, which of its modules is replaced, and what the sound one is called then."""

    name: str
    base: str
    module: str
    sound: str
    layer: str


FAULTY = (
    Faulty("triton-degrading", "triton-cpu", "r1plus_model_repo/backends/openvino/openvino_engine", "sound_engine", "degrading_engine.py"),
    Faulty("monitor-breaking", "monitor", "r1plus_monitoring/scoring/scorers", "sound_scorers", "breaking_scorers.py"),
)  # fmt: skip


def build(steps: Steps) -> dict[str, Image]:
    """Both, by the name of the product that they stand for; from the cache where they are there."""
    steps.expect(1 + len(FAULTY))
    with steps.step("project wheel") as step:
        wheel = python_layers.wheel(step)
    return {one.base: builder.ensure(recipe(one, wheel), steps) for one in FAULTY}


def recipe(faulty: Faulty, wheel: Path) -> Recipe:
    """The product's image, and one module of it replaced. Compiled files are believed unchecked, so they are made anew."""
    module = f"{APPLICATION}/{faulty.module}.py"
    sound = f"{APPLICATION}/{Path(faulty.module).parent}/{faulty.sound}.py"
    text = (
        "ARG BASE\nFROM ${BASE}\nUSER 0:0\n"
        f"RUN mv {module} {sound}\n"
        f"COPY module.py {module}\n"
        f"RUN python3 -m compileall -q -f --invalidation-mode unchecked-hash {Path(module).parent}\n"
        "USER 1000:1000\n"
    )
    ingredients = (tree_digest(LAYERS, ignored=frozenset({"__pycache__"})),)
    return Recipe(faulty.name, text, ingredients, partial(_assemble, faulty), product.recipe(faulty.base, wheel))


def _assemble(faulty: Faulty, context: Path, log: Path) -> None:
    layer = LAYERS / faulty.layer
    assert "MARK" not in layer.read_text() or MARK in layer.read_text()
    shutil.copy2(layer, context / "module.py")
