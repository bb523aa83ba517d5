"""`make bench NAME=distillation` without torch: what is trained on, what a training took, and what its picture is drawn from."""

from pathlib import Path
from typing import Any

import pytest

from bench.distillation.pace import Pace, Part, Stopwatch, match_steps
from bench.distillation.picture import draw, join
from bench.distillation.questions import split_questions
from r1plus_cli.suite.build import read_candidates
from r1plus_model.training.suite_overlap import SuiteIndex
from r1plus_monitoring.curate.selection import Shape, choose, count_strata, require_shape
from r1plus_training.engine_distil import load_compared_suites


def test_no_prompt_to_train_on_holds_a_question_of_a_suite_or_a_candidate(tmp_path: Path) -> None:
    prompts = split_questions(tmp_path / "candidates.jsonl")
    index = SuiteIndex(load_compared_suites([tmp_path / "candidates.jsonl"]))
    assert [prompt for prompt in prompts if index.find(0, prompt)] == []
    assert len(prompts) > 800


def test_the_candidates_are_enough_for_a_suite_and_the_same_each_time(tmp_path: Path) -> None:
    first, second = (tmp_path / f"{name}.jsonl" for name in ("first", "second"))
    assert split_questions(first) == split_questions(second)
    assert first.read_text() == second.read_text()
    candidates, problems = read_candidates(first)
    assert problems == []
    require_shape(choose(candidates, Shape(), seed=1), Shape())
    assert min(count_strata(candidates).values()) > 75, "a third may be lost of each stratum"


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_pace_of_a_training_that_was_killed_is_that_of_all_its_runs(tmp_path: Path) -> None:
    wall, processor, file = Clock(), Clock(), tmp_path / "pace.json"
    first = Stopwatch(file, wall, processor)
    for part, done in ((Part.TEACHER, 1), (Part.TEACHER, 51), (Part.TRAINING, 1), (Part.TRAINING, 5)):
        first.note(part, done)
        wall.now, processor.now = wall.now + 10, processor.now + 4
    wall.now += 1000  # It was killed; its steps after the saved state are taken again.
    second = Stopwatch(file, wall, processor)
    for done in (4, 10):
        second.note(Part.TRAINING, done)
        wall.now, processor.now = wall.now + 20, processor.now + 6
    assert Stopwatch(file).get_pace(Part.TEACHER) == Pace(50, 10, 4)
    assert Stopwatch(file).get_pace(Part.TRAINING) == Pace(10, 30, 10)
    assert Stopwatch(file).get_pace(Part.TRAINING).scale(30) == Pace(30, 90, 30)


def test_steps_are_matched_by_processor_seconds() -> None:
    pace = Pace(100, 500.0, 200.0)
    assert match_steps(pace, 300.0) == 150
    assert match_steps(pace, 0.1) == 1
    assert Pace().scale(7) == Pace(7, 0.0, 0.0), "of a part that was too short there is no pace"


def make_row(arm: str, steps: int, seconds: float, right: int, **more: Any) -> dict[str, Any]:
    record = {"recipe": {"layers": 24}}
    row = {"name": f"{arm}, {steps} steps", "arm": arm, "steps": steps, "processor_seconds": seconds, "record": record}
    return {**row, "right": right, "items": 211, "perplexity": 25.0, "divergence": 0.5, **more}


TEACHER = {"name": "teacher", "right": 211, "items": 211, "perplexity": 17.6, "divergence": 0.0}
PRUNED = {"name": "pruned only", "right": 22, "items": 211, "perplexity": 39.9, "divergence": 0.9}
EARLIER = {"measured_at": "2026-11-30T07:00:00Z", "rows": [TEACHER, PRUNED, make_row("KD", 60, 90.0, 120)]}
LATER = {"measured_at": "2026-11-30T08:00:00Z", "rows": [make_row("KD", 30, 50.0, 90), make_row("CE", 60, 70.0, 110)]}


def test_the_picture_has_a_line_of_each_arm_from_before_its_training_on_and_the_teacher_s_level() -> None:
    right, divergence, perplexity = draw(join([LATER, EARLIER])).axes
    kd, ce, teacher = right.lines
    assert (list(kd.get_xdata()), list(kd.get_ydata())) == ([0.0, 50.0, 90.0], [22, 90, 120])
    assert (list(ce.get_xdata()), list(ce.get_ydata())) == ([0.0, 70.0], [22, 110])
    assert set(teacher.get_ydata()) == {211}
    assert list(divergence.lines[0].get_ydata()) == [0.9, 0.5, 0.5]
    assert set(perplexity.lines[2].get_ydata()) == {17.6}
    assert [text.get_text() for text in right.texts] == ["0", "30", "60", "0", "60"]


def test_a_row_that_was_measured_again_replaces_the_older_one() -> None:
    again = {"measured_at": "2026-11-30T09:00:00Z", "rows": [make_row("KD", 60, 95.0, 125)]}
    rows = {row["name"]: row["right"] for row in join([again, EARLIER, LATER])}
    assert rows["KD, 60 steps"] == 125


def test_runs_that_cannot_be_compared_make_no_picture() -> None:
    other_items = {**LATER, "rows": [make_row("CE", 60, 70.0, 50, items=53)]}
    with pytest.raises(ValueError, match="count 53 and 211 items of the suite"):
        join([EARLIER, other_items])
    other_layers = {**LATER, "rows": [make_row("CE", 60, 70.0, 50, record={"recipe": {"layers": 27}})]}
    with pytest.raises(ValueError, match="students of 24 and 27 layers"):
        join([EARLIER, other_layers])
    with pytest.raises(ValueError, match="have no rows: run make bench NAME=distillation with its part arms"):
        join([{"measured_at": "2026-11-30T07:00:00Z", "served": {}}])
