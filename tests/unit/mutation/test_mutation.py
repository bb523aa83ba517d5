"""The mutation run, on a toy package whose tests have known gaps."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mutation.mutants import sample_mutants
from mutation.outcomes import compare_runs

TESTS = Path(__file__).parents[2]

PRICES = """\
def is_large(price):
    return price > 10


def forgotten(price):
    return -price
"""

LOOPS = """\
def countdown(start):
    while start > 0:
        start -= 1
    return start
"""

TESTS_OF_PRICES = """\
from toy.prices import is_large


def test_eleven_is_large():
    assert is_large(11) is True


def test_five_is_not_large():
    assert is_large(5) is False
"""

TESTS_OF_LOOPS = """\
from toy.loops import countdown


def test_a_countdown_ends():
    assert countdown(3) == 0
"""

WHOLE = {
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\n',
    "toy/__init__.py": "",
    "toy/prices.py": PRICES,
    "toy/loops.py": LOOPS,
    "tests/test_prices.py": TESTS_OF_PRICES,
    "tests/test_loops.py": TESTS_OF_LOOPS,
}
WAITS = """\
import threading


def wait_for(event):
    if event.is_set():
        return True
    return threading.Event().wait()
"""

TESTS_OF_WAITS = """\
import threading

from toy.waits import wait_for


def test_what_has_happened_is_not_waited_for():
    event = threading.Event()
    event.set()
    assert wait_for(event)
"""

SLOW_FROM_NOW_ON = """\
from pathlib import Path

from toy.prices import is_large

HAS_RUN = Path(__file__).with_name("has-run")


def test_is_late_whenever_it_has_run_before():
    assert is_large(11) is True
    if HAS_RUN.exists():
        raise TimeoutError("something did not come in time")
    HAS_RUN.touch()
"""

WITHOUT_LOOPS = {name: text for name, text in WHOLE.items() if "loops" not in name}

NOISE = '''\
"""What a docstring says."""

import logging
from typing import Literal, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
Kind = Literal["a", "b"]


def check(value: int, unit: "str | None") -> "str":
    """Do nothing that a test could notice."""
    log.info("checked", value, 1)
    raise ValueError(f"{value + 1} is not allowed")
'''


@dataclass(frozen=True, slots=True)
class Run:
    """What a run printed and wrote."""

    code: int
    output: str
    summary: dict[str, Any]
    outcomes: list[dict[str, Any]]

    def status(self, changed: str) -> str:
        """Return how the mutant with this line ended."""
        (outcome,) = (outcome for outcome in self.outcomes if f"+{changed}" in outcome["diff"].splitlines())
        return str(outcome["status"])


def make_tree(root: Path, files: Mapping[str, str] = WITHOUT_LOOPS) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def run_mutation(root: Path, *options: str) -> Run:
    results = root.parent / "results.json"
    words = ["--root", str(root), "--source", "toy", "--test", "tests", "--cache", str(root.parent / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mutation", *words, "--survivors", str(results), *options],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert results.exists(), done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    return Run(done.returncode, done.stdout + done.stderr, summary, json.loads(results.read_text())["outcomes"])


def read_tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_mutant_of_an_inner_package_has_the_name_by_which_it_is_imported(tmp_path: Path) -> None:
    inner = {"src/toy/__init__.py": "", "src/toy/plan/__init__.py": "", "src/toy/plan/prices.py": PRICES}
    mutants = sample_mutants(make_tree(tmp_path, inner), ("src/toy/plan",), 100, 1)
    assert {mutant.module for mutant in mutants} == {"toy.plan.prices"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("toy") / "tree", WHOLE)


@pytest.fixture(scope="module")
def run(tree: Path) -> Run:
    return run_mutation(tree)


@pytest.mark.unit_long
@pytest.mark.parametrize(
    ("changed", "status"),
    [
        pytest.param("    return price >= 10", "survived", id="no test asks at the bound"),
        pytest.param("    return price > 11", "killed", id="the case of eleven notices another bound"),
        pytest.param("        start += 1", "timeout", id="a loop without end"),
        pytest.param("        start = 1", "timeout", id="a loop that stays where it is"),
        pytest.param("    return +price", "uncovered", id="no test runs the line"),
    ],
)
def test_each_mutant_ends_as_the_tests_of_the_toy_deserve(run: Run, changed: str, status: str) -> None:
    assert run.status(changed) == status


@pytest.mark.unit_long
def test_a_survivor_is_printed_with_its_place_and_its_diff(run: Run) -> None:
    lines = run.output.splitlines()
    place = lines.index("toy/prices.py:2: survived swap_op, 2 tests cover it")
    assert lines[place + 1 : place + 3] == ["-    return price > 10", "+    return price >= 10"]


@pytest.mark.unit_long
def test_a_killed_mutant_names_the_test_that_failed(run: Run) -> None:
    (killed,) = (outcome for outcome in run.outcomes if "+    return price > 11" in outcome["diff"].splitlines())
    assert killed["killer"] == "tests/test_prices.py::test_eleven_is_large"


@pytest.mark.unit_long
def test_the_last_line_counts_every_mutant_once_and_a_timeout_as_killed(run: Run) -> None:
    summary = run.summary
    alive = summary["survived"] + summary["uncovered"] + summary["unclear"]
    assert summary["mutants"] == len(run.outcomes) == summary["killed"] + alive
    assert summary["timeout"] == sum(outcome["status"] == "timeout" for outcome in run.outcomes)
    assert summary["killed"] == sum(outcome["status"] in ("killed", "timeout") for outcome in run.outcomes)
    assert summary["score"] == round(summary["killed"] / summary["mutants"], 4)
    assert summary["seed"] == 1


@pytest.mark.unit_long
def test_a_mutant_that_waits_for_ever_is_killed_by_the_test_that_waits(tmp_path: Path) -> None:
    files = {"toy/waits.py": WAITS, "tests/test_waits.py": TESTS_OF_WAITS}
    base = {name: WHOLE[name] for name in ("pyproject.toml", "toy/__init__.py")}
    run = run_mutation(make_tree(tmp_path / "tree", base | files), "--idle-looks", "1")
    waits = "    if not (event.is_set()):"
    assert run.status(waits) == "timeout"
    (outcome,) = (outcome for outcome in run.outcomes if f"+{waits}" in outcome["diff"].splitlines())
    assert outcome["killer"] == "tests/test_waits.py::test_what_has_happened_is_not_waited_for"


@pytest.mark.unit_long
def test_a_mutant_that_a_conftest_cannot_import_is_killed(tmp_path: Path) -> None:
    files = {"toy/bounds.py": "LOW = 1\nassert LOW == 1\n", "tests/conftest.py": "import toy.bounds\n"}
    tests = {"tests/test_bounds.py": "from toy.bounds import LOW\n\n\ndef test_low():\n    assert LOW\n"}
    base = {name: WHOLE[name] for name in ("pyproject.toml", "toy/__init__.py")}
    run = run_mutation(make_tree(tmp_path / "tree", base | files | tests))
    assert run.status("assert LOW != 1") == "killed"


@pytest.mark.unit_long
def test_a_test_that_is_late_on_the_unchanged_tree_too_kills_nothing(tmp_path: Path) -> None:
    tests = {"tests/test_prices.py": SLOW_FROM_NOW_ON}
    run = run_mutation(make_tree(tmp_path / "tree", WITHOUT_LOOPS | tests))
    assert run.status("    return price >= 10") == "unclear"
    assert run.status("    return price > 11") == "killed", "by its assertion, which comes before the wait"
    assert "test_is_late_whenever_it_has_run_before is late without it, too" in run.output


@pytest.mark.unit_long
def test_no_file_of_the_tree_changes(tree: Path, run: Run) -> None:
    assert read_tree(tree) == read_tree(make_tree(tree.parent / "untouched", WHOLE))


@pytest.mark.unit_long
def test_a_test_that_lost_its_assertion_is_found_out(run: Run, tmp_path: Path) -> None:
    before = tmp_path / "before.json"
    before.write_text(json.dumps({"outcomes": run.outcomes}))
    weaker = TESTS_OF_PRICES.replace("assert is_large(11) is True", "is_large(11)")
    tree = make_tree(tmp_path / "tree", WITHOUT_LOOPS | {"tests/test_prices.py": weaker})
    now = run_mutation(tree, "--compare", str(before))
    assert now.code == 1
    assert now.status("    return price > 11") == "survived"
    assert "Killed before by tests/test_prices.py::test_eleven_is_large, survived now: toy/prices.py:" in now.output


@pytest.mark.unit_long
def test_the_same_outcomes_lose_nothing(run: Run) -> None:
    assert compare_runs({"outcomes": run.outcomes}, {"outcomes": run.outcomes}) == []


def test_a_mutant_that_is_unclear_now_is_printed_and_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    before = [{"id": "a", "status": "killed", "killer": "t"}, {"id": "b", "status": "killed", "killer": "t"}]
    now = [{"id": "a", "status": "unclear"}, {"id": "b", "status": "uncovered"}]
    assert compare_runs({"outcomes": before}, {"outcomes": now}) == ["b"]
    assert "Killed before, unclear now, since a test is late without it, too: a" in capsys.readouterr().out


@pytest.mark.unit_long
def test_runs_without_a_mutant_in_common_are_not_compared(run: Run) -> None:
    with pytest.raises(SystemExit, match="another seed or other sources"):
        compare_runs({"outcomes": run.outcomes}, {"outcomes": []})


@pytest.mark.unit_long
def test_tests_that_fail_on_the_unchanged_tree_end_the_run(tmp_path: Path) -> None:
    failing = TESTS_OF_PRICES.replace("is_large(5) is False", "is_large(5) is True")
    root = make_tree(tmp_path / "tree", WITHOUT_LOOPS | {"tests/test_prices.py": failing})
    with pytest.raises(
        AssertionError, match=r"The tests do not pass on the unchanged tree:[\s\S]*test_five_is_not_large"
    ):
        run_mutation(root)


def test_a_seed_draws_the_same_sample_again_and_another_seed_another(tree: Path) -> None:
    def draw(seed: int) -> list[str]:
        return [mutant.id for mutant in sample_mutants(tree, ["toy"], 4, seed)]

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(5)}) > 1


def test_an_id_outlives_a_line_that_is_inserted_above(tree: Path, tmp_path: Path) -> None:
    moved = make_tree(tmp_path / "tree", WHOLE | {"toy/prices.py": f"BOUND = 7\n\n\n{PRICES}"})
    ids = {mutant.id for mutant in sample_mutants(moved, ["toy"], 100, 1)}
    assert ids > {mutant.id for mutant in sample_mutants(tree, ["toy"], 100, 1)}


def test_what_no_test_should_notice_is_not_mutated(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"toy/noise.py": NOISE})
    assert [mutant.diff for mutant in sample_mutants(root, ["toy"], 100, 1)] == []


def test_a_version_of_the_database_is_not_mutated_since_no_import_finds_it(tmp_path: Path) -> None:
    files = {"toy/__init__.py": "", "toy/migrations/env.py": PRICES, "toy/migrations/versions/v1.py": PRICES}
    mutants = sample_mutants(make_tree(tmp_path / "tree", files), ["toy"], 100, 1)
    assert {mutant.file for mutant in mutants} == {"toy/migrations/env.py"}


def test_every_mutant_compiles_and_changes_one_statement(tree: Path) -> None:
    for mutant in sample_mutants(tree, ["toy"], 100, 1):
        before, after = WHOLE[mutant.file].splitlines(), mutant.source.splitlines()
        changed = [number for number, (a, b) in enumerate(zip(before, after, strict=True), 1) if a != b]
        assert changed == [mutant.line]
        assert mutant.line in mutant.lines
