"""The shape of a Llama, and what R1+ changes in it: sliding window, sinks, learned spans, relative bias, sparse MLP.

Names of fields in config.json: huggingface/transformers, models/llama/configuration_llama.py. R1+'s own are in the
object `r1plus` of the same file. `model_type` is `r1plus` then, so no other program loads it and leaves them out.
The import of engines, the training and the backend torch read config.json by it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

LLAMA, R1PLUS = "llama", "r1plus"
LLAMA_CLASS: Final = "LlamaForCausalLM"
R1PLUS_CLASS: Final = "R1PlusForCausalLM"
MOST_CONTEXT: Final = 2**20
MOST_NUMBER: Final = 1e30
POSITION_FIELDS: Final = ("rope_scaling", "rope_parameters")
PLAIN_POSITIONS: Final = "default"
FULL_ATTENTION: Final = "full_attention"
DERIVED: Final = "rotary_emb.inv_freq"
"""Suffix of a tensor that older checkpoints have, and that follows from config.json."""
AGAIN: Final = "get the model's own config.json"


class ModelError(ValueError):
    """A model, its options or an input that cannot be used: `FIELD: what is wrong; what to do`."""


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The shape of a Llama, as config.json has it."""

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    """Tokens of a sequence in training, at most: `max_position_embeddings`."""
    norm_epsilon: float
    rope_theta: float
    has_tied_embeddings: bool
    """The output layer shares the weights of the embeddings."""
    has_attention_bias: bool = False
    has_mlp_bias: bool = False


@dataclass(frozen=True, slots=True)
class LlamaArchitecture:
    """What differs from a Llama; by default nothing.

    Raises:
        ModelError: a value is out of range, or needs another one that is missing.
    """

    window: int | None = None
    """Tokens that a query of a window layer sees, itself included; None: every layer sees all."""
    sinks: int = 0
    """First tokens of a sequence that stay visible beyond the window (Xiao et al. 2023)."""
    global_every: int | None = None
    """Every n-th layer has full attention; None: none has."""
    relative_bias: bool = False
    """A learned number per head and distance is added to the scores of window layers (Shaw 2018, T5)."""
    span_ramp: int | None = None
    """Heads learn how far they see, at most the window; tokens over which visibility falls (Sukhbaatar et al. 2019)."""
    active: float = 1.0
    """Share of the MLP's neurons that are active for a token: above 0, at most 1."""
    predictor_rank: int | None = None
    """Rank of the matrices that choose the neurons; None: the gate chooses, which is computed for all of them."""

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("sinks", 0), ("global_every", 2), ("span_ramp", 1), ("predictor_rank", 1)):
            _check_int(name, getattr(self, name), least)
        if not isinstance(self.relative_bias, bool):
            raise ModelError(f"relative_bias: {self.relative_bias!r:.40} is not true or false; use one of them")
        if isinstance(self.active, bool) or not isinstance(self.active, int | float) or not 0 < self.active <= 1:
            raise ModelError(f"active: {self.active!r:.40} is not above 0 and at most 1; 0.15 keeps 15 % of neurons")
        if self.window is None and (self.sinks or self.global_every or self.relative_bias or self.span_ramp):
            raise ModelError("window: missing, and sinks, global_every, relative_bias and span_ramp need one; set it")
        if self.predictor_rank is not None and self.active == 1:
            raise ModelError("predictor_rank: set, but all neurons are active; set active below 1, or leave it out")

    @property
    def is_llama(self) -> bool:
        """Whether nothing differs from a Llama."""
        return self == LlamaArchitecture()

    def has_window(self, layer: int) -> bool:
        """Return whether the layer, counted from 0, sees the window alone."""
        return self.window is not None and (self.global_every is None or (layer + 1) % self.global_every != 0)

    def count_active(self, neurons: int) -> int:
        """Return how many of the neurons are active for a token."""
        return max(1, math.floor(neurons * self.active))


def _check_int(name: str, value: object, least: int) -> None:
    if value is None and name != "sinks":
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelError(f"{name}: {value!r:.40} is not a whole number of at least {least}; set such a number")
    if value > MOST_CONTEXT:
        raise ModelError(f"{name}: {value:.3g} is more than {MOST_CONTEXT}, the longest context; set less")


def check_window(shape: LlamaShape, architecture: LlamaArchitecture) -> None:
    """Refuse a window that no sequence fills: it would hide nothing, and its bias never was trained.

    Raises:
        ModelError: it is larger than the longest sequence.
    """
    if architecture.window is not None and architecture.window > shape.context:
        raise ModelError(
            f"{R1PLUS}.window: {architecture.window} exceeds {shape.context}, the longest sequence"
            " (max_position_embeddings); set less, or leave it out for full attention"
        )


def read_shape(fields: Mapping[str, Any]) -> LlamaShape:
    """Return the shape in the fields of config.json.

    Raises:
        ModelError: it is another architecture, or a field is missing or out of range.
    """
    _check_kind(fields)
    hidden_size, heads = _get_int(fields, "hidden_size"), _get_int(fields, "num_attention_heads")
    kv_heads = _get_int(fields, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ModelError(f"num_key_value_heads: {kv_heads} does not divide {heads} heads; {AGAIN}")
    if fields.get("head_dim") is None and hidden_size % heads:
        raise ModelError(f"hidden_size: {heads} heads do not divide {hidden_size}; {AGAIN}")
    head_size = _get_int(fields, "head_dim", hidden_size // heads)
    if head_size % 2:
        raise ModelError(f"head_dim: {head_size} is odd, and rotary positions turn pairs; {AGAIN}")
    return LlamaShape(
        vocabulary=_get_int(fields, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=_get_int(fields, "intermediate_size"),
        layers=_get_int(fields, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        context=min(_get_int(fields, "max_position_embeddings"), MOST_CONTEXT),
        norm_epsilon=_get_positive(fields, "rms_norm_eps", 1e-6),
        rope_theta=_read_rope_theta(fields),
        has_tied_embeddings=fields.get("tie_word_embeddings") is True,
        has_attention_bias=fields.get("attention_bias") is True,
        has_mlp_bias=fields.get("mlp_bias") is True,
    )


def read_architecture(fields: Mapping[str, Any]) -> LlamaArchitecture:
    """Return R1+'s options in the fields of config.json; those of a Llama if there are none.

    Raises:
        ModelError: an option is not known or out of range.
    """
    options = fields.get(R1PLUS)
    if options is None and fields.get("model_type") != R1PLUS:
        return LlamaArchitecture()
    if not isinstance(options, Mapping):
        raise ModelError(f"{R1PLUS}: {options!r:.40} is not an object of options; {AGAIN}")
    if unknown := sorted(set(options) - set(LlamaArchitecture.__dataclass_fields__)):
        raise ModelError(f"{R1PLUS}.{unknown[0]:.40}: no option of this version; use the one that made the model")
    return LlamaArchitecture(**options)


def list_shapes(shape: LlamaShape, architecture: LlamaArchitecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a checkpoint, by its name."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocabulary, shape.hidden_size),
        "model.norm.weight": (shape.hidden_size,),
    }
    if not shape.has_tied_embeddings:
        shapes["lm_head.weight"] = (shape.vocabulary, shape.hidden_size)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + name: one for name, one in _list_layer_shapes(shape, architecture, layer).items()}
    return shapes


def _list_layer_shapes(shape: LlamaShape, architecture: LlamaArchitecture, layer: int) -> dict[str, tuple[int, ...]]:
    hidden, neurons = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    attention = {"q_proj": (queries, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden)}
    attention["o_proj"] = (hidden, queries)
    mlp = {"gate_proj": (neurons, hidden), "up_proj": (neurons, hidden), "down_proj": (hidden, neurons)}
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    parts = (("self_attn", attention, shape.has_attention_bias), ("mlp", mlp, shape.has_mlp_bias))
    for part, matrices, has_bias in parts:
        for name, (rows, columns) in matrices.items():
            shapes[f"{part}.{name}.weight"] = (rows, columns)
            if has_bias:
                shapes[f"{part}.{name}.bias"] = (rows,)
    if architecture.has_window(layer):
        if architecture.relative_bias:
            shapes["self_attn.relative_bias"] = (shape.heads, (architecture.window or 0) + 1)
        if architecture.span_ramp:
            shapes["self_attn.spans"] = (shape.heads,)
    if (rank := architecture.predictor_rank) is not None:
        shapes |= {"mlp.predictor.down.weight": (rank, hidden), "mlp.predictor.up.weight": (neurons, rank)}
        shapes["mlp.predictor.up.bias"] = (neurons,)
    return shapes


def write_fields(fields: Mapping[str, Any], architecture: LlamaArchitecture) -> dict[str, Any]:
    """Return config.json's fields with the options in them."""
    others = {key: value for key, value in fields.items() if key != R1PLUS}
    if architecture.is_llama:
        return others | {"model_type": LLAMA, "architectures": [LLAMA_CLASS]}
    return others | {"model_type": R1PLUS, "architectures": [R1PLUS_CLASS], R1PLUS: asdict(architecture)}


def _check_kind(fields: Mapping[str, Any]) -> None:
    kind = fields.get("model_type")
    if kind not in (LLAMA, R1PLUS):
        raise ModelError(f"model_type: {kind!r:.40} is not {LLAMA} or {R1PLUS}; use a Llama's checkpoint, as SmolLM2's")
    if (activation := fields.get("hidden_act", "silu")) != "silu":
        raise ModelError(f"hidden_act: {activation!r:.40} is not silu; use a Llama's checkpoint, as SmolLM2's")
    if fields.get("quantization_config") is not None:
        raise ModelError("quantization_config: the weights are quantised; use the checkpoint in F16, BF16 or F32")
    types = fields.get("layer_types")
    if types is not None and (not isinstance(types, list) or any(one != FULL_ATTENTION for one in types)):
        raise ModelError(f"layer_types: {types!r:.80}: only {FULL_ATTENTION} is computed here; use another model")


def read_position_kind(fields: Mapping[str, Any], key: str) -> Any:
    """Return what a field of POSITION_FIELDS says of positions; PLAIN_POSITIONS if they are not scaled."""
    section = fields.get(key) or {}
    if not isinstance(section, Mapping):
        return section
    kind = section.get("rope_type", section.get("type", PLAIN_POSITIONS))
    is_scaled = kind == PLAIN_POSITIONS and section.get("factor") not in (None, 1)
    return f"factor {section['factor']!r:.20}" if is_scaled else kind


def find_turned_problem(fields: Mapping[str, Any]) -> str | None:
    """Return what is wrong where positions turn a part of a head's numbers; None: they turn all."""
    sections = {"": fields, **{f"{key}: ": fields.get(key) for key in POSITION_FIELDS}}
    for name, section in sections.items():
        share = section.get("partial_rotary_factor") if isinstance(section, Mapping) else None
        if share not in (None, 1):
            return f"{name}partial_rotary_factor: {share!r:.40}: positions turn all numbers of a head here"
    return None


def _read_rope_theta(fields: Mapping[str, Any]) -> float:
    """Return the base of rotary positions; transformers 5 writes it into `rope_parameters`."""
    for key in POSITION_FIELDS:
        if (kind := read_position_kind(fields, key)) != PLAIN_POSITIONS:
            raise ModelError(f"{key}: rope_type {kind!r:.40} is not computed here, only default; use another model")
    if (turned := find_turned_problem(fields)) is not None:
        raise ModelError(f"{turned}; use another model")
    parameters = fields.get("rope_parameters")
    if isinstance(parameters, Mapping) and "rope_theta" in parameters:
        return _get_positive(parameters, "rope_theta", 10_000.0)
    return _get_positive(fields, "rope_theta", 10_000.0)


def _get_int(fields: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = fields.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**30:
        raise ModelError(f"{key}: {value!r:.40} is not a whole number from 1; {AGAIN}")
    return value


def _get_positive(fields: Mapping[str, Any], key: str, default: float) -> float:
    value = fields.get(key, default)
    if not is_positive(value):
        raise ModelError(f"{key}: {value!r:.40} is not a positive number; {AGAIN}")
    return float(value)


def is_positive(value: object) -> bool:
    """Return whether the value of a field is a number above 0 that can be computed with."""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < MOST_NUMBER
