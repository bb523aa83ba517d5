"""Which golden suites the data of `r1plus engine distill` is compared with."""

from pathlib import Path

import pytest

from r1plus_cli.errors import CliError, UsageError
from r1plus_model.training.suite_overlap import SuiteIndex
from r1plus_operator.pins import SHIPPED_SUITES
from r1plus_training.engine_distil import choose_work_folder, load_compared_suites, print_import
from support.tables import for_each


def test_all_shipped_suites_are_compared() -> None:
    assert {suite.header.name for suite in load_compared_suites([])} == set(SHIPPED_SUITES)


def test_an_installation_without_shipped_suites_refuses_to_distil(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"no shipped suite is there .*; install r1plus into a virtual environment"):
        load_compared_suites([], tmp_path / "share")


@for_each("out", {"nothing": "", "the folder itself": ".", "the root": "/"})
def test_an_out_without_a_name_is_refused(out: str) -> None:
    with pytest.raises(UsageError, match=r"--out: './?' names no folder; give the name of a new one"):
        choose_work_folder(Path(out))


def test_the_commands_that_come_next_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    print_import(Path("my student"))
    assert "engine convert 'my student' --out 'my student.gguf'" in capsys.readouterr().out


ITEM = (
    '{"id":"form-k7","stratum":"forms","prompt":"Which form closes an account?","scorer":"contains","answers":["K7"]}\n'
)


def test_candidates_that_are_no_suite_yet_are_compared_as_well(tmp_path: Path) -> None:
    (tmp_path / "candidates.jsonl").write_text(ITEM)
    index = SuiteIndex(load_compared_suites([tmp_path / "candidates.jsonl"]))
    overlap = index.find(3, "**Which form** closes an account? K7.")
    assert overlap is not None
    assert (overlap.line, overlap.suite, overlap.item) == (3, "candidates.jsonl", "form-k7")


def test_candidates_with_mistakes_are_refused_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "candidates.jsonl"
    file.write_text(ITEM + "no json\n" + ITEM.replace("contains", "guess").replace("k7", "k8"))
    with pytest.raises(UsageError) as caught:
        load_compared_suites([file])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"--suite: {file}:2: ") and lines[1].startswith(f"--suite: {file}:3: ")
