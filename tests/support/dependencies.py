"""The project's dependencies, by extra, and the versions of them that tests run with."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from support.paths import TESTS

ROOT = TESTS.parent
BASE = "base"
"""Stands for the dependencies that every extra has."""
PROJECTS = (ROOT / "pyproject.toml", ROOT / "addons" / "client" / "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Dependency:
    """A line of a pyproject.toml."""

    extra: str
    requirement: Requirement
    place: str
    """File and line, to be printed."""

    @property
    def name(self) -> str:
        """Name of the package, as PyPI normalises it."""
        return canonicalize_name(self.requirement.name)


def list_dependencies(path: Path = PROJECTS[0]) -> list[Dependency]:
    """Return the dependencies of a project, without the extras that are made of other extras."""
    text = path.read_text()
    project = tomllib.loads(text)["project"]
    by_extra = {BASE: project["dependencies"], **project.get("optional-dependencies", {})}
    return [
        Dependency(extra, requirement, f"{path.relative_to(ROOT)}:{_find_line(text, extra, line)}: {line}")
        for extra, lines in by_extra.items()
        for line in lines
        if (requirement := Requirement(line)).name != project["name"]
    ]


def _find_line(text: str, extra: str, requirement: str) -> int:
    """Return the number of the line that has this requirement of an extra."""
    start = 0 if extra == BASE else text.index(f"\n{extra} = [")
    return text.count("\n", 0, text.index(f'"{requirement}"', start)) + 1


@cache
def list_tested_versions(name: str) -> tuple[Version, ...]:
    """Return the versions of a package in uv.lock and in the locks of test environments, the lowest first."""
    return tuple(sorted({version for locked, version in _read_locks() if locked == name}))


def _read_locks() -> Iterator[tuple[str, Version]]:
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        yield package["name"], Version(package["version"])
    for path in (TESTS / "support").glob("*/requirements.lock"):
        for line in path.read_text().splitlines():
            if line[:1].isalnum() and "==" in line:
                name, _, rest = line.partition("==")
                yield canonicalize_name(name), Version(rest.split()[0])
