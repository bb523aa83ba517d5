"""A failed test runs again, alone, once: what passes then is a flake, and what fails again is red."""

import json
from pathlib import Path
from typing import Any

import pytest

from evidence.flakes import MOST_OPEN, Flake, add_flakes, list_open
from runner.part import Result
from runner.second_run import MOST_FAILURES, choose_tests, split_failures
from support.runner.toy_project import run, write_project
from support.toy_repository import ToyRepository


@pytest.fixture
def repository(tmp_path: Path) -> ToyRepository:
    """A repository with the toy project, on its main branch."""
    made = ToyRepository(tmp_path)
    write_project(tmp_path)
    (tmp_path / "evidence").mkdir()
    made.commit({".gitignore": "build/\n__pycache__/\n"})
    return made


@pytest.fixture
def rows(repository: ToyRepository) -> Path:
    return repository.root / "evidence" / "flakes.jsonl"


def mark_as_failed_before(repository: ToyRepository, *names: str) -> None:
    for name in names:
        (repository.root / name).touch()


def test_what_passes_alone_is_a_flake_and_the_run_is_green(repository: ToyRepository, rows: Path) -> None:
    mark_as_failed_before(repository, "guards", "chance-2")
    status, output = run(repository.root, "flaky")
    *_, figures, counts = output.splitlines()
    assert status == 0
    assert "again, alone: test_flaky.py" in output
    assert "FLAKE in flaky: test_flaky.py::test_chance[1]" in output
    assert "assert 'chance-1' == 'the second time'" in output
    assert json.loads(figures)["flakes"] == ["test_flaky.py::test_chance[1]"]
    assert counts == "4 passed, 0 failed, 0 skipped"
    (row,) = list_open(rows)
    assert (row.test, row.part) == ("test_flaky.py::test_chance[1]", "flaky")
    assert row.commit == repository.git("rev-parse", "HEAD")
    assert "assert 'chance-1' == 'the second time'" in row.output
    assert "chance-2" not in row.output


def test_what_fails_again_is_red_and_no_flake(repository: ToyRepository, rows: Path) -> None:
    status, output = run(repository.root, "bad")
    assert status == 1
    assert "again, alone: test_bad.py" in output
    assert output.splitlines()[-1] == "1 passed, 3 failed, 0 skipped"
    assert not rows.exists()


def test_a_test_whose_first_run_counts_is_red_at_once(repository: ToyRepository, rows: Path) -> None:
    mark_as_failed_before(repository, "chance-1", "chance-2")
    status, output = run(repository.root, "flaky")
    assert status == 1
    assert "again, alone" not in output
    assert "failed: test_flaky.py::test_guards" in output
    assert not rows.exists()


@pytest.mark.parametrize("is_committed", [True, False], ids=["committed", "not committed"])
def test_a_test_that_changed_since_main_is_red_at_once(repository: ToyRepository, is_committed: bool) -> None:
    repository.git("switch", "--quiet", "--create", "feature")
    file = repository.root / "test_flaky.py"
    file.write_text(f"# changed\n{file.read_text()}")
    if is_committed:
        repository.commit({})
    mark_as_failed_before(repository, "guards", "chance-2")
    status, output = run(repository.root, "flaky")
    assert status == 1
    assert "again, alone" not in output
    assert "failed: test_flaky.py::test_chance[1]" in output


def test_in_ci_the_row_is_printed_in_full(repository: ToyRepository, rows: Path) -> None:
    mark_as_failed_before(repository, "guards", "chance-2")
    status, output = run(repository.root, "flaky", in_ci=True)
    assert status == 0
    line = output.partition("Its row for evidence/flakes.jsonl:\n")[2].splitlines()[0]
    assert Flake(**json.loads(line)).test == "test_flaky.py::test_chance[1]"
    assert not rows.exists()


@pytest.mark.parametrize(("count", "status"), [(MOST_OPEN, 0), (MOST_OPEN + 1, 1)])
def test_more_open_rows_than_are_allowed_make_a_green_run_red(
    repository: ToyRepository, rows: Path, count: int, status: int
) -> None:
    add_flakes([Flake(f"test_{n}", "unit", "2026-12-01", "0" * 40, 0.0, 0, 0, "") for n in range(count)], rows)
    assert run(repository.root, "good")[0] == status


def test_a_flake_stops_nothing_that_comes_after_it(repository: ToyRepository) -> None:
    mark_as_failed_before(repository, "guards", "chance-2")
    status, output = run(repository.root, "flaky", "good", "--beside", "met")
    assert status == 0
    assert set(json.loads(output.splitlines()[-2])["parts"]) == {"flaky", "good", "met"}


def test_a_run_whose_parts_did_not_all_run_is_red(repository: ToyRepository) -> None:
    status, output = run(repository.root, "bad", "good", "--last", "met")
    assert status == 1
    assert "Stopped, or not run, since a part had failed: good, met" in output


def test_a_part_that_also_crashed_stays_red(repository: ToyRepository) -> None:
    mark_as_failed_before(repository, "guards", "chance-2")
    status, output = run(repository.root, "crashes")
    assert "FLAKE in crashes: test_flaky.py::test_chance[1]" in output
    assert status == 1


def test_a_part_whose_pytest_has_options_of_its_own_has_no_second_run(repository: ToyRepository) -> None:
    mark_as_failed_before(repository, "guards", "chance-2")
    status, output = run(repository.root, "chosen")
    assert status == 1
    assert "again, alone" not in output


def test_rows_that_cannot_be_read_fail_before_the_tests_run(repository: ToyRepository, rows: Path) -> None:
    rows.write_text("<<<<<<< HEAD\n")
    status, output = run(repository.root, "good")
    assert status == 2
    assert "flakes.jsonl:1: no row of a flake" in output
    assert "[1/1]" not in output


def make_result(*tests: str, part: str = "unit") -> Result:
    return Result(part, Path("log"), outcomes=dict.fromkeys(tests, "failed"))


def test_tests_of_a_file_run_together_and_each_part_on_its_own() -> None:
    unit = make_result("tests/a.py::test_1", "tests/b.py::test_1", "tests/a.py::test_2")
    engine = make_result("tests/a.py::test_3", part="engine")
    chosen = [(result.part, file, tests) for result, file, tests in choose_tests([unit, engine], frozenset())]
    assert chosen == [
        ("unit", "tests/a.py", ["tests/a.py::test_1", "tests/a.py::test_2"]),
        ("unit", "tests/b.py", ["tests/b.py::test_1"]),
        ("engine", "tests/a.py", ["tests/a.py::test_3"]),
    ]


def test_a_file_that_could_not_be_collected_does_not_run_again() -> None:
    assert choose_tests([make_result("tests/a.py", "tests/b.py::test_1")], frozenset({"tests/b.py"})) == []


def test_failures_beyond_chance_do_not_run_again(repository: ToyRepository) -> None:
    tests = "\n".join(f"def test_{n}(): assert 0" for n in range(MOST_FAILURES + 1))
    repository.commit({"test_bad.py": tests})
    status, output = run(repository.root, "bad")
    assert status == 1
    assert f"{MOST_FAILURES + 1} tests failed, over {MOST_FAILURES}: none runs again" in output
    assert "again, alone" not in output


def test_a_part_that_broke_before_its_last_test_stays_red() -> None:
    ended: dict[str, Any] = {"exit_statuses": [1], "is_broken": True}
    result = Result("unit", Path("log"), total=3, outcomes={"a::b": "failed", "a::c": "passed"}, **ended)
    result.forgive("a::b", "output")
    assert (result.failures, result.failed) == ([], 1)
    result = Result("unit", Path("log"), total=2, outcomes={"a::b": "failed", "a::c": "passed"}, **ended)
    result.forgive("a::b", "output")
    assert (result.failures, result.failed, result.passed) == ([], 0, 2)
    ended["exit_statuses"] = [3]
    result = Result("unit", Path("log"), total=2, outcomes={"a::b": "failed", "a::c": "passed"}, **ended)
    result.forgive("a::b", "output")
    assert result.failed == 1


OUTPUT = """\
=================================== FAILURES ===================================
_________________________________ test_a[x y] __________________________________
    assert 1 == 2
______________________ ERROR at setup of TestB.test_b ______________________
    RuntimeError
=========================== short test summary info ============================
FAILED
"""


def test_the_output_of_each_failure_is_found_by_its_title() -> None:
    parts = split_failures(OUTPUT)
    assert {title: body.strip() for title, body in parts.items()} == {
        "test_a[x y]": "assert 1 == 2",
        "TestB.test_b": "RuntimeError",
    }
