"""From a GGUF file to a Hugging Face checkpoint: numbers, names, tokenizer, and what is refused."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
from tokenizers import Tokenizer

from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.huggingface.checkpoint import read_checkpoint
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from r1plus_model_repo.importing.huggingface.safetensors_header import read_tensors
from r1plus_model_repo.importing.model import Claims
from support.model_repo import tiny_gguf
from support.model_repo.tiny_gguf import HEADS, KIND, TinyModel, make_model, write_model

QUANT = gguf.GGMLQuantizationType
DTYPES = {"F16": "<f2", "F32": "<f4"}
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def convert(source: Path, precision: str = "F32", **options: Any) -> Path:
    target = source.with_suffix(".hf")
    convert_gguf_to_checkpoint(source, target, precision, lambda line: None, **options)
    return target


def read_weights(folder: Path) -> dict[str, Any]:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    return {
        name: numpy.frombuffer(data[begin + one.begin : begin + one.end], DTYPES[one.dtype]).reshape(one.shape)
        for name, one in read_tensors(path).items()
    }


def name_in_gguf(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, *parts, kind = name.split(".")
        return f"blk.{layer}.{LAYER_NAMES['.'.join(parts)]}.{kind}"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}.get(
        name, "output.weight"
    )


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_checkpoint_has_the_numbers_that_transformers_had(tmp_path: Path, architecture: str, tied: bool) -> None:
    model = make_model(architecture, tied=tied)
    folder = convert(write_model(tmp_path / "tiny.gguf", model), block_bytes=10_000)
    weights = read_weights(folder)
    assert sorted(map(name_in_gguf, weights)) == sorted(model.weights)
    for name, numbers in weights.items():
        assert (numbers == model.weights[name_in_gguf(name)]).all(), name
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is tied


def test_the_file_has_q_and_k_in_another_order_or_the_test_above_could_not_fail() -> None:
    matrix = make_model("llama").weights["blk.0.attn_q.weight"]
    assert (tiny_gguf.permute("blk.0.attn_q.weight", matrix) != matrix).any()


@pytest.mark.parametrize("kind", [QUANT.F16, QUANT.Q8_0, QUANT.Q4_0, QUANT.Q4_1, QUANT.Q5_0], ids=lambda k: k.name)
def test_a_quantised_matrix_is_expanded_to_its_exact_numbers(tmp_path: Path, kind: QUANT) -> None:
    model = make_model("llama")
    weights = read_weights(convert(write_model(tmp_path / "tiny.gguf", model, kind=kind), block_bytes=10_000))
    for name, numbers in weights.items():
        expected = model.weights[name_in_gguf(name)]
        if expected.ndim > 1:
            expected = gguf.quants.dequantize(gguf.quants.quantize(expected, kind), kind)
        assert (numbers == expected).all(), name


@pytest.mark.parametrize("kind", [QUANT.Q4_K, QUANT.Q6_K], ids=lambda k: k.name)
def test_a_matrix_in_k_quants_is_expanded_as_the_library_does(tmp_path: Path, kind: QUANT) -> None:
    """gguf cannot write them, so the blocks are bytes whose scales are small."""
    model, name = make_model("qwen2"), "blk.1.ffn_up.weight"
    elements, block = gguf.GGML_QUANT_SIZES[kind]
    rows, columns = model.weights[name].shape
    blocks = numpy.random.default_rng(3).integers(0, 256, (rows, columns // elements, block), dtype=numpy.uint8)
    scales = {QUANT.Q4_K: (slice(0, 2), slice(2, 4)), QUANT.Q6_K: (slice(208, 210),)}[kind]
    for place in scales:
        blocks[..., place] = numpy.frombuffer(numpy.float16(0.01).tobytes(), numpy.uint8)
    data = blocks.reshape(rows, -1)
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, model.architecture)
    for key, (value, type_, inner) in model.keys.items():
        writer.add_key_value(key, value, type_, sub_type=inner)
    for other, numbers in model.weights.items():
        if other == name:
            writer.add_tensor(name, data, raw_dtype=kind)
        else:
            writer.add_tensor(other, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights = read_weights(convert(path, block_bytes=10_000))
    assert (weights["model.layers.1.mlp.up_proj.weight"] == gguf.quants.dequantize(data, kind)).all()


def test_the_same_file_gives_the_same_bytes_and_an_import_for_vllm_takes_them(tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny.gguf", make_model("qwen2", tied=False))
    first = convert(source, "F16")
    second = tmp_path / "second.hf"
    convert_gguf_to_checkpoint(source, second, "F16", lambda line: None)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    model = read_checkpoint(first, Claims())
    assert (model.shape.layers, model.shape.kv_heads, model.shape.head_size) == (2, 2, 64)
    assert model.context_length == tiny_gguf.CONTEXT


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = write_model(tmp_path_factory.mktemp("tokenizer") / "tiny.gguf", make_model(request.param))
    return Tokenizer.from_file(str(convert(source) / "tokenizer.json"))


def test_tokens_have_the_ids_of_the_file(tokenizer: Any) -> None:
    text = "<|im_start|>hello w<tool>12<|im_end|>"
    expected = ["<|im_start|>", "hello", "Ġw", "<tool>", "1", "2", "<|im_end|>"]
    assert tokenizer.encode(text).tokens == expected
    assert tokenizer.encode(text).ids == [tiny_gguf.TOKENS.index(token) for token in expected]


@pytest.mark.parametrize("text", ["hello\n\n w  ", "naïve 東京 🙂", "\t x=12;\r\n", "'S they'll", ""])
def test_text_comes_back_as_it_was(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_filling_of_the_embeddings_is_no_token(tokenizer: Any) -> None:
    *_, token, filling = tiny_gguf.TOKENS
    assert filling == "[PAD]"
    assert tokenizer.token_to_id(token) == len(tiny_gguf.TOKENS) - 2
    assert tokenizer.token_to_id(filling) is None


def change_key(name: str, value: Any, kind: Any = KIND.UINT32, inner: Any = None) -> Callable[[TinyModel], TinyModel]:
    return lambda model: replace(model, keys={**model.keys, name: (value, kind, inner)})


def drop_key(name: str) -> Callable[[TinyModel], TinyModel]:
    return lambda model: replace(model, keys={k: v for k, v in model.keys.items() if k != name})


def change_tensor(name: str, numbers: Any) -> Callable[[TinyModel], TinyModel]:
    return lambda model: replace(model, weights={**model.weights, name: numbers})


def drop_tensor(name: str) -> Callable[[TinyModel], TinyModel]:
    return lambda model: replace(model, weights={k: v for k, v in model.weights.items() if k != name})


def zeros(*shape: int) -> Any:
    return numpy.zeros(shape, numpy.float32)


STRINGS = (KIND.ARRAY, KIND.STRING)
REFUSED = {
    "a layer lacks a tensor": (drop_tensor("blk.1.ffn_up.weight"), r"tensor blk\.1\.ffn_up\.weight: missing; get"),
    "a bias is missing": (drop_tensor("blk.0.attn_k.bias"), r"tensor blk\.0\.attn_k\.bias: missing; get"),
    "the embeddings are of another vocabulary": (
        change_tensor("token_embd.weight", zeros(300, tiny_gguf.WIDTH)),
        r"tensor token_embd\.weight: shape \[256, 300\], the metadata says",
    ),
    "the output layer is of another vocabulary": (
        change_tensor("output.weight", zeros(300, tiny_gguf.WIDTH)),
        r"tensor output\.weight: shape \[300, 256\], the metadata says",
    ),
    "the merges are of another vocabulary": (
        change_key("tokenizer.ggml.merges", ["ab c"], *STRINGS),
        r"tokenizer\.ggml\.merges: number 0, 'ab c': does not merge tokens of this vocabulary",
    ),
    "a token occurs twice": (
        change_key("tokenizer.ggml.tokens", ["a", *tiny_gguf.TOKENS[1:]], *STRINGS),
        r"tokenizer\.ggml\.tokens: 'a' occurs twice",
    ),
    "a tensor has no place in a checkpoint": (
        change_tensor("rope_freqs.weight", zeros(32)),
        r"tensor rope_freqs\.weight: a qwen2 checkpoint has no such tensor, so it would be lost",
    ),
    "the architecture is not known": (
        lambda model: replace(model, architecture="gemma3"),
        r"general\.architecture: 'gemma3' is not supported by this conversion, which reads llama, qwen2; get the",
    ),
    "a splitter is not known": (
        change_key("tokenizer.ggml.pre", "llama-bpe", KIND.STRING),
        r"tokenizer\.ggml\.pre: 'llama-bpe': how it splits text is not known here, only smollm, qwen2",
    ),
    "one file of several": (
        change_key("split.count", 3, KIND.UINT16),
        r"split\.count: 3: this is one part of 3; merge",
    ),
    "positions are scaled": (
        change_key("qwen2.rope.scaling.type", "yarn", KIND.STRING),
        r"qwen2\.rope\.scaling\.type: 'yarn'",
    ),
    "a window slides": (change_key("qwen2.attention.sliding_window", 128), r"sliding_window: 128: windows are not"),
    "no token ends an answer": (drop_key("tokenizer.ggml.eos_token_id"), r"eos_token_id: missing, so answers would"),
    "the end is no token": (change_key("tokenizer.ggml.eos_token_id", len(tiny_gguf.TOKENS) - 1), "is no token of the"),
    "there is no chat template": (drop_key("tokenizer.chat_template"), r"tokenizer\.chat_template: missing"),
    "a number is too large for F16": (
        change_tensor("output_norm.weight", zeros(tiny_gguf.WIDTH) + 1e6),
        r"tensor output_norm\.weight: 1e\+06 does not fit F16, whose largest number is 65504; give --precision F32",
    ),
    "a number is none": (
        change_tensor("output_norm.weight", zeros(tiny_gguf.WIDTH) + numpy.nan),
        r"tensor output_norm\.weight: has a number that is infinite or none",
    ),
    "positions of a part of each head": (
        change_key("qwen2.rope.dimension_count", 32),
        "qwen2.rope.dimension_count: 32 of the 64 numbers of a head have a position",
    ),
    "positions that are scaled without a type": (
        change_key("qwen2.rope.scaling.factor", 4.0, KIND.FLOAT32),
        "qwen2.rope.scaling.factor: 4.0: scaled positions are not converted",
    ),
    "a frequency that is a text": (
        change_key("qwen2.rope.freq_base", "abc", KIND.STRING),
        "qwen2.rope.freq_base: 'abc' is not a number above 0",
    ),
    "an epsilon that is no number": (
        change_key("qwen2.attention.layer_norm_rms_epsilon", float("nan"), KIND.FLOAT32),
        "layer_norm_rms_epsilon: nan is not a number above 0",
    ),
}


@pytest.mark.parametrize("change, message", REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_makes_no_checkpoint_is_refused_and_leaves_nothing(
    tmp_path: Path, change: Callable[[TinyModel], TinyModel], message: str
) -> None:
    source = write_model(tmp_path / "tiny.gguf", change(make_model("qwen2")))
    with pytest.raises(ImportingError, match=message):
        convert(source, "F16")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_is_refused_before_it_is_read(tmp_path: Path, protocol: int) -> None:
    source = tmp_path / "pytorch_model.bin"
    source.write_bytes(pickle.dumps({"weight": [1.0]}, protocol))
    with pytest.raises(ImportingError, match=r"a pickle or an archive of them, which executes code when it is loaded"):
        convert(source)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    source = write_model(tmp_path / "tiny.gguf", make_model("llama"))
    data = source.read_bytes()
    source.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImportingError, match="fetch it again"):
        convert(source)


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny.gguf", make_model("llama"))
    convert(source)
    with pytest.raises(ImportingError, match="already exists; remove it, or give another --out"):
        convert(source)


def test_a_head_of_transformers_begins_with_the_even_rows() -> None:
    from r1plus_model_repo.importing.huggingface.from_gguf import order_rows

    assert order_rows(HEADS, 4)[:8].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
