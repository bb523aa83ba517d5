"""`r1plus engine reinforce`: from a model and questions in prose to an engine folder, by the calculator's verdict."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bench.reward.questions import split_questions
from r1plus_cli.errors import CliError
from r1plus_cli.main import app
from support.model.tiny_models import write_data, write_tiny
from support.tables import for_each

pytestmark = pytest.mark.model
SMALL = ("--rounds", "1", "--samples", "8", "--steps", "2", "--batch", "2")
CONTEXT = 4096
"""math_mode's examples are some 1,800 tokens of the tiny model, which has one for each letter."""


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of a long context, and questions in prose."""
    folder = tmp_path_factory.mktemp("questions")
    config = write_tiny(folder / "model", folder) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": CONTEXT}))
    for name, half in zip(("data", "held-out"), split_questions(6, 4, 0), strict=True):
        write_data(folder / f"{name}.jsonl", [{"prompt": one.text, "answer": str(one.answer)} for one in half])
    return folder


def run(*words: Any) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["engine", *map(str, words)])
    return done.exit_code, done.output, done.exception


def reinforce(questions: Path, out: Path, *words: Any) -> tuple[int, str, BaseException | None]:
    files = ("--data", questions / "data.jsonl", "--held-out", questions / "held-out.jsonl")
    return run("reinforce", questions / "model", *files, "--out", out, *SMALL, *words)


def test_a_trained_model_becomes_an_engine_by_the_commands_that_are_printed(questions: Path, tmp_path: Path) -> None:
    status, output, error = reinforce(questions, tmp_path / "trained")
    assert status == 0, (output, error)
    for text in ("step 2 of 2: loss ", "round 1: ", "held out: ", " of 4 right before, ", "(95 %)"):
        assert text in output
    convert, import_ = (line.split()[2:] for line in output.splitlines() if line.startswith("r1plus engine"))

    assert run(*convert)[0] == 0
    words = [{"NAME": "bank-math", "TIER": "edge", "engines": tmp_path / "engines"}.get(word, word) for word in import_]
    status, output, error = run(*words)
    assert status == 0, (output, error)
    spec = yaml.safe_load((tmp_path / "engines" / "bank-math" / "engine.yaml").read_text())["spec"]
    assert spec["architecture"]["layers"] == 4
    record = json.loads((tmp_path / "trained" / "reinforced.json").read_text())
    assert record["rounds"][0]["drawn"] == 6 * 8


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no round": (("--rounds", "0"), "--rounds: 0 is not from 1 to 100"),
    "a high learning rate": (("--learning-rate", "9"), "--learning-rate: 9.0 is not from 1e-08 to 1"),
    "other data": (("--data", "none.jsonl"), "--data: none.jsonl is not a file"),
    "other held-out questions": (("--held-out", "none.jsonl"), "--held-out: none.jsonl is not a file"),
}


@for_each("words, message", WRONG)
def test_an_error_names_the_option(questions: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    _, _, error = reinforce(questions, tmp_path / "trained", *words)

    assert isinstance(error, CliError)
    assert str(error).startswith(message)
    assert not list(tmp_path.iterdir())


QUESTIONS: dict[str, tuple[str, str]] = {
    "an expression": ("What is 3 + 4?", "prompt: math_mode calculates 3 + 4 without a model; give questions in prose"),
    "a conversion": ("How many metres are 3 km?", "prompt: math_mode calculates 3 * 1000 without a model"),
    "no number": ("How are you?", "prompt: math_mode does not translate it: nothing was calculated: the text has no"),
}


@for_each("question, message", QUESTIONS)
def test_a_question_is_refused_that_has(questions: Path, tmp_path: Path, question: str, message: str) -> None:
    data = write_data(tmp_path / "data.jsonl", [{"prompt": question, "answer": "7"}])
    _, _, error = reinforce(questions, tmp_path / "trained", "--data", data)

    assert isinstance(error, CliError)
    assert str(error).startswith(f"--data: line 1: {message}")


@for_each("answer", {"with the same answer": "7", "with another answer": "8"})
def test_a_question_that_is_asked_twice_is_refused(questions: Path, tmp_path: Path, answer: str) -> None:
    question = "Tom has 3 apples and buys 4. How many apples has he?"
    twice = [{"prompt": question, "answer": "7"}, {"prompt": question.replace(" ", "  "), "answer": answer}]
    data = write_data(tmp_path / "data.jsonl", twice)
    _, _, error = reinforce(questions, tmp_path / "trained", "--held-out", data)

    assert isinstance(error, CliError)
    assert str(error).startswith("--held-out: line 2: prompt: is that of line 1, and would count as another question")


@pytest.mark.parametrize("option", ["--data", "--held-out"])
def test_a_question_that_leaves_no_room_for_an_answer_is_refused(questions: Path, tmp_path: Path, option: str) -> None:
    folder = shutil.copytree(questions, tmp_path / "questions")
    config = folder / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": CONTEXT - 1024}))
    question = f"Tom is {'very ' * 390}hungry. He has 3 apples and buys 4. How many apples has he?"
    data = write_data(tmp_path / "data.jsonl", [{"prompt": question, "answer": "7"}])
    _, _, error = reinforce(folder, tmp_path / "trained", option, data)

    assert isinstance(error, CliError)
    assert str(error).startswith(f"{option}: question 1 has ")
    assert "remove long questions, or take another model" in str(error)
