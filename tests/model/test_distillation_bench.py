"""The arms of `make bench NAME=distillation` on a tiny teacher: what its rows say, and that a run goes on in its folder."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from bench.distillation.arms import Bench
from support.model.tiny_models import write_tiny

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]
SETTINGS = {"layers": 3, "prompts": 40, "prose": 2048, "items": 8, "seed": 0, "precision": "float32", "threads": 1}


def open_bench(work: Path, **changed: Any) -> Bench:
    return Bench(argparse.Namespace(**{**SETTINGS, "steps": [4], "arm": ["KD", "CE"], **changed}), work)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a run, with a tiny teacher in the place of SmolLM2."""
    folder = tmp_path_factory.mktemp("work")
    write_tiny(folder / "teacher", tmp_path_factory.mktemp("scratch"))
    return folder


@pytest.fixture(scope="module")
def rows(work: Path) -> list[dict[str, Any]]:
    return open_bench(work).measure()


def test_rows_say_what_each_training_took_and_reached(rows: list[dict[str, Any]]) -> None:
    teacher, pruned, kd, ce, *as_long = rows
    assert [row["name"] for row in rows[:4]] == ["teacher", "pruned only", "KD, 4 steps", "CE, 4 steps"]
    assert (teacher["divergence"], pruned["items"]) == (0, 8)
    assert kd["divergence"] != pruned["divergence"] != ce["divergence"] > 0
    assert kd["teacher_processor_seconds"] >= ce["teacher_processor_seconds"] == 0
    assert kd["processor_seconds"] > 0 < kd["tokens_per_second"]
    assert kd["tokens"] == ce["tokens"] > kd["record"]["trainedTokens"], "prompts are read, and do not count"
    assert [row["arm"] for row in as_long] == ["CE"] * len(as_long)


def test_the_same_command_goes_on_with_what_is_there(work: Path, rows: list[dict[str, Any]]) -> None:
    students = {folder: folder.stat().st_mtime_ns for folder in work.glob("[KC][DE]-*")}
    assert open_bench(work).measure() == rows
    assert {folder: folder.stat().st_mtime_ns for folder in work.glob("[KC][DE]-*")} == students


def test_the_data_has_answers_of_the_teacher_and_prose(work: Path, rows: list[dict[str, Any]]) -> None:
    lines = [json.loads(line) for line in (work / "data.jsonl").read_text().splitlines()]
    assert {tuple(line) for line in lines} == {("prompt", "answer"), ("text",)}


def test_a_folder_of_other_settings_is_refused(work: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(SystemExit, match=r"is of other settings: --layers 3, --seed 0; give these, or another folder"):
        open_bench(work, layers=2, seed=1)
