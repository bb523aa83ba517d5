"""Which tests about test tools a run may leave out: none whose tool, or what all tools use, has changed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evidence.repository import ROOT
from support.paths import TESTS
from support.tables import for_each
from support.tool_tests import ALWAYS, OF_ALL, TOOLS, find_left_out, list_tool_tests, select_left_out

FILES = list_tool_tests()
RUNNER, LAYOUT = "tests/unit/runner/test_runner.py", "tests/unit/support/test_layout.py"


def test_without_a_change_all_but_those_that_judge_the_product_or_all_tests_are_left_out() -> None:
    kept = set(FILES) - set(select_left_out(FILES, []))
    assert kept == {file for file in FILES if any(file.startswith(path) for path in ALWAYS)}
    assert LAYOUT in kept


@for_each("changed", {
    "a file of the tool": "tests/runner/lanes.py",
    "a test of it": RUNNER,
    "a tool that it uses": "tests/devcluster/steps.py",
    "what all tools use": "tests/support/waiting.py",
    "the targets that it runs": "Makefile",
})  # fmt: skip
def test_a_change_runs_what_tests_it(changed: str) -> None:
    assert RUNNER in select_left_out(FILES, [])
    assert RUNNER not in select_left_out(FILES, ["README.md", changed])


@for_each("changed", {
    "of the product": "operator/r1plus_operator/main.py",
    "of another tool": "tests/mutation/mutants.py",
    "with a name that begins alike": "tests/runners",
})  # fmt: skip
def test_another_change_runs_it_not(changed: str) -> None:
    assert RUNNER in select_left_out(FILES, [changed])


def test_each_path_of_the_table_is_there() -> None:
    tested = {path for paths in TOOLS.values() for path in paths}
    assert [path for path in (*TOOLS, *tested, *OF_ALL, *ALWAYS) if not (ROOT / path).exists()] == []


def test_where_there_is_nothing_to_compare_with_none_is_left_out() -> None:
    assert find_left_out(base=lambda _: None).files == ()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_collects_no_test_that_is_left_out_and_says_how_many(tmp_path: Path, workers: str) -> None:
    """In a repository with one tool that has not changed and one that has; workers leave out the same."""
    for file in ("unit/runner/test_same.py", "unit/mutation/test_new.py", "unit/other/test_product.py"):
        path = tmp_path / "tests" / file
        path.parent.mkdir(parents=True)
        path.write_text("def test_it() -> None:\n    pass\n")
    support = tmp_path / "tests" / "support"
    support.mkdir()
    (support / "tool_tests.py").write_text((TESTS / "support" / "tool_tests.py").read_text())
    shutil.copytree(ROOT / "evidence", tmp_path / "evidence", ignore=shutil.ignore_patterns("records", "__pycache__"))
    script = """
        git init --quiet --initial-branch=main && git add . && git -c user.name=t -c user.email=t@example.com commit -qm one
        git switch --quiet --create branch && cd tests/unit/mutation && echo "# changed" >> test_new.py
        git -c user.name=t -c user.email=t@example.com commit -qam two
    """
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)
    command = ("-m", "pytest", "--import-mode=importlib", "-p", "support.tool_tests", "-n", workers, "-v", "tests/unit")
    env = {"PYTHONPATH": "tests:.", "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "test_same" not in done.stdout
    assert "1 tests about test tools in 1 files are left out" in done.stdout
