"""The tensors that a plain decoder must have: vLLM and a GGUF reader do not miss each one, and would answer wrongly."""

from collections.abc import Mapping
from typing import Final

from r1plus_model.architecture import Architecture, LlamaShape, list_shapes
from r1plus_model_repo.importing.folder_files import CONFIG, Values
from r1plus_model_repo.importing.huggingface.config import HfShape
from r1plus_model_repo.importing.huggingface.safetensors_header import Tensor
from r1plus_model_repo.importing.model import ImportFindings

PLAIN: Final = ("llama", "mistral", "qwen2", "qwen3")
"""Model types with a Llama's matrices and norms; some have further ones."""
EMBEDDINGS: Final = "model.embed_tokens.weight"
MOST_TOLD: Final = 3


def check_expected_tensors(
    shape: HfShape, config: Values, tensors: Mapping[str, Tensor], findings: ImportFindings
) -> None:
    """Check that a plain decoder, which is not quantised, has its matrices and norms in the shape of config.json."""
    fields = config.fields
    is_other = any(fields.get(key) is not None for key in ("quantization_config", "num_experts_per_tok"))
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
    )
    problems = find_tensor_problems(list_shapes(llama, Architecture()), tensors)
    findings.problems += problems[:MOST_TOLD]


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
