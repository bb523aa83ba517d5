"""A sentence-transformers model of random weights: small enough to be converted and loaded in a unit test."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from r1plus_model_repo.importing.embedding.checkpoint import (
    BertShape,
    EmbeddingSource,
    Pooling,
    list_tensors,
    read_embedding_model,
)
from r1plus_model_repo.importing.embedding.engine import make_engine_folder

Weights = dict[str, NDArray[np.float32]]
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?äöüß€"
VOCABULARY = (*MARKS, *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "limit", "contract", "##ing")
SHAPE = BertShape(
    layers=2,
    heads=4,
    hidden_size=16,
    intermediate=24,
    vocabulary=len(VOCABULARY),
    positions=40,
    epsilon=1e-12,
    pooling=Pooling.MEAN,
    most_tokens=32,
)
CONFIG: Mapping[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": SHAPE.hidden_size,
    "intermediate_size": SHAPE.intermediate,
    "layer_norm_eps": SHAPE.epsilon,
    "max_position_embeddings": SHAPE.positions,
    "num_attention_heads": SHAPE.heads,
    "num_hidden_layers": SHAPE.layers,
    "position_embedding_type": "absolute",
    "vocab_size": SHAPE.vocabulary,
}


def make_weights(shape: BertShape = SHAPE, seed: int = 7) -> Weights:
    """Return random weights, of a size that makes each layer matter."""
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(form) * 0.4 + (1.0 if name.endswith("LayerNorm.weight") else 0.0)).astype("<f4")
        for name, form in list_tensors(shape).items()
    }


def write_safetensors(path: Path, weights: Mapping[str, NDArray[Any]], dtype: str = "F32") -> None:
    """Write tensors as the format has them."""
    header: dict[str, Any] = {}
    begin = 0
    for name, values in weights.items():
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [begin, begin + values.nbytes]}
        begin += values.nbytes
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(one.tobytes() for one in weights.values()))


def make_tokenizer() -> Tokenizer:
    """Return a tokenizer like BERT's, over a few pieces."""
    ids = {piece: position for position, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(vocab=ids, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    marks = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    tokenizer.add_special_tokens(list(MARKS))
    return tokenizer


def write_model(folder: Path, **changes: Any) -> Path:
    """Write the model's files; `changes` replace documents by their name without its ending."""
    pooling = {f"pooling_mode_{name}": name == "mean_tokens" for name in ("cls_token", "mean_tokens", "max_tokens")}
    modules = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Normalize")]
    documents: dict[str, Any] = {
        "config": CONFIG,
        "modules": modules,
        "sentence_bert_config": {"max_seq_length": SHAPE.most_tokens},
        "pooling": pooling,
        **changes,
    }
    (folder / "1_Pooling").mkdir(parents=True)
    for name, content in documents.items():
        path = folder / ("1_Pooling/config.json" if name == "pooling" else f"{name}.json")
        path.write_text(json.dumps(content))
    write_safetensors(folder / "model.safetensors", make_weights())
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def make_tiny_engine(folder: Path, name: str = "tiny") -> Path:
    """Return the folder of a converted engine."""
    source: EmbeddingSource = read_embedding_model(write_model(folder / "model"))
    make_engine_folder(source, name, folder / "engine", lambda line: None)
    return folder / "engine"
