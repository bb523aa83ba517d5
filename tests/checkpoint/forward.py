"""The logits of a checkpoint by NumPy, as transformers computes them (models/llama, models/qwen2), in FP32.

Written from the architecture, not from the conversion: rotary positions turn the halves of a head.
"""

import json
from pathlib import Path
from typing import Any

import numpy

from r1plus_model_repo.importing.huggingface.safetensors_header import read_tensors

_DTYPES = {"F16": "<f2", "F32": "<f4"}


class Checkpoint:
    """The files of one, mapped: a tensor is expanded when it is used."""

    def __init__(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        with path.open("rb") as stream:
            begin = 8 + int.from_bytes(stream.read(8), "little")
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._tensors = {
            name: numpy.memmap(path, _DTYPES[one.dtype], "r", begin + one.begin, one.shape)
            for name, one in read_tensors(path).items()
        }

    def read(self, name: str) -> Any:
        """Return a tensor in FP32."""
        return numpy.asarray(self._tensors[name], numpy.float32)

    def project(self, x: Any, name: str) -> Any:
        """Return x W^T + b."""
        y = x @ self.read(f"{name}.weight").T
        return y + self.read(f"{name}.bias") if f"{name}.bias" in self._tensors else y


def compute_logits(folder: Path, ids: list[int]) -> Any:
    """Return the logits after each token: (tokens, vocabulary)."""
    model = Checkpoint(folder)
    config = model.config
    x = numpy.asarray(model._tensors["model.embed_tokens.weight"][ids], numpy.float32)
    cos, sin = _rotations(len(ids), config["head_dim"], config["rope_theta"])
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        x = x + _attend(model, f"{name}.self_attn", _norm(model, x, f"{name}.input_layernorm"), cos, sin)
        y = _norm(model, x, f"{name}.post_attention_layernorm")
        gate = model.project(y, f"{name}.mlp.gate_proj")
        gate = gate / (1 + numpy.exp(-gate)) * model.project(y, f"{name}.mlp.up_proj")
        x = x + model.project(gate, f"{name}.mlp.down_proj")
    x = _norm(model, x, "model.norm")
    return model.project(x, "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head")


def _norm(model: Checkpoint, x: Any, name: str) -> Any:
    scale = 1 / numpy.sqrt((x * x).mean(-1, keepdims=True) + model.config["rms_norm_eps"])
    return x * scale * model.read(f"{name}.weight")


def _rotations(tokens: int, size: int, theta: float) -> tuple[Any, Any]:
    angles = numpy.outer(numpy.arange(tokens), theta ** (-numpy.arange(0, size, 2) / size))
    angles = numpy.concatenate([angles, angles], -1)
    return numpy.cos(angles).astype(numpy.float32), numpy.sin(angles).astype(numpy.float32)


def _attend(model: Checkpoint, name: str, x: Any, cos: Any, sin: Any) -> Any:
    config, tokens = model.config, len(x)
    heads, groups, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]

    def split(part: str, count: int) -> Any:
        return model.project(x, f"{name}.{part}").reshape(tokens, count, size).swapaxes(0, 1)

    def turn(y: Any) -> Any:
        return y * cos + numpy.concatenate([-y[..., size // 2 :], y[..., : size // 2]], -1) * sin

    query = turn(split("q_proj", heads))
    key, value = (numpy.repeat(y, heads // groups, 0) for y in (turn(split("k_proj", groups)), split("v_proj", groups)))
    scores = query @ key.swapaxes(1, 2) / numpy.sqrt(size).astype(numpy.float32)
    scores = numpy.where(numpy.tri(tokens, dtype=bool), scores, -numpy.inf)
    weights = numpy.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return model.project((weights @ value).swapaxes(0, 1).reshape(tokens, -1), f"{name}.o_proj")
