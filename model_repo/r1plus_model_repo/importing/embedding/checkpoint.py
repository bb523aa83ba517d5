"""A sentence-transformers model of the BERT family in a folder: what is read of it, and why another one is refused.

File names and fields: sentence-transformers, `models/Transformer.py` (`sentence_bert_config.json`), `models/Pooling.py`
(`1_Pooling/config.json`), `SentenceTransformer.py` (`modules.json`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from r1plus_contract.embedder import MOST_DIMENSIONS
from r1plus_model_repo.importing.folder_files import CONFIG, Values, check_links, read_json
from r1plus_model_repo.importing.huggingface.safetensors_header import Tensor, read_tensors
from r1plus_model_repo.importing.huggingface.tokenizer_files import TOKENIZER, check_remote_code
from r1plus_model_repo.importing.model import ImportFindings

WEIGHTS: Final = "model.safetensors"
MODULES: Final = "modules.json"
POOLING: Final = "1_Pooling/config.json"
LIMITS: Final = "sentence_bert_config.json"
FILES: Final = (CONFIG, WEIGHTS, MODULES, POOLING, LIMITS, TOKENIZER)
READABLE: Final = ("F32", "F16")
SENTENCE_TRANSFORMER: Final = "get a sentence-transformers model of the BERT family, such as all-MiniLM-L6-v2"


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one."""

    MEAN = "mean"
    CLS = "cls"


@dataclass(frozen=True, slots=True)
class BertShape:
    """The encoder, and what of a text it reads."""

    layers: int
    heads: int
    hidden_size: int
    intermediate: int
    vocabulary: int
    positions: int
    epsilon: float
    """Of the layer norms."""
    pooling: Pooling
    most_tokens: int
    """Tokens of the longest text that is read whole, with the marks around it."""

    @property
    def dimensions(self) -> int:
        """Numbers of a vector."""
        return self.hidden_size


@dataclass(frozen=True, slots=True)
class EmbeddingSource:
    """A model that can become an engine."""

    folder: Path
    shape: BertShape
    tensors: Mapping[str, Tensor]
    prefix: str
    """Of the tensors' names: empty, or `bert.`."""
    parameters: int


def read_embedding_model(folder: Path) -> EmbeddingSource:
    """Read the model in a folder.

    Raises:
        WeightsError: with everything that is wrong or missing.
    """
    findings = ImportFindings()
    if not folder.is_dir():
        findings.problems.append(f"is no folder; {SENTENCE_TRANSFORMER}")
    else:
        check_links(folder, FILES, findings)
        findings.problems += [
            f"{name}: missing; {SENTENCE_TRANSFORMER}" for name in FILES if not (folder / name).exists()
        ]
    findings.raise_problems(folder)
    shape = _read_shape(folder, findings)
    findings.raise_problems(folder)
    tensors = read_tensors(folder / WEIGHTS, WEIGHTS)
    prefix = "bert." if any(name.startswith("bert.") for name in tensors) else ""
    expected = list_tensors(shape)
    findings.problems += list(_find_tensor_problems(tensors, prefix, expected))
    findings.raise_problems(folder)
    parameters = sum(tensors[prefix + name].elements for name in expected)
    return EmbeddingSource(folder, shape, tensors, prefix, parameters)


def _read_shape(folder: Path, findings: ImportFindings) -> BertShape:
    config = Values(read_json(folder, CONFIG, findings), CONFIG, findings)
    check_remote_code(config.fields.get("auto_map"), CONFIG, findings)
    for key, accepted in (
        ("model_type", ("bert",)),
        ("hidden_act", ("gelu",)),
        ("position_embedding_type", ("absolute", None)),
    ):
        if config.fields.get(key) not in accepted:
            found = config.fields.get(key)
            config.add_problem(key, f"{found!r:.40} is not {accepted[0]}", SENTENCE_TRANSFORMER)
    heads = config.get_int("num_attention_heads", 1, 1024)
    hidden = config.get_int("hidden_size", 1, MOST_DIMENSIONS)
    if heads and hidden % heads:
        config.add_problem("num_attention_heads", f"{heads} does not divide hidden_size {hidden}")
    positions = config.get_int("max_position_embeddings", 16, 2**16)
    epsilon = config.fields.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1e-2:
        config.add_problem("layer_norm_eps", f"{epsilon!r:.40} is not a number between 0 and 0.01")
        epsilon = 1e-12
    limits = Values(read_json(folder, LIMITS, findings), LIMITS, findings)
    most_tokens = limits.get_int("max_seq_length", 16, 2**16, positions)
    if most_tokens > positions:
        limits.add_problem("max_seq_length", f"{most_tokens} exceeds max_position_embeddings {positions}")
    _check_modules(folder, findings)
    return BertShape(
        layers=config.get_int("num_hidden_layers", 1, 1024),
        heads=heads,
        hidden_size=hidden,
        intermediate=config.get_int("intermediate_size", 1, 2**20),
        vocabulary=config.get_int("vocab_size", 1, 2**24),
        positions=positions,
        epsilon=epsilon,
        pooling=_read_pooling(folder, findings),
        most_tokens=most_tokens,
    )


def _check_modules(folder: Path, findings: ImportFindings) -> None:
    """Refuse a model with further layers: they would be left out silently."""
    try:
        modules = json.loads((folder / MODULES).read_bytes())
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        findings.problems.append(f"{MODULES}: not a list of modules: {error!r:.80}; get the file again")
        return
    if kinds not in (["Transformer", "Pooling", "Normalize"], ["Transformer", "Pooling"]):
        findings.problems.append(
            f"{MODULES}: {', '.join(kinds)[:120]}: only Transformer, Pooling and Normalize are supported;"
            f" {SENTENCE_TRANSFORMER}"
        )


def _read_pooling(folder: Path, findings: ImportFindings) -> Pooling:
    fields = read_json(folder, POOLING, findings)
    modes = sorted(key for key, value in fields.items() if key.startswith("pooling_mode_") and value is True)
    match modes:
        case ["pooling_mode_mean_tokens"]:
            return Pooling.MEAN
        case ["pooling_mode_cls_token"]:
            return Pooling.CLS
    findings.problems.append(
        f"{POOLING}: {', '.join(modes)[:120] or 'no mode'}: only pooling_mode_mean_tokens or pooling_mode_cls_token"
        f" alone is supported; {SENTENCE_TRANSFORMER}"
    )
    return Pooling.MEAN


def list_tensors(shape: BertShape) -> dict[str, tuple[int, ...]]:
    """Return the weights that the encoder needs: name -> shape, outermost dimension first."""
    width, inner = shape.hidden_size, shape.intermediate
    needed: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (shape.vocabulary, width),
        "embeddings.position_embeddings.weight": (shape.positions, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        **_list_norm("embeddings", width),
    }
    for layer in range(shape.layers):
        here = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            needed |= _list_dense(f"{here}.attention.self.{name}", width, width)
        needed |= _list_dense(f"{here}.attention.output.dense", width, width)
        needed |= _list_norm(f"{here}.attention.output", width)
        needed |= _list_dense(f"{here}.intermediate.dense", inner, width)
        needed |= _list_dense(f"{here}.output.dense", width, inner)
        needed |= _list_norm(f"{here}.output", width)
    return needed


def _list_dense(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _list_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.LayerNorm.weight": (width,), f"{name}.LayerNorm.bias": (width,)}


def _find_tensor_problems(
    tensors: Mapping[str, Tensor], prefix: str, expected: Mapping[str, tuple[int, ...]]
) -> list[str]:
    problems = []
    for name, shape in expected.items():
        tensor = tensors.get(prefix + name)
        if tensor is None:
            problems.append(f"{WEIGHTS}: {prefix + name}: missing; get the file again")
        elif tensor.shape != shape:
            found = f"{list(tensor.shape)} instead of {list(shape)}"
            problems.append(f"{WEIGHTS}: {prefix + name}: {found}; get {CONFIG} and {WEIGHTS} of one model")
        elif tensor.dtype not in READABLE:
            problems.append(f"{WEIGHTS}: {prefix + name}: {tensor.dtype}; get the model in {' or '.join(READABLE)}")
    return problems[:8]


def describe_shape(shape: BertShape) -> dict[str, Any]:
    """Return the shape as an engine's provenance has it; the embedder reads `dimensions` and `mostTokens`."""
    return {
        "layers": shape.layers,
        "heads": shape.heads,
        "hiddenSize": shape.hidden_size,
        "pooling": shape.pooling.value,
        "dimensions": shape.dimensions,
        "mostTokens": shape.most_tokens,
    }
