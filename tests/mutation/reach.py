"""`--only-reached-by FILE`: which product lines no test would run any more if these tests were deleted."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mutation.coverage_map import CoverageMap


@dataclass(frozen=True, order=True, slots=True)
class Line:
    """A line of the product."""

    file: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.text.strip()}"


def read_ids(path: Path) -> list[str]:
    """Return the test ids in a file, one a line. An empty line, and one that begins with #, says nothing."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def select_tests(ids: Iterable[str], tests: Iterable[str]) -> tuple[set[str], list[str]]:
    """Return the tests that the ids name, and the ids that name none.

    An id is that of a case, of a test with all its cases, of a class, or of a file.
    """
    known = list(tests)
    selected: set[str] = set()
    unknown: list[str] = []
    for one in ids:
        found = {test for test in known if test == one or test.startswith((f"{one}[", f"{one}::"))}
        selected |= found
        if not found:
            unknown.append(one)
    return selected, unknown


def find_lines_only_reached_by(selected: set[str], coverage: CoverageMap, sources: Mapping[str, str]) -> list[Line]:
    """Return the lines in functions of `sources` (file -> text) that some of these tests run, and no other test."""
    deleted = sum(1 << number for number, test in enumerate(coverage.tests) if test in selected)
    found: list[Line] = []
    for file, lines in coverage.lines.items():
        text = sources[file].splitlines()
        inner = set(_find_lines_of_functions(ast.parse(sources[file])))
        for number, digits in lines.items():
            bits = int(digits, 16)
            if bits and not bits & ~deleted and int(number) in inner:
                found.append(Line(file, int(number), text[int(number) - 1]))
    return sorted(found)


def _find_lines_of_functions(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of functions' bodies. Others run when a module is imported, whichever test comes first."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)
        elif isinstance(node, ast.Lambda):
            yield from range(node.body.lineno, (node.end_lineno or node.lineno) + 1)
