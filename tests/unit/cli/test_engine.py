"""`r1plus engine`: what people type, what they are told, and what is left when it goes wrong."""

import subprocess
from pathlib import Path

import gguf
import pytest
import yaml
from typer.testing import CliRunner

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.main import app
from r1plus_contract.engine.delivery import digest_folder, hash_file
from r1plus_contract.engine.engine_fetch import Archive, FillOrder
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.engine_fetch.unpack import unpack
from r1plus_model_repo.engine_fetch.volume import fill_volume
from r1plus_model_repo.importing.gguf.model import read_model
from support.model_repo import gguf_files, tiny_gguf
from support.model_repo.exports import write_export
from support.tables import for_each


def run(*words: str | Path) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["engine", *map(str, words)])
    return done.exit_code, done.output, done.exception


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return gguf_files.write(tmp_path / "tiny.gguf")


def test_a_folder_is_imported_and_what_comes_next_is_told(tmp_path: Path, folder: Path) -> None:
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


def test_options_that_make_no_engine_are_named_as_they_were_typed(tmp_path: Path, folder: Path) -> None:
    words = ("import", folder, "--name", "bank", "--tier", "huge", "--parameters", "1", "--version", "1", "--out")
    _, _, error = run(*words, tmp_path / "engines")
    assert isinstance(error, UsageError)
    lines = str(error).splitlines()
    assert [line.split(":")[0] for line in lines] == ["--tier", "--version"]
    assert not (tmp_path / "engines").exists()


ATTENTION = ("--sparse-threshold", "0.9", "--evict", "32,128,1024")
LEFT_OUT = (
    "prompts are read sparsely (XAttention, threshold 0.9); the KV cache keeps 1024 tokens of a request while it"
    " generates"
)


def test_an_engine_that_leaves_tokens_out_says_so(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "engines"
    words = ("import", folder, "--name", "bank-lite", "--tier", "lite", "--parameters", "1000", "--out", out)
    status, told, _ = run(*words, *ATTENTION)
    assert status == 0
    assert f"Note: {LEFT_OUT}: a revision with it has a gate of its own" in told
    spec = yaml.safe_load((out / "bank-lite" / "engine.yaml").read_text())["spec"]
    assert spec["attention"] == {
        "sparse": {"threshold": 0.9},
        "eviction": {"startTokens": 32, "recentTokens": 128, "maxTokens": 1024},
    }


@for_each("options, words", {
    "a threshold that is dense": (("--sparse-threshold", "1"), "--sparse-threshold: Input should be less than"),
    "tokens that are no blocks": (("--evict", "32,100,1024"), "--evict: startTokens, recentTokens and maxTokens must be"),
    "more than is kept": (("--evict", "32,2048,1024"), "--evict: maxTokens must exceed startTokens + recentTokens"),
    "too few tokens": (("--evict", "0,128,1024"), "--evict: Input should be greater than or equal to 32"),
    "two numbers": (("--evict", "32,1024"), "--evict: '32,1024' is not START,RECENT,MAX in tokens, such as 32,512,2048"),
    "words": (("--evict", "a,b,c"), "--evict: 'a,b,c' is not START,RECENT,MAX"),
})  # fmt: skip
def test_what_cannot_be_left_out_is_named_by_its_option(
    tmp_path: Path, folder: Path, options: tuple[str, ...], words: str
) -> None:
    out = tmp_path / "engines"
    _, _, error = run("import", folder, "--name", "bank", "--tier", "lite", "--parameters", "1", "--out", out, *options)
    assert isinstance(error, UsageError)
    assert str(error).startswith(words)
    assert not out.exists()


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
    "what is there": (("--to", "Q8_0", "--out", "tiny.gguf"), "already exists"),
    "a folder that is not": (("--to", "Q8_0", "--out", "none/out.gguf"), "none is not a folder; create it first"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG.keys())
def test_quantising_says_what_is_wrong_with_the_options(
    tmp_path: Path, weights: Path, words: tuple[str, ...], message: str
) -> None:
    before = weights.read_bytes()
    _, _, error = run("quantize", weights, *words[:-1], tmp_path / words[-1])
    assert isinstance(error, UsageError) and message in str(error)
    assert weights.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


URL = "https://artifacts.bank.example/bank-lite.tar"


@pytest.fixture
def imported(tmp_path: Path, folder: Path) -> Path:
    """What `import` wrote."""
    out = tmp_path / "engines"
    assert run("import", folder, "--name", "bank-lite", "--tier", "lite", "--parameters", "1000", "--out", out)[0] == 0
    return out / "bank-lite"


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, str]:
    """A signing key, and the public one, as people make them."""
    private = tmp_path / "signing.pem"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private], check=True)
    public = subprocess.run(["openssl", "ec", "-in", private, "-pubout"], check=True, capture_output=True, text=True)
    return private, public.stdout


def test_an_engine_is_signed_packed_and_fetched_as_the_manifest_says(
    tmp_path: Path, imported: Path, key: tuple[Path, str]
) -> None:
    private, public = key
    assert run("sign", imported, "--key", private)[0] == 0
    status, told, _ = run("pack", imported, "--url", URL)
    assert status == 0
    assert "model.sig is missing" not in told
    (engine,) = load_catalog((imported / "engine.yaml").read_text())
    archive = engine.spec.files.archive
    assert archive is not None
    assert (archive.url, archive.sha256) == (URL, hash_file(imported / "bank-lite.tar"))
    order = FillOrder(engine.name, engine.spec.files.sha256, bytes_of(archive.size), Archive(URL, "0" * 64), (public,))
    (tmp_path / "volume").mkdir()

    def fetch(part: Path) -> None:
        with (imported / "bank-lite.tar").open("rb") as tar:
            unpack(tar, part, order.size)

    fill_volume(order, tmp_path / "volume", fetch, lambda _: None)
    assert digest_folder(tmp_path / "volume" / "engine") == engine.spec.files.sha256


def test_packing_again_gives_the_same_bytes_and_another_address(imported: Path) -> None:
    status, told, _ = run("pack", imported, "--url", URL)
    first = (imported / "bank-lite.tar").read_bytes()
    assert status == 0
    assert "model.sig is missing; r1plus engine sign makes it" in " ".join(told.split())
    assert run("pack", imported, "--url", f"{URL}?v=2")[0] == 0
    assert (imported / "bank-lite.tar").read_bytes() == first
    (engine,) = load_catalog((imported / "engine.yaml").read_text())
    assert engine.spec.files.source == f"{URL}?v=2"


@pytest.mark.parametrize(
    ("url", "why"), [("http://a.example/x", "should match pattern"), ("https://localhost/x", "this machine")]
)
def test_an_address_that_no_job_would_fetch_from_is_refused_and_nothing_is_left(
    imported: Path, url: str, why: str
) -> None:
    before = (imported / "engine.yaml").read_text()
    _, _, error = run("pack", imported, "--url", url)
    assert isinstance(error, CliError)
    assert f"--url {url}: " in str(error)
    assert why in str(error)
    assert (imported / "engine.yaml").read_text() == before
    assert not list(imported.glob("*.tar*"))


def test_what_is_no_engines_folder_is_neither_signed_nor_packed(tmp_path: Path, key: tuple[Path, str]) -> None:
    for words in (("sign", tmp_path, "--key", key[0]), ("pack", tmp_path, "--url", URL)):
        _, _, error = run(*words)
        assert isinstance(error, CliError)
        assert "r1plus engine import" in str(error)


def test_a_manifest_that_was_written_otherwise_is_left_alone(imported: Path) -> None:
    (imported / "engine.yaml").write_text("spec: {artifact: {image: a}}\n")
    _, _, error = run("pack", imported, "--url", URL)
    assert isinstance(error, CliError)
    assert "write" in str(error) and URL in str(error)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file whose vocabulary and merges are of one model, as a conversion needs it."""
    return tiny_gguf.write_model(tmp_path / "model.gguf", tiny_gguf.make_model("qwen2"))


def test_a_file_becomes_a_checkpoint_that_is_imported_for_gpus(tmp_path: Path, model: Path) -> None:
    status, told, _ = run("convert", model, "--out", tmp_path / "hf")
    assert status == 0 and f"{tmp_path / 'hf'}: sha256 of the weights " in told
    words = ("--backend", "vllm", "--name", "bank-full", "--tier", "full", "--out", tmp_path / "engines")
    status, told, _ = run("import", tmp_path / "hf", *words)
    assert status == 0 and "2 layers, 2 KV heads of 64" in told


def test_a_checkpoint_becomes_a_file_again_that_is_read_for_cpus(tmp_path: Path, model: Path) -> None:
    run("convert", model, "--out", tmp_path / "hf")
    status, told, _ = run("convert", tmp_path / "hf", "--out", tmp_path / "again.gguf")
    assert status == 0 and f"{tmp_path / 'again.gguf'}: " in told and " MiB" in told
    assert read_model(tmp_path / "again.gguf").precision == "FP16"


def test_distilling_without_torch_says_what_to_install(tmp_path: Path) -> None:
    _, _, error = run("distill", tmp_path, "--data", tmp_path / "data", "--layers", "3", "--out", tmp_path / "student")
    assert isinstance(error, CliError)
    assert str(error) == "torch is not installed, and distilling needs it; in a clone: pip install '.[cli,distil]'"


NOT_CONVERTED = {
    "another precision": (("--precision", "Q8_0", "--out", "hf"), "--precision: 'Q8_0' is not one of F16, F32"),
    "a folder that is not": (("--out", "none/hf"), "none is not a folder; create it first"),
    "what is there": (("--out", "model.gguf"), "already exists; remove it, or give another --out"),
}


@pytest.mark.parametrize(("words", "message"), NOT_CONVERTED.values(), ids=NOT_CONVERTED.keys())
def test_converting_says_what_is_wrong_with_the_options(
    tmp_path: Path, model: Path, words: tuple[str, ...], message: str
) -> None:
    _, _, error = run("convert", model, *words[:-1], tmp_path / words[-1])
    assert isinstance(error, CliError) and message in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_an_engine_is_not_made_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("mine")

    _, _, error = run("make", "qwen-lite-q8-0", "--out", tmp_path / "engines")

    assert isinstance(error, CliError)
    assert str(error) == f"--out: {tmp_path / 'engines'} is no folder; give one, or a name that is free"


def test_a_context_of_no_token_is_not_the_models_own(tmp_path: Path, folder: Path) -> None:
    words = ("import", folder, "--name", "bank", "--tier", "full", "--parameters", "1", "--context", "0", "--out")
    _, _, error = run(*words, tmp_path / "engines")
    assert isinstance(error, UsageError)
    assert str(error) == "--context: Input should be greater than or equal to 16 (got 0)"


def test_an_engine_that_is_not_shipped_is_refused_with_those_that_are(tmp_path: Path) -> None:
    _, _, error = run("make", "qwen-huge", "--out", tmp_path / "engines")
    assert isinstance(error, CliError)
    assert str(error).startswith(
        "'qwen-huge': is no shipped engine that can be made here; there are qwen-edge-smollm2-"
    )
    assert not (tmp_path / "engines").exists()
