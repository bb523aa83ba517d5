"""Rows of flakes: one for each open test, closed by what mended it."""

from dataclasses import replace
from pathlib import Path

import pytest

from evidence.flakes import MOST_OUTPUT, Flake, FlakeError, add_flakes, list_open, read_flakes

FLAKE = Flake("tests/unit/test_a.py::test_a", "unit", "2026-12-02", "0" * 40, 5.5, 0, 0, "assert 1 == 2")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flakes.jsonl"


def test_without_a_file_there_is_none(file: Path) -> None:
    assert list_open(file) == []


def test_a_flake_is_a_row_that_is_read_again(file: Path) -> None:
    add_flakes([FLAKE], file)
    assert list_open(file) == [FLAKE]


def test_a_test_whose_row_is_open_counts_up_and_has_the_newest_output(file: Path) -> None:
    add_flakes([FLAKE], file)
    add_flakes([replace(FLAKE, output="assert 1 == 3")], file)
    assert list_open(file) == [replace(FLAKE, output="assert 1 == 3", count=2)]


def test_a_mended_row_stays_and_the_next_flake_of_its_test_is_a_new_one(file: Path) -> None:
    mended = replace(FLAKE, mended="Counts connections instead of requests")
    add_flakes([mended], file)
    assert list_open(file) == []
    add_flakes([FLAKE], file)
    assert read_flakes(file) == [mended, FLAKE]
    assert list_open(file) == [FLAKE]


def test_a_long_output_keeps_its_end(file: Path) -> None:
    add_flakes([replace(FLAKE, output="x" * MOST_OUTPUT + "the end")], file)
    (row,) = read_flakes(file)
    assert len(row.output) == MOST_OUTPUT
    assert row.output.endswith("the end")


@pytest.mark.parametrize("line", ["not json", "{}", "[]", '{"test": "a", "unknown": 1}'])
def test_a_line_that_is_no_row_is_named(file: Path, line: str) -> None:
    add_flakes([FLAKE], file)
    with file.open("a") as rows:
        rows.write(f"{line}\n")
    with pytest.raises(FlakeError, match=r"flakes.jsonl:2: no row of a flake"):
        list_open(file)
