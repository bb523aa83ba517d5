"""Checkpoints: what is written is what is read, and what is no Llama, or no whole one, is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from r1plus_contract.engine.llama_architecture import LlamaArchitecture, ModelError
from r1plus_model.checkpoint import load_model, save_model
from support.model.llamas import draw_ids, load_tiny, make_reference, write_tiny
from support.tables import for_each

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
R1PLUS = LlamaArchitecture(
    window=16, sinks=4, global_every=3, relative_bias=True, span_ramp=4, active=0.15, predictor_rank=8
)
QUERIES = "model.layers.1.self_attn.q_proj.weight"


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, {"format": "pt"})


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), "utf-8")


@for_each("architecture", {"a Llama": LlamaArchitecture(), "R1+": R1PLUS})
def test_what_is_written_is_what_is_read(architecture: LlamaArchitecture, tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "source")
    (source / "tokenizer.json").write_text("{}", "utf-8")
    model, ids = load_tiny(source, architecture), draw_ids(2, 30)

    save_model(model, tmp_path / "written", source)
    again = load_model(tmp_path / "written").eval()

    assert again.architecture == architecture
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))
    assert (tmp_path / "written" / "tokenizer.json").read_text("utf-8") == "{}"


def test_a_llama_with_nothing_changed_stays_one_for_other_programs(tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "source")

    save_model(load_model(source), tmp_path / "written", source)

    fields = json.loads((tmp_path / "written" / "config.json").read_text("utf-8"))
    assert (fields["model_type"], fields["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert "r1plus" not in fields


def test_r1plus_is_no_llama_for_other_programs(tmp_path: Path) -> None:
    """A program that does not know the bias must not load the rest of the model."""
    source = write_tiny(tmp_path / "source")

    save_model(load_model(source, R1PLUS), tmp_path / "written", source)

    fields = json.loads((tmp_path / "written" / "config.json").read_text("utf-8"))
    assert (fields["model_type"], fields["architectures"]) == ("r1plus", ["R1PlusForCausalLM"])
    assert fields["r1plus"]["window"] == 16


def test_shards_are_read_as_their_index_names_them(tmp_path: Path) -> None:
    folder, ids = write_tiny(tmp_path), draw_ids(1, 20)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, own in shards.items():
        save_file({name: tensors[name] for name in own}, folder / shard, {"format": "pt"})
    write_index(folder, {name: shard for shard, own in shards.items() for name in own})
    (folder / "model.safetensors").unlink()

    with torch.no_grad():
        assert torch.equal(load_model(folder).eval()(ids), make_reference()(ids).logits)


@for_each(
    "spoil, message",
    {
        "a tensor is missing": (
            lambda folder: edit_tensors(folder, lambda tensors: tensors.pop(QUERIES)),
            f"1 tensors are missing: {QUERIES}",
        ),
        "the output layer is missing": (
            lambda folder: edit_config(folder, tie_word_embeddings=False),
            "1 tensors are missing: lm_head.weight",
        ),
        "a layer more than config.json says": (
            lambda folder: edit_config(folder, num_hidden_layers=2),
            "'model.layers.2",
        ),
        "a shape that config.json does not say": (
            lambda folder: edit_config(folder, intermediate_size=81),
            "shape [48, 80], and config.json says [48, 81]",
        ),
        "weights that are quantised": (
            lambda folder: edit_tensors(
                folder, lambda tensors: tensors.update({QUERIES: tensors[QUERIES].to(torch.int8)})
            ),
            "torch.int8 is no floating type",
        ),
        "another architecture": (
            lambda folder: edit_config(folder, model_type="qwen2"),
            "model_type: 'qwen2' is not llama",
        ),
        "no architecture": (lambda folder: edit_config(folder, model_type=None), "model_type: None is not llama"),
        "another activation": (lambda folder: edit_config(folder, hidden_act="gelu"), "hidden_act: 'gelu' is not silu"),
        "scaled positions": (
            lambda folder: edit_config(folder, rope_parameters={"rope_type": "llama3", "rope_theta": 1e4}),
            "rope_type 'llama3' is not computed here",
        ),
        "scaled positions, as transformers 4 writes them": (
            lambda folder: edit_config(folder, rope_scaling={"type": "linear", "factor": 2}),
            "rope_type 'linear' is not computed here",
        ),
        "quantised by a method": (
            lambda folder: edit_config(folder, quantization_config={"quant_method": "awq"}),
            "quantization_config: the weights are quantised",
        ),
        "no heads": (
            lambda folder: edit_config(folder, num_attention_heads=0),
            "num_attention_heads: 0 is not a whole",
        ),
        "heads without keys": (lambda folder: edit_config(folder, num_key_value_heads=4), "4 does not divide 6 heads"),
        "an epsilon that is no number": (
            lambda folder: edit_config(folder, rms_norm_eps=None),
            "rms_norm_eps: None is not",
        ),
        "an option of another version": (
            lambda folder: edit_config(folder, model_type="r1plus", r1plus={"windows": 3}),
            "r1plus.windows: no option of this version",
        ),
        "no options": (
            lambda folder: edit_config(folder, model_type="r1plus"),
            "r1plus: None is not an object of options",
        ),
        "a model of R1+ without its bias": (
            lambda folder: edit_config(folder, model_type="r1plus", r1plus={"window": 8, "relative_bias": True}),
            "3 tensors are missing: model.layers.0.self_attn.relative_bias",
        ),
        "sizes of a config.json that no file has": (
            lambda folder: edit_config(folder, vocab_size=2**30, hidden_size=2**30),
            "and its files have",
        ),
        "layers without end": (lambda folder: edit_config(folder, num_hidden_layers=2**30), "and its files have"),
        "a window without end": (
            lambda folder: edit_config(folder, model_type="r1plus", r1plus={"window": 2**50, "relative_bias": True}),
            "window: 1.13e+15 is more than 1048576",
        ),
        "no config.json": (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
        "a config.json that is none": (lambda folder: (folder / "config.json").write_text("[]"), "not an object"),
        "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
        "half a file of weights": (
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:9999]
            ),
            "model.safetensors: cannot be read",
        ),
        "an index that is none": (lambda folder: write_index(folder, 3), "has no weight_map that can be read"),
        "an index that leads elsewhere": (
            lambda folder: write_index(folder, {"a": "../model.safetensors"}),
            "'../model.safetensors' is not the name of a file",
        ),
    },
)
def test_what_is_no_whole_llama_is_refused(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    spoil(folder)

    with pytest.raises(ModelError) as raised:
        load_model(folder)

    assert message in str(raised.value)
    assert "; " in str(raised.value), "it says what to do"
