"""Engine images: a converted model's files under /engine, and nothing that runs.

`r1plus_model_repo.importing` makes the folder; an init container of the serving pod copies it out of the image and
the next one verifies its sha256. The image's own `cp` comes from the base.
"""

from functools import partial
from pathlib import Path

from devcluster.images import rootfs
from devcluster.images.recipe import Recipe, tree_digest
from devcluster.images.sources import ROOT, link_tree

FACTS = "engine.json"
_CONTAINERFILE = ROOT / "model_repo" / "r1plus_model_repo" / "importing" / "Containerfile.engine"


def recipe(name: str, folder: Path) -> Recipe:
    """The image of the engine in `folder`; its key follows the files' contents."""
    if not any(folder.iterdir()):
        raise FileNotFoundError(f"engine {name}: {folder} is empty; convert the engine first")
    text = _CONTAINERFILE.read_text()
    return Recipe(f"engine-{name}", text, (tree_digest(folder),), partial(_assemble, folder), rootfs.base())


def _assemble(folder: Path, context: Path, log: Path) -> None:
    link_tree(folder, context / "engine")
