"""What is read of a Hugging Face checkpoint: its window, its precision, its size; whatever config.json says."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.model import VLLM, Claims, SourceModel
from r1plus_model_repo.importing.readers import read_source
from r1plus_model_repo.kv_shape import KvShape
from support.model_repo.checkpoints import (
    CONFIG,
    LAYERS,
    Change,
    both,
    changed,
    checkpoint,
    elements,
    llama,
    with_biases,
    with_tensors,
    write_json,
)
from support.tables import for_each


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "Bank-8B")


QWEN2 = with_biases("self_attn", matrices=("q", "k", "v"))
WINDOWS: dict[str, tuple[dict[str, Any], tuple[int | None, int | None]]] = {
    "none": ({}, (None, None)),
    "null": ({"sliding_window": None, "use_sliding_window": True}, (None, None)),
    "on every layer": ({"model_type": "mistral", "sliding_window": 1024}, (1024, None)),
    "switched off": ({"sliding_window": 1024, "use_sliding_window": False}, (None, None)),
    "of Qwen, which has one only where it says so": ({"model_type": "qwen2", "sliding_window": 1024}, (None, None)),
    "on the layers from max_window_layers on": (
        {"model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": True, "max_window_layers": 1},
        (1024, 1),
    ),
    "on no layer": (
        {"model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": True, "max_window_layers": 28},
        (None, None),
    ),
    "as layer_types says": ({"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]}, (512, 1)),
    "layer_types before all else": (
        {"sliding_window": 512, "use_sliding_window": False, "layer_types": ["sliding_attention"] * 2},
        (512, None),
    ),
    "of full attention throughout": ({"sliding_window": 512, "layer_types": ["full_attention"] * 2}, (None, None)),
    "by pattern": ({"sliding_window": 512, "sliding_window_pattern": 2}, (512, 1)),
    "by the model type's own pattern, of which this is less than one": (
        {"model_type": "cohere2", "sliding_window": 512},
        (512, None),
    ),
}


@pytest.mark.parametrize(("config", "expected"), WINDOWS.values(), ids=WINDOWS.keys())
def test_the_window_and_who_keeps_all_tokens_are_read(
    folder: Path, config: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    changed("config.json", **{"torch_dtype": "float16", **config})(folder)
    if config.get("model_type") == "qwen2":
        with_tensors("model.safetensors", QWEN2)(folder)
    gpu = read_source(folder, Claims(), VLLM).gpu
    assert gpu is not None
    assert (gpu.window, gpu.global_layers) == expected


BIASED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "everywhere": ({"attention_bias": True, "mlp_bias": True}, with_biases("self_attn", "mlp")),
    "nowhere": ({"attention_bias": False, "mlp_bias": None}, with_biases()),
    "of the attention, as Smaug says it": ({"bias": True}, with_biases("self_attn")),
    "of all but the attention's output": ({"qkv_bias": True}, QWEN2),
    "of the MLP": ({"mlp_bias": True}, with_biases("mlp")),
    "of a Qwen2, which does not say so": ({"model_type": "qwen2"}, QWEN2),
    "of a Qwen3": ({"model_type": "qwen3", "attention_bias": True}, QWEN2),
}


@for_each("config, tensors", BIASED)
def test_biases_that_config_json_announces_are_read(
    folder: Path, config: dict[str, Any], tensors: dict[str, Any]
) -> None:
    changed("config.json", **config)(folder)
    with_tensors("model.safetensors", tensors)(folder)

    assert read_source(folder, Claims(), VLLM).parameters == elements(tensors)


NUMBERS: dict[str, dict[str, Any]] = {
    "a token that old checkpoints write as -1": {"pad_token_id": -1, "bos_token_id": 0, "eos_token_id": None},
    "several ends": {"eos_token_id": [1, 2]},
    "a base of positions for each layer": {"rope_theta": [10_000, 1e6]},
    "positions of a part of each head": {"partial_rotary_factor": 0.5},
    "positions by kind of layer": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}},
}


@pytest.mark.parametrize("config", NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_that_vllm_computes_with_are_taken(folder: Path, config: dict[str, Any]) -> None:
    changed("config.json", **config)(folder)
    assert read_source(folder, Claims(), VLLM).context_length == 4096


def facts(model: SourceModel) -> tuple[str, int, int]:
    return model.precision, model.parameters, model.weights_bytes


PLAIN = elements(llama())
INT4 = {
    f"model.layers.{n}.self_attn.k_proj.{part}": said
    for n in range(LAYERS)
    for part, said in {
        "qweight": ("I32", (4, 16)),
        "qzeros": ("I32", (1, 2)),
        "scales": ("F16", (1, 16)),
        "g_idx": ("I32", (32,)),
    }.items()
}
GPTQ = {"quant_method": "gptq", "bits": 4}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "config_groups": {"g": {"weights": {"type": "float", "num_bits": 8}}},
}
PRECISIONS: dict[str, tuple[Change, Claims, tuple[str, int, int], str]] = {
    "FP16": (with_tensors("model.safetensors", llama(dtype="F16")), Claims(), ("FP16", PLAIN, 2 * PLAIN), ""),
    "BF16": (lambda _: None, Claims(precision="FP16"), ("FP16", PLAIN, 2 * PLAIN), "in BF16 and are served in FP16"),
    "FP32": (
        with_tensors("model.safetensors", llama(dtype="F32")),
        Claims(parameters=PLAIN),
        ("FP16", PLAIN, 4 * PLAIN),
        "in FP32 and are served in FP16",
    ),
    "tied embeddings, once": (
        changed("config.json", tie_word_embeddings=True),
        Claims(),
        ("FP16", PLAIN - 64 * 32, 2 * (PLAIN - 64 * 32)),
        "",
    ),
    "INT4 of GPTQ": (
        both(changed("config.json", quantization_config=GPTQ), with_tensors("model.safetensors", INT4)),
        Claims(),
        ("INT4", 2 * 512, 2 * (256 + 8 + 32 + 128)),
        "counted from packed weights",
    ),
    "FP8 of compressed-tensors": (
        both(
            changed("config.json", quantization_config=COMPRESSED),
            with_tensors("model.safetensors", llama(dtype="F8_E4M3")),
        ),
        Claims(),
        ("FP8", PLAIN, PLAIN),
        "",
    ),
    "INT8, and more parameters than are counted": (
        both(
            changed("config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
            with_tensors("model.safetensors", llama(dtype="I8")),
        ),
        Claims(parameters=10**6),
        ("INT8", 10**6, PLAIN),
        "",
    ),
    "one that only its owner knows": (
        both(
            changed("config.json", quantization_config={"quant_method": "own"}),
            with_tensors("model.safetensors", llama(dtype="I8")),
        ),
        Claims(precision="OWN8"),
        ("OWN8", PLAIN, PLAIN),
        "",
    ),
}


@pytest.mark.parametrize(("change", "claims", "expected", "note"), PRECISIONS.values(), ids=PRECISIONS.keys())
def test_precision_parameters_and_size_are_those_of_what_is_served(
    folder: Path, change: Change, claims: Claims, expected: tuple[str, int, int], note: str
) -> None:
    change(folder)
    model = read_source(folder, claims, VLLM)
    assert facts(model) == expected
    assert note in " ".join(model.notes)


def test_of_experts_those_that_a_token_is_given_to_count(folder: Path) -> None:
    changed("config.json", num_experts_per_tok=3, moe_intermediate_size=40)(folder)
    gpu = read_source(folder, Claims(), VLLM).gpu
    assert gpu is not None
    assert gpu.intermediate == 120


def test_tensors_by_other_names_are_told_of(folder: Path) -> None:
    with_tensors("model.safetensors", {"transformer.h.0.attn": ("F16", (4, 4))})(folder)
    assert any("no tensor is named model.layers.N" in note for note in read_source(folder, Claims(), VLLM).notes)


def test_the_layers_that_predict_ahead_may_follow_the_model(folder: Path) -> None:
    changed("config.json", num_hidden_layers=1, num_nextn_predict_layers=1)(folder)
    assert read_source(folder, Claims(), VLLM).shape == KvShape(1, 2, 8)


@pytest.fixture(scope="module")
def whatever(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of which each example changes config.json alone."""
    return checkpoint(tmp_path_factory.mktemp("whatever") / "Bank-8B")


@pytest.mark.unit_long
@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "architectures",
                "auto_map",
                "head_dim",
                "intermediate_size",
                "layer_types",
                "max_position_embeddings",
                "max_window_layers",
                "model_type",
                "num_attention_heads",
                "num_experts_per_tok",
                "num_hidden_layers",
                "num_key_value_heads",
                "quantization_config",
                "sliding_window",
                "sliding_window_pattern",
                "tie_word_embeddings",
                "use_sliding_window",
            ]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_whatever_config_json_says_there_is_a_model_or_one_error(whatever: Path, said: dict[str, Any]) -> None:
    folder = whatever
    write_json(folder / "config.json", {**CONFIG, **said})
    try:
        model = read_source(folder, Claims(), VLLM)
    except WeightsError as error:
        assert str(error).startswith(f"{folder}: ")
    else:
        assert model.shape == KvShape(2, 2, 8)
