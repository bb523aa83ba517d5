"""The tensors that a plain decoder must have: vLLM and a GGUF reader do not miss each one, and would answer wrongly."""

from collections.abc import Mapping
from typing import Final

from r1plus_contract.engine.llama_architecture import R1PLUS, LlamaArchitecture, LlamaShape, list_shapes
from r1plus_model_repo.importing.folder_files import CONFIG, Values
from r1plus_model_repo.importing.huggingface.config import HfShape
from r1plus_model_repo.importing.huggingface.safetensors_header import Tensor
from r1plus_model_repo.importing.model import ImportFindings

PLAIN: Final = ("llama", "mistral", "qwen2", "qwen3")
"""Model types with a Llama's matrices and norms; some have further ones."""
EMBEDDINGS: Final = "model.embed_tokens.weight"
_QKV: Final = frozenset({"q_proj", "k_proj", "v_proj"})
_OUTPUT: Final = frozenset({"o_proj"})
_MLP: Final = frozenset({"gate_proj", "up_proj", "down_proj"})
_BIAS_FIELDS: Final = ("attention_bias", "mlp_bias", "qkv_bias", "bias")
"""Of config.json. vLLM reads the last two as well, of a Llama."""
_BIAS: Final = ".bias"
MOST_TOLD: Final = 3


def check_expected_tensors(
    shape: HfShape, config: Values, tensors: Mapping[str, Tensor], findings: ImportFindings
) -> None:
    """Check that a plain decoder, which is not quantised, has its matrices, norms and biases as config.json says."""
    fields = config.fields
    is_other = any(fields.get(key) is not None for key in ("quantization_config", "num_experts_per_tok", R1PLUS))
    if is_other or fields.get("model_type") not in PLAIN:
        return
    stored_rows = tensors[EMBEDDINGS].shape[0] if EMBEDDINGS in tensors and tensors[EMBEDDINGS].shape else 0
    llama = LlamaShape(
        vocabulary=config.get_int("vocab_size", 1, 2**30, stored_rows),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        context=shape.context,
        norm_epsilon=1e-6,
        rope_theta=10_000.0,
        has_tied_embeddings=shape.has_tied_embeddings,
        has_attention_bias=True,
        has_mlp_bias=True,
    )
    biased = _list_biased(config)
    expected = {
        name: one
        for name, one in list_shapes(llama, LlamaArchitecture()).items()
        if not name.endswith(_BIAS) or name.split(".")[-2] in biased
    }
    problems = find_tensor_problems(expected, tensors) + _find_unexpected_biases(expected, tensors)
    findings.problems += problems[:MOST_TOLD]


def _list_biased(config: Values) -> frozenset[str]:
    """Return the matrices of a layer to which vLLM adds a bias."""
    fields = config.fields
    for field in _BIAS_FIELDS:
        if fields.get(field) not in (None, True, False):
            config.add_problem(field, f"{fields[field]!r:.40} is not true or false")
    if fields["model_type"] == "qwen2":
        return _QKV
    has_attention_bias = bool(fields.get("attention_bias"))
    if fields["model_type"] == "qwen3":
        return _QKV if has_attention_bias else frozenset()
    has_output_bias = has_attention_bias or bool(fields.get("bias"))
    parts = (
        (_QKV, fields.get("qkv_bias", has_output_bias)),
        (_OUTPUT, has_output_bias),
        (_MLP, fields.get("mlp_bias")),
    )
    return frozenset[str]().union(*(names for names, has_bias in parts if has_bias))


def _find_unexpected_biases(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return biases that would be left out without a word."""
    return [
        f"tensor {name!r:.120}: a bias, and {CONFIG} has none there (attention_bias, mlp_bias), so it would not be"
        " added; get both of one model"
        for name in tensors
        if name.endswith(_BIAS) and name not in expected
    ]


def find_tensor_problems(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return which of the expected tensors are missing or have another shape, as `FIELD: what is wrong; what to do`."""
    problems = []
    for name, shape in expected.items():
        if name not in tensors:
            problems.append(f"tensor {name}: missing, and {CONFIG} says that there is one; get the files again")
        elif tensors[name].shape != shape:
            problems.append(
                f"tensor {name}: shape {list(tensors[name].shape)}, and {CONFIG} says {list(shape)}; get both of one"
                " model"
            )
    return problems
