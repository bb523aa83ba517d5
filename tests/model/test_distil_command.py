"""`r1plus engine distill`: from a teacher and text to an engine folder; what it prints, and how it is stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.main import app
from r1plus_contract.engine.delivery import hash_file
from support.model import environment
from support.model.tiny_models import write_data
from support.paths import TESTS
from support.tables import for_each

pytestmark = pytest.mark.model
SMALL = ("--steps", "4", "--batch", "2", "--length", "48", "--top", "16")


def run(*words: Any) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["engine", *map(str, words)])
    return done.exit_code, done.output, done.exception


def distil(inputs: Path, out: Path, *words: Any) -> tuple[int, str, BaseException | None]:
    return run("distill", inputs / "teacher", "--data", inputs / "data.jsonl", "--out", out, *SMALL, *words)


def test_a_student_becomes_an_engine_by_the_commands_that_are_printed(inputs: Path, tmp_path: Path) -> None:
    status, output, _ = distil(inputs, tmp_path / "student", "--layers", "3")
    assert status == 0, output
    for text in ("step 4 of 4: loss ", "before: perplexity ", "after: perplexity ", "teacher: perplexity "):
        assert text in output
    convert, import_ = (line.split()[2:] for line in output.splitlines() if line.startswith("r1plus engine"))

    assert run(*convert)[0] == 0
    words = [{"NAME": "bank-edge", "TIER": "edge", "engines": tmp_path / "engines"}.get(word, word) for word in import_]
    status, output, error = run(*words)
    assert status == 0, (output, error)
    spec = yaml.safe_load((tmp_path / "engines" / "bank-edge" / "engine.yaml").read_text())["spec"]
    assert spec["architecture"]["layers"] == 3
    facts = json.loads((tmp_path / "engines" / "bank-edge" / "engine" / "engine.json").read_text())
    assert facts["source"]["sha256"] == hash_file(tmp_path / "student.gguf")


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "all layers": (("--layers", "4"), "--layers: 4 is not from 1 to 3"),
    "neither layers nor student": ((), "--layers: give layers or student"),
    "a high learning rate": (("--layers", "3", "--learning-rate", "9"), "--learning-rate: 9.0 is not from 1e-08 to 1"),
    "a share above 1": (("--layers", "3", "--hard-weight", "2"), "--hard-weight: 2.0 is not from 0 to 1"),
    "other data": (("--layers", "3", "--data", "none.jsonl"), "--data: none.jsonl is not a file"),
}


@for_each("words, message", WRONG)
def test_an_error_names_the_option(inputs: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    _, _, error = distil(inputs, tmp_path / "student", *words)

    assert isinstance(error, CliError)
    assert str(error).startswith(message)
    assert not list(tmp_path.iterdir())


def test_questions_of_a_shipped_suite_are_refused_without_an_option(inputs: Path, tmp_path: Path) -> None:
    line = {"prompt": "What is the capital of Australia?", "answer": "Canberra"}
    data = write_data(tmp_path / "data.jsonl", [{"text": "hello"}, line])
    _, _, error = distil(inputs, tmp_path / "student", "--layers", "3", "--data", data)

    assert isinstance(error, CliError)
    assert "1 of 2 lines have questions of a golden suite (line 2 has smollm2-" in str(error)


def test_a_folder_without_a_suite_is_refused(inputs: Path, tmp_path: Path) -> None:
    _, _, error = distil(inputs, tmp_path / "student", "--layers", "3", "--suite", tmp_path)

    assert isinstance(error, UsageError)
    assert str(error).endswith("give a folder with suite.json and items.jsonl, or a file of candidates")


def test_a_run_that_gets_sigterm_stops_after_its_step_and_keeps_it(inputs: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    words = ("--layers", "3", "--steps", "100000")
    options = [*map(str, (inputs / "teacher", "--data", inputs / "data.jsonl", "--out", student)), *SMALL, *words]
    path = os.pathsep.join([str(TESTS), str(environment.prepare())])
    lines = []
    with subprocess.Popen(
        [Path(sys.executable).with_name("r1plus"), "engine", "distill", *options],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            lines.append(line)
            if line.startswith("step 1 of"):
                child.send_signal(signal.SIGTERM)
    assert child.returncode == 1, lines
    assert "stopped after step " in lines[-1] and "the same command goes on" in lines[-1]
    assert (tmp_path / "student.work" / "state.safetensors").is_file()
    assert not student.exists()
