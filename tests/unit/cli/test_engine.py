"""`r1plus engine`: what people type, what they are told, and what is left when it goes wrong."""

from pathlib import Path

import gguf
import pytest
from typer.testing import CliRunner

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.main import app
from unit.model_repo import gguf_files
from unit.model_repo.test_import_engine import folder  # noqa: F401 - a fixture


def run(*words: str | Path) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["engine", *map(str, words)])
    return done.exit_code, done.output, done.exception


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return gguf_files.write(tmp_path / "tiny.gguf")


def test_a_folder_is_imported_and_what_comes_next_is_told(tmp_path: Path, folder: Path) -> None:  # noqa: F811
    out = tmp_path / "engines"
    words = ("import", folder, "--name", "bank-lite", "--tier", "lite", "--parameters", "1000", "--out", out)
    status, told, _ = run(*words)
    assert status == 0
    assert "2 layers, 3 KV heads of 64" in told
    assert f"podman build -t r1plus.local/engine-bank-lite:1.0.0 {out / 'bank-lite'}" in told
    assert f"kubectl apply -f {out / 'bank-lite' / 'engine.yaml'}" in told
    assert "Note: openvino_tokenizer.xml" in told
    again = CliRunner().invoke(app, ["validate", "-f", str(out / "bank-lite" / "engine.yaml")])
    assert again.exit_code == 0 and "bank-lite: valid" in again.output


def test_options_that_make_no_engine_are_named_as_they_were_typed(tmp_path: Path, folder: Path) -> None:  # noqa: F811
    words = ("import", folder, "--name", "bank", "--tier", "huge", "--parameters", "1", "--version", "1", "--out")
    _, _, error = run(*words, tmp_path / "engines")
    assert isinstance(error, UsageError)
    lines = str(error).splitlines()
    assert [line.split(":")[0] for line in lines] == ["--tier", "--version"]
    assert not (tmp_path / "engines").exists()


def test_a_file_that_is_none_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"")
    _, _, error = run("import", tmp_path / "x.gguf", "--name", "x", "--tier", "lite", "--out", tmp_path / "engines")
    assert isinstance(error, CliError)
    assert str(error).startswith(f"{tmp_path / 'x.gguf'}: magic: the file has 0 bytes; ")
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize("precision", ["F16", "Q8_0", "Q4_0", "Q4_1"])
def test_a_file_is_quantised(tmp_path: Path, weights: Path, precision: str) -> None:
    status, told, _ = run("quantize", weights, "--to", precision, "--out", tmp_path / "out.gguf")
    assert status == 0 and "sha256" in told
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert kinds == {precision, "F32"}


WRONG = {
    "another precision": (("--to", "Q5_K", "--out", "out.gguf"), "--to: 'Q5_K' is not one of F16, Q8_0, Q4_0, Q4_1"),
    "what is there": (("--to", "Q8_0", "--out", "tiny.gguf"), "is there already"),
    "a folder that is not": (("--to", "Q8_0", "--out", "none/out.gguf"), "none is no folder; make it first"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG.keys())
def test_quantising_says_what_is_wrong_with_the_options(
    tmp_path: Path, weights: Path, words: tuple[str, ...], message: str
) -> None:
    before = weights.read_bytes()
    _, _, error = run("quantize", weights, *words[:-1], tmp_path / words[-1])
    assert isinstance(error, UsageError) and message in str(error)
    assert weights.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
