"""The class of `r1plus.keras`: a Llama with its tokenizer, in Keras 3, on any of its backends.

Import it before the file is loaded: Keras imports no class by itself. It needs keras, tokenizers and jinja2.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras
from keras import layers, ops

from r1plus_contract.engine.llama_architecture import LlamaShape
from r1plus_model.encoder import Encoder, read_encoder
from r1plus_model.errors import DistillationError
from r1plus_model.sampling.answer_end import MOST_NEW_TOKENS, StopRule, check_length_and_stop

TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_PACKAGE: Final = "r1plus"
_HIDDEN: Final = -1e30

KvCache = list[tuple[Any, Any]]
"""For each layer keys and values (batch, tokens, heads, head size)."""
Step = Callable[[Any, KvCache], tuple[Any, KvCache]]
"""Takes tokens (1, tokens) after those of a cache; returns logits (1, 1, vocabulary) and the longer cache."""


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """A step, and the weights that it was compiled with. LoRA and quantisation bring others, which a graph lacks."""

    weights: Sequence[Any]
    compute: Step

    def has(self, weights: Sequence[Any]) -> bool:
        """Return whether these are its weights."""
        return len(weights) == len(self.weights) and all(map(operator.is_, weights, self.weights))


@keras.saving.register_keras_serializable(_PACKAGE)
class Block(layers.Layer):  # type: ignore[misc]  # Its type is not known without Keras.
    """A layer of a Llama: attention with rotary positions and grouped queries, and a gated MLP."""

    def __init__(self, shape: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.shape = one = LlamaShape(**shape)
        attention, mlp = {"use_bias": one.has_attention_bias}, {"use_bias": one.has_mlp_bias}
        self.input_layernorm = layers.RMSNormalization(epsilon=one.norm_epsilon)
        self.q_proj = layers.Dense(one.heads * one.head_size, **attention)
        self.k_proj = layers.Dense(one.kv_heads * one.head_size, **attention)
        self.v_proj = layers.Dense(one.kv_heads * one.head_size, **attention)
        self.o_proj = layers.Dense(one.hidden_size, **attention)
        self.post_attention_layernorm = layers.RMSNormalization(epsilon=one.norm_epsilon)
        self.gate_proj = layers.Dense(one.intermediate_size, **mlp)
        self.up_proj = layers.Dense(one.intermediate_size, **mlp)
        self.down_proj = layers.Dense(one.hidden_size, **mlp)

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        one = self.shape
        hidden = (None, None, one.hidden_size)
        for part in (self.input_layernorm, self.post_attention_layernorm, self.q_proj, self.k_proj, self.v_proj):
            part.build(hidden)
        self.o_proj.build((None, None, one.heads * one.head_size))
        self.gate_proj.build(hidden)
        self.up_proj.build(hidden)
        self.down_proj.build((None, None, one.intermediate_size))

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made with."""
        config: dict[str, Any] = super().get_config()
        return config | {"shape": asdict(self.shape)}

    def call(self, states: Any, rotation: Any, mask: Any, past: tuple[Any, Any]) -> Any:
        """Return the states (batch, tokens, hidden), and the keys and values of past and these tokens."""
        attended, kept = self._attend(self.input_layernorm(states), rotation, mask, past)
        states = states + attended
        inner = self.post_attention_layernorm(states)
        return states + self.down_proj(ops.silu(self.gate_proj(inner)) * self.up_proj(inner)), kept

    def _attend(self, states: Any, rotation: Any, mask: Any, past: tuple[Any, Any]) -> Any:
        one = self.shape
        batch, tokens = ops.shape(states)[:2]
        queries = _rotate(ops.reshape(self.q_proj(states), (batch, tokens, one.heads, one.head_size)), rotation)
        keys = _rotate(ops.reshape(self.k_proj(states), (batch, tokens, one.kv_heads, one.head_size)), rotation)
        values = ops.reshape(self.v_proj(states), (batch, tokens, one.kv_heads, one.head_size))
        keys, values = ops.concatenate([past[0], keys], axis=1), ops.concatenate([past[1], values], axis=1)
        group = one.heads // one.kv_heads
        scores = ops.einsum("bqhd,bkhd->bhqk", queries, ops.repeat(keys, group, axis=2)) * one.head_size**-0.5
        weights = ops.softmax(scores + mask, axis=-1)
        attended = ops.einsum("bhqk,bkhd->bqhd", weights, ops.repeat(values, group, axis=2))
        return self.o_proj(ops.reshape(attended, (batch, tokens, one.heads * one.head_size))), (keys, values)


@keras.saving.register_keras_serializable(_PACKAGE)
class TextGenerator(keras.Model):  # type: ignore[misc]  # As above.
    """A Llama that answers text. Called with tokens (batch, tokens), it returns logits (batch, tokens, vocabulary)."""

    def __init__(self, shape: dict[str, Any], end_ids: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.shape, self.end_ids = LlamaShape(**shape), tuple(end_ids)
        tied = self.shape.has_tied_embeddings
        self.embed_tokens = layers.ReversibleEmbedding(self.shape.vocabulary, self.shape.hidden_size, tie_weights=tied)
        self.blocks = [Block(shape, name=f"block_{number}") for number in range(self.shape.layers)]
        self.norm = layers.RMSNormalization(epsilon=self.shape.norm_epsilon)
        self.compiled_step: CompiledStep | None = None
        self.files: dict[str, str] = {}
        self.encoder: Encoder | None = None

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        self.embed_tokens.build((None, None))
        for block in self.blocks:
            block.build((None, None, self.shape.hidden_size))
        self.norm.build((None, None, self.shape.hidden_size))

    def get_config(self) -> dict[str, Any]:
        """Return what the model is made with."""
        config: dict[str, Any] = super().get_config()
        return config | {"shape": asdict(self.shape), "end_ids": list(self.end_ids)}

    def save_assets(self, folder: str) -> None:
        """Write the tokenizer into the file."""
        for name, text in self.files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")

    def load_assets(self, folder: str) -> None:
        """Read the tokenizer of the file, or of a checkpoint."""
        paths = [path for name in TOKENIZER_FILES if (path := Path(folder) / name).is_file()]
        self.files = {path.name: path.read_text(encoding="utf-8") for path in paths}
        self.encoder = read_encoder(Path(folder), self.shape.vocabulary, "checkpoint")

    def call(self, ids: Any) -> Any:
        """Return the logits of tokens that begin a text."""
        return self._compute_logits(self._compute(ids, self._make_cache(ops.shape(ids)[0]))[0])

    def _make_cache(self, batch: Any) -> KvCache:
        empty = ops.zeros((batch, 0, self.shape.kv_heads, self.shape.head_size), self.blocks[0].compute_dtype)
        return [(empty, empty)] * self.shape.layers

    def _compute_logits(self, states: Any) -> Any:
        if not self.shape.has_tied_embeddings:
            return self.embed_tokens(states, reverse=True)
        # The layer would transpose the whole table, in TensorFlow by a copy that takes longer than all else of a token.
        by_token = ops.matmul(self.embed_tokens.embeddings, ops.transpose(states, (0, 2, 1)))
        return ops.transpose(by_token, (0, 2, 1))

    def _compute(self, ids: Any, past: KvCache) -> tuple[Any, KvCache]:
        begin, tokens = ops.shape(past[0][0])[1], ops.shape(ids)[1]
        places = ops.arange(begin, begin + tokens)
        mask = ops.where(ops.arange(begin + tokens)[None, :] > places[:, None], _HIDDEN, 0.0)
        rotation = _find_rotation(places, self.shape)
        states, cache = self.embed_tokens(ids), []
        for block, before in zip(self.blocks, past, strict=True):
            states, kept = block(states, rotation, mask, before)
            cache.append(kept)
        return self.norm(states), cache

    def _get_step(self) -> Step:
        weights = self.weights
        if self.compiled_step is None or not self.compiled_step.has(weights):
            self.compiled_step = CompiledStep(weights, self._compile_step())
        return self.compiled_step.compute

    def _compile_step(self) -> Step:
        """Return a step as fast as the backend computes it: in TensorFlow one graph, in torch without gradients."""

        def step(ids: Any, past: KvCache) -> tuple[Any, KvCache]:
            states, cache = self._compute(ids, past)
            return self._compute_logits(states[:, -1:]), cache

        if keras.backend.backend() == "tensorflow":
            import tensorflow

            sizes = (1, None, self.shape.kv_heads, self.shape.head_size)
            kept = tensorflow.TensorSpec(sizes, self.blocks[0].compute_dtype)
            signature = tensorflow.TensorSpec((1, None), "int32"), [(kept, kept)] * self.shape.layers
            graph: Step = tensorflow.function(step, signature, autograph=False)
            return graph
        if keras.backend.backend() == "torch":
            import torch

            plain: Step = torch.no_grad()(step)
            return plain
        return step

    def generate_tokens(self, ids: Sequence[int], most: int, is_finished: Callable[[list[int]], bool]) -> list[int]:
        """Return the most likely continuation: until `is_finished`, which is asked after each token, or `most`.

        Raises:
            ValueError: there are no tokens, or they and the continuation are longer than the sequences of training.
        """
        if not 1 <= len(ids) <= self.shape.context - most:
            raise ValueError(
                f"prompt: {len(ids)} tokens and {most} new ones are not from 1 to {self.shape.context}, the longest"
                " sequence of training; give a shorter prompt, or fewer max_new_tokens"
            )
        answer: list[int] = []
        given, past, step = list(ids), self._make_cache(1), self._get_step()
        while len(answer) < most:
            logits, past = step(ops.convert_to_tensor([given], dtype="int32"), past)
            given = [int(ops.convert_to_numpy(logits)[0, 0].argmax())]
            answer += given
            if is_finished(answer):
                break
        return answer

    def generate(self, prompt: str, max_new_tokens: int = MOST_NEW_TOKENS, stop: Sequence[str] = ()) -> str:
        """Return the most likely answer to the prompt, which is put into the chat template; it ends before `stop`.

        Raises:
            ValueError: a value is out of range, the model has no tokenizer, or its template cannot be rendered.
        """
        check_length_and_stop(max_new_tokens, stop)
        if self.encoder is None:
            raise ValueError("tokenizer: the model was not loaded from a file that has one; load r1plus.keras")
        try:
            ids = self.encoder.encode_prompt(prompt)
        except DistillationError as error:
            raise ValueError(str(error)) from error
        end = StopRule(self.end_ids, stop, self.encoder.decode)
        return end.cut(self.generate_tokens(ids, max_new_tokens, end.is_reached))


def _find_rotation(places: Any, shape: LlamaShape) -> tuple[Any, Any]:
    """Return cosine and sine (tokens, 1, head size) of the angles by which pairs of numbers are turned."""
    frequencies = shape.rope_theta ** (-ops.arange(0, shape.head_size, 2, dtype="float32") / shape.head_size)
    angles = ops.cast(places, "float32")[:, None] * frequencies[None, :]
    angles = ops.concatenate([angles, angles], axis=-1)[:, None, :]
    return ops.cos(angles), ops.sin(angles)


def _rotate(numbers: Any, rotation: tuple[Any, Any]) -> Any:
    half = numbers.shape[-1] // 2
    turned = ops.concatenate([-numbers[..., half:], numbers[..., :half]], axis=-1)
    return numbers * rotation[0] + turned * rotation[1]
