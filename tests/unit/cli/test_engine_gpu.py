"""`r1plus engine import --backend`: from a checkpoint to what `r1plus fit` and `validate` say of the engine."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.main import app
from r1plus_contract.engine.delivery import digest_folder
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.catalog.types import VLLM_ON_CPU
from support.model_repo.checkpoints import changed, checkpoint, trtllm_checkpoint, trtllm_plan, without


def run(*words: str | Path) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, [*map(str, words)])
    return done.exit_code, done.output, done.exception


def words(source: Path, backend: str, out: Path) -> tuple[str | Path, ...]:
    who = ("--name", "bank-full", "--tier", "full", "--out", out)
    return ("engine", "import", source, "--backend", backend, *who)


MADE = {
    "a Hugging Face checkpoint": (checkpoint, "vllm", ("--gpus", "2", "--context", "2048")),
    "a checkpoint of TensorRT-LLM": (trtllm_checkpoint, "tensorrtllm", ("--max-num-tokens", "4096")),
    "a plan": (trtllm_plan, "tensorrtllm", ("--gpu-product", "NVIDIA-L40S", "--parameters", "12000")),
}


@pytest.mark.parametrize(("make", "backend", "options"), MADE.values(), ids=MADE.keys())
def test_it_is_imported_valid_and_sized(
    tmp_path: Path, make: Callable[[Path], Path], backend: str, options: tuple[str, ...]
) -> None:
    out = tmp_path / "engines"
    status, told, _ = run(*words(make(tmp_path / "source"), backend, out), *options)
    assert status == 0, told
    made = out / "bank-full"
    assert f"podman build -t r1plus.local/engine-bank-full:1.0.0 {made}" in told
    (engine,) = load_catalog(made)
    assert engine.spec.files.sha256 == digest_folder(made / "engine")
    assert f"sha256 {engine.spec.files.sha256}" in told
    status, told, _ = run("validate", "-f", made / "engine.yaml")
    assert status == 0 and "bank-full: valid" in told
    status, told, _ = run("fit", "--engine", "bank-full", "--catalog", made, "--gpu", "L40S", "-o", "json")
    assert status == 0, told
    answer = json.loads(told)
    assert answer["fits"] is True
    assert answer["maxBatch"] == engine.spec.batch.best


def test_without_gpus_vllm_serves_it_on_cpu_in_32_bits(tmp_path: Path) -> None:
    out, source = tmp_path / "engines", checkpoint(tmp_path / "source")
    status, told, _ = run(*words(source, "vllm", out), "--gpus", "0", "--context", "2048", "--cpu", "8")
    assert status == 0, told
    assert "are served in FP32" in told
    made = out / "bank-full"
    (engine,) = load_catalog(made)
    needs = engine.spec.requirements
    assert (engine.spec.runtime, engine.spec.precision, needs.gpu, needs.cpu) == (VLLM_ON_CPU, "FP32", None, "8")
    assert bytes_of(needs.weights_memory) >= 4 * engine.spec.architecture.parameters
    assert needs.runtime is not None
    assert needs.runtime.min == "0.32"
    assert "images.cpu.vllm" in (made / "engine.yaml").read_text()
    assert run("validate", "-f", made / "engine.yaml")[0] == 0
    status, told, _ = run("fit", "--engine", "bank-full", "--catalog", made, "--memory", "8Gi", "-o", "json")
    assert (status, json.loads(told)["fits"]) == (0, True)


def test_what_is_packed_says_where_it_is(tmp_path: Path) -> None:
    assert run(*words(trtllm_checkpoint(tmp_path / "source"), "tensorrtllm", tmp_path / "engines"))[0] == 0
    made = tmp_path / "engines" / "bank-full"
    url = "https://artifacts.bank.example/bank-full.tar"
    assert run("engine", "pack", made, "--url", url)[0] == 0
    (engine,) = load_catalog(made)
    assert engine.spec.files.source == url


def test_options_are_named_as_they_were_typed(tmp_path: Path) -> None:
    out = tmp_path / "engines"
    plan = trtllm_plan(tmp_path / "plan")
    _, _, error = run(*words(plan, "tensorrtllm", out), "--parameters", "1", "--max-batch", "99", "--version", "1")
    assert isinstance(error, UsageError)
    assert [line.split(":")[0] for line in str(error).splitlines()] == ["--gpu-product", "--max-batch", "--version"]
    _, _, error = run(*words(checkpoint(tmp_path / "c"), "vllm", out), "--gpu-product", "no label", "--gpus", "-1")
    assert isinstance(error, UsageError)
    assert {line.split(":")[0] for line in str(error).splitlines()} == {"--gpu-product", "--gpus"}
    assert not out.exists()


OTHERWISE = {
    "a backend that serves nothing": (("--backend", "tensorrt"), "--backend: 'tensorrt' is not one of openvino, vllm,"),
    "GPUs of a CPU": (("--gpus", "2"), "--gpus: 2: the backend openvino does not support it; omit it"),
    "products of a CPU": (
        ("--gpu-product", "NVIDIA-L40S"),
        "--gpu-product: ('NVIDIA-L40S',): the backend openvino does",
    ),
    "steps of vLLM": (
        ("--backend", "vllm", "--max-num-tokens", "1"),
        "--max-num-tokens: 1: the backend vllm does not support it",
    ),
    "two GPUs of TensorRT-LLM": (
        ("--backend", "tensorrtllm", "--gpus", "2"),
        "--gpus: 2: tensorrtllm is served on one",
    ),
}


@pytest.mark.parametrize(("options", "message"), OTHERWISE.values(), ids=OTHERWISE.keys())
def test_options_that_the_backend_does_not_know_are_refused(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    source = checkpoint(tmp_path / "source")
    who = ("--name", "bank", "--tier", "full", "--out", tmp_path / "engines")
    _, _, error = run("engine", "import", source, *who, *options)
    assert isinstance(error, UsageError)
    assert str(error).startswith(message)


def test_a_checkpoint_is_not_converted_for_the_cpu_and_the_way_to_a_gpu_is_told(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    _, _, error = run(*words(source, "openvino", tmp_path / "engines"))
    assert isinstance(error, CliError)
    assert "is a Hugging Face checkpoint, and the backend openvino serves OpenVINO IR" in str(error)
    assert "optimum-cli export openvino" in str(error)
    assert "--backend vllm" in str(error)


def test_every_problem_of_a_checkpoint_is_a_line_and_nothing_is_left(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    without("tokenizer.json")(source)
    changed("config.json", num_hidden_layers=0)(source)
    _, _, error = run(*words(source, "vllm", tmp_path / "engines"))
    assert isinstance(error, CliError)
    assert [line.split(": ")[1] for line in str(error).splitlines()] == ["config.json", "tokenizer.json"]
    assert not (tmp_path / "engines").exists()


def test_the_help_teaches_both_backends() -> None:
    _, told, _ = run("engine", "import", "--help")
    for word in ("vllm", "tensorrtllm", "--gpu-product", "--max-num-tokens", "convert_checkpoint.py", "safetensors"):
        assert word in told
