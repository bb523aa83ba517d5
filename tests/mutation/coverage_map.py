"""Which test runs which line, measured once for a tree and kept in the cache."""

import ast
import hashlib
import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest

from mutation.mutants import Mutant

OWN_FOLDER = "tests/mutation"
PYTEST_OPTIONS = (
    *("-x", "-q", "--tb=short", "--no-header", "-p", "no:cacheprovider", "--timeout=0", "--hypothesis-seed=0"),
    # Third-party packages are imported before pytest can rewrite their assertions.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
    # Long walks, and what judges other tests: minutes of processor time for each mutant that they cover.
    *("-m", "not unit_long"),
)


@dataclass(frozen=True, slots=True)
class CoverageMap:
    """What one run of all tests showed; tests are numbered by their place in `tests`."""

    tests: Sequence[str]
    seconds: Sequence[float]
    """Processor time of each test, its children included."""
    breadth: Sequence[int]
    """How many lines each test runs: one that runs few is specific."""
    lines: Mapping[str, Mapping[str, str]]
    """File, then line, to a bit per test, as hexadecimal digits."""
    importers: Mapping[str, Sequence[str]]
    """Module to the files that import it, of sources and tests."""
    packages: Sequence[str]
    """Third-party modules that the tests import, in the order of the imports."""

    def covering(self, mutant: Mutant) -> list[int]:
        """Return the numbers of the tests that may find the mutant.

        A statement that runs at import is covered by every test that runs a line of its module, or of a module that imports
        it, and by every test module that imports it.
        """
        if not mutant.is_import_time:
            return self._numbers(self._bits(mutant.file, mutant.lines))
        bits = self._bits(mutant.file)
        numbers: set[int] = set()
        for file in self.importers.get(mutant.module, ()):
            bits |= self._bits(file)
            numbers |= {number for number, test in enumerate(self.tests) if test.startswith(f"{file}::")}
        return sorted(numbers.union(self._numbers(bits)))

    def _bits(self, file: str, lines: range | None = None) -> int:
        found = 0
        for line, bits in self.lines.get(file, {}).items():
            if lines is None or int(line) in lines:
                found |= int(bits, 16)
        return found

    def _numbers(self, bits: int) -> list[int]:
        return [number for number in range(len(self.tests)) if bits >> number & 1]


def load_coverage_map(root: Path, packages: Sequence[str], tests: Sequence[str], cache: Path) -> CoverageMap:
    """Return the map of the tree at `root`; the first call for a tree runs all tests, which must pass."""
    path = cache / f"coverage-{hash_tree(root, packages, tests)}.json"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _measure(root, packages, tests, path)
    return CoverageMap(**json.loads(path.read_text()))


def hash_tree(root: Path, packages: Sequence[str], tests: Sequence[str]) -> str:
    """Return a hash of all that the map depends on: Python and data files of the tree, and what is tested by what."""
    digest = hashlib.sha256(json.dumps([sys.version, list(packages), list(tests), PYTEST_OPTIONS]).encode())
    ignored = {".venv", ".git", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    for folder, folders, files in os.walk(root):
        # This tool changes no coverage.
        folders[:] = sorted(name for name in folders if name not in ignored and Path(folder, name) != root / OWN_FOLDER)
        for file in sorted(files):
            path = Path(folder, file)
            if path.suffix in {".py", ".toml", ".lock", ".yaml", ".json", ".jsonl"} and path.is_file():
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def set_hypothesis_profile() -> None:
    """Make property tests repeatable, quick to fail and thorough: no examples of earlier runs, no shrinking, all examples."""
    from hypothesis import Phase, settings

    all_examples = settings.get_profile("default").max_examples
    phases = (Phase.explicit, Phase.generate)
    changes = settings(settings.default, max_examples=all_examples, database=None, deadline=None, phases=phases)
    settings.register_profile("mutation", changes)
    settings.load_profile("mutation")


class _Measurement:
    """A pytest plugin: tells coverage which test runs, and takes its time."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.seconds: dict[str, float] = {}
        self._coverage = measured

    def pytest_configure(self) -> None:
        set_hypothesis_profile()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        began = _processor_seconds()
        self._coverage.switch_context(item.nodeid)
        outcome = yield
        self._coverage.switch_context("")
        self.seconds[item.nodeid] = _processor_seconds() - began
        return outcome


def _measure(root: Path, packages: Sequence[str], tests: Sequence[str], path: Path) -> None:
    """Run all tests in a child process, which writes the map to `path`, and next to it what pytest prints.

    Raises SystemExit with the end of that.
    """
    with path.with_suffix(".log").open("w+b") as log:
        child = os.fork()
        if child == 0:
            try:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                code = _measure_here(root, packages, tests, path)
            except BaseException as error:  # noqa: BLE001 - the child must not return into the parent's code
                os.write(2, repr(error).encode())
                code = 1
            os._exit(code)
        _, status = os.waitpid(child, 0)
        log.seek(0)
        if status:
            raise SystemExit(f"The tests do not pass on the unchanged tree:\n{log.read().decode()[-4000:]}")


def _measure_here(root: Path, packages: Sequence[str], tests: Sequence[str], path: Path) -> int:
    os.chdir(root)
    folders = [str(root / package) for package in packages]
    measured = coverage.Coverage(data_file=None, config_file=False, source=folders)
    measured.start()
    plugin = _Measurement(measured)
    code = int(pytest.main([*PYTEST_OPTIONS, *tests], plugins=[plugin]))
    measured.stop()
    if code == 0:
        found = _compose_map(root, packages, tests, plugin.seconds, measured.get_data())
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(asdict(found)))
        temporary.rename(path)
    return code


def _compose_map(
    root: Path, packages: Sequence[str], tests: Sequence[str], seconds: Mapping[str, float], data: coverage.CoverageData
) -> CoverageMap:
    numbers = {test: number for number, test in enumerate(seconds)}
    breadth = [0] * len(numbers)
    lines: dict[str, dict[str, str]] = {}
    for file in sorted(data.measured_files()):
        covered = lines.setdefault(Path(file).relative_to(root).as_posix(), {})
        for line, contexts in data.contexts_by_lineno(file).items():
            running = [numbers[context] for context in contexts if context]
            covered[str(line)] = f"{sum(1 << number for number in running):x}"
            for number in running:
                breadth[number] += 1
    importers = _find_importers(root, [*packages, *tests])
    return CoverageMap(list(seconds), list(seconds.values()), breadth, lines, importers, _third_party_modules())


def _find_importers(root: Path, paths: Sequence[str]) -> dict[str, list[str]]:
    importers: dict[str, list[str]] = {}
    for path in sorted(
        {file for name in paths for file in [root / name, *(root / name).rglob("*.py")] if file.is_file()}
    ):
        for module in _imported_modules(ast.parse(path.read_text())):
            importers.setdefault(module, []).append(path.relative_to(root).as_posix())
    return importers


def _imported_modules(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _third_party_modules() -> list[str]:
    def is_third_party(module: Any) -> bool:
        return "site-packages" in (getattr(module, "__file__", None) or "")

    return [name for name, module in list(sys.modules.items()) if is_third_party(module)]


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
