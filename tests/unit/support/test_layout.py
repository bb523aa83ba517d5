"""How tests are laid out: what two modules need lies below tests/support, and nothing else may be imported."""

import ast

from support.paths import TESTS


def imported_modules(source: str) -> set[str]:
    """Return the dotted names that a module imports from."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_no_test_module_is_imported() -> None:
    sources = {path: path.read_text() for path in TESTS.rglob("*.py")}
    names = {
        ".".join(path.relative_to(TESTS).with_suffix("").parts) for path in sources if path.stem.startswith("test_")
    }
    found = [
        f"{path.relative_to(TESTS)} imports {name}"
        for path, source in sources.items()
        for name in sorted(imported_modules(source) & names)
    ]
    assert found == [], "move what both need to tests/support"
