"""List the public classes that share a name: `python tests/class_names.py`. Each name should have one meaning.

What is left shares its idea as well: engines' settings of three backends, and the client's own words for an answer,
its usage and a 404. `Item` is of a golden suite and of a conversation.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("policies", "model_repo", "monitoring", "operator", "gateway", "edge", "addons")


def find_classes(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each public class at the top of a module, and file, line and summary."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                yield node.name, f"{path.relative_to(ROOT)}:{node.lineno}: {summary}"


def main() -> None:
    """Print each name that is there twice, and where."""
    places = defaultdict(list)
    for folder in FOLDERS:
        for name, place in find_classes(ROOT / folder):
            places[name].append(place)
    for name, found in sorted(places.items()):
        if len(found) > 1:
            print(name, *found, sep="\n    ")


if __name__ == "__main__":
    main()
