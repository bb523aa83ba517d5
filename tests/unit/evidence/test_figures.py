"""Figures of records on pages: found by their path, written with their origin, refused where no record has them."""

from pathlib import Path
from typing import Any

import pytest

from evidence.figures import FigureError, duration, figure, origin, table, value
from evidence.records import RecordError, write_record
from support.evidence_records import make_record

FIGURES = {"ms": {"p99": 1.2345}, "rows": [{"name": "a"}, {"name": "b"}], "tokens.first": 3, "tests": {"passed": 13521}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_record(make_record(figures=FIGURES), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "options", "text"),
    [
        ("ms.p99", {}, "1.23"),
        ("ms.p99", {"form": ".1f"}, "1.2"),
        ("rows.1.name", {}, "b"),
        ("rows.-1.name", {}, "b"),
        ("tokens.first", {}, "3"),
        ("tests.passed", {}, "13,521"),
    ],
)
def test_a_figure_is_found_by_its_path(folder: Path, path: str, options: dict[str, Any], text: str) -> None:
    assert figure("bench-x", path, folder=folder, **options) == text


def test_a_part_of_a_record_is_found_as_it_is(folder: Path) -> None:
    assert value("bench-x", "rows", folder=folder) == [{"name": "a"}, {"name": "b"}]
    assert value("bench-x", "ms.p99", folder=folder) == 1.2345
    with pytest.raises(FigureError, match="no 'columns' there"):
        value("bench-x", "columns", folder=folder)


def test_a_figure_that_the_record_has_not_is_refused_with_what_there_is(folder: Path) -> None:
    with pytest.raises(FigureError, match=r"two-cores/bench-x: ms.p50: no 'p50' there, but p99"):
        figure("bench-x", "ms.p50", folder=folder)


def test_a_target_that_has_no_record_is_refused(folder: Path) -> None:
    with pytest.raises(FigureError, match=r"no record two-cores/bench-y\.json: run `make evidence`"):
        figure("bench-y", "ms", folder=folder)


def test_a_record_that_was_edited_prints_nothing(tmp_path: Path) -> None:
    file = write_record(make_record(target="bench-z"), tmp_path)
    file.write_text(file.read_text().replace("1.5", "0.1"))
    with pytest.raises(RecordError, match="edited by hand"):
        figure("bench-z", "ms", folder=tmp_path)


def test_an_origin_names_command_machine_day_and_commit(tmp_path: Path) -> None:
    write_record(make_record(target="quiet"), tmp_path)
    assert (
        origin("quiet", folder=tmp_path)
        == "`make bench NAME=x` on two cores (AMD EPYC), 1 December 2026, commit 00000000"
    )
    write_record(make_record(target="busy", load_before=5.25, result="FAILED"), tmp_path)
    assert origin("busy", folder=tmp_path).endswith("commit 00000000, load 5.2 before, failed")


def test_an_origin_says_that_figures_are_of_before_the_ledger(tmp_path: Path) -> None:
    write_record(make_record(target="old", transcribed_from="docs/math.md"), tmp_path)
    assert origin("old", folder=tmp_path).endswith("commit 00000000, from before the ledger")


def test_a_table_has_a_line_below_its_head() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "5 minutes"), (20.0, "1 minute"), (130.0, "2 minutes")],
    ids=["targets.toml until a record was measured", "at least a minute", "the record"],
)
def test_a_duration_is_of_the_record_that_was_measured(tmp_path: Path, seconds: float, text: str) -> None:
    write_record(make_record(target="e2e-gpus", seconds=seconds), tmp_path / str(seconds))
    assert duration("e2e-gpus", folder=tmp_path / str(seconds)) == text


def test_a_duration_needs_no_record_but_a_target(tmp_path: Path) -> None:
    assert duration("e2e-gpus", folder=tmp_path) == "5 minutes"
    with pytest.raises(FigureError, match=r"no table \[e2e-nothing\]: .*e2e-gpus"):
        duration("e2e-nothing", folder=tmp_path)
