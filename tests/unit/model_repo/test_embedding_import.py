"""Engines of kind embedding: what a converted one computes, which models are refused, and what comes of an import."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from r1plus_contract.engine.delivery import digest_folder
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_model_repo.catalog.loader import load_all_engines, load_catalog
from r1plus_model_repo.importing.embedding.checkpoint import read_embedding_model
from r1plus_model_repo.importing.embedding.engine import EmbeddingOptions, import_embedding_engine
from r1plus_model_repo.importing.errors import ImportingError, WeightsError
from r1plus_model_repo.importing.options import ImportOptionsError
from support.embedding import bert_by_numpy
from support.embedding.tiny_model import CONFIG, make_tokenizer, make_weights, write_model, write_safetensors
from support.tables import for_each

OPTIONS = EmbeddingOptions("bank-embed", "bank")


def import_tiny(folder: Path, model: Path, options: EmbeddingOptions = OPTIONS) -> Path:
    """Return the folder of an imported engine."""
    return import_embedding_engine(model, folder / "out", options, lambda line: None).folder


@pytest.mark.unit_slow
@for_each(
    "pooling, changes",
    {
        "the mean of all tokens": ("mean", {}),
        "the first token": ("cls", {"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}}),
    },
)
def test_a_converted_engine_computes_what_bert_does(tmp_path: Path, pooling: str, changes: dict[str, Any]) -> None:
    import openvino

    model = write_model(tmp_path / "model", **changes)
    folder = import_tiny(tmp_path, model) / "engine"
    shape = read_embedding_model(model).shape
    assert shape.pooling == pooling
    compiled = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    encodings = [make_tokenizer().encode(text) for text in ("the limit", "a", "contract no. 47: 25,000 €!", "zz" * 9)]
    longest = max(len(one.ids) for one in encodings)
    ids, mask = (np.zeros((len(encodings), longest), np.int64) for _ in range(2))
    for row, one in enumerate(encodings):
        ids[row, : len(one.ids)], mask[row, : len(one.ids)] = one.ids, 1
    vectors = compiled({"input_ids": ids, "attention_mask": mask})[0]
    # The engine keeps its weights in 16 bits.
    weights = {name: values.astype(np.float16).astype(np.float32) for name, values in make_weights().items()}
    expected = np.stack([bert_by_numpy.embed(one.ids, weights, shape) for one in encodings])
    assert np.abs(vectors - expected).max() < 1e-4


def test_an_import_writes_an_engine_that_the_catalog_reads(tmp_path: Path) -> None:
    folder = import_tiny(tmp_path, write_model(tmp_path / "model"))
    (engine,) = load_all_engines(folder / "engine.yaml")
    assert isinstance(engine, EmbeddingEngine)
    assert engine.spec.artifact.sha256 == digest_folder(folder / "engine")
    assert engine.identity == f"bank-embed@sha256:{engine.spec.artifact.sha256}"
    assert (engine.spec.embedding.dimensions, engine.spec.embedding.most_tokens) == (16, 32)
    assert load_catalog(folder / "engine.yaml") == ()
    facts = json.loads((folder / "engine" / "engine.json").read_text())
    assert (facts["kind"], facts["embedding"]["mostTokens"], facts["source"]["file"]) == ("embedding", 32, "model")
    assert (folder / "Containerfile").is_file()


@pytest.mark.unit_slow
def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    first = digest_folder(import_tiny(tmp_path, model) / "engine")
    shutil.rmtree(tmp_path / "out")
    assert digest_folder(import_tiny(tmp_path, model) / "engine") == first


@pytest.mark.unit_slow
def test_weights_in_sixteen_bits_are_read_as_well(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    first = import_tiny(tmp_path, model) / "engine" / "openvino_model.bin"
    expected = first.read_bytes()
    halves = {name: values.astype("<f2") for name, values in make_weights().items()}
    write_safetensors(model / "model.safetensors", halves, "F16")
    shutil.rmtree(tmp_path / "out")
    assert (import_tiny(tmp_path, model) / "engine" / "openvino_model.bin").read_bytes() == expected


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def link_out(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("/etc/passwd")


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def set_config(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG, **fields})) and None


def set_weights(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = make_weights()
        for name, form in changes.items():
            name = name.replace("__", ".")
            if form is None:
                del weights[name]
            else:
                weights[name] = np.zeros(form, "<f4")
        write_safetensors(folder / "model.safetensors", weights)

    return change


@for_each(
    "change, words",
    {
        "no weights": (drop("model.safetensors"), "model.safetensors: missing"),
        "no tokenizer": (drop("tokenizer.json"), "tokenizer.json: missing"),
        "no list of modules": (drop("modules.json"), "modules.json: missing"),
        "a link that leads out": (link_out, "outside the folder"),
        "modules that are none": (write("modules.json", "{}"), "not a list of modules|only Transformer"),
        "modules without a type": (write("modules.json", "[1]"), "not a list of modules"),
        "a further layer": (
            write("modules.json", json.dumps([{"type": f"x.{n}"} for n in ("Transformer", "Pooling", "Dense")])),
            "only Transformer, Pooling and Normalize",
        ),
        "two ways of pooling": (
            write("1_Pooling/config.json", '{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}'),
            "alone is supported",
        ),
        "another family": (set_config(model_type="roberta"), "model_type: 'roberta' is not bert"),
        "another activation": (set_config(hidden_act="relu"), "hidden_act: 'relu' is not gelu"),
        "relative positions": (set_config(position_embedding_type="relative_key"), "is not absolute"),
        "the model's own code": (set_config(auto_map={"AutoModel": "x.py"}), "auto_map"),
        "heads that do not divide": (set_config(num_attention_heads=3), "3 does not divide hidden_size 16"),
        "an odd epsilon": (set_config(layer_norm_eps=0), "layer_norm_eps"),
        "no layers": (set_config(num_hidden_layers=0), "num_hidden_layers: 0"),
        "more tokens than positions": (
            write("sentence_bert_config.json", '{"max_seq_length": 41}'),
            "41 exceeds max_position_embeddings 40",
        ),
        "a missing tensor": (set_weights(encoder__layer__1__output__dense__bias=None), "dense.bias: missing"),
        "a tensor of another shape": (
            set_weights(embeddings__LayerNorm__bias=(17,)),
            r"\[17\] instead of \[16\]; get config.json and model.safetensors of one model",
        ),
        "weights in 64 bits": (
            lambda folder: write_safetensors(
                folder / "model.safetensors", {n: v.astype("<f8") for n, v in make_weights().items()}, "F64"
            ),
            "F64; get the model in F32 or F16",
        ),
        "a cut file": (
            lambda folder: os.truncate(folder / "model.safetensors", 9000),
            "model.safetensors",
        ),
    },
)
def test_another_model_is_refused_with_what_is_wrong(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    model = write_model(tmp_path / "model")
    change(model)
    with pytest.raises(WeightsError, match=words):
        import_tiny(tmp_path, model)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is no folder"):
        import_tiny(tmp_path, tmp_path / "nowhere")


@pytest.mark.unit_slow
def test_an_engine_that_exists_is_not_replaced(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    import_tiny(tmp_path, model)
    with pytest.raises(ImportingError, match="already exists"):
        import_tiny(tmp_path, model)


@for_each(
    "options, words",
    {
        "a name": (EmbeddingOptions("Bank", "bank"), "metadata.name"),
        "a version": (EmbeddingOptions("bank", "bank", version="1"), "spec.version"),
        "an image": (EmbeddingOptions("bank", "bank", image="https://x"), "spec.artifact.image"),
        "memory": (EmbeddingOptions("bank", "bank", weights_memory="much"), "spec.requirements.weightsMemory"),
    },
)
def test_an_option_that_makes_no_engine_is_refused(tmp_path: Path, options: EmbeddingOptions, words: str) -> None:
    with pytest.raises(ImportOptionsError, match=words):
        import_tiny(tmp_path, write_model(tmp_path / "model"), options)


def test_the_shipped_engine_is_of_kind_embedding() -> None:
    from r1plus_model_repo import catalog
    from r1plus_model_repo.importing.embedding.minilm import NAME, load_catalog_digest

    shipped = yaml.safe_load((Path(catalog.__file__).parent / "minilm.yaml").read_text())
    assert shipped["metadata"]["name"] == NAME
    assert load_catalog_digest() == shipped["spec"]["artifact"]["sha256"]
