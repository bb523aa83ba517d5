"""A run leaves a record of a clean tree, whether it passed or failed; an interrupted one leaves none."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evidence.recording import BusyError, FigureReader, hold_machine
from support.paths import TESTS
from support.toy_repository import ToyRepository
from support.waiting import wait_until

TARGETS = '[bench-x]\nentry = ["product.py"]\nminutes = 1\n\n[bench-x-long]\nmake = "bench-x"\narguments = "N=9"\nentry = ["product.py"]\nminutes = 1\n'


@pytest.fixture
def repository(tmp_path: Path) -> ToyRepository:
    """A repository with the ledger's own code, one target, and one file of a product."""
    made = ToyRepository(tmp_path / "repository")
    code = {f"evidence/{file.name}": file.read_text() for file in (TESTS.parent / "evidence").glob("*.py")}
    made.commit({**code, "evidence/targets.toml": TARGETS, "product.py": "", ".gitignore": "__pycache__/\n"})
    return made


def start(repository: ToyRepository, *words: str) -> subprocess.Popen[str]:
    # The tests themselves may be measured.
    env = {key: value for key, value in os.environ.items() if not key.startswith("R1PLUS_EVIDENCE")}
    env |= {
        "PYTHONPATH": str(repository.root),
        "R1PLUS_CACHE": str(repository.root.parent / "cache"),
        "R1PLUS_MACHINE": "toy",
    }
    command = [sys.executable, "-m", "evidence.ledger", *words]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=repository.root, env=env, **pipes)


def run(repository: ToyRepository, *words: str) -> tuple[int, str, str]:
    process = start(repository, *words)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def read(repository: ToyRepository, target: str = "bench-x") -> dict[str, Any]:
    file = repository.root / "evidence" / "records" / "toy" / f"{target}.json"
    return dict(json.loads(file.read_text()))


PRINT = ["--", sys.executable, "-c", "print('line'); print('{\"ms\": 1.5}'); print('end')"]
FAIL = ["--", sys.executable, "-c", "print('{\"ms\": 2}'); raise SystemExit(3)"]


def test_a_run_is_recorded_with_its_commit_and_figures(repository: ToyRepository) -> None:
    status, output, errors = run(repository, "run", "bench-x", *PRINT)
    assert (status, output) == (0, 'line\n{"ms": 1.5}\nend\n')
    assert "Recorded: evidence/records/toy/bench-x.json" in errors
    record = read(repository)
    assert (record["result"], record["figures"], record["command"]) == ("PASSED", {"ms": 1.5}, "make bench NAME=x")
    assert record["commit"] == repository.git("rev-parse", "HEAD")


def test_a_failure_is_recorded_and_its_status_is_passed_on(repository: ToyRepository) -> None:
    status, _, _ = run(repository, "run", "bench-x", *FAIL)
    assert status == 3
    assert (read(repository)["result"], read(repository)["figures"]) == ("FAILED", {"ms": 2})


def test_a_record_of_before_leaves_the_tree_clean(repository: ToyRepository) -> None:
    run(repository, "run", "bench-x", *FAIL)
    _, _, errors = run(repository, "run", "bench-x", *PRINT)
    assert "Recorded" in errors
    assert read(repository)["result"] == "PASSED"


def test_each_table_has_its_own_arguments(repository: ToyRepository) -> None:
    _, _, errors = run(repository, "run", "bench-x", "--variables", "N=9", *PRINT)
    assert "bench-x-long.json" in errors
    assert read(repository, "bench-x-long")["command"] == "make bench NAME=x N=9"


def test_a_call_that_no_table_has_runs_without_a_record(repository: ToyRepository) -> None:
    status, output, errors = run(repository, "run", "bench-x", "--variables", "N=5", *PRINT)
    assert (status, output.splitlines()[-1]) == (0, "end")
    assert "no table for `make bench-x N=5`" in errors
    assert not (repository.root / "evidence" / "records").exists()


@pytest.mark.parametrize("path", ["product.py", "new.py", "evidence/figures.py", "evidence/targets.toml"])
def test_a_dirty_tree_runs_without_a_record_and_is_named(repository: ToyRepository, path: str) -> None:
    with (repository.root / path).open("a") as file:
        file.write("# changed\n")
    status, _, errors = run(repository, "run", "bench-x", *PRINT)
    assert status == 0
    assert f"Not recorded: {path} differ from HEAD" in errors
    assert not (repository.root / "evidence" / "records").exists()


def test_a_tree_that_changes_meanwhile_leaves_no_record(repository: ToyRepository) -> None:
    change = ["--", sys.executable, "-c", "open('product.py', 'w').write('# new')"]
    _, _, errors = run(repository, "run", "bench-x", *change)
    assert "Not recorded: the tree changed while bench-x ran" in errors
    assert not (repository.root / "evidence" / "records").exists()


ENDS = {
    "by the signal": "",
    "with pytest's own status": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(2)); ",
}


@pytest.mark.parametrize("handler", ENDS.values(), ids=ENDS)
def test_an_interrupted_run_leaves_no_record(repository: ToyRepository, handler: str) -> None:
    code = f"import signal, sys; {handler}print('runs', flush=True); signal.pause()"
    process = start(repository, "run", "bench-x", "--", sys.executable, "-c", code)
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Not recorded: bench-x was interrupted" in errors
    assert not (repository.root / "evidence" / "records").exists()


def test_what_is_stale_is_measured_by_calls_without_the_callers_variables(repository: ToyRepository) -> None:
    rule = (
        "bench: ; @$(MAKE) --no-print-directory bench-$(NAME)\n"
        f"bench-x: ; @{sys.executable} -m evidence.ledger run $@ --variables '$(filter-out NAME=%,$(MAKEOVERRIDES))'"
        " -- echo '{\"ms\": 3}'"
    )
    again = f"again: ; @{sys.executable} -m evidence.ledger report --minutes $(MINUTES) --run"
    repository.commit({"Makefile": f"{rule}\n{again}\n"})
    env = {key: value for key, value in os.environ.items() if not key.startswith(("R1PLUS_EVIDENCE", "MAKE", "MFLAGS"))}
    env |= {"PYTHONPATH": str(repository.root), "R1PLUS_CACHE": str(repository.root.parent / "cache")}
    command = ["make", "again", "RUN=1", "MINUTES=2"]
    done = subprocess.run(
        command, cwd=repository.root, env=env | {"R1PLUS_MACHINE": "toy"}, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "Not recorded" not in done.stderr
    assert read(repository)["figures"] == {"ms": 3}


def test_outside_git_a_target_runs_without_a_record(repository: ToyRepository) -> None:
    shutil.rmtree(repository.root / ".git")
    status, output, errors = run(repository, "run", "bench-x", *PRINT)
    assert (status, output.splitlines()[-1]) == (0, "end")
    assert "Not recorded: this is no git repository" in errors


def test_what_a_measured_target_starts_has_no_record_of_its_own(repository: ToyRepository) -> None:
    inner = [sys.executable, "-m", "evidence.ledger", "run", "bench-x", "--variables", "N=9", *PRINT]
    status, _, _ = run(repository, "run", "bench-x", "--", *inner)
    assert status == 0
    assert read(repository)["figures"] == {"ms": 1.5}
    assert not (repository.root / "evidence" / "records" / "toy" / "bench-x-long.json").exists()


def test_a_second_target_is_refused_while_one_is_measured(repository: ToyRepository) -> None:
    code = "import signal; signal.pause()"
    first = start(repository, "run", "bench-x", "--", sys.executable, "-c", code)
    try:
        lock = repository.root.parent / "cache" / "evidence.lock"
        wait_until(lambda: lock.exists() and lock.read_text(), "the first is measured")
        status, output, errors = run(repository, "run", "bench-x", "--variables", "N=9", *PRINT)
    finally:
        first.terminate()
        first.communicate()
    assert (status, output) == (2, "")
    assert "bench-x-long: bench-x (pid" in errors
    assert "is being measured" in errors


def test_a_machine_is_free_again_after_a_target(tmp_path: Path) -> None:
    with (
        hold_machine("one", tmp_path / "lock"),
        pytest.raises(BusyError, match="two: one"),
        hold_machine("two", tmp_path / "lock"),
    ):
        pass
    with hold_machine("two", tmp_path / "lock"):
        pass


READ = {
    "the last JSON object counts": (['{"a": 1}', "text", '{"a": 2}'], {"a": 2}),
    "a test prints it behind its file and before its dot": (['tests/code/test_a.py .{"a": 1}.'], {"a": 1}),
    "what only looks like one is text": (['{"a": 1}', "{not json"], {"a": 1}),
    "pytest's closing line counts": (
        ["==== 3 passed, 1 skipped in 2.50s ===="],
        {"tests": {"passed": 3, "skipped": 1}},
    ),
    "two runs of pytest add up": (
        ["== 3 passed in 2.5s ==", "= 1 failed, 4 passed, 2 errors in 61.20s (0:01:01) ="],
        {"tests": {"passed": 7, "failed": 1, "error": 2}},
    ),
    "both are kept": (['{"a": 1}', "== 3 passed in 2.5s =="], {"a": 1, "tests": {"passed": 3}}),
    "a target may print nothing": (["done"], {}),
}


@pytest.mark.parametrize(("lines", "figures"), READ.values(), ids=READ)
def test_figures_of_a_target(lines: list[str], figures: dict[str, Any]) -> None:
    reader = FigureReader()
    for line in lines:
        reader.read_line(f"{line}\n")
    assert reader.figures == figures
