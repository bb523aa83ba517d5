"""Tests about test tools: a pytest plugin (`-p support.tool_tests`) leaves out those whose tool has not changed.

`make unit` loads it. `make test-long NAME=unit-long` runs all of them: `python -m support.tool_tests` prints where they are. Without a
commit to compare with, as on the main branch itself, none is left out.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from evidence.repository import ROOT, changed_paths, find_main, is_below

TOOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "tests/unit/bench": ("tests/bench",),
    "tests/unit/devcluster": ("tests/devcluster",),
    "tests/unit/e2e": ("tests/e2e", "tests/devcluster", "tests/bench"),
    "tests/unit/evidence": ("evidence", "Makefile"),
    "tests/unit/faults": ("tests/faults", "tests/devcluster"),
    "tests/unit/mutation": ("tests/mutation",),
    "tests/unit/runner": ("tests/runner", "tests/devcluster", "Makefile"),
    "tests/unit/support": (),
}
"""Folder of tests -> the paths of what they test. A change of either runs them."""
OF_ALL: Final = ("tests/conftest.py", "tests/support", "pyproject.toml", "uv.lock")
"""What every tool uses."""
ALWAYS: Final = (
    "tests/unit/devcluster/images",
    "tests/unit/e2e/test_families.py",
    "tests/unit/e2e/test_rbac_surplus.py",
    "tests/unit/e2e/test_small_suites.py",
    "tests/unit/mutation/test_cel_rules.py",
    "tests/unit/support/test_no_real_seconds.py",
    "tests/unit/support/test_layout.py",
)
"""Tests in those folders that judge the product's images and catalog, or all tests."""
_WORKER_INPUT: Final = "left_out_tool_tests"
_TEST: Final = re.compile(r"^\s*(?:async )?def test_", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files of tests, relative to the root, and the commit since which neither they nor their tools changed."""

    base: str
    files: tuple[str, ...] = ()

    def describe(self, root: Path = ROOT) -> str:
        """Return the line that says how many are left out, and why."""
        count = sum(len(_TEST.findall((root / file).read_text())) for file in self.files)
        return (
            f"{count} tests about test tools in {len(self.files)} files are left out: neither they nor their tools have"
            f" changed since {self.base[:8]} of the main branch. make test-long NAME=unit-long runs them."
        )


_LEFT_OUT = pytest.StashKey[LeftOut]()


def select_left_out(files: Collection[str], changed: Collection[str]) -> tuple[str, ...]:
    """Return those of the test files that a run may leave out. All paths are relative to the root."""
    left_out: list[str] = []
    for folder, tested in TOOLS.items():
        watched = (folder, *tested, *OF_ALL)
        if not any(is_below(path, watched) for path in changed):
            left_out += [file for file in files if is_below(file, (folder,)) and not is_below(file, ALWAYS)]
    return tuple(sorted(left_out))


def list_tool_tests(root: Path = ROOT) -> list[str]:
    """Return all files of tests in the folders of `TOOLS`, relative to the root."""
    paths = [path for folder in TOOLS for path in (root / folder).rglob("test_*.py")]
    return sorted(path.relative_to(root).as_posix() for path in paths)


def find_left_out(root: Path = ROOT, base: Callable[[Path], str | None] = find_main) -> LeftOut:
    """Ask git what has changed, and return what may be left out: nothing where there is nothing to compare with."""
    commit = base(root)
    if commit is None:
        return LeftOut("")
    return LeftOut(commit, select_left_out(list_tool_tests(root), changed_paths(commit, root)))


def pytest_configure(config: pytest.Config) -> None:
    """Decide once: xdist's workers get what the process decided that started them, so that all collect the same."""
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    config.stash[_LEFT_OUT] = LeftOut("", tuple(given[_WORKER_INPUT])) if given else find_left_out()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the decision to a worker of xdist."""
    node.workerinput[_WORKER_INPUT] = list(node.config.stash[_LEFT_OUT].files)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a file out before it is imported."""
    if collection_path.suffix != ".py" or not collection_path.is_relative_to(ROOT):
        return None
    return collection_path.relative_to(ROOT).as_posix() in config.stash[_LEFT_OUT].files or None


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print how many were left out."""
    if (left_out := config.stash[_LEFT_OUT]).files:
        terminalreporter.write_line(left_out.describe())


if __name__ == "__main__":
    print("\n".join(list_tool_tests()))
