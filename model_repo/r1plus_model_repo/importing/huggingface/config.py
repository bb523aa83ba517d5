"""config.json of a Hugging Face checkpoint: the model's shape, and what of it no GPU backend here serves.

Field names and their defaults: huggingface/transformers, models/*/configuration_*.py (`layer_types`, and how it follows
from `use_sliding_window`, `max_window_layers` and `sliding_window_pattern` where it is absent). What vLLM makes of
them: vllm/config/model.py (context length, float16), engine/arg_utils.py (a window without `layer_types` holds for
every layer).
"""

from dataclasses import dataclass
from typing import Final

from r1plus_model_repo.importing.folder_files import CONFIG, Values
from r1plus_model_repo.importing.huggingface.tokenizer_files import check_remote_code
from r1plus_model_repo.importing.model import Claims, Findings

FULL, SLIDING = "full_attention", "sliding_attention"
GENERATING: Final = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of architectures that write text."""
OTHER_MODALITIES: Final = ("text_config", "vision_config", "audio_config", "llm_config", "thinker_config")
NOT_IN_FLOAT16: Final = ("gemma2", "gemma3", "gemma3_text", "glm4", "plamo2")
"""Model types that vLLM does not compute in float16, which `backends.vllm_engine` asks for: it ends at its start."""
PATTERNS: Final = {"cohere2": 4}
"""Model types whose every n-th layer keeps all tokens where config.json says nothing of it."""
UNLESS_SAID: Final = "qwen"
"""Model types that begin so have a window only where `use_sliding_window` says it."""


@dataclass(frozen=True, slots=True)
class HfShape:
    """What config.json says."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    hidden: int
    intermediate: int
    window: int | None
    global_layers: int | None
    tied: bool
    """The embeddings are the output layer's weights, too."""


def read_shape(config: Values, claims: Claims, found: Findings) -> HfShape:
    """The shape; what is wrong goes to `found`."""
    _served(config, found)
    layers = config.whole("num_hidden_layers", 1, 1024)
    heads = config.whole("num_attention_heads", 1, 1024)
    hidden = config.whole("hidden_size", 1, 2**20)
    kv_heads = config.whole("num_key_value_heads", 1, 1024, heads)
    head_size = config.whole("head_dim", 1, 1024, max(hidden // heads, 1) if heads else 1)
    window, global_layers = _window(config, layers)
    return HfShape(
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        context=_context(config, claims, found),
        hidden=hidden,
        intermediate=intermediate_size(config, hidden),
        window=window,
        global_layers=global_layers,
        tied=config.said.get("tie_word_embeddings") is True,
    )


def _served(config: Values, found: Findings) -> None:
    said = config.said
    check_remote_code(said.get("auto_map"), CONFIG, found)
    for key in OTHER_MODALITIES:
        if said.get(key) is not None:
            config.problem(key, "there, so this is a multimodal model", "only text is served; take a text model")
    if said.get("model_type") in NOT_IN_FLOAT16:
        what = f"{said['model_type']!r}: vLLM does not compute it in float16, which is what is served"
        config.problem("model_type", what, "take another model")
    if said.get("is_encoder_decoder"):
        config.problem("is_encoder_decoder", "true", "only decoders are served; take one")
    if said.get("kv_lora_rank") is not None:
        kept = "keys and values are kept in a latent form, whose memory kvHeads cannot say"
        config.problem("kv_lora_rank", f"{said['kv_lora_rank']!r:.40}: {kept}", "take a model with plain attention")
    names = said.get("architectures")
    if not isinstance(names, list) or not any(str(name).endswith(GENERATING) for name in names):
        config.problem("architectures", f"{names!r:.80}: none of them writes text", "take a ...ForCausalLM model")


def _context(config: Values, claims: Claims, found: Findings) -> int:
    """vLLM takes `model_max_length` before the other, and refuses to serve more."""
    known = [
        config.whole(key, 16, 2**30)
        for key in ("max_position_embeddings", "model_max_length")
        if config.said.get(key) is not None
    ]
    return min(found.context(claims.context_length, min(known, default=None)), 2**20)


def intermediate_size(config: Values, hidden: int) -> int:
    """The widest that the feed-forward layers make of one token, with all experts that it is given to."""
    dense = config.whole("intermediate_size", 1, 2**24, 4 * hidden)
    experts = config.whole("num_experts_per_tok", 1, 1024, 1)
    return max(dense, experts * config.whole("moe_intermediate_size", 1, 2**24, dense if experts > 1 else 1))


def _window(config: Values, layers: int) -> tuple[int | None, int | None]:
    """`window` and `globalLayers`; the second is None where every layer keeps the window only."""
    said = config.said
    types, kind = said.get("layer_types"), str(said.get("model_type", ""))
    if types is not None:
        sliding = _sliding(config, types, layers)
    elif said.get("sliding_window") is None or not said.get("use_sliding_window", not kind.startswith(UNLESS_SAID)):
        sliding = 0
    elif said.get("max_window_layers") is not None:
        sliding = layers - min(layers, config.whole("max_window_layers", 0, 2**20))
    else:
        pattern = config.whole("sliding_window_pattern", 1, 2**20, PATTERNS.get(kind, layers + 1))
        sliding = layers - (layers // pattern if pattern else 0)
    if sliding == 0:
        return None, None
    return config.whole("sliding_window", 1, 2**20) or None, layers - sliding or None


def _sliding(config: Values, types: object, layers: int) -> int:
    """Layers of that type; another than the two has a memory of its own, which nobody counts."""
    if not isinstance(types, list) or len(types) != layers:
        told = f"{len(types)} items" if isinstance(types, list) else "no list"
        config.problem("layer_types", f"{told} for {layers} layers")
        return 0
    others = sorted({str(item) for item in types} - {FULL, SLIDING})
    if others:
        kinds = f"only {FULL} and {SLIDING} are sized"
        config.problem("layer_types", f"{others[0]!r:.40}: {kinds}", "take a model with plain attention")
    return types.count(SLIDING)
