"""The runner of the parts, with a Makefile and tests of a toy project: what it prints, and what it leaves running."""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.stalls import stop_descendants
from support.runner.toy_project import RUNNER, run, start, write_project
from support.waiting import wait_until


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path)


Slow = tuple[subprocess.Popen[str], int]


@contextlib.contextmanager
def run_slow_test(project: Path, *command: str) -> Iterator[Slow]:
    """A run whose test waits for ever, and the pid of the process that it waits for."""
    process = start(project, *command)
    try:
        yield process, int(wait_until(lambda: read_pid(project), "the slow test runs"))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def slow(project: Path) -> Iterator[Slow]:
    with run_slow_test(project, *RUNNER, "good", "--beside", "slow") as made:
        yield made


def read_pid(project: Path) -> str:
    return (project / "pid").read_text().strip() if (project / "pid").exists() else ""


def read_state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def is_gone(pid: int) -> bool:
    return read_state(pid) == "Z"


@contextlib.contextmanager
def run_sleepers(count: int) -> Iterator[list[int]]:
    sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(count)]
    try:
        yield [sleeper.pid for sleeper in sleepers]
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


@pytest.mark.unit_slow
def test_each_part_has_a_line_and_the_last_line_counts(project: Path) -> None:
    status, output = run(project, "good")
    *_, figures, counts = output.splitlines()
    assert status == 0
    assert "[1/1] good" in output
    assert "2 passed, 1 skipped" in output
    assert counts == "2 passed, 0 failed, 1 skipped"
    good = json.loads(figures)["parts"]["good"]
    assert good["passed"] == 2
    assert good["cpu_seconds"] > 0


@pytest.mark.unit_slow
def test_a_failure_names_part_test_and_how_to_run_it_alone(project: Path) -> None:
    status, output = run(project, "bad", "good")
    assert status == 1
    assert "FAILED: 3 of 4 tests" in output
    for words in ("assert 1 == 2", "no server", "not torn down", "FAILED in bad", "the part alone: make bad"):
        assert words in output
    for test in ("test_leaves", "test_breaks", "test_asks"):
        assert f"alone: .venv/bin/pytest 'test_bad.py::{test}'" in output
    assert "[2/2] good" not in output
    assert output.splitlines()[-1] == "1 passed, 3 failed, 0 skipped"


@pytest.mark.unit_long
def test_asked_to_keep_going_it_runs_the_parts_behind_a_failed_one(project: Path) -> None:
    status, output = run(project, "--keep-going", "bad", "good")
    assert status == 1
    assert output.splitlines()[-1] == "3 passed, 3 failed, 1 skipped"


@pytest.mark.unit_slow
def test_what_runs_beside_the_others_runs_at_the_same_time(project: Path) -> None:
    status, output = run(project, "good", "meets", "--beside", "met")
    assert status == 0
    assert set(json.loads(output.splitlines()[-2])["parts"]) == {"good", "meets", "met"}


@pytest.mark.unit_slow
def test_what_runs_last_begins_once_all_else_is_over(project: Path) -> None:
    status, output = run(project, "good", "--beside", "met", "--last", "after")
    assert status == 0
    assert set(json.loads(output.splitlines()[-2])["parts"]) == {"good", "met", "after"}


@pytest.mark.unit_long
def test_what_runs_last_does_not_begin_after_a_failure(project: Path) -> None:
    status, output = run(project, "good", "--beside", "lint", "--last", "met")
    assert status == 1
    assert "Stopped, or not run, since a part had failed: met" in output.replace("good, ", "")
    assert not (project / "met").exists()


@pytest.mark.unit_slow
def test_a_part_that_fails_stops_what_runs_beside_it(project: Path) -> None:
    status, output = run(project, "good", "fails", "--beside", "slow")
    assert status == 1
    assert re.search(r"slow .* stopped", output)
    assert (project / "torn-down").exists()
    assert is_gone(int(read_pid(project)))


def test_a_part_without_pytest_fails_with_its_last_lines(project: Path) -> None:
    status, output = run(project, "lint")
    assert status == 1
    assert "a.py: line too long" in output
    assert "make lint" in output


@pytest.mark.unit_long
def test_repeating_counts_what_fails(project: Path) -> None:
    status, output = run(project, "--repeat", "2", "bad")
    figures = json.loads(output.splitlines()[-1])
    assert status == 1
    assert (figures["runs"], figures["failed_runs"]) == (2, 2)
    assert figures["failures"] == {f"test_bad.py::test_{name}": 2 for name in ("leaves", "breaks", "asks")}


def test_repeating_a_part_that_there_is_not_says_so(project: Path) -> None:
    status, output = run(project, "--repeat", "1", "engine")
    assert status == 1
    assert "No rule to make target 'engine'" in output


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.unit_long) for number in (signal.SIGTERM, signal.SIGHUP))],
    ids=lambda number: number.name,
)
def test_an_interrupted_run_takes_fixtures_down_and_leaves_nothing_running(
    project: Path, slow: Slow, number: signal.Signals
) -> None:
    process, daemon = slow
    process.send_signal(number)
    assert process.wait(120) == 130
    assert (project / "torn-down").exists()
    assert is_gone(daemon)


@pytest.mark.unit_long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_make_and_the_runner_at_once_is_one_interrupt(project: Path, number: signal.Signals) -> None:
    """As from `timeout make test`, or Ctrl-C: make passes on what the runner gets as well."""
    with run_slow_test(project, "make", "all") as (process, daemon):
        os.killpg(process.pid, number)
        process.communicate(timeout=120)
        wait_until(lambda: is_gone(daemon), "the test's daemon has ended")
    assert (project / "torn-down").exists()


def test_a_run_under_nohup_goes_on_at_hang_up(project: Path) -> None:
    with run_slow_test(project, "nohup", *RUNNER, "slow") as (process, _):
        status = Path(f"/proc/{process.pid}/status").read_text()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")), 16)
    assert ignored & 1 << (signal.SIGHUP - 1)
    assert not ignored & 1 << (signal.SIGTERM - 1)


@pytest.mark.unit_slow
def test_a_killed_runner_leaves_nothing_running(project: Path, slow: Slow) -> None:
    process, daemon = slow
    process.kill()
    wait_until(lambda: is_gone(daemon), "the test's daemon has ended")
    assert (project / "torn-down").exists()


def test_what_a_part_leaves_running_is_ended(project: Path) -> None:
    status, _ = run(project, "leaky")
    assert status == 0
    assert is_gone(int(read_pid(project)))


def test_a_stall_stops_what_runs_and_leaves_stopped_what_a_test_has_stopped() -> None:
    with run_sleepers(2) as (running, stopped):
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: read_state(stopped) == "T", "the test has stopped its process")
        with stop_descendants(os.getpid()):
            wait_until(lambda: read_state(running) == "T", "the stall has stopped the other process")
        wait_until(lambda: read_state(running) == "S", "the other process continues")
        assert read_state(stopped) == "T"


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.unit_long)],
    ids=lambda number: number.name,
)
@pytest.mark.unit_slow
def test_a_runner_that_ends_in_a_stall_leaves_nothing_stopped(project: Path, number: signal.Signals) -> None:
    with run_slow_test(project, *RUNNER, "--stalls", "1", "slow") as (process, daemon):
        wait_until(lambda: read_state(daemon) == "T", "a stall", period_s=0.001)
        process.send_signal(number)
        process.wait(120)
        wait_until(lambda: is_gone(daemon), "the test's daemon has ended")
    assert (project / "torn-down").exists()
