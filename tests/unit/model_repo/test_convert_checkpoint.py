"""From a Hugging Face checkpoint to a GGUF file, and back to the same bytes; and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest

from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.gguf.model import read_model
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from r1plus_model_repo.importing.huggingface.safetensors_writer import TensorPlan, write_safetensors
from r1plus_model_repo.importing.huggingface.to_gguf import convert_checkpoint_to_gguf
from r1plus_model_repo.importing.package.folders import lock_folder
from support.model_repo.tiny_gguf import TinyModel, make_model, permute, write_model
from support.tables import for_each

Change = Callable[[dict[str, Any]], Any]
ARCHITECTURES = {"a Llama": "llama", "a Qwen2": "qwen2"}


def to_checkpoint(source: Path, target: Path, precision: str = "F32") -> Path:
    convert_gguf_to_checkpoint(source, target, precision, lambda line: None)
    return target


def to_gguf(source: Path, target: Path, precision: str = "F32") -> Path:
    convert_checkpoint_to_gguf(source, target, precision, lambda line: None)
    return target


def make_checkpoint(folder: Path, model: TinyModel | None = None, precision: str = "F32") -> Path:
    file = write_model(folder / "tiny.gguf", model or make_model("llama"))
    return to_checkpoint(file, folder / "checkpoint", precision)


@for_each("architecture", ARCHITECTURES)
@for_each("tied", {"tied": True, "untied": False})
def test_a_checkpoint_comes_back_with_the_same_bytes(tmp_path: Path, architecture: str, tied: bool) -> None:
    checkpoint = make_checkpoint(tmp_path, make_model(architecture, tied=tied))
    back = to_checkpoint(to_gguf(checkpoint, tmp_path / "again.gguf"), tmp_path / "back")

    assert {path.name: path.read_bytes() for path in back.iterdir()} == {
        path.name: path.read_bytes() for path in checkpoint.iterdir()
    }


@for_each("architecture", ARCHITECTURES)
def test_the_file_has_the_tensors_of_the_one_that_the_checkpoint_is_of(tmp_path: Path, architecture: str) -> None:
    model = make_model(architecture)
    file = to_gguf(make_checkpoint(tmp_path, model), tmp_path / "again.gguf")
    tensors = {one.name: one.data for one in gguf.GGUFReader(file).tensors}

    assert tensors.keys() == model.weights.keys()
    for name, numbers in model.weights.items():
        expected = permute(name, numbers) if architecture == "llama" else numbers
        assert (tensors[name] == expected).all(), name


def test_half_precision_keeps_norms_in_full_and_is_read_as_such(tmp_path: Path) -> None:
    file = to_gguf(make_checkpoint(tmp_path, precision="F16"), tmp_path / "again.gguf", "F16")
    types = {one.name: one.tensor_type.name for one in gguf.GGUFReader(file).tensors}

    assert read_model(file).precision == "FP16"
    assert {types["output_norm.weight"], types["blk.0.attn_norm.weight"]} == {"F32"}
    assert types["blk.0.attn_q.weight"] == "F16"


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)

    assert (
        to_gguf(checkpoint, tmp_path / "a.gguf").read_bytes() == to_gguf(checkpoint, tmp_path / "b.gguf").read_bytes()
    )


def test_bfloat16_is_expanded(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    numbers = {"model.norm.weight": numpy.array([0x3F80, 0xC049] * 128, "<u2").tobytes()}
    rewrite(checkpoint, numbers, "BF16", (256,))
    file = to_gguf(checkpoint, tmp_path / "again.gguf")

    norm = next(one.data for one in gguf.GGUFReader(file).tensors if one.name == "output_norm.weight")
    assert norm[:2].tolist() == [1.0, -3.140625]


def rewrite(checkpoint: Path, changed: dict[str, bytes], dtype: str, shape: tuple[int, ...], without: str = "") -> None:
    """Replace tensors, add them, or leave one out."""
    path = checkpoint / "model.safetensors"
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__")
    header.pop(without, None)
    plans = {name: TensorPlan(one["dtype"], tuple(one["shape"])) for name, one in header.items()}
    blocks = {
        name: data[begin + one["data_offsets"][0] : begin + one["data_offsets"][1]] for name, one in header.items()
    }
    plans |= {name: TensorPlan(dtype, shape) for name in changed}
    blocks |= changed
    write_safetensors(path, plans, (blocks[name] for name in plans))


def put(**fields: Any) -> Change:
    return lambda content: content.update(fields)


TEXT: Any = {"Sequence": {"id": "A", "type_id": 0}}
TEMPLATE_WITH_END = {
    "type": "TemplateProcessing",
    "single": [TEXT, {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}],
}
TEMPLATE_WITH_START = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, TEXT],
}
REFUSED: dict[str, tuple[str, Change, str]] = {
    "another architecture": ("config.json", put(model_type="gemma"), "model_type: 'gemma' is not one of llama, qwen2"),
    "another activation": ("config.json", put(hidden_act="gelu"), "hidden_act: 'gelu': only silu"),
    "scaled positions": ("config.json", put(rope_scaling={"rope_type": "llama3"}), "rope_scaling: 'llama3': scaled"),
    "scaled positions of transformers 5": (
        "config.json",
        put(rope_parameters={"rope_type": "yarn"}),
        "rope_parameters: 'yarn': scaled",
    ),
    "a window": (
        "config.json",
        put(use_sliding_window=True, sliding_window=64),
        "sliding_window: windows would be lost",
    ),
    "scaled positions in a text": ("config.json", put(rope_scaling="linear"), "rope_scaling: 'linear': scaled"),
    "scaled positions without a type": ("config.json", put(rope_scaling={"factor": 4.0}), "rope_scaling: .factor 4.0"),
    "positions of a part of each head": (
        "config.json",
        put(partial_rotary_factor=0.5),
        "partial_rotary_factor: 0.5: positions turn all numbers of a head here; use another",
    ),
    "options of R1+": ("config.json", put(r1plus={"active": 0.15}), "r1plus: the options of R1.'s own architecture"),
    "a frequency that is a text": ("config.json", put(rope_theta="abc"), "rope_theta: 'abc' is not a positive number"),
    "no frequency": ("config.json", put(rope_theta=None), "rope_theta: None is not a positive number"),
    "a frequency without end": ("config.json", put(rope_theta=10**400), "rope_theta: 1000.* is not a positive number"),
    "an epsilon below 0": ("config.json", put(rms_norm_eps=-1.0), "rms_norm_eps: -1.0 is not a positive number"),
    "an epsilon that is none": ("config.json", put(rms_norm_eps=float("nan")), "rms_norm_eps: nan is not a positive"),
    "2^40 tokens": ("config.json", put(vocab_size=2**40), "vocab_size: 1099511627776 is not a whole number"),
    "more tokens than embeddings": (
        "config.json",
        put(vocab_size=2**29),
        r"tensor model.embed_tokens.weight: shape \[268, 256\], and config.json says \[536870912, 256\]",
    ),
    "other heads than the tensors": (
        "config.json",
        put(num_attention_heads=8),
        r"tensor model.layers.0.self_attn.q_proj.weight: shape \[256, 256\], and config.json says \[512, 256\]",
    ),
    "another width than the tensors": ("config.json", put(intermediate_size=999), "mlp.gate_proj.weight: shape "),
    "an output layer that is not there": (
        "config.json",
        put(tie_word_embeddings=False),
        "tensor lm_head.weight: missing, and config.json says that there is one",
    ),
    "embeddings that are shared in words": (
        "config.json",
        put(tie_word_embeddings="yes"),
        "tie_word_embeddings: 'yes' is not true or false",
    ),
    "a token whose blanks count": (
        "tokenizer.json",
        lambda content: content["added_tokens"][0].update(lstrip=True),
        "added_tokens: a GGUF file has no word",
    ),
    "a token without content": (
        "tokenizer.json",
        lambda content: content["added_tokens"][0].pop("content"),
        "added_tokens: not a list of tokens with id and content",
    ),
    "merges of numbers": (
        "tokenizer.json",
        lambda content: content["model"].update(merges=[[1, 2]]),
        "merges: not a list of pairs of tokens",
    ),
    "a token that is put behind each text": (
        "tokenizer.json",
        put(post_processor=TEMPLATE_WITH_END),
        "post_processor: adds other tokens than bos_token before a text",
    ),
    "another token before each text": (
        "tokenizer.json",
        put(post_processor={"type": "Sequence", "processors": [{"type": "ByteLevel"}, TEMPLATE_WITH_START]}),
        "post_processor: adds other tokens than bos_token before a text",
    ),
    "a post-processor that is a number": ("tokenizer.json", put(post_processor=5), "post_processor: adds other tokens"),
    "ends in words": (
        "generation_config.json",
        put(eos_token_id=["a"]),
        "eos_token_id: 'a' is not the number of a token of the 268 tokens",
    ),
    "more ends than words": (
        "generation_config.json",
        put(eos_token_id=[2, 3, 4, 5]),
        "eos_token_id: 4 tokens end an answer, and a GGUF file has words for 3",
    ),
    "no epsilon": ("config.json", put(rms_norm_eps=None), "rms_norm_eps: None is not a number"),
    "another way to split": ("tokenizer.json", put(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer: .* none of"),
    "another model of tokens": ("tokenizer.json", put(model={"type": "Unigram"}), "model: not BPE with a vocabulary"),
    "a merge of other tokens": (
        "tokenizer.json",
        lambda content: content["model"]["merges"].append(["x", "yz"]),
        "merges: number .* does not merge tokens",
    ),
    "an option of BPE": (
        "tokenizer.json",
        lambda content: content["model"].update(byte_fallback=True),
        "tokenizer.json: model: a GGUF file has no word",
    ),
    "a token beyond the embeddings": (
        "tokenizer.json",
        lambda content: content["model"]["vocab"].update(beyond=99999),
        "'beyond' has the id 99999, and the model has 268 tokens",
    ),
    "no end": ("tokenizer_config.json", lambda content: content.pop("eos_token"), "eos_token_id: missing"),
    "several templates": (
        "tokenizer_config.json",
        put(chat_template=[{"name": "default", "template": "x"}]),
        "chat_template: not one text",
    ),
}


@for_each("name, change, message", REFUSED)
def test_a_checkpoint_is_refused_with(tmp_path: Path, name: str, change: Change, message: str) -> None:
    checkpoint = make_checkpoint(tmp_path)
    content = json.loads((checkpoint / name).read_text())
    change(content)
    (checkpoint / name).write_text(json.dumps(content))

    with pytest.raises(ImportingError, match=message):
        to_gguf(checkpoint, tmp_path / "again.gguf")
    assert not list(tmp_path.glob("*again*"))


TENSORS: dict[str, tuple[str, str, bytes, str]] = {
    "no place in the file": (
        "model.layers.0.extra.weight",
        "F32",
        b"\0" * 1024,
        "tensor 'model.layers.0.extra.weight': a GGUF file has no place",
    ),
    "whole numbers": (
        "model.norm.weight",
        "I32",
        b"\0" * 1024,
        "tensor 'model.norm.weight': I32; get the model in F16",
    ),
    "no number": (
        "model.norm.weight",
        "F32",
        numpy.full(256, numpy.nan, "<f4").tobytes(),
        "tensor output_norm.weight: has a number that is infinite or none",
    ),
}


@for_each("name, dtype, data, message", TENSORS)
def test_a_tensor_is_refused_with(tmp_path: Path, name: str, dtype: str, data: bytes, message: str) -> None:
    checkpoint = make_checkpoint(tmp_path)
    rewrite(checkpoint, {name: data}, dtype, (256,))

    with pytest.raises(ImportingError, match=message):
        to_gguf(checkpoint, tmp_path / "again.gguf")
    assert not list(tmp_path.glob("*again*"))


LOST: dict[str, tuple[str, str, str]] = {
    "a matrix": ("llama", "model.layers.1.mlp.up_proj.weight", "and config.json says that there is one"),
    "a norm": ("llama", "model.norm.weight", "and config.json says that there is one"),
    "a bias": ("qwen2", "model.layers.1.self_attn.k_proj.bias", "get the files again"),
}


@for_each("architecture, name, message", LOST)
def test_a_checkpoint_without_a_tensor_is_refused(tmp_path: Path, architecture: str, name: str, message: str) -> None:
    checkpoint = make_checkpoint(tmp_path, make_model(architecture))
    rewrite(checkpoint, {}, "F32", (), without=name)

    with pytest.raises(ImportingError, match=f"tensor {name}: missing.*{message}"):
        to_gguf(checkpoint, tmp_path / "again.gguf")
    assert not list(tmp_path.glob("*again*"))


def test_biases_of_a_llama_are_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    for part, size in (("q_proj", 256), ("k_proj", 128), ("v_proj", 128), ("o_proj", 256)):
        names = [f"model.layers.{layer}.self_attn.{part}.bias" for layer in range(2)]
        rewrite(checkpoint, dict.fromkeys(names, bytes(4 * size)), "F32", (size,))
    config = checkpoint / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"attention_bias": True}))

    with pytest.raises(ImportingError, match="attention_bias: biases of a Llama's attention would be lost"):
        to_gguf(checkpoint, tmp_path / "again.gguf")


def test_a_bias_that_transformers_does_not_read_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    name = "model.layers.0.self_attn.q_proj.bias"
    rewrite(checkpoint, {name: bytes(1024)}, "F32", (256,))

    with pytest.raises(ImportingError, match=f"tensor '{name}': a bias, and config.json has none there"):
        to_gguf(checkpoint, tmp_path / "again.gguf")


def test_a_chat_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    (checkpoint / "chat_template.jinja").write_bytes(b"\xff\xfe{{ messages }}")

    with pytest.raises(ImportingError, match=r"chat_template\.jinja: is not UTF-8; get the file again"):
        to_gguf(checkpoint, tmp_path / "again.gguf")


def test_a_number_that_does_not_fit_half_precision_is_refused(tmp_path: Path) -> None:
    model = make_model("llama")
    model.weights["blk.1.ffn_up.weight"][0, 0] = 1e6
    checkpoint = make_checkpoint(tmp_path, model)

    with pytest.raises(
        ImportingError, match=r"tensor blk.1.ffn_up.weight: 1e\+06 does not fit F16, .* --precision F32"
    ):
        to_gguf(checkpoint, tmp_path / "again.gguf", "F16")
    assert to_gguf(checkpoint, tmp_path / "again.gguf", "F32").is_file()


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "again.gguf").write_text("mine")

    with pytest.raises(ImportingError, match="already exists; remove it, or give another --out"):
        to_gguf(make_checkpoint(tmp_path), tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_text() == "mine"


def test_two_conversions_do_not_write_one_file(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    with (
        lock_folder(tmp_path / "out"),
        pytest.raises(ImportingError, match="out: another import is running there; wait for it"),
    ):
        to_gguf(checkpoint, tmp_path / "out" / "again.gguf")
    assert not list((tmp_path / "out").iterdir())
    assert to_gguf(checkpoint, tmp_path / "out" / "again.gguf").is_file()
