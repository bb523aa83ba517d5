"""What TensorRT-LLM's tools wrote becomes an engine: a checkpoint to build of, or a plan that is built already."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1plus_contract.engine.delivery import digest_folder
from r1plus_model_repo.importing.engine import import_engine
from r1plus_model_repo.importing.model import TENSORRT_LLM, Claims, SourceModel
from r1plus_model_repo.importing.package.manifest import ImportOptions
from r1plus_model_repo.importing.readers import read_source
from support.model_repo.checkpoints import (
    CONFIG,
    HIDDEN,
    INTERMEDIATE,
    TRTLLM,
    changed,
    elements,
    loaded,
    rows,
    silent,
    trtllm_checkpoint,
    trtllm_plan,
    trtllm_tensors,
    with_tensors,
    without,
    write_json,
)

WISH = ImportOptions(name="bank-full", tier="full", family="bank", backend=TENSORRT_LLM)
BUILT = replace(WISH, gpu_products=("NVIDIA-L40S",))
KNOWN = Claims(parameters=12_200_000_000)
TOKENIZER = {f"tokenizer/{n}" for n in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")}
QKV = "transformer.layers.1.attention.qkv.weight"
SETTINGS = "checkpoint/config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return trtllm_checkpoint(tmp_path / "Bank-12B")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return trtllm_plan(tmp_path / "Bank-12B-L40S")


def names(engine: Path) -> set[str]:
    return {path.relative_to(engine).as_posix() for path in engine.rglob("*") if path.is_file()}


def activations(tokens: int) -> str:
    return f"{-(-tokens * 2 * (2 * HIDDEN + 3 * INTERMEDIATE) // 2**20)}Mi"


def test_a_checkpoint_becomes_an_engine_that_a_job_builds(tmp_path: Path, folder: Path) -> None:
    (folder / "checkpoint" / "rank1.safetensors").write_bytes(b"not taken")
    (folder / "tokenizer" / "run.py").write_bytes(b"not taken")
    made = import_engine(folder, tmp_path / "out", WISH, Claims(), silent)
    files = made.folder / "engine"
    weights = {"checkpoint/config.json", "checkpoint/rank0.safetensors"}
    assert names(files) == {*weights, *TOKENIZER, "tokenizer/generation_config.json", "engine.json"}
    engine = loaded(made.folder)
    assert engine.spec.files.sha256 == made.sha256 == digest_folder(files)
    said = yaml.safe_load((made.folder / "engine.yaml").read_text())["spec"]
    assert (said["backend"], said["precision"], said["build"]) == ("tensorrtllm", "FP16", {"maxNumTokens": 8192})
    assert said["architecture"] == {
        "layers": 2,
        "kvHeads": 2,
        "headSize": 8,
        "contextLength": 4096,
        "parameters": elements(trtllm_tensors()),
    }
    assert said["requirements"] == {
        "cpu": "2",
        "cpuRequest": "1",
        "weightsMemory": "1Mi",
        "runtimeMemory": "972Mi",
        "activationMemory": activations(8192),
        "gpu": {"count": 1, "minCapability": "8.0"},
        "runtime": {"min": "1.2.1", "max": "1.2.1"},
    }
    assert said["batch"] == {"best": 32, "max": 64}
    assert json.loads((files / "engine.json").read_text())["format"] == "trtllm-checkpoint"
    assert (files / "checkpoint").stat().st_mode & 0o777 == 0o755
    assert (files / "checkpoint" / "rank0.safetensors").samefile(folder / "checkpoint" / "rank0.safetensors")


def test_the_tokens_of_a_step_size_the_activations(tmp_path: Path, folder: Path) -> None:
    spec = loaded(
        import_engine(folder, tmp_path / "out", replace(WISH, max_num_tokens=65536), Claims(), silent).folder
    ).spec
    assert spec.build is not None and spec.build.max_num_tokens == 65536
    assert spec.requirements.activation_memory == activations(65536)


def test_a_plan_becomes_an_engine_for_the_gpu_that_it_was_built_for(tmp_path: Path, plan: Path) -> None:
    made = import_engine(plan, tmp_path / "out", BUILT, KNOWN, silent)
    files = made.folder / "engine"
    assert {"plan/config.json", "plan/rank0.engine", "engine.json"} < names(files)
    said = yaml.safe_load((made.folder / "engine.yaml").read_text())["spec"]
    assert "build" not in said
    assert said["requirements"]["gpu"] == {"count": 1, "products": ["NVIDIA-L40S"], "minCapability": "8.0"}
    assert said["requirements"]["runtime"] == {"min": "1.2.1", "max": "1.2.1"}
    assert (said["requirements"]["weightsMemory"], said["requirements"]["activationMemory"]) == (
        "3Mi",
        activations(4096),
    )
    assert said["architecture"]["contextLength"] == 2048
    assert said["architecture"]["parameters"] == 12_200_000_000
    assert said["batch"] == {"best": 16, "max": 16}
    assert loaded(made.folder).spec.files.sha256 == made.sha256 == digest_folder(files)
    assert (files / "plan" / "rank0.engine").samefile(plan / "plan" / "rank0.engine")


READ: dict[str, tuple[Any, ...]] = {
    "BF16": ({"dtype": "bfloat16"}, {"precision": "BF16"}),
    "heads as many as queries": ({"num_key_value_heads": None, "num_attention_heads": 2, "head_size": 16}, {}),
    "no head size": ({"head_size": None}, {"head_size": 8}),
    "no intermediate size": ({"intermediate_size": None}, {"intermediate": 4 * HIDDEN}),
    "no mapping": ({"mapping": None}, {}),
    "no quantisation": ({"quantization": None}, {"precision": "FP16", "kv_precision": None}),
    "FP8 with a cache in FP8": (
        {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}},
        {"precision": "FP8", "kv_precision": "FP8"},
    ),
    "INT4 with a cache in INT8": (
        {"quantization": {"quant_algo": "W4A16_AWQ", "kv_cache_quant_algo": "INT8"}},
        {"precision": "INT4", "kv_precision": "INT8"},
    ),
    "INT8": ({"quantization__quant_algo": "W8A16"}, {"precision": "INT8"}),
    "a mixture, which somebody names": (
        {"quantization__quant_algo": "MIXED_PRECISION"},
        {"precision": "INT4"},
        Claims(precision="INT4"),
    ),
    "parameters that somebody knows better": (
        {"quantization__quant_algo": "W4A16"},
        {"parameters": 10**9},
        Claims(parameters=10**9),
    ),
    "a window on every other layer": (
        {"sliding_window": 512, "sliding_window_pattern": 2},
        {"window": 512, "global_layers": 1, "context_length": 4096},
    ),
    "a window that bounds the context": ({"sliding_window": 512}, {"window": None, "context_length": 512}),
    "a window longer than what is asked for": ({"sliding_window": 512}, {"context_length": 256}, Claims(256)),
    "no context, which somebody gives": ({"max_position_embeddings": None}, {"context_length": 1024}, Claims(1024)),
}


@pytest.mark.parametrize(("config", "expected", "claims"), rows(READ, Claims()))
def test_the_checkpoint_says_what_it_is(
    folder: Path, config: dict[str, Any], expected: dict[str, Any], claims: Claims
) -> None:
    changed(SETTINGS, **config)(folder)
    if "num_attention_heads" in config:
        tensors = {k: ("F16", (96, HIDDEN)) if "qkv" in k else v for k, v in trtllm_tensors().items()}
        with_tensors("checkpoint/rank0.safetensors", tensors)(folder)
    model = read_source(folder, claims, TENSORRT_LLM)
    assert {key: said(model, key) for key in expected} == expected


def said(model: SourceModel, key: str) -> object:
    for place in (model, model.gpu, model.shape):
        if hasattr(place, key):
            return getattr(place, key)
    raise KeyError(key)


def test_a_tokenizer_without_generation_config_is_told_of(folder: Path) -> None:
    without("tokenizer/generation_config.json")(folder)
    assert any(
        "only the tokenizer's own is known" in note for note in read_source(folder, Claims(), TENSORRT_LLM).notes
    )


def test_a_tokenizer_may_have_its_class_from_the_models_config(tmp_path: Path, folder: Path) -> None:
    changed("tokenizer/tokenizer_config.json", tokenizer_class=None)(folder)
    write_json(folder / "tokenizer" / "config.json", CONFIG)
    made = import_engine(folder, tmp_path / "out", WISH, Claims(), silent)
    assert "tokenizer/config.json" in names(made.folder / "engine")


def test_the_settings_of_a_mixture_come_along(tmp_path: Path, folder: Path) -> None:
    changed(SETTINGS, quantization__quant_algo="MIXED_PRECISION")(folder)
    write_json(folder / "checkpoint" / "quant_cfg.json", {"quantized_layers": {}})
    made = import_engine(folder, tmp_path / "out", WISH, Claims(precision="INT4"), silent)
    assert "checkpoint/quant_cfg.json" in names(made.folder / "engine")


def test_weights_that_are_transposed_when_quantised_are_not_held_against_the_heads(folder: Path) -> None:
    write_json(folder / SETTINGS, {**TRTLLM, "quantization": {"quant_algo": "W8A16"}})
    tensors = trtllm_tensors() | {QKV: ("I8", (HIDDEN, 64))}
    with_tensors("checkpoint/rank0.safetensors", tensors)(folder)
    assert read_source(folder, Claims(), TENSORRT_LLM).precision == "INT8"
