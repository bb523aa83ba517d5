"""`r1plus engine import --kind embedding`: from a sentence-transformers model to a manifest, and options that do not fit."""

from pathlib import Path

from typer.testing import CliRunner

from r1plus_cli.main import app
from r1plus_contract.engine.delivery import digest_folder
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_model_repo.catalog.loader import load_all_engines
from support.embedding.tiny_model import write_model
from support.tables import for_each


def run(*words: str | Path) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, [*map(str, words)])
    return done.exit_code, done.output, done.exception


def test_it_is_imported_and_valid(tmp_path: Path) -> None:
    model, out = write_model(tmp_path / "model"), tmp_path / "engines"
    status, said, _ = run("engine", "import", model, "--kind", "embedding", "--name", "bank-embed", "--out", out)
    assert status == 0, said
    made = out / "bank-embed"
    assert f"podman build -t r1plus.local/engine-bank-embed:1.0.0 {made}" in said
    (engine,) = load_all_engines(made / "engine.yaml")
    assert isinstance(engine, EmbeddingEngine)
    assert (engine.spec.family, engine.spec.artifact.sha256) == ("bank", digest_folder(made / "engine"))
    status, said, _ = run("validate", "-f", made / "engine.yaml")
    assert status == 0
    assert "bank-embed: valid" in said


@for_each(
    "options, words",
    {
        "a tier": (("--kind", "embedding", "--tier", "full"), "--tier: not for --kind embedding"),
        "a suite": (("--kind", "embedding", "--suite", "s"), "--suite: not for --kind embedding"),
        "a GPU's backend": (("--kind", "embedding", "--backend", "vllm"), "--backend: not for --kind embedding"),
        "no tier of an engine that answers prompts": ((), "--tier: missing"),
        "an unknown kind": (("--kind", "chat"), "'chat' is not one of generation, embedding"),
        "a version that is none": (("--kind", "embedding", "--version", "1"), "--version"),
    },
)
def test_an_option_that_does_not_fit_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    model = write_model(tmp_path / "model")
    status, _, error = run("engine", "import", model, "--name", "bank", "--out", tmp_path / "out", *options)
    assert status != 0
    assert words in str(error)
    assert not (tmp_path / "out" / "bank").exists()


def test_a_folder_of_another_kind_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    options = ("--kind", "embedding", "--name", "bank", "--out", tmp_path / "out")
    status, _, error = run("engine", "import", tmp_path / "model", *options)
    assert status != 0
    assert "get a sentence-transformers model of the BERT family" in str(error)
