"""Checkpoints and plans of TensorRT-LLM that would not be built or served: each says what to do."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_model_repo.importing.model import TENSORRT_LLM, Claims
from r1plus_model_repo.importing.package.manifest import ImportOptions
from support.model_repo.checkpoints import (
    CONFIG,
    Change,
    both,
    changed,
    linked,
    moved,
    refused,
    rows,
    trtllm_checkpoint,
    trtllm_plan,
    with_file,
    without,
)

WISH = ImportOptions(name="bank-full", tier="full", family="bank", backend=TENSORRT_LLM)
BUILT = replace(WISH, gpu_products=("NVIDIA-L40S",))
KNOWN = Claims(parameters=12_200_000_000)
SETTINGS = "checkpoint/config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return trtllm_checkpoint(tmp_path / "Bank-12B")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return trtllm_plan(tmp_path / "Bank-12B-L40S")


def settings(message: str, **values: Any) -> tuple[Change, str]:
    """Return a checkpoint's settings with these values, and what is said of them."""
    return changed(SETTINGS, **values), f"{SETTINGS}: {message}"


WRONG: dict[str, tuple[Any, ...]] = {
    "no checkpoint": (
        moved("checkpoint", "other"),
        (
            "checkpoint/: missing, as is plan/; put the output of convert_checkpoint.py into checkpoint/, or that of"
            " trtllm-build into plan/, and the tokenizer into tokenizer/"
        ),
    ),
    "a Hugging Face checkpoint": (
        both(moved("checkpoint", "other"), with_file("config.json", json.dumps(CONFIG))),
        "; a Hugging Face checkpoint is converted with TensorRT-LLM's convert_checkpoint.py first",
    ),
    "a plan beside it": (
        lambda folder: (folder / "plan").mkdir(),
        "plan/: present together with checkpoint/; remove one of them",
    ),
    "no config.json": (without(SETTINGS), "checkpoint/config.json: missing; get the whole folder"),
    "no weights": (without("checkpoint/rank0.safetensors"), "checkpoint/rank0.safetensors: missing; get"),
    "weights cut short": (
        lambda folder: os.truncate(folder / "checkpoint" / "rank0.safetensors", 900),
        "checkpoint/rank0.safetensors: tensor ",
    ),
    "weights that are a link outside the folder": (
        linked("checkpoint/rank0.safetensors", "/etc/passwd"),
        "checkpoint/rank0.safetensors: is a link to /etc/passwd, outside the folder",
    ),
    "no tokenizer": (without("tokenizer/tokenizer.json"), "tokenizer/tokenizer.json: missing"),
    "no chat template": (without("tokenizer/chat_template.jinja"), "tokenizer/tokenizer_config.json: no chat template"),
    "a tokenizer of no class": (
        changed("tokenizer/tokenizer_config.json", tokenizer_class=None),
        "tokenizer/tokenizer_config.json: tokenizer_class: missing; add the model's config.json, which has it",
    ),
    "a tokenizer whose class is a program": (
        with_file("tokenizer/config.json", '{"auto_map": {"AutoTokenizer": "t.T"}}'),
        "tokenizer/config.json: auto_map: ",
    ),
    "an end that is a word": (
        changed("tokenizer/generation_config.json", eos_token_id=["</s>"]),
        "tokenizer/generation_config.json: eos_token_id: '</s>' is not the number of a token of the 64 tokens; get",
    ),
    "no token that ends an answer": (
        both(changed("tokenizer/tokenizer_config.json", eos_token=None), without("tokenizer/generation_config.json")),
        "tokenizer/tokenizer_config.json: eos_token: missing, so answers would not end; add the model's generation_config",
    ),
    "no architecture": settings("architecture: missing", architecture=None),
    "for two GPUs": settings(
        "mapping: world_size: 2: tensorrtllm is served on one GPU; convert it with --tp_size 1",
        mapping__world_size=2,
        mapping__tp_size=2,
    ),
    "computing in FP32": settings(
        "dtype: 'float32' is not one of float16, bfloat16; convert it with --dtype float16", dtype="float32"
    ),
    "a list of dtypes": settings("dtype: ['float16'] is not one of float16", dtype=["float16"]),
    "a cache in FP4": settings(
        "quantization: kv_cache_quant_algo: 'NVFP4' is not one of FP8, INT8; convert it with one",
        quantization__kv_cache_quant_algo="NVFP4",
    ),
    "a mixture nobody names": (
        changed(SETTINGS, quantization__quant_algo="MIXED_PRECISION"),
        "--precision: quantization: quant_algo: 'MIXED_PRECISION' does not name one precision; give what most weights are in",
    ),
    "another precision": (
        changed(SETTINGS, quantization__quant_algo="FP8"),
        "--precision: INT8 differs from the file, which has FP8",
        Claims(precision="INT8"),
    ),
    "a mapping that is a number": (changed(SETTINGS, mapping=1), "config.json: mapping: 1 is not an object"),
    "other layers than the tensors": settings(
        "num_hidden_layers: 3, the tensors are of 2; get the file again", num_hidden_layers=3
    ),
    "other heads than the tensors": settings(
        "num_key_value_heads: 4 of head_size 8, transformer.layers.0.attention.qkv.weight has shape [64, 32] instead of 96 rows",
        num_key_value_heads=4,
    ),
    "a context beyond the model's": (lambda _: None, "--context: 4097 exceeds 4096", Claims(4097)),
    "a context nobody tells": (
        changed(SETTINGS, max_position_embeddings=None),
        "--context: missing, and no config.json",
    ),
}


@pytest.mark.parametrize(("change", "message", "claims"), rows(WRONG, Claims()))
def test_a_checkpoint_that_cannot_be_served_is_refused_and_nothing_is_written(
    folder: Path, change: Change, message: str, claims: Claims
) -> None:
    change(folder)
    assert message in refused(folder, WISH, claims)


def built(message: str, **values: Any) -> tuple[Change, str]:
    """Return a plan's settings with these values, and what is said of them."""
    return changed("plan/config.json", **values), f"plan/config.json: {message}"


PLANS: dict[str, tuple[Any, ...]] = {
    "no plan": (without("plan/rank0.engine"), "plan/rank0.engine: missing; get the whole folder"),
    "another version": built(
        "version: '1.0.0': an engine only loads in the version that built it, and 1.2.1 is served; build",
        version="1.0.0",
    ),
    "for two GPUs": built("pretrained_config: mapping: world_size: 2", pretrained_config__mapping={"world_size": 2}),
    "prompts in one piece": (
        changed("plan/config.json", build_config__plugin_config={"use_paged_context_fmha": False}),
        "build_config: plugin_config.use_paged_context_fmha: false: reading prompts in chunks needs it; build it",
    ),
    "no settings of the build": built("build_config: max_batch_size: missing", build_config=None),
    "a context beyond what it was built for": (
        lambda _: None,
        "--context: 2049 exceeds 2048, what it was built for; give at most that",
        replace(KNOWN, context_length=2049),
    ),
    "parameters nobody tells": (
        lambda _: None,
        "--parameters: a built engine does not have it; give",
        Claims(),
    ),
}


@pytest.mark.parametrize(("change", "message", "claims"), rows(PLANS, KNOWN))
def test_a_plan_that_cannot_be_served_is_refused_and_nothing_is_written(
    plan: Path, change: Change, message: str, claims: Claims
) -> None:
    change(plan)
    assert message in refused(plan, BUILT, claims)


WISHES = {
    "no product": (
        WISH,
        "spec.requirements.gpu.products: missing, and a built engine only runs on the GPU that it was built for",
    ),
    "a batch beyond what it was built for": (
        replace(BUILT, max_batch=17),
        "spec.batch.max: 17 exceeds 16, what it was built for; give at most that",
    ),
    "tokens of a step, which it has already": (
        replace(BUILT, max_num_tokens=1024),
        "spec.build.maxNumTokens: the engine is already built; omit it",
    ),
    "two GPUs": (
        replace(BUILT, gpus=2),
        "spec.requirements.gpu.count: 2: tensorrtllm is served on one GPU; omit it, or use vllm",
    ),
}


@pytest.mark.parametrize(("wish", "message"), WISHES.values(), ids=WISHES.keys())
def test_a_wish_that_does_not_fit_the_plan_is_refused(plan: Path, wish: ImportOptions, message: str) -> None:
    assert message in refused(plan, wish, KNOWN)
