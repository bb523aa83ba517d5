"""The progress lines: what a person and a CI log read while things are built."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from devcluster.steps import Step, Steps
from support.waiting import wait_until


def lines_of(steps_out: io.StringIO) -> list[str]:
    return steps_out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("act", "ending"),
    [
        pytest.param(lambda step: step.cached(), "cached", id="a step whose result was there says cached"),
        pytest.param(lambda step: step.built(), "built", id="a step that made something says built"),
        pytest.param(lambda step: None, "done", id="a step that says nothing was done"),
        pytest.param(lambda step: step.progress(0.5), "done", id="progress doesn't change how a step ends"),
    ],
)
def test_a_finished_step_is_one_line(act: Callable[[Step], None], ending: str) -> None:
    out = io.StringIO()
    with Steps(12, out=out).step("kube-apiserver v1.34.4") as step:
        act(step)
    (line,) = lines_of(out)
    assert re.fullmatch(rf"\[ 1/12\] kube-apiserver v1\.34\.4 +0\.0 s  {ending}", line)


def test_the_total_grows_when_more_is_expected() -> None:
    out = io.StringIO()
    steps = Steps(1, out=out)
    with steps.step("one"):
        pass
    steps.expect(2)
    with steps.step("two"):
        pass
    assert [line.split()[0] for line in lines_of(out)] == ["[1/1]", "[2/3]"]


def test_a_failure_shows_the_end_of_the_log_and_where_it_lies(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_text("".join(f"line {number}\n" for number in range(50)))
    out = io.StringIO()
    with pytest.raises(ValueError, match="no compiler"), Steps(1, out=out).step("build", log=log):
        raise ValueError("no compiler")
    text = out.getvalue()
    assert "FAILED" in text
    assert "line 49" in text
    assert "line 29" not in text
    assert str(log) in text


@pytest.mark.parametrize(
    ("terminal", "expected"),
    [
        pytest.param(True, "\r\x1b[2K[1/1] slow", id="a terminal's line is written over"),
        pytest.param(False, "\n[1/1] slow", id="a plain log gets another line"),
    ],
)
def test_a_long_step_says_how_far_it_is(terminal: bool, expected: str) -> None:
    out = io.StringIO()
    with Steps(1, out=out, terminal=terminal, period_s=0.01).step("slow") as step:
        step.progress(0.25, "3 of 12 packages")
        wait_until(lambda: out.getvalue().count("[#####...............]  25% 3 of 12 packages") > 1, "two lines")
    assert expected in out.getvalue()
