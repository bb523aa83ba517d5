"""`r1plus engine export`: folders that other libraries open, and that answer as their engine; what is refused."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from r1plus_cli.errors import CliError
from r1plus_cli.main import app
from r1plus_contract.suites.suite import Item
from r1plus_export.export import RECORD_FILE
from r1plus_export.targets import TARGETS
from r1plus_model_repo.importing.huggingface.safetensors_header import read_tensors
from r1plus_monitoring.curate import record
from support.exports.tiny_engine import SUITE, TinyEngine, write_weights
from support.tables import for_each
from support.waiting import wait_until

pytestmark = [pytest.mark.exports, pytest.mark.timeout(3600)]
each_target = pytest.mark.parametrize("target", sorted(TARGETS))


def run(*words: Any) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["engine", "export", *map(str, words)])
    return done.exit_code, done.output, done.exception


def export(tiny: TinyEngine, target: str, out: Path, *words: Any) -> tuple[int, str, BaseException | None]:
    needed = ("--weights", tiny.weights, "--suite", tiny.suite, "--items", 20)
    return run(tiny.folder, "--to", target, "--out", out, *needed, *words)


@each_target
def test_a_folder_answers_as_its_engine(tiny: TinyEngine, tmp_path: Path, target: str) -> None:
    out = tmp_path / "out"
    status, output, error = export(tiny, target, out, "--precision", "F32")

    assert status == 0, (output, error)
    assert "answered 20 of 20" in output
    assert f"{SUITE}: 20 of 20 right, the engine 20 (asked), " in output
    sample = json.loads((out / RECORD_FILE).read_text())["sample"]
    assert (sample["items"], sample["engine_correct"], sample["export_correct"]) == (20, 20, 20)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@each_target
def test_an_export_that_answers_worse_is_refused_with_figures(
    tiny: TinyEngine, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are exchanged after their digest was compared."""
    other = write_weights(tmp_path / "other.gguf", sign=-1)
    monkeypatch.setattr("r1plus_export.source._find_weights", lambda *_: other)
    _, _, error = export(tiny, target, tmp_path / "out", "--precision", "F32")

    assert isinstance(error, CliError)
    assert f"--to {target}: " in str(error) and f"of 20 items of {SUITE} are right, and 20 of bank-edge" in str(error)
    assert "lost: q-0" in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


def write_suite(
    folder: Path, tiny: TinyEngine, family: str = "bank", answer: str | None = None, **sampling: Any
) -> Path:
    """Write the suite with another family, other answers or another sampling."""
    suite = record.read_suite(tiny.suite)
    items = [
        Item(one.id, one.stratum, one.prompt, one.scorer, (answer,) if answer else one.answers) for one in suite.items
    ]
    settings = type(suite.header.sampling)(**({"max_new_tokens": 12} | sampling))
    name, engine = (SUITE, "bank-edge") if family == "bank" else (f"{family}-v1", f"{family}-edge")
    record.write_suite(folder, record.build_header(name, "edge", "-", engine, settings, items, family), items)
    return folder


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no such target": (("--to", "coreml"), "--to: 'coreml' is not one of hf"),
    "a precision that the target lacks": (("--precision", "Q4_0"), "--precision: 'Q4_0': --to hf is written in F16 or"),
    "few items": (("--items", "3"), "--items: 3 is not at least 10"),
    "an output folder that is there": (("--out", "."), "--out: . already exists"),
    "no folder for it": (("--out", "none/out"), "none is not a folder; create it first"),
    "weights of another engine": (("--weights", __file__), f"--weights: sha256 of {__file__} is "),
    "no weights": (("--weights", "none.gguf"), "--weights: none.gguf is no file"),
    "no suite": (("--suite", "none"), "none: neither a folder nor a manifest"),
}


@for_each("words, message", REFUSED)
def test_it_is_refused_with_remedy(tiny: TinyEngine, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    _, output, error = export(tiny, "hf", tmp_path / "out", *words)

    assert isinstance(error, CliError), output
    assert message in str(error)
    assert not list(tmp_path.iterdir())


SUITES: dict[str, tuple[dict[str, Any], str]] = {
    "of another engine": ({"family": "other"}, "other-v1 is a suite of the family other, and bank-edge is of bank"),
    "that samples": ({"temperature": 0.7}, "sampling.temperature: 0.7, and an export is asked greedily"),
    "of which the engine knows nothing": (
        {"answer": "Stockholm"},
        "has none of 20 items right, so no loss could be seen",
    ),
}


@for_each("changes, message", SUITES)
def test_a_suite_is_refused(tiny: TinyEngine, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    _, output, error = export(tiny, "hf", tmp_path / "out", "--suite", write_suite(tmp_path / "suite", tiny, **changes))

    assert isinstance(error, CliError), output
    assert message in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["suite"]


def test_a_disk_without_room_is_named_before_anything_is_made(
    tiny: TinyEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r1plus_export.export.shutil.disk_usage", lambda _: Free())
    _, _, error = export(tiny, "hf", tmp_path / "out")

    assert "has 1 MiB free, and the export takes up to" in str(error)
    assert not list(tmp_path.iterdir())


class Free:
    """A disk's usage."""

    free = 2**20


def test_an_interrupted_export_leaves_nothing(tiny: TinyEngine, tmp_path: Path) -> None:
    words = ["--weights", tiny.weights, "--suite", tiny.suite, "--items", "20", "--to", "hf", "--out", tmp_path / "out"]
    program = "from r1plus_cli.main import main; main()"
    command = [sys.executable, "-c", program, "engine", "export", tiny.folder, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "asking the export" in line:
                child.send_signal(signal.SIGTERM)
                break
        child.stderr.read()
    assert child.returncode != 0
    assert not list(tmp_path.iterdir())


def test_an_export_that_is_interrupted_while_its_folder_is_made_leaves_nothing(
    tiny: TinyEngine, tmp_path: Path
) -> None:
    """The process that makes it is killed, and cannot clean up."""
    words = ["--weights", tiny.weights, "--suite", tiny.suite, "--items", "20", "--to", "onnx"]
    program = "from r1plus_cli.main import main; main()"
    command = [sys.executable, "-c", program, "engine", "export", tiny.folder, *words, "--out", tmp_path / "out"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: any(tmp_path.rglob("*cache-*")) or child.poll() is not None, "the builder's cache", 600)
        child.send_signal(signal.SIGTERM)
    assert child.returncode != 0
    assert not list(tmp_path.iterdir())


def test_the_folder_for_transformers_is_in_the_precision_that_was_asked_for(tiny: TinyEngine, tmp_path: Path) -> None:
    for precision in ("F16", "F32"):
        status, output, error = export(tiny, "hf", tmp_path / precision, "--precision", precision)
        assert status == 0, (output, error)
        tensors = read_tensors(tmp_path / precision / "model.safetensors")
        assert {one.dtype for one in tensors.values()} == {precision}


@each_target
def test_a_real_engine_keeps_its_score(tmp_path: Path, target: str, figures: list[dict[str, Any]]) -> None:
    began = time.monotonic()
    status, output, error = run("smollm2-full-f16", "--to", target, "--out", tmp_path / "out", "--items", 53)
    seconds = time.monotonic() - began

    assert status == 0, (output, error)
    sample = json.loads((tmp_path / "out" / RECORD_FILE).read_text())["sample"]
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    figures.append({"target": target, "bytes": size, "seconds": round(seconds, 1), **sample})
    assert sample["engine_correct"] >= 52
