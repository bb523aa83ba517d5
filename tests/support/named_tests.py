"""Whether a test that a page or a table names is there."""

import ast
from functools import cache
from pathlib import Path

from support.paths import TESTS


def is_test(named: str) -> bool:
    """Return whether `PATH::TEST` or `PATH::CLASS::TEST`, from the repository's root, is a test; or `PATH` a file."""
    path, _, test = named.partition("::")
    return test in _list_tests(TESTS.parent / path) if test else (TESTS.parent / path).exists()


@cache
def _list_tests(path: Path) -> frozenset[str]:
    names = set()
    for node in ast.parse(path.read_text()).body if path.is_file() else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}::{one.name}"
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return frozenset(names)
