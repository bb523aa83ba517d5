"""config.json of a Hugging Face checkpoint: the model's shape, and properties that no GPU backend here supports.

Field names and defaults: huggingface/transformers, models/*/configuration_*.py (`layer_types`, and how it follows from
`use_sliding_window`, `max_window_layers` and `sliding_window_pattern` if it is missing). How vLLM reads them:
vllm/config/model.py (context length, float16), engine/arg_utils.py (a window without `layer_types` holds for every
layer).
"""

from dataclasses import dataclass
from typing import Final

from r1plus_contract.engine.llama_architecture import FULL_ATTENTION
from r1plus_model_repo.importing.folder_files import CONFIG, Values
from r1plus_model_repo.importing.huggingface.tokenizer_files import check_remote_code
from r1plus_model_repo.importing.model import Claims, ImportFindings

SLIDING_ATTENTION: Final = "sliding_attention"
GENERATIVE_SUFFIXES: Final = ("ForCausalLM", "LMHeadModel")
"""Suffixes of architectures that generate text."""
OTHER_MODALITIES: Final = ("text_config", "vision_config", "audio_config", "llm_config", "thinker_config")
NOT_IN_FLOAT16: Final = ("gemma2", "gemma3", "gemma3_text", "glm4", "plamo2")
"""Model types that vLLM does not compute in float16, as `backends.vllm_engine` asks it on GPUs: it would not start."""
DEFAULT_PATTERNS: Final = {"cohere2": 4}
"""Model type -> n: every n-th layer keeps all tokens, unless config.json says otherwise."""
OPT_IN_WINDOW: Final = "qwen"
"""Prefix of model types that have a window only if `use_sliding_window` is true."""


@dataclass(frozen=True, slots=True)
class HfShape:
    """The model's shape in config.json."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    hidden_size: int
    intermediate: int
    window: int | None
    global_layers: int | None
    has_tied_embeddings: bool
    """The output layer shares the weights of the embeddings."""


def read_shape(config: Values, claims: Claims, findings: ImportFindings, *, is_float16: bool) -> HfShape:
    """Read the shape; problems are added to `findings`. `is_float16`: whether it is computed in float16."""
    _check_supported(config, findings, is_float16=is_float16)
    layers = config.get_int("num_hidden_layers", 1, 1024)
    heads = config.get_int("num_attention_heads", 1, 1024)
    hidden_size = config.get_int("hidden_size", 1, 2**20)
    kv_heads = config.get_int("num_key_value_heads", 1, 1024, heads)
    head_size = config.get_int("head_dim", 1, 1024, max(hidden_size // heads, 1) if heads else 1)
    window, global_layers = _read_window(config, layers)
    return HfShape(
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        context=_read_context(config, claims, findings),
        hidden_size=hidden_size,
        intermediate=read_intermediate_size(config, hidden_size),
        window=window,
        global_layers=global_layers,
        has_tied_embeddings=config.fields.get("tie_word_embeddings") is True,
    )


def _check_supported(config: Values, findings: ImportFindings, *, is_float16: bool) -> None:
    fields = config.fields
    if fields.get("tie_word_embeddings") not in (None, True, False):
        config.add_problem("tie_word_embeddings", f"{fields['tie_word_embeddings']!r:.40} is not true or false")
    check_remote_code(fields.get("auto_map"), CONFIG, findings)
    for key in OTHER_MODALITIES:
        if fields.get(key) is not None:
            config.add_problem(key, "present, so this is a multimodal model", "only text is served; use a text model")
    if is_float16 and fields.get("model_type") in NOT_IN_FLOAT16:
        what = f"{fields['model_type']!r}: vLLM does not compute it in float16, the precision that is served"
        config.add_problem("model_type", what, "use another model")
    if fields.get("is_encoder_decoder"):
        config.add_problem("is_encoder_decoder", "true", "only decoders are served; use one")
    if fields.get("kv_lora_rank") is not None:
        reason = "keys and values are in a latent form, whose memory does not follow from kvHeads"
        config.add_problem(
            "kv_lora_rank", f"{fields['kv_lora_rank']!r:.40}: {reason}", "use a model with plain attention"
        )
    names = fields.get("architectures")
    if not isinstance(names, list) or not any(str(name).endswith(GENERATIVE_SUFFIXES) for name in names):
        config.add_problem("architectures", f"{names!r:.80}: none of them generates text", "use a ...ForCausalLM model")


def _read_context(config: Values, claims: Claims, findings: ImportFindings) -> int:
    """Return the context length. vLLM reads `model_max_length` first and refuses to serve more."""
    limits = [
        config.get_int(key, 16, 2**30)
        for key in ("max_position_embeddings", "model_max_length")
        if config.fields.get(key) is not None
    ]
    return min(findings.choose_context(claims.context_length, min(limits, default=None)), 2**20)


def read_intermediate_size(config: Values, hidden_size: int) -> int:
    """Return the largest width of the feed-forward layers for one token, over all experts that it uses."""
    dense = config.get_int("intermediate_size", 1, 2**24, 4 * hidden_size)
    experts = config.get_int("num_experts_per_tok", 1, 1024, 1)
    return max(dense, experts * config.get_int("moe_intermediate_size", 1, 2**24, dense if experts > 1 else 1))


def _read_window(config: Values, layers: int) -> tuple[int | None, int | None]:
    """Return `window` and `globalLayers`; the second is None if every layer keeps only the window."""
    fields = config.fields
    types, kind = fields.get("layer_types"), str(fields.get("model_type", ""))
    if types is not None:
        sliding_layers = _count_sliding_layers(config, types, layers)
    elif fields.get("sliding_window") is None or not fields.get(
        "use_sliding_window", not kind.startswith(OPT_IN_WINDOW)
    ):
        sliding_layers = 0
    elif fields.get("max_window_layers") is not None:
        sliding_layers = layers - min(layers, config.get_int("max_window_layers", 0, 2**20))
    else:
        pattern = config.get_int("sliding_window_pattern", 1, 2**20, DEFAULT_PATTERNS.get(kind, layers + 1))
        sliding_layers = layers - (layers // pattern if pattern else 0)
    if sliding_layers == 0:
        return None, None
    return config.get_int("sliding_window", 1, 2**20) or None, layers - sliding_layers or None


def _count_sliding_layers(config: Values, types: object, layers: int) -> int:
    """Count the layers with a sliding window. Reject other types, whose memory is unknown."""
    if not isinstance(types, list) or len(types) != layers:
        description = f"{len(types)} items" if isinstance(types, list) else "not a list"
        config.add_problem("layer_types", f"{description} for {layers} layers")
        return 0
    others = sorted({str(item) for item in types} - {FULL_ATTENTION, SLIDING_ATTENTION})
    if others:
        reason = f"only {FULL_ATTENTION} and {SLIDING_ATTENTION} are sized"
        config.add_problem("layer_types", f"{others[0]!r:.40}: {reason}", "use a model with plain attention")
    return types.count(SLIDING_ATTENTION)
