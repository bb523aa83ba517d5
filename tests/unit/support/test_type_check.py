"""Results of mypy that a new clone takes over: only of its own lock, and only where mypy compares hashes."""

import os
from pathlib import Path

from support.tables import for_each
from support.type_check import MARGIN_SECONDS, RESULTS, check_types

LONG_AGO = 1_000_000_000.0


class Clone:
    """A repository with one module that is checked, and a mypy that says what results it finds."""

    def __init__(self, root: Path, lock: str = "lock") -> None:
        self.root = root
        (root / "policies").mkdir(parents=True)
        (root / "policies" / "module.py").write_text("")
        (root / "uv.lock").write_text(lock)
        (root / "pyproject.toml").write_text('[tool.mypy]\nfiles = ["policies"]\n')

    def check(self, shared: Path, code: int = 0) -> str | None:
        """Return the results that mypy starts with; None for none. It leaves its own, of the clone's name."""
        results, seen = self.root / RESULTS / "results", list[str | None]()

        def run() -> int:
            seen.append(results.read_text() if results.exists() else None)
            results.parent.mkdir(exist_ok=True)
            results.write_text(self.root.name)
            return code

        assert check_types(self.root, shared, run) == code
        return seen[0]

    def date_source(self, seconds: float) -> None:
        """Give the module this time."""
        os.utime(self.root / "policies" / "module.py", (seconds, seconds))


def leave_results(folder: Path, code: int = 0, lock: str = "lock") -> Path:
    """Check a clone, and return where it left its results, which are old."""
    shared = folder / "cache" / "mypy"
    assert Clone(folder / "earlier", lock).check(shared, code) is None
    for archive in shared.glob("*.tar"):
        os.utime(archive, (LONG_AGO, LONG_AGO))
    return shared


def test_a_new_clone_starts_with_the_results_of_an_earlier_one_and_leaves_its_own(tmp_path: Path) -> None:
    shared = leave_results(tmp_path)
    assert Clone(tmp_path / "second").check(shared) == "earlier"
    os.utime(next(shared.glob("*.tar")), (LONG_AGO, LONG_AGO))
    assert Clone(tmp_path / "third").check(shared) == "second"


def test_a_clone_with_results_of_its_own_takes_no_others_and_leaves_none(tmp_path: Path) -> None:
    shared = leave_results(tmp_path)
    clone = Clone(tmp_path / "second")
    (clone.root / RESULTS).mkdir()
    (clone.root / RESULTS / "results").write_text("own")
    assert clone.check(shared) == "own"
    assert next(shared.glob("*.tar")).stat().st_mtime == LONG_AGO


@for_each("younger, found", {
    "as old as them": (0.0, None),
    "a second younger": (1.0, None),
    "so much younger that mypy has to compare hashes": (MARGIN_SECONDS + 1.0, "earlier"),
})  # fmt: skip
def test_results_are_taken_where_the_sources_are(younger: float, found: str | None, tmp_path: Path) -> None:
    shared, clone = leave_results(tmp_path), Clone(tmp_path / "second")
    clone.date_source(LONG_AGO + younger)
    assert clone.check(shared) == found


def test_results_of_another_lock_are_not_taken_and_go(tmp_path: Path) -> None:
    shared = leave_results(tmp_path, lock="other")
    assert Clone(tmp_path / "second").check(shared) is None
    assert len(list(shared.iterdir())) == 1
    os.utime(next(shared.glob("*.tar")), (LONG_AGO, LONG_AGO))
    assert Clone(tmp_path / "third").check(shared) == "second"


def test_a_check_that_fails_leaves_no_results(tmp_path: Path) -> None:
    shared = leave_results(tmp_path, code=1)
    assert Clone(tmp_path / "second").check(shared) is None


def test_a_cache_that_cannot_be_written_changes_no_outcome(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Clone(tmp_path / "only").check(tmp_path / "file" / "mypy") is None
