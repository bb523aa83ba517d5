"""Tiny checkpoints with a real byte-level tokenizer, and data for them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from r1plus_model.checkpoints import open_checkpoint, write_checkpoint
from r1plus_model.model import R1PlusModel
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from support.model_repo import tiny_gguf

LAYERS: Final = 4
WIDTH: Final = 64


def write_gguf(folder: Path) -> Path:
    """Write a GGUF file of a Llama with 2 layers; return it."""
    model = tiny_gguf.make_model("llama")
    return tiny_gguf.write_model(folder / "tiny.gguf", model)


def write_tiny(folder: Path, scratch: Path, seed: int = 0, layers: int = LAYERS, scale: float = 0.1) -> Path:
    """Write a checkpoint of random weights, 64 wide, with the tokenizer of the tiny GGUF file; return its folder."""
    source = scratch / "source"
    if not source.is_dir():
        convert_gguf_to_checkpoint(write_gguf(scratch), source, "F32", lambda _: None)
    checkpoint = open_checkpoint(source, "source")
    shape = replace(checkpoint.shape, layers=layers, hidden_size=WIDTH, intermediate_size=128, heads=4, kv_heads=2)
    shape = replace(shape, head_size=16)
    torch.manual_seed(seed)
    model = R1PlusModel(shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(0, scale)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    fields = dict(checkpoint.fields) | sizes | {"head_dim": 16}
    folder.mkdir(parents=True)
    write_checkpoint(folder, model, replace(checkpoint, fields=fields))
    return folder


def list_lines(count: int) -> Iterator[Mapping[str, str]]:
    """Yield lines of both forms, each another one."""
    for number in range(count):
        if number % 3:
            yield {"prompt": f"Question {number}: which letter follows?", "answer": f"Letter {number * 7 % 26}"}
        else:
            yield {"text": f"hello world {number} " * (3 + number % 5)}


def write_data(path: Path, lines: Iterator[Mapping[str, Any]] | list[Any] | None = None, count: int = 40) -> Path:
    """Write lines of JSON; by default `list_lines`."""
    path.write_text("".join(json.dumps(line) + "\n" for line in (lines if lines is not None else list_lines(count))))
    return path


def change_weight(folder: Path, name: str, factor: float) -> None:
    """Multiply a tensor, and store all in 32 bits."""
    weights = {key: tensor.float() for key, tensor in load_file(folder / "model.safetensors").items()}
    weights[name] = weights[name] * factor
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
