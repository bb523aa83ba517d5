"""How tests are laid out: what two modules need lies below tests/support, and nothing else may be imported."""

import ast
import re

from support.paths import TESTS
from support.tables import for_each


def imported_modules(source: str) -> set[str]:
    """Return the dotted names that a module imports or imports from; what it imports from a package may be a module."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    origins = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    members = {f"{node.module}.{alias.name}" for node in origins for alias in node.names}
    return plain | members | {node.module for node in origins if node.module}


@for_each("source", {
    "as a name": "import unit.policies.test_rollout",
    "under another name": "import unit.policies.test_rollout as rollout",
    "what is in it": "from unit.policies.test_rollout import stable",
    "out of its package": "from unit.policies import test_rollout",
    "out of its package under another name": "from unit.policies import test_rollout as rollout",
    "in a function": "def late():\n    from unit.policies import test_rollout",
})  # fmt: skip
def test_a_module_that_is_imported_is_seen(source: str) -> None:
    assert "unit.policies.test_rollout" in imported_modules(source)


def test_no_test_module_is_imported() -> None:
    sources = {path: path.read_text() for path in TESTS.rglob("*.py")}
    names = {
        ".".join(path.relative_to(TESTS).with_suffix("").parts) for path in sources if path.stem.startswith("test_")
    }
    stems = {name.rpartition(".")[2] for name in names}
    # To parse all of them takes seconds, and what imports a module has its name in its text.
    naming = {path: source for path, source in sources.items() if stems.intersection(re.findall(r"\w+", source))}
    found = [
        f"{path.relative_to(TESTS)} imports {name}"
        for path, source in naming.items()
        for name in sorted(imported_modules(source) & names)
    ]
    assert found == [], "move what both need to tests/support"
