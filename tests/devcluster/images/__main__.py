"""`PYTHONPATH=tests python -m devcluster.images VERB`: build the images, list them, or lay out a build context."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from devcluster.images import builder, product, python_layers, store
from devcluster.steps import Steps


def main(arguments: Sequence[str]) -> int:
    """Parse the words after the program's name and run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="devcluster.images", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verbs.add_parser("build", help="build every image that the cache lacks").set_defaults(run=_build)
    verbs.add_parser("list", help="print name and reference of what has been built").set_defaults(run=_list)
    context = verbs.add_parser("context", help="lay out the build context of a shipped image, for docker or podman")
    context.add_argument("name", choices=product.NAMES)
    context.add_argument("folder", type=Path)
    context.set_defaults(run=_context)
    options = parser.parse_args(arguments)
    options.run(options)
    return 0


def _build(options: argparse.Namespace) -> None:
    builder.build_all(Steps())


def _list(options: argparse.Namespace) -> None:
    for name, ref in sorted(builder.references().items()):
        print(f"{name}\t{ref}")


def _context(options: argparse.Namespace) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    with Steps(1).step("project wheel") as step:
        wheel = python_layers.wheel(step)
    recipe = product.recipe(options.name, wheel)
    recipe.assemble(options.folder, store.build_log(options.name))
    (options.folder / "Containerfile").write_text(recipe.containerfile)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
