"""A checkpoint of R1+'s own architecture becomes an engine for the backend torch, or is refused without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.llama_architecture import MOST_CONTEXT
from r1plus_model_repo.config_pbtxt import parse_config, render_config
from r1plus_model_repo.importing.engine import import_engine
from r1plus_model_repo.importing.model import TORCH, Claims
from r1plus_model_repo.importing.package.manifest import ImportOptions
from r1plus_policies.engine.memory_fit import compute_fit
from support.model_repo.checkpoints import (
    HEAD_SIZE,
    HEADS,
    HIDDEN,
    INTERMEDIATE,
    KV_HEADS,
    LAYERS,
    Change,
    both,
    changed,
    checkpoint,
    elements,
    llama,
    loaded,
    refused,
    silent,
    with_tensors,
)
from support.tables import for_each

WISH = ImportOptions(name="r1-edge", tier="edge", family="r1", backend=TORCH)
WINDOW, SINKS, RANK = 128, 4, 4
OPTIONS: Mapping[str, Any] = {
    "window": WINDOW,
    "sinks": SINKS,
    "global_every": 2,
    "relative_bias": True,
    "span_ramp": 8,
    "active": 0.15,
    "predictor_rank": RANK,
}


def tensors(*, added: bool = True) -> dict[str, Any]:
    """Return the tensors of such a checkpoint; `added`: with those that R1+ adds to a Llama."""
    found: dict[str, Any] = {}
    for name, (dtype, shape) in llama().items():
        found[name] = (dtype, shape)
        if name.endswith("input_layernorm.weight"):
            prefix = name.removesuffix("input_layernorm.weight")
            found[f"{prefix}post_attention_layernorm.weight"] = (dtype, shape)
            if not added:
                continue
            if prefix.endswith(".0."):  # The second layer is global.
                found[f"{prefix}self_attn.relative_bias"] = (dtype, (HEADS, WINDOW + 1))
                found[f"{prefix}self_attn.spans"] = (dtype, (HEADS,))
            found[f"{prefix}mlp.predictor.down.weight"] = (dtype, (RANK, HIDDEN))
            found[f"{prefix}mlp.predictor.up.weight"] = (dtype, (INTERMEDIATE, RANK))
            found[f"{prefix}mlp.predictor.up.bias"] = (dtype, (INTERMEDIATE,))
    return found


OWN = both(
    changed("config.json", model_type="r1plus", architectures=["R1PlusForCausalLM"], r1plus=OPTIONS),
    with_tensors("model.safetensors", tensors()),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = checkpoint(tmp_path / "healed")
    OWN(made)
    return made


def test_the_engine_has_its_rings_and_the_parameters_that_triton_gets(tmp_path: Path, folder: Path) -> None:
    made = import_engine(folder, tmp_path / "out", WISH, Claims(), silent)
    spec = loaded(made.folder).spec
    shape = spec.architecture
    assert (spec.backend, spec.precision, spec.kv_precision) == ("torch", "FP32", None)
    assert (shape.window, shape.global_layers, shape.context_length) == (WINDOW + SINKS, 1, 4096)
    assert shape.parameters == elements(tensors())
    assert spec.files.sha256 == made.sha256 == digest_folder(made.folder / "engine")
    said = yaml.safe_load((made.folder / "engine.yaml").read_text())["spec"]
    assert said["batch"] == {"best": 1, "max": 8}
    assert said["requirements"]["runtime"] == {"min": "2.13"}
    assert any("15% of the neurons are active" in note and "batch.best is 1" in note for note in made.notes)
    fit = compute_fit(spec.shape, 3, 1000)
    token = 2 * 4 * KV_HEADS * HEAD_SIZE
    assert fit.kv_cache_bytes == 3 * token * (WINDOW + SINKS + 1000)
    config = parse_config(render_config(spec, batch=3, context=1000, kv_cache_bytes=fit.kv_cache_bytes))
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    assert parameters == {
        "backend": "torch",
        "engine_path": "/delivery/engine",
        "max_batch": "3",
        "context": "1000",
        "kv_cache_bytes": str(fit.kv_cache_bytes),
        "threads": "2",
    }


def test_a_llama_is_served_as_it_is(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "llama")
    with_tensors("model.safetensors", tensors(added=False))(folder)
    spec = loaded(import_engine(folder, tmp_path / "out", WISH, Claims(), silent).folder).spec
    assert (spec.architecture.window, spec.architecture.global_layers) == (None, None)
    assert (spec.batch.best, spec.batch.max) == (4, 8)
    assert spec.shape.slot_bytes(100) == 100 * 2 * 4 * LAYERS * KV_HEADS * HEAD_SIZE


def with_options(**options: Any) -> Change:
    return changed("config.json", r1plus={**OPTIONS, **options})


@for_each(
    "change, message",
    {
        "another architecture": (
            changed("config.json", model_type="qwen3"),
            "config.json: model_type: 'qwen3' is not llama or r1plus; use a Llama's checkpoint, as SmolLM2's",
        ),
        "what healing trains is missing": (
            with_tensors("model.safetensors", tensors(added=False)),
            "8 tensors are missing: model.layers.0.mlp.predictor.down.weight, ",
        ),
        "a window beyond the context": (
            with_options(window=4097),
            "config.json: r1plus.window: 4097 exceeds 4096, the longest sequence (max_position_embeddings)",
        ),
        "a window beyond all": (with_options(window=MOST_CONTEXT + 1), f"is more than {MOST_CONTEXT}"),
        "an unknown option": (with_options(depth=3), "config.json: r1plus.depth: no option of this version"),
        "no options": (changed("config.json", r1plus=None), "config.json: r1plus: None is not an object of options"),
        "a bias of another window": (
            with_options(window=64),
            "'model.layers.0.self_attn.relative_bias': shape [4, 129], and config.json says [4, 65]",
        ),
        "a tensor too many": (
            with_tensors("model.safetensors", {**tensors(), "model.layers.0.mlp.router.weight": ("BF16", (2, 2))}),
            "'model.layers.0.mlp.router.weight': this architecture has no such tensor",
        ),
        "positions that are scaled": (
            changed("config.json", rope_scaling={"rope_type": "llama3", "factor": 8.0}),
            "config.json: rope_scaling: rope_type 'llama3' is not computed here",
        ),
        "positions of a part of each head": (
            changed("config.json", partial_rotary_factor=0.5),
            "config.json: partial_rotary_factor: 0.5: positions turn all numbers of a head here; use another model",
        ),
        "windows of another architecture": (
            changed("config.json", layer_types=["sliding_attention", "full_attention"], sliding_window=512),
            "config.json: layer_types: ['sliding_attention', 'full_attention']: only full_attention is computed here",
        ),
        "an end that is a word": (
            changed("generation_config.json", eos_token_id="</s>"),
            "generation_config.json: eos_token_id: '</s>' is not the number of a token of the 64 tokens; get the file",
        ),
    },
)
def test_what_cannot_be_served_is_refused_with_field_and_remedy(folder: Path, change: Change, message: str) -> None:
    change(folder)
    assert message in refused(folder, WISH, Claims())


@for_each(
    "options, message",
    {
        "GPUs": ({"gpus": 1}, "spec.requirements.gpu.count: 1: the backend torch does not support it; omit it"),
        "a step": ({"max_num_tokens": 64}, "spec.build.maxNumTokens: 64: the backend torch does not support it"),
        "attention of openvino": ({"sparse_threshold": 0.9}, "attention is for the backend openvino"),
    },
)
def test_options_of_other_backends_are_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    wish = ImportOptions(name="r1-edge", tier="edge", family="r1", backend=TORCH, **options)
    assert message in refused(folder, wish, Claims())


def test_more_context_than_in_training_and_a_gguf_file_are_refused(folder: Path, tmp_path: Path) -> None:
    assert "--context: 5000 exceeds 4096" in refused(folder, WISH, Claims(context_length=5000))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert "--backend: torch: is a file; give a folder with a checkpoint of R1+'s" in refused(file, WISH, Claims())
