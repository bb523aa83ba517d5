"""The lines that only certain tests reach: what is printed before these tests are deleted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mutation.coverage_map import CoverageMap
from mutation.reach import find_lines_only_reached_by, read_ids, select_tests

TESTS = Path(__file__).parents[2]
PRICES = """\
LIMIT = 10


def is_large(price, limit=LIMIT):
    if price > limit:
        return True
    return False
"""
TESTS_OF_PRICES = """\
import pytest

from toy.prices import is_large


@pytest.mark.parametrize("price", [11, 12])
def test_is_large(price):
    assert is_large(price)


def test_is_not_large():
    assert not is_large(5)
"""
TREE = {
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\n',
    "toy/__init__.py": "",
    "toy/prices.py": PRICES,
    "tests/test_prices.py": TESTS_OF_PRICES,
}
LARGE, SMALL = "tests/test_prices.py::test_is_large", "tests/test_prices.py::test_is_not_large"
NAMES = [f"{LARGE}[11]", f"{LARGE}[12]", SMALL]
# In the digits the first test is the lowest bit.
MAP = CoverageMap(
    NAMES, [0.0] * 3, [2, 2, 2], {"toy/prices.py": {"1": "1", "4": "1", "5": "7", "6": "3", "7": "4"}}, {}, []
)


def find(*ids: str) -> list[int]:
    selected, _ = select_tests(ids, NAMES)
    return [line.number for line in find_lines_only_reached_by(selected, MAP, {"toy/prices.py": PRICES})]


@pytest.mark.parametrize(
    ("ids", "lines"),
    [
        pytest.param([f"{LARGE}[11]"], [], id="another case reaches the same lines"),
        pytest.param([LARGE], [6], id="all cases of a test"),
        pytest.param([SMALL], [7], id="the only test of a line"),
        pytest.param(["tests/test_prices.py"], [5, 6, 7], id="a whole file, without lines that run at import"),
        pytest.param([], [], id="no test"),
    ],
)
def test_the_lines_that_only_these_tests_reach(ids: list[str], lines: list[int]) -> None:
    assert find(*ids) == lines


def test_an_id_that_names_no_test_is_unknown_and_a_part_of_a_name_names_none() -> None:
    assert select_tests(["tests/test_prices.py::test_is", SMALL], NAMES) == ({SMALL}, ["tests/test_prices.py::test_is"])


def test_a_list_of_ids_may_have_comments_and_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "ids"
    file.write_text(f"# to be deleted\n\n{SMALL}\n  {LARGE}  \n")
    assert read_ids(file) == [SMALL, LARGE]


@pytest.mark.unit_long
@pytest.mark.parametrize(
    ("ids", "code", "printed"),
    [
        pytest.param([SMALL], 1, "toy/prices.py:7: return False", id="a line would be run by no test"),
        pytest.param([f"{LARGE}[12]"], 0, '{"tests": 1, "unknown": 0, "lines": 0, "packages": ["toy"]}', id="nothing is lost"),
        pytest.param(
            ["tests/test_other.py::test_x"], 2, "Not among the tests of the map: tests/test_other.py::test_x",
            id="a test that the map does not know",
        ),
    ],
)  # fmt: skip
def test_the_command_prints_them_and_says_by_its_exit_code(
    tmp_path: Path, ids: list[str], code: int, printed: str
) -> None:
    root = tmp_path / "tree"
    for name, text in TREE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    file = tmp_path / "ids"
    file.write_text("\n".join(ids))
    words = ["--root", str(root), "--source", "toy", "--test", "tests", "--cache", str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mutation", *words, "--only-reached-by", str(file)],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, printed in done.stdout) == (code, True), done.stdout + done.stderr
