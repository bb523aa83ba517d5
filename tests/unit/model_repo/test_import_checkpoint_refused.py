"""Hugging Face checkpoints that vLLM would not serve, or that would run a stranger's code: each says what to do."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.model import VLLM, Claims
from r1plus_model_repo.importing.package.manifest import ImportOptions
from r1plus_model_repo.importing.readers import read_source
from support.model_repo.checkpoints import (
    Change,
    both,
    changed,
    checkpoint,
    linked,
    llama,
    moved,
    refused,
    rows,
    with_biases,
    with_file,
    with_tensors,
    without,
)

WISH = ImportOptions(
    name="bank-full", tier="full", family="bank", image="registry.example/bank-full:1.0.0", backend=VLLM
)
INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00002.safetensors"
K_PROJ = "model.layers.1.self_attn.k_proj.weight"
ATTENTION = "model.layers.1.self_attn"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "Bank-8B")


HYBRID = {name: said for name, said in llama().items() if name != K_PROJ}


def config(message: str, **values: Any) -> tuple[Change, str]:
    """Return a config.json with these values, and what is said of it."""
    return changed("config.json", **values), f"config.json: {message}"


def without_tensor(tensors: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {other: one for other, one in tensors.items() if other != name}


def config_and_tensors(message: str, **values: Any) -> tuple[Change, str]:
    """Return a config.json that does not fit the tensors, and what is said of one of them."""
    return changed("config.json", **values), message


WRONG: dict[str, tuple[Any, ...]] = {
    "nothing but pickles": (
        both(without("model.safetensors"), with_file("pytorch_model.bin")),
        "pytorch_model.bin: a pickle, which executes code when it is loaded; get the model in",
    ),
    "a pickle of another kind": (both(without("model.safetensors"), with_file("model.pth")), "model.pth: a pickle"),
    "no weights": (without("model.safetensors"), "*.safetensors: missing, so there are no weights"),
    "Mistral's own format": (
        moved("model.safetensors", "consolidated.safetensors"),
        "consolidated.safetensors: weights in Mistral's own format; get the model's model*.safetensors",
    ),
    "no config.json": (without("config.json"), "config.json: missing, so this is not a Hugging Face checkpoint"),
    "an adapter": (
        both(without("config.json"), with_file("adapter_config.json", "{}")),
        "config.json: missing, so this is not a Hugging Face checkpoint; this is an adapter: merge it",
    ),
    "a program": (with_file("modeling_bank.py"), "modeling_bank.py: a program in the folder: the model's own"),
    "code that config.json asks for": config(
        "auto_map: {'AutoModel': 'modeling_bank.Bank'}: the model's own code is never trusted; use",
        auto_map={"AutoModel": "modeling_bank.Bank"},
    ),
    "code that the tokenizer asks for": (
        changed("tokenizer_config.json", auto_map={"AutoTokenizer": ["t.T", None]}),
        "tokenizer_config.json: auto_map: {'AutoTokenizer': ['t.T', None]}: the model's own code",
    ),
    "a GGUF file": (
        with_file("model-Q8_0.gguf"),
        "model-Q8_0.gguf: a GGUF file in the folder: vLLM serves checkpoints; import that file with --backend openvino",
    ),
    "no chat template": (
        without("chat_template.jinja"),
        "tokenizer_config.json: no chat template, so a prompt cannot be built; add the model's chat_template.jinja",
    ),
    "a chat template that does not parse": (
        with_file("chat_template.jinja", "{% if %}"),
        "chat_template.jinja: line 1",
    ),
    "a chat template in tokenizer_config.json that does not parse": (
        both(without("chat_template.jinja"), changed("tokenizer_config.json", chat_template="{{")),
        "tokenizer_config.json: line 1",
    ),
    "of several chat templates the default one does not parse": (
        both(
            without("chat_template.jinja"),
            changed("tokenizer_config.json", chat_template=[{"name": "default", "template": "{{"}]),
        ),
        "tokenizer_config.json: line 1",
    ),
    "chat templates whose names are none": (
        both(
            without("chat_template.jinja"),
            changed("tokenizer_config.json", chat_template=[{"name": ["default"], "template": "x"}, 3]),
        ),
        "tokenizer_config.json: no chat template",
    ),
    "weights of a name that is none": (
        moved("model.safetensors", "a\nb.safetensors"),
        "'a\\nb.safetensors': is not a valid name of a .safetensors file",
    ),
    "no tokenizer": (without("tokenizer.json"), "tokenizer.json: missing (one of tokenizer.json, tokenizer.model,"),
    "no settings of the tokenizer": (without("tokenizer_config.json"), "tokenizer_config.json: missing; get"),
    "a tokenizer cut short": (with_file("tokenizer.json", '{"model": '), "tokenizer.json: not JSON"),
    "a tokenizer without a vocabulary": (
        with_file("tokenizer.json", "{}"),
        "tokenizer.json: model: missing, so there is no vocabulary",
    ),
    "a tokenizer that is a Git LFS pointer": (
        with_file("tokenizer.json", "version https://git-lfs.github.com/spec/v1"),
        "tokenizer.json: not JSON",
    ),
    "a multimodal model": config(
        "text_config: present, so this is a multimodal model; only text is served; use a text model",
        text_config={"hidden_size": 1},
    ),
    "an encoder": config("architectures: ['BertModel']: none of them generates text; use", architectures=["BertModel"]),
    "no architecture": config("architectures: None", architectures=None),
    "a model that float16 is too small for": config(
        "model_type: 'gemma2': vLLM does not compute it in float16, the precision that is served; use another",
        model_type="gemma2",
    ),
    "an encoder and a decoder": config("is_encoder_decoder: true; only decoders are served", is_encoder_decoder=True),
    "latent attention": config("kv_lora_rank: 512: keys and", kv_lora_rank=512),
    "layers with a state": config(
        "layer_types: 'linear_attention': only full_attention and sliding_attention are sized; use",
        layer_types=["linear_attention", "full_attention"],
    ),
    "fewer layer types than layers": config("layer_types: 1 items for 2 layers", layer_types=["full_attention"]),
    "a window nobody tells": config("sliding_window: missing", layer_types=["sliding_attention"] * 2),
    "no number of layers": config(
        "num_hidden_layers: missing, so the model's shape is not known; get the file again", num_hidden_layers=None
    ),
    "heads in words": config(
        "num_attention_heads: 'four' is not a whole number from 1 to 1024", num_attention_heads="four"
    ),
    "2^40 layers": (changed("config.json", num_hidden_layers=2**40), "num_hidden_layers: 1099511627776 is no"),
    "more layers than the tensors are of": config(
        "num_hidden_layers: 3, the tensors are of 2; get the file again", num_hidden_layers=3
    ),
    "other heads than the tensors": config(
        "num_key_value_heads: 4 of head_dim 8, model.layers.0.self_attn.k_proj.weight has 16 rows instead of 32; get the"
        " file again",
        num_key_value_heads=4,
    ),
    "another head size than the tensors": (
        changed("config.json", head_dim=16),
        "num_key_value_heads: 2 of head_dim 16",
    ),
    "other query heads than the tensors": config_and_tensors(
        "self_attn.q_proj.weight: shape [32, 32], and config.json says [64, 32]; get both of one model",
        head_dim=8,
        num_attention_heads=8,
    ),
    "another vocabulary than the embeddings": config_and_tensors(
        "tensor model.embed_tokens.weight: shape [64, 32], and config.json says [128, 32]", vocab_size=128
    ),
    "a matrix that is missing": (
        with_tensors(
            "model.safetensors",
            without_tensor(llama(), "model.layers.1.mlp.up_proj.weight"),
        ),
        "tensor model.layers.1.mlp.up_proj.weight: missing, and config.json says that there is one; get the files again",
    ),
    "biases that are missing": config_and_tensors(
        "tensor model.layers.0.self_attn.q_proj.bias: missing, and config.json says that there is one; get the files again",
        attention_bias=True,
    ),
    "biases of the MLP that are missing": config_and_tensors(
        "tensor model.layers.0.mlp.gate_proj.bias: missing, and config.json says that there is one", mlp_bias=True
    ),
    "one bias that is missing": (
        both(
            changed("config.json", attention_bias=True),
            with_tensors("model.safetensors", without_tensor(with_biases("self_attn"), f"{ATTENTION}.v_proj.bias")),
        ),
        f"tensor {ATTENTION}.v_proj.bias: missing, and config.json says that there is one; get the files again",
    ),
    "a bias of another shape": (
        both(
            changed("config.json", attention_bias=True),
            with_tensors("model.safetensors", with_biases("self_attn") | {f"{ATTENTION}.v_proj.bias": ("BF16", (32,))}),
        ),
        f"tensor {ATTENTION}.v_proj.bias: shape [32], and config.json says [16]; get both of one model",
    ),
    "a Qwen2 without its biases": config_and_tensors(
        "tensor model.layers.0.self_attn.q_proj.bias: missing, and config.json says", model_type="qwen2"
    ),
    "biases that are not announced": (
        with_tensors("model.safetensors", with_biases("self_attn")),
        "q_proj.bias': a bias, and config.json has none there (attention_bias, mlp_bias), so it would not be added; get",
    ),
    "biases of the MLP that are not announced": (
        both(
            changed("config.json", attention_bias=True),
            with_tensors("model.safetensors", with_biases("self_attn", "mlp")),
        ),
        "tensor 'model.layers.0.mlp.gate_proj.bias': a bias, and config.json has none there",
    ),
    "a bias of a norm": (
        with_tensors("model.safetensors", llama() | {"model.norm.bias": ("BF16", (32,))}),
        "tensor 'model.norm.bias': a bias, and config.json has none there",
    ),
    "biases in words": config("attention_bias: 'yes' is not true or false", attention_bias="yes"),
    "a tokenizer of another model": (
        with_file("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": 0, "b": 64}}}'),
        "tokenizer.json: model: vocab: 'b' has the id 64, and the model has 64 tokens; get tokenizer and weights of",
    ),
    "shared embeddings in words": config("tie_word_embeddings: 'yes' is not true or", tie_word_embeddings="yes"),
    "a base of positions that is a word": config("rope_theta: 'big' is not a positive number; get", rope_theta="big"),
    "a base of positions below 0": config("rope_theta: -1.0 is not a positive number", rope_theta=-1.0),
    "a base of positions that is no number, as transformers 5 writes it": config(
        "rope_parameters: rope_theta: nan is not a positive number",
        rope_parameters={"rope_type": "default", "rope_theta": math.nan},
    ),
    "scaled positions of one kind of layer, by nothing": config(
        "rope_parameters: full_attention: factor: 0.0 is not a positive number",
        rope_parameters={"full_attention": {"rope_type": "linear", "factor": 0.0}},
    ),
    "an epsilon that is no number": config("rms_norm_eps: nan is not a positive number", rms_norm_eps=math.nan),
    "an epsilon without end": config("rms_norm_eps: inf is not a positive number", rms_norm_eps=math.inf),
    "positions of more than a head": config(
        "partial_rotary_factor: 1.5 is more than 1: it is a share of the numbers of a head; get",
        partial_rotary_factor=1.5,
    ),
    "an end that is a word": config("eos_token_id: '</s>' is not the number of a token of the 64", eos_token_id="</s>"),
    "a beginning that is half a token": config("bos_token_id: 1.5 is not the number of a token", bos_token_id=1.5),
    "an end that no token is": config(
        "eos_token_id: 64 is not the number of a token of the 64 tokens", eos_token_id=64
    ),
    "one of several ends that is a word": (
        changed("generation_config.json", eos_token_id=[1, "<|im_end|>"]),
        "generation_config.json: eos_token_id: '<|im_end|>' is not the number of a token of the 64 tokens; get the file",
    ),
    "ends that are a list": (with_file("generation_config.json", "[1]"), "generation_config.json: not a JSON object"),
    "options of R1+'s own architecture": config(
        "r1plus: the options of R1+'s own architecture, which vLLM does not compute; import the checkpoint with"
        " --backend torch",
        r1plus={"active": 0.15},
    ),
    "a config.json that is a link to itself": (
        linked("config.json", "config.json"),
        "config.json: is a link that leads to itself; put the file itself there",
    ),
    "a tokenizer of nothing but lists": (
        with_file("tokenizer.json", "[" + "[]," * 2**21 + "[]]"),
        "tokenizer.json: not JSON: 2097154 lists and objects, at most 2097152 are read; get the file again",
    ),
    "a chat template that is no text": (
        lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff{{ messages }}"),
        "chat_template.jinja: is not UTF-8; get the file again",
    ),
    "layers without attention": (
        with_tensors("model.safetensors", HYBRID),
        "config.json: num_hidden_layers: 1 layers have no attention",
    ),
    "a config.json that is a list": (with_file("config.json", "[]"), "config.json: not a JSON object"),
    "a config.json nested without end": (with_file("config.json", "[" * 10**5), "config.json: not JSON"),
    "a context beyond the model's": (lambda _: None, "--context: 4097 exceeds 4096", Claims(4097)),
    "a context nobody tells": (
        changed("config.json", max_position_embeddings=None),
        "--context: missing, and no config.json has it",
    ),
    "another precision": (
        lambda _: None,
        "--precision: INT8 differs from the file, which has FP16; omit the option",
        Claims(precision="INT8"),
    ),
    "other parameters": (
        lambda _: None,
        "--parameters: 7 differs from the file, which has 19616",
        Claims(parameters=7),
    ),
    "a precision nobody tells": (
        changed("config.json", quantization_config={"quant_method": "own"}),
        "--precision: quantization_config in config.json does not have it; give it, such as INT4",
    ),
    "FP8 that nobody explains": (
        with_tensors("model.safetensors", llama(dtype="F8_E4M3")),
        "config.json: quantization_config: missing: most weights are F8_E4M3",
    ),
    "weights that are a link outside the folder": (
        linked("model.safetensors", "/etc/passwd"),
        "model.safetensors: is a link to /etc/passwd, outside the folder; put the file itself there",
    ),
    "a config.json that is a link outside the folder": (
        linked("config.json", "/etc/passwd"),
        "config.json: is a link to /etc/passwd, outside the folder",
    ),
    "a tokenizer that is a link outside the folder": (
        linked("tokenizer.json", "../../etc/passwd"),
        "tokenizer.json: is a link to ../../etc/passwd, outside the folder",
    ),
    "a link to nothing": (linked("generation_config.json", "gone"), "generation_config.json: is a link to gone"),
    "weights cut short": (lambda folder: os.truncate(folder / "model.safetensors", 3000), "model.safetensors: tensor "),
    "several files and no index": (
        with_tensors("adapter.safetensors", {"a": ("F16", (2,))}),
        "model.safetensors.index.json: missing, and adapter.safetensors, model.safetensors may or may not belong to the model",
    ),
}


@pytest.mark.parametrize(("change", "message", "claims"), rows(WRONG, Claims()))
def test_a_checkpoint_that_cannot_be_served_is_refused_and_nothing_is_written(
    folder: Path, change: Change, message: str, claims: Claims
) -> None:
    change(folder)
    told = refused(folder, WISH, claims)
    assert message in told
    assert all(line.startswith(f"{folder}: ") for line in told.splitlines())


SHARDED: dict[str, tuple[Change, str]] = {
    "a shard that does not exist": (without(SECOND), f"{SECOND}: missing, and {INDEX} names it; get the file"),
    "a shard cut short": (lambda folder: os.truncate(folder / SECOND, 2000), f"{SECOND}: tensor "),
    "a shard of nothing": (with_file(SECOND), f"{SECOND}: length: the file has 0 bytes"),
    "a tensor that is not in its shard": (
        with_tensors(SECOND, {name: said for name, said in llama([1], ends=False).items() if name != K_PROJ}),
        f"{INDEX}: weight_map: '{K_PROJ}': not in {SECOND}; get the files again",
    ),
    "a tensor in two shards": (
        with_tensors(SECOND, llama([1])),
        f"{SECOND}: tensor 'lm_head.weight': is also in model-00001-of-00002.safetensors; get the files again",
    ),
    "an index that names a path": (
        changed(INDEX, weight_map={"a": "../model.safetensors"}),
        f"{INDEX}: weight_map: '../model.safetensors' is not a valid name of a .safetensors file; get it again",
    ),
    "an index that names a pickle": (
        changed(INDEX, weight_map={"a": "pytorch_model.bin"}),
        f"{INDEX}: weight_map: 'pytorch_model.bin' is not a valid name",
    ),
    "an index of lists": (changed(INDEX, weight_map={"a": [1]}), f"{INDEX}: weight_map: '[1]' is not a valid name"),
    "an index of nothing": (changed(INDEX, weight_map={}), f"{INDEX}: weight_map: missing or not an object; get"),
    "an index that is no JSON": (with_file(INDEX, "{"), f"{INDEX}: not JSON"),
    "an index of thousands of files": (
        changed(INDEX, weight_map={str(n): f"m{n}.safetensors" for n in range(1025)}),
        f"{INDEX}: weight_map: 1025 files, at most 1024 are read",
    ),
    "a shard that is a link outside the folder": (linked(SECOND, "/etc/passwd"), f"{SECOND}: is a link to /etc/passwd"),
}


@pytest.mark.parametrize(("change", "message"), SHARDED.values(), ids=SHARDED.keys())
def test_shards_that_are_not_what_the_index_says_are_refused(tmp_path: Path, change: Change, message: str) -> None:
    folder = checkpoint(tmp_path / "sharded", shards=2)
    change(folder)
    assert message in refused(folder, WISH, Claims())


def test_all_that_is_wrong_is_told_at_once(folder: Path) -> None:
    both(without("tokenizer.json", "chat_template.jinja"), changed("config.json", head_dim=0, auto_map={"a": "b"}))(
        folder
    )
    with pytest.raises(WeightsError) as raised:
        read_source(folder, Claims(5000), VLLM)
    fields = [line.removeprefix(f"{folder}: ").split(": ")[0:2] for line in str(raised.value).splitlines()]
    assert [field for field, _ in fields] == [
        "config.json",
        "config.json",
        "--context",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


WISHES: dict[str, tuple[ImportOptions, str]] = {
    "GPUs that the heads cannot be shared over": (
        replace(WISH, gpus=3),
        "spec.requirements.gpu.count: 2 KV heads cannot be divided evenly over 3 GPUs; use a divisor or a multiple",
    ),
    "GPUs that the queries' heads cannot be shared over": (
        replace(WISH, gpus=8),
        "spec.requirements.gpu.count: 4 attention heads cannot be divided evenly over 8 GPUs; use fewer",
    ),
    "less than no GPU": (replace(WISH, gpus=-1), "spec.requirements.gpu.count: Input should be greater than or equal"),
    "a GPU's product, and no GPU": (
        replace(WISH, gpus=0, gpu_products=("NVIDIA-L40S",)),
        "spec.requirements.gpu.products: NVIDIA-L40S: without GPUs it runs on CPU; omit one of both",
    ),
    "a product that no label is": (
        replace(WISH, gpu_products=("NVIDIA L40S",)),
        "spec.requirements.gpu.products.0: String should match pattern",
    ),
    "tokens in a step": (
        replace(WISH, max_num_tokens=4096),
        "spec.build.maxNumTokens: 4096: the backend vllm does not support it; omit it",
    ),
    "a batch of none": (replace(WISH, best_batch=0), "spec.batch.best: "),
    "another backend": (replace(WISH, backend="tensorrt"), "spec.backend: 'tensorrt' is not one of openvino, vllm,"),
}


@pytest.mark.parametrize(("wish", "message"), WISHES.values(), ids=WISHES.keys())
def test_a_wish_that_makes_no_engine_is_refused_before_any_work(
    folder: Path, wish: ImportOptions, message: str
) -> None:
    assert message in refused(folder, wish, Claims())


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match=re.escape("--backend: vllm: is a file; give a folder with a Hugging Face")):
        read_source(tmp_path / "x.gguf", Claims(), VLLM)
    with pytest.raises(WeightsError, match="--backend: vllm: does not exist"):
        read_source(tmp_path / "gone", Claims(), VLLM)
